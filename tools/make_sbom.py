"""A bill of materials of the Debian package, the container image and what install.sh installs, as CycloneDX 1.6 JSON.

::

    python3 tools/make_sbom.py dist/gon-edge.cdx.json

Read from what the builds read: the pinned versions and hashes of deploy/, and the package's dependencies.  Versions of
Debian's packages are the distribution's own and stay open.  The same commit gives the same file.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gon_edge import __version__

ROOT = Path(__file__).resolve().parents[1]

# Of each as its own metadata says; of Debian's packages that of the program, whose debian/copyright says more.
LICENSES = {
    "cbor2": "MIT",
    "markdown-it-py": "MIT",
    "mdurl": "MIT",
    "msgpack": "Apache-2.0",
    "nats-py": "Apache-2.0",
    "numpy": "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0",
    "paho-mqtt": "EPL-2.0 OR BSD-3-Clause",
    "prometheus-client": "Apache-2.0 AND BSD-2-Clause",
    "psutil": "BSD-3-Clause",
    "pygments": "BSD-2-Clause",
    "python3": "Python-2.0.1",
    "python3-numpy": "BSD-3-Clause",
    "python3-psutil": "BSD-3-Clause",
    "python3-rich": "MIT",
    "python3-yaml": "MIT",
    "pyyaml": "MIT",
    "rich": "MIT",
}
INSTALLERS = {"pip", "setuptools"}  # used by the build, not part of the result


def pinned(requirements: Path) -> list[dict[str, Any]]:
    """Return a component for each requirement of a file with hashes.

    Parameters
    ----------
    requirements : Path
        As pip reads it with ``--require-hashes``.
    """
    text = re.sub(r"#.*", "", requirements.read_text()).replace("\\\n", " ")
    found = []
    for name, version, rest in re.findall(r"^([\w-]+)==(\S+)(.*)$", text, re.MULTILINE):
        if name in INSTALLERS:
            continue
        component = {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}@{version}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "licenses": [{"expression": LICENSES[name]}],
        }
        # One wheel is one content; of several, one for each architecture, none is the hash of the component.
        hashes = re.findall(r"sha256:([0-9a-f]{64})", rest)
        if len(hashes) == 1:
            component["hashes"] = [{"alg": "SHA-256", "content": hashes[0]}]
        else:
            component["properties"] = [{"name": "gon-edge:wheel:sha256", "value": value} for value in hashes]
        found.append(component)
    return found


def from_debian(control: Path) -> list[dict[str, Any]]:
    """Return a component for each package that the Debian package depends on by name."""
    depends = re.search(r"^Depends:(.*?)^\S", control.read_text(), re.MULTILINE | re.DOTALL)
    names = re.findall(r"^ ([a-z0-9][a-z0-9+.-]+)", depends[1], re.MULTILINE) if depends else []
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:deb/debian/{name}",
            "name": name,
            "purl": f"pkg:deb/debian/{name}",
            "licenses": [{"expression": LICENSES[name]}],
        }
        for name in names
    ]


def bill() -> dict[str, Any]:
    """Return the whole document."""
    components = {
        component["bom-ref"]: component
        for component in (
            *pinned(ROOT / "deploy" / "requirements.txt"),
            *pinned(ROOT / "deploy" / "debian" / "vendored.txt"),
            *pinned(ROOT / "deploy" / "container" / "requirements.txt"),
            *from_debian(ROOT / "deploy" / "debian" / "control"),
        )
    }
    own = {
        "type": "application",
        "bom-ref": f"pkg:generic/gon-edge@{__version__}",
        "name": "gon-edge",
        "version": __version__,
        "licenses": [{"license": {"id": "BSD-3-Clause"}}],
    }
    body = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own},
        "components": [components[ref] for ref in sorted(components)],
        "dependencies": [
            {"ref": own["bom-ref"], "dependsOn": sorted(components)},
            *({"ref": ref} for ref in sorted(components)),
        ],
    }
    # The serial number is that of the content: built again, the bill is the same.
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    return {**body, "serialNumber": f"urn:uuid:{serial}"}


def main() -> None:
    """Write the bill to a file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", metavar="FILE", type=Path, help="where to write; folders are made where missing")
    file: Path = parser.parse_args().file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(bill(), indent=2) + "\n", encoding="utf-8")
    print(file)


if __name__ == "__main__":
    main()
