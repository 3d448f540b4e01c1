"""Ask for known vulnerabilities of what the package, the image and install.sh bring along, by pip-audit.

::

    make audit
    python tools/audit.py --osv-url http://advisories.example/v1/query

The exit status is 1 where a pinned version has a known vulnerability and another version has none: raise the pin.  A
vulnerability that nobody has mended is named, and so is what could not be audited because no registry or advisory
service answered; both leave the exit status at 0, or a build would fail for what it cannot change.

Debian's own packages are not asked for here: apt brings their security updates, and the package pins none of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PINNED = ("deploy/requirements.txt", "deploy/debian/vendored.txt", "deploy/container/requirements.txt")
_TIMEOUT_S = 15  # for an answer; not critical
_PATIENCE_S = 300.0  # for all answers of a service; not critical


def ask(service: str, osv_url: str | None) -> tuple[list[dict[str, Any]], str]:
    """What pip-audit says of each pinned version, and the last line of its complaints."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", service, "--format", "json"]
    command += ["--disable-pip", "--no-deps", "--require-hashes", "--progress-spinner", "off"]
    command += ["--timeout", str(_TIMEOUT_S), *(["--osv-url", osv_url] if osv_url else [])]
    command += [argument for file in PINNED for argument in ("--requirement", str(ROOT / file))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        return [], f"no answer within {_PATIENCE_S:.0f} s"
    try:
        return json.loads(done.stdout)["dependencies"], ""
    except (ValueError, KeyError):
        return [], (done.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]


def verdict(dependencies: Iterable[Mapping[str, Any]]) -> tuple[list[str], int, bool]:
    """What is to be told of an audit.

    Parameters
    ----------
    dependencies : iterable of mapping
        As pip-audit's JSON lists them.

    Returns
    -------
    lines : list of str
        One for each vulnerability, and for each library that could not be audited.
    audited : int
        Libraries that the service knew.
    failed : bool
        Whether one of them has a vulnerability that another version has not.
    """
    lines, audited, failed = [], set(), False
    for each in dependencies:
        if "skip_reason" in each:
            lines.append(f"not audited  {each['name']}: {each['skip_reason']}")
            continue
        audited.add((each["name"], each["version"]))
        for found in each["vulns"]:
            names = ", ".join([found["id"], *found.get("aliases", ())])
            mended = ", ".join(found["fix_versions"])
            word, what = "unmended   ", "no version without it yet"
            if mended:
                word, what = "VULNERABLE ", f"raise the pin in deploy/ to {mended}"
            lines.append(f"{word}  {each['name']} {each['version']}: {names}; {what}")
            failed |= bool(mended)
    return list(dict.fromkeys(lines)), len(audited), failed


def main() -> int:
    """Ask one service after the other, until one of them knows something."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--osv-url", metavar="URL", help="ask this OSV service, and no other")
    osv_url = parser.parse_args().osv_url
    silent = []
    for service in ("osv",) if osv_url else ("pypi", "osv"):
        dependencies, complaint = ask(service, osv_url)
        lines, audited, failed = verdict(dependencies)
        if audited:
            print("\n".join([*lines, f"{audited} pinned libraries audited by {service}"]))
            return int(failed)
        silent.append(f"{service}: {complaint or lines[0] if complaint or lines else 'nothing is pinned'}")
    print("NOTHING WAS AUDITED: no advisory service answered, so nothing is known of vulnerabilities")
    print("\n".join(f"  {line}" for line in silent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
