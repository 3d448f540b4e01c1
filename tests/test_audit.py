"""What ``make audit`` says of answers of an advisory service, by the real pip-audit, and where none answers."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from e2e.servers import require

AUDIT = Path(__file__).parents[1] / "tools" / "audit.py"


def advisory(package: str, *, mended_in: str | None) -> dict[str, Any]:
    """One advisory, as OSV's service writes it."""
    events = [{"introduced": "0"}, *([{"fixed": mended_in}] if mended_in else [])]
    affected = {"package": {"name": package, "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
    return {
        "id": "GHSA-0000-0000-0000",
        "aliases": ["CVE-2026-0001"],
        "details": "made up",
        "published": "2026-01-01T00:00:00Z",
        "affected": [affected],
    }


AUDIT_DEBIAN = AUDIT.with_name("audit_debian.py")
ASSEMBLE = Path(__file__).parents[1] / "deploy" / "container" / "assemble.py"


@pytest.fixture
def audited() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Run the audit against a service that knows some advisories, by package."""
    known: dict[str, dict[str, Any]] = {}

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = known.get(asked["package"]["name"])
            body = json.dumps({"vulns": [found]} if found else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    def audited(*advisories: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        known.update({each["affected"][0]["package"]["name"]: each for each in advisories})
        url = f"http://127.0.0.1:{server.server_port}/v1/query"
        return subprocess.run([sys.executable, AUDIT, "--osv-url", url], capture_output=True, text=True, timeout=120)

    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield audited
        server.shutdown()


def test_a_known_vulnerability_that_another_version_has_not_fails_the_audit(audited):
    done = audited(advisory("psutil", mended_in=None), advisory("numpy", mended_in="99.0"))
    assert done.returncode == 1, done.stderr
    assert "raise the pin in deploy/ to 99.0" in done.stdout
    assert "unmended     psutil 7.2.2: CVE-2026-0001, GHSA-0000-0000-0000; no version without it yet" in done.stdout
    assert "pinned libraries audited by osv" in done.stdout


def test_a_vulnerability_that_nobody_has_mended_does_not_fail_it():
    found = {"id": "CVE-2026-0001", "aliases": [], "fix_versions": []}
    spec = importlib.util.spec_from_file_location("audit", AUDIT)
    audit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(audit)
    lines, audited, failed = audit.verdict([{"name": "psutil", "version": "7.2.2", "vulns": [found]}])
    assert (len(lines), audited, failed) == (1, 1, False)


def test_an_audit_that_nobody_answers_says_so_and_does_not_fail():
    command = [sys.executable, AUDIT, "--osv-url", "http://127.0.0.1:9/v1/query"]  # nothing listens there
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stdout.startswith("NOTHING WAS AUDITED: no advisory service answered")


# -- Debian's packages -------------------------------------------------------------------------------------------------


@pytest.fixture
def tracker() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Run the audit of Debian's packages against a tracker that knows one vulnerability of libssl3."""
    require("debsecan"), require("dpkg-query")
    known = ""

    class Tracker(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if known else 500)
            self.end_headers()
            vulnerable = f"CVE-2026-0001,,made up\n\n{known}\n" if known else ""
            self.wfile.write(zlib.compress(f"VERSION 1\n{vulnerable}\nopenssl,libssl3\n\n".encode()))

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    def tracker(vulnerability: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        nonlocal known
        known = vulnerability
        url = f"http://127.0.0.1:{server.server_port}/"
        command = [sys.executable, AUDIT_DEBIAN, "--source", url, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    with ThreadingHTTPServer(("127.0.0.1", 0), Tracker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tracker
        server.shutdown()


FIXED, OPEN = "openssl,0, LRF,999,", "openssl,0, LR ,999,"  # as the tracker writes it: a fix is there, or not


def test_a_library_of_the_image_that_debian_has_mended_fails_the_audit(tracker, tmp_path) -> None:
    spec = importlib.util.spec_from_file_location("assemble", ASSEMBLE)
    assemble = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(assemble)
    found = subprocess.run(["dpkg-query", "--listfiles", "libssl3"], capture_output=True, text=True, check=True).stdout
    (library,) = (Path(line) for line in found.splitlines() if line.endswith("libssl.so.3"))
    assemble.list_packages([library], tmp_path)
    for vulnerability, status, said in ((FIXED, 1, "VULNERABLE   CVE-2026-0001 libssl3"), (OPEN, 0, "; 1 vuln")):
        done = tracker(vulnerability, "--image", str(tmp_path))
        assert done.returncode == status, done.stderr
        assert said in done.stdout
        assert "1 packages of Debian audited" in done.stdout


def test_what_the_package_depends_on_is_audited_with_all_that_it_needs(tracker) -> None:
    require("apt-cache")
    done = tracker(FIXED)
    assert done.returncode == 0, done.stderr  # apt brings the update, and nobody can pin it here
    assert "VULNERABLE   CVE-2026-0001 libssl3" in done.stdout  # which Python needs


def test_where_the_tracker_does_not_answer_that_is_said(tracker) -> None:
    done = tracker("")
    assert done.returncode == 0
    assert "NOTHING WAS AUDITED of Debian's packages: " in done.stdout
