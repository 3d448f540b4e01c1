"""Ask Debian's security tracker for known vulnerabilities of Debian's packages, by debsecan.

::

    make audit                                  # what the package depends on, as apt would install it on this machine
    python tools/audit_debian.py --image ROOT   # what the image has of Debian, unpacked to a folder

To unpack an image: ``docker create --name look gon-edge; docker export look | tar -x -C ROOT``.

With ``--image`` the exit status is 1 where Debian has a version without the vulnerability: build on a newer base.  What
the package depends on comes by apt, and so do its updates.  Vulnerabilities that Debian has not mended are counted.
Where debsecan is not installed, or the tracker does not answer, that is said, and the exit status is 0.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

CONTROL = Path(__file__).resolve().parents[1] / "deploy" / "debian" / "control"
_PATIENCE_S = 120.0  # for an answer of some MB; not critical
_DEPENDS_ONLY = [f"--no-{what}" for what in ("recommends", "suggests", "enhances", "conflicts", "breaks", "replaces")]


def depended() -> str:
    """What the package depends on, and what that depends on, as dpkg would list it on this machine."""
    depends = re.search(r"^Depends:\n((?: .*\n)+)", CONTROL.read_text(), re.MULTILINE)
    assert depends is not None
    names = re.findall(r"^ ([a-z][\w.+-]+)", depends[1], re.MULTILINE)
    tree = _said("apt-cache", "depends", "--recurse", *_DEPENDS_ONLY, *names)
    names = sorted(set(re.findall(r"^([a-z0-9][\w.+-]*)", tree, re.MULTILINE)))
    return _said("apt-cache", "show", "--no-all-versions", *names)


def in_image(root: Path) -> str:
    """What an image says that it has of Debian, as `deploy/container/assemble.py` has written it."""
    return "\n".join(file.read_text() for file in sorted((root / "var/lib/dpkg/status.d").iterdir()))


def suite_of(root: Path) -> str:
    """The release of Debian in a folder, as ``bookworm``."""
    found = re.search(r"^VERSION_CODENAME=(\w+)$", (root / "etc/os-release").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{root}/etc/os-release names no release of Debian")
    return found[1]


def audit(packages: str, suite: str, source: str | None) -> tuple[list[str], str]:
    """What debsecan says of packages, a line for each vulnerability, or why it says nothing.

    Parameters
    ----------
    packages : str
        As dpkg lists what is installed; others are taken for installed, too.
    suite : str
        Release of Debian.
    source : str or None
        Address of another tracker.
    """
    installed = "Status: install ok installed"
    stanzas = [s if "\nStatus:" in s else f"{s.rstrip()}\n{installed}" for s in packages.strip().split("\n\n")]
    with tempfile.NamedTemporaryFile("w", suffix="-status") as status:
        status.write("\n\n".join(stanzas) + "\n\n")
        status.flush()
        command = ["debsecan", "--suite", suite, "--format", "summary", "--status", status.name]
        command += ["--source", source] if source else []
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)
        except FileNotFoundError:
            return [], "debsecan is not installed; type: apt install debsecan"
        except subprocess.TimeoutExpired:
            return [], f"no answer within {_PATIENCE_S:.0f} s"
    if done.returncode:
        return [], (done.stderr.strip().splitlines() or ["debsecan said nothing"])[-1]
    return done.stdout.splitlines(), ""


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> int:
    """Ask, and tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--image", type=Path, metavar="ROOT", help="folder with an unpacked image")
    parser.add_argument("--source", metavar="URL", help="ask this tracker")
    args = parser.parse_args()
    try:
        packages = in_image(args.image) if args.image else depended()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"NOTHING WAS AUDITED of Debian's packages: {error}")
        return 0
    count = len(re.findall(r"^Package: ", packages, re.MULTILINE))
    lines, complaint = audit(packages, suite_of(args.image or Path("/")), args.source)
    if complaint:
        print(f"NOTHING WAS AUDITED of Debian's packages: {complaint}")
        return 0
    mended = [line for line in lines if "(fixed" in line]
    print("\n".join(f"VULNERABLE   {line}: there is a newer version" for line in mended), end="\n" if mended else "")
    print(f"{count} packages of Debian audited; {len(lines) - len(mended)} vulnerabilities that Debian has not mended")
    return int(bool(mended and args.image))


if __name__ == "__main__":
    sys.exit(main())
