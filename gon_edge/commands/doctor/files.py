"""Secrets, certificates, the state directory and the models in it: can the user gon-edge runs as use them?"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from gon_edge.commands.doctor.finding import Finding, certificate, files_below, one_line
from gon_edge.config.schema import Config, is_loopback
from gon_edge.errors import ModelFileError, StoreError
from gon_edge.model.file import load_model
from gon_edge.process.certificate import certificate_expiry
from gon_edge.process.files import give
from gon_edge.state.database import DATABASE, LOCK
from gon_edge.state.store import Store


def running_user(unit: Mapping[str, str], config: Config) -> pwd.struct_passwd:
    """Whom gon-edge runs as: the unit's user, else the owner of its state, else whoever asks."""
    with contextlib.suppress(KeyError):
        if unit.get("User"):
            return pwd.getpwnam(unit["User"])
    with contextlib.suppress(OSError, KeyError):
        return pwd.getpwuid(config.state_dir.stat().st_uid)
    return pwd.getpwuid(os.geteuid())


def may(user: pwd.struct_passwd, path: Path, wanted: int) -> bool:
    """Whether `user` has the rights `wanted` (4 read, 2 write, 1 enter) on `path`."""
    status = path.stat()
    if user.pw_uid == 0:
        return True
    if status.st_uid == user.pw_uid:
        mode = status.st_mode >> 6
    elif status.st_gid in os.getgrouplist(user.pw_name, user.pw_gid):
        mode = status.st_mode >> 3
    else:
        mode = status.st_mode
    if mode & wanted == wanted:
        return True
    # An access list may say more than the mode: that is how systemd hands credentials over since version 256.
    if os.geteuid() == 0:
        tests = [f"-{letter}" for letter, right in (("r", 4), ("w", 2), ("x", 1)) if wanted & right]
        groups = os.getgrouplist(user.pw_name, user.pw_gid)
        return all(
            subprocess.run(
                ["test", test, str(path)], user=user.pw_uid, group=user.pw_gid, extra_groups=groups, check=False
            ).returncode
            == 0
            for test in tests
        )
    return os.geteuid() == user.pw_uid and os.access(path, wanted)


def check_secrets(config: Config, user: pwd.struct_passwd) -> Iterator[Finding]:
    """Whether secrets and keys can be read, by the daemon alone; and how long certificates last."""
    settings, http = config.mqtt, config.http
    for key, file in (
        ("mqtt.password_file", settings.password_file),
        ("mqtt.key_file", settings.key_file),
        ("http.token_file", http.token_file),
        ("http.password_file", http.password_file),
        ("http.key_file", http.key_file),
    ):
        if file is None:
            continue
        try:
            mode = stat.S_IMODE(file.stat().st_mode)
            readable = may(user, file, 4)
        except OSError as error:
            advice = f"write the secret there; the unit may hand it over by LoadCredential={file.name}:/PATH"
            yield Finding("secrets", "fault", f"{key}: {file}: {error.strerror}", advice)
            continue
        if not readable:
            advice = f"chown {user.pw_name} {file}, or LoadCredential= in the unit"
            yield Finding("secrets", "fault", f"{key}: {user.pw_name} cannot read {file}", advice)
        elif mode & 0o007:
            yield Finding("secrets", "warning", f"{key}: everybody can read {file}", f"chmod o= {file}")
        else:
            yield Finding("secrets", "ok", f"{key}: {file}")
    if settings.username is not None and not settings.tls and not is_loopback(settings.host):
        text = f"the password goes to {settings.host} in clear text"
        yield Finding("secrets", "warning", text, "write mqtts:// in mqtt.url")
    for key, file in (("mqtt.cert_file", settings.cert_file), ("http.cert_file", http.cert_file)):
        if file is None:
            continue
        try:
            yield certificate(key, certificate_expiry(file))
        except (OSError, ValueError) as error:
            yield Finding("certificate", "fault", f"{key}: {one_line(error)}", "write a certificate there, PEM")


OURS = (DATABASE, LOCK, "models", "training.lock")
"""What gon-edge makes in its state directory, by how the names begin.  Nothing else there is given away."""


