"""Collect what gon-edge needs to run, and nothing else, into the root of an image: run inside the build.

``python3 assemble.py ROOT SITE``: the interpreter that runs this with its standard library, the shared libraries it and
the packages in SITE load, certificates of the system, a user.  No shell, no package manager: what is not there has no
holes and cannot be used by whoever gets in.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

# Of the standard library: tests, editors, installers.  Of packages: their tests and compilers, and our experiments.
LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "ensurepip", "lib2to3",
    "pydoc_data", "distutils", "config-*", "dist-packages", "site-packages", "f2py", "*.a", "*.pyi", "*.h", "*.pxd",
    "conftest.py", "research",
)  # fmt: skip
USER = 65532
FILES = {
    "etc/passwd": f"root:x:0:0:root:/:/nonexistent\ngon-edge:x:{USER}:{USER}:gon-edge:/var/lib/gon-edge:/nonexistent\n",
    "etc/group": f"root:x:0:\ngon-edge:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def libraries(binaries: Iterable[Path]) -> set[Path]:
    """Return the shared libraries that `binaries` load, the dynamic linker included; one that is missing ends it."""
    found, missing = set(), set()
    for binary in binaries:
        listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True).stdout
        for line in listed.splitlines():
            path = line.split("=>")[-1].strip().split(" ")[0]
            if path.startswith("/"):
                found.add(Path(path))
            elif path == "not":
                missing.add(f"{line.split()[0]}, which {binary.name} loads")
    if missing:
        sys.exit(f"BASE has no {'; no '.join(sorted(missing))}: install it there, or choose another BASE")
    return found


def copy(source: Path, root: Path) -> None:
    """Copy a file to its place under `root`, itself and not a link; from /usr/local to where everybody looks."""
    target = root / str(source).replace("/usr/local/", "/usr/", 1).lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source.resolve(), target)


def list_packages(files: Iterable[Path], root: Path) -> None:
    """Note which of Debian's packages files are of, where scanners of images look for it, and which Debian it is."""
    listed = root / "var/lib/dpkg/status.d"
    listed.mkdir(parents=True, exist_ok=True)
    for file in files:
        places = {str(file), str(file.resolve())}
        places |= {f"/usr{place}" for place in places} | {place.removeprefix("/usr") for place in places}
        found = subprocess.run(["dpkg-query", "--search", *sorted(places)], capture_output=True, text=True).stdout
        owners = [line.partition(": /")[0] for line in found.splitlines() if not line.startswith("diversion ")]
        for package in {package for owner in owners for package in owner.split(", ")}:
            status = subprocess.run(["dpkg-query", "--status", package], capture_output=True, text=True, check=True)
            (listed / package.partition(":")[0]).write_text(status.stdout)
    copy(Path("/etc/os-release"), root)


def main() -> None:
    """Fill ROOT."""
    root, site = Path(sys.argv[1]), Path(sys.argv[2])
    python = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # One place for everything, wherever this distribution has its Python.
    prefix = root / "usr"
    (prefix / "bin").mkdir(parents=True)
    shutil.copy2(python, prefix / "bin" / version)
    (prefix / "bin" / "python3").symlink_to(version)
    shutil.copytree(library, prefix / "lib" / version, ignore=LEFT_OUT, symlinks=False)
    shutil.copytree(site, prefix / "lib" / version / "site-packages", ignore=LEFT_OUT)
    # Debian's own interpreter looks in dist-packages.
    (prefix / "lib" / "python3").mkdir()
    (prefix / "lib" / "python3" / "dist-packages").symlink_to(f"../{version}/site-packages")

    extensions = [*(prefix / "lib" / version).rglob("*.so"), *(prefix / "lib" / version).rglob("*.so.*")]
    bundled = {path.name for path in extensions}
    loaded = [file for file in libraries([python, *extensions]) if file.name not in bundled]
    for file in loaded:
        copy(file, root)
    # Opened by name at run time, which ldd cannot see.
    for pattern in ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2", "libgcc_s.so.1"):
        for folder in ("/lib", "/usr/lib"):
            for file in Path(folder).glob(f"*/{pattern}"):
                copy(file, root)
    list_packages([*loaded, python, library / "os.py", Path("/usr/share/zoneinfo/UTC")], root)
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        copy(certificates, root)
        # Where OpenSSL looks when nobody tells it.
        (root / "usr/lib/ssl").mkdir(parents=True, exist_ok=True)
        (root / "usr/lib/ssl/cert.pem").symlink_to(certificates)
    zones = Path("/usr/share/zoneinfo")  # for subscriptions[].timezone; without "right" and "posix", which repeat it
    if zones.is_dir():
        left_out = shutil.ignore_patterns("right", "posix")
        shutil.copytree(zones, root / zones.relative_to("/"), symlinks=True, ignore=left_out)
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for folder, mode in (("tmp", 0o1777), ("var/lib/gon-edge", 0o750), ("etc/gon-edge", 0o755)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder).chmod(mode)
    shutil.chown(root / "var/lib/gon-edge", USER, USER)
    subprocess.run([python, "-m", "compileall", "-q", "-j", "1", "--invalidation-mode", "unchecked-hash",
                    "-s", str(root), str(prefix / "lib" / version)], check=False)  # fmt: skip


if __name__ == "__main__":
    main()
