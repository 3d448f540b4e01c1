"""An installation without a broker, and what the doctor says about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from e2e.servers import free_port

from gon_edge.commands.doctor import examine
from gon_edge.commands.doctor.finding import Finding


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    """A configuration whose broker is not there."""
    return {
        "node": "pi-1",
        "state_dir": str(tmp_path / "state"),
        "mqtt": {"url": f"mqtt://127.0.0.1:{free_port()}"},
        "subscriptions": [{"topic": "telemetry/{stream}"}],
        "http": {"listen": f"127.0.0.1:{free_port()}"},
    }


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run all checks on a configuration, on a machine without a service; findings of some of them."""
    monkeypatch.setattr(examine, "unit_properties", dict)

    def look(settings: dict[str, object], *checks: str) -> list[Finding]:
        file = tmp_path / "gon-edge.yaml"
        file.write_text(json.dumps(settings))
        return [finding for finding in examine.examine(file, {}) if finding.check in checks]

    return look