def mend_owners(folder: Path, user: pwd.struct_passwd) -> list[Path]:
    """Give the state directory, and what gon-edge makes in it, to `user`; return what was another's.  Needs root."""
    ours = [path for path in (folder.iterdir() if folder.is_dir() else ()) if path.name.startswith(OURS)]
    if not ours:  # another folder, by a slip in the configuration, or a fresh one
        return []
    below = [Path(where) / name for path in ours for where, dirs, files in os.walk(path) for name in (*dirs, *files)]
    return [path for path in (folder, *ours, *below) if give(path, user.pw_uid, user.pw_gid)]


def check_owners(config: Config, user: pwd.struct_passwd, *, fix: bool) -> Iterator[Finding]:
    """Whether all of the state directory belongs to the user gon-edge runs as: root's commands may have left files."""
    folder = config.state_dir
    if fix and os.geteuid() != 0:
        yield Finding("owners", "warning", "only root can give files away", "sudo gon-edge doctor --fix")
    elif fix and (mended := mend_owners(folder, user)):
        yield Finding("owners", "ok", f"given to {user.pw_name}: {some(mended)}")
    everything = [folder, *(path for path in folder.rglob("*") if not path.is_symlink())] if folder.is_dir() else []
    if user.pw_uid and (foreign := [path for path in everything if path.lstat().st_uid != user.pw_uid]):
        advice = "sudo gon-edge doctor --fix; what it leaves is none of gon-edge's, or has a second name"
        yield Finding("owners", "fault", f"of another user than {user.pw_name}: {some(foreign)}", advice)


def some(paths: list[Path]) -> str:
    """The first path, and how many more."""
    return f"{paths[0]}" + (f" and {len(paths) - 1} more" if paths[1:] else "")


def check_state(config: Config, user: pwd.struct_passwd) -> Iterator[Finding]:
    """Whether the state directory can be used, and what is in it."""
    folder = config.state_dir
    if not folder.is_dir():
        parent = next(p for p in folder.parents if p.is_dir())
        if may(user, parent, 3):
            yield Finding("state", "ok", f"{folder} will be made at the first start")
        else:
            advice = f"install -d -o {user.pw_name} -m 750 {folder}"
            yield Finding("state", "fault", f"{folder} is missing and {user.pw_name} cannot make it", advice)
        return
    if not may(user, folder, 7):
        advice = f"sudo gon-edge doctor --fix, or chown -R {user.pw_name}: {folder}"
        yield Finding("state", "fault", f"{user.pw_name} cannot write {folder}", advice)
        return
    # A command that was run as root leaves files that the daemon then cannot write.
    foreign = [p for p in files_below(folder) if not may(user, p, 6)]
    if foreign:
        advice = f"sudo gon-edge doctor --fix, or chown -R {user.pw_name}: {folder}"
        yield Finding("state", "fault", f"{user.pw_name} cannot write {some(foreign)}", advice)
    damaged = sorted(path.name for path in files_below(folder) if ".damaged" in path.name)
    if damaged:
        advice = "keep them for a report, then remove them; if they come again, replace the card or disk"
        yield Finding("state", "warning", f"damaged files were set aside: {', '.join(damaged)}", advice)
    if not (folder / DATABASE).exists():
        yield Finding("state", "ok", f"{folder}: no history yet")
        return
    try:
        with Store.open(folder, read_only=True) as store:
            rows = sum(store.streams().values())
            yield Finding("state", "ok", f"{folder}: {rows} rows in the database, streams: {len(store.streams())}")
    except (StoreError, PermissionError) as error:
        yield Finding("state", "fault", one_line(error), "the daemon sets a damaged database aside when it starts")


def check_models(config: Config) -> Iterator[Finding]:
    """Whether every model in use can be read."""
    good = 0
    for file in sorted((config.state_dir / "models").glob("*/model.npz")):
        try:
            load_model(file)
            good += 1
        except ModelFileError as error:
            before = any(file.parent.glob("model-*.npz"))
            advice = "the daemon takes its copy, or the one before it" if before else "the stream will warm up again"
            yield Finding("models", "warning" if before else "fault", one_line(error), advice)
    yield Finding("models", "ok", f"models that can be read: {good}" if good else "no model yet: streams warm up first")
