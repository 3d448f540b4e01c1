"""What is said about secrets, the state directory and models in which one thing is wrong."""

from __future__ import annotations

import os
import pwd
import struct
from pathlib import Path

import pytest

from gon_edge.commands.doctor import files
from gon_edge.commands.doctor.finding import Finding
from gon_edge.config.file import load_config


def states(findings: list[Finding]) -> list[str]:
    return [finding.state for finding in findings]


def test_a_state_directory_that_cannot_be_made_is_a_fault(look, settings, tmp_path):
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        config = load_config(tmp_path / "gon-edge.yaml") if look(settings) == [] else None
        (finding,) = files.check_state(config, user)
        assert (finding.state, "nobody" in finding.text) == ("fault", True)
    else:
        tmp_path.chmod(0o500)
        assert states(look(settings, "state")) == ["fault"]


def test_files_of_another_user_in_the_state_directory_are_a_fault(look, settings, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can make files of another user; type: root")
    user = pwd.getpwnam("nobody")
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, user.pw_uid, user.pw_gid)
    (state / "state.db").write_bytes(b"")
    findings = look(settings, "state")
    assert (findings[0].state, "nobody cannot write" in findings[0].text) == ("fault", True)
    assert "chown" in findings[0].advice


def test_rights_by_an_access_list_count(tmp_path):
    # systemd 257 hands credentials over with one; the mode alone says that only root may read.
    if os.geteuid() != 0:
        pytest.skip("only root can make files of another user; type: root")
    user = pwd.getpwnam("nobody")
    file = Path("/tmp") / f"gon-edge-{os.getpid()}"  # a folder that everybody may enter
    file.touch(0o440)
    try:
        assert not files.may(user, file, 4)
        # acl(5): owner r, nobody r, group none, mask r, others none
        entries = [(1, 4, 2**32 - 1), (2, 4, user.pw_uid), (4, 0, 2**32 - 1), (16, 4, 2**32 - 1), (32, 0, 2**32 - 1)]
        try:
            acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
            os.setxattr(file, "system.posix_acl_access", acl)
        except OSError:
            pytest.skip("this file system has no access lists")
        assert files.may(user, file, 4)
        assert not files.may(user, file, 6)
    finally:
        file.unlink()


def test_a_damaged_model_is_a_fault_and_one_with_a_copy_a_warning(look, settings, tmp_path):
    for stream, names in (("alone", ["model.npz"]), ("backed", ["model.npz", "model-1.npz"])):
        folder = tmp_path / "state" / "models" / stream
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).write_bytes(b"damaged")
    assert states(look(settings, "models"))[:2] == ["fault", "warning"]


def test_a_password_everybody_can_read_or_that_is_missing_is_said(look, settings, tmp_path):
    file = tmp_path / "password"
    settings["mqtt"] |= {"username": "pi-1", "password_file": str(file)}
    (finding,) = look(settings, "secrets")
    assert (finding.state, str(file) in finding.text) == ("fault", True)
    file.write_text("secret")
    file.chmod(0o644)
    (finding,) = look(settings, "secrets")
    assert (finding.state, finding.advice) == ("warning", f"chmod o= {file}")
    file.chmod(0o600)
    assert states(look(settings, "secrets")) == ["ok"]
    assert "secret\n" not in "".join(f.text for f in look(settings, "secrets", "broker"))
