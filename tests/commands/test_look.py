"""The status of a daemon, and that looking at one in plain text loads nothing that draws."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.servers import Mosquitto
from prometheus_client import CollectorRegistry
from snapshots import plain_snapshot

from gon_edge.commands.main import main
from gon_edge.config.schema import HttpConfig
from gon_edge.links.snapshot import StreamSnapshot
from gon_edge.links.web.server import WebServer

CONFIG = "mqtt: {url: mqtt://localhost:1}\nsubscriptions: [{topic: 'telemetry/{stream}'}]\n"


@pytest.fixture
def served() -> Iterator[str]:
    """URL of a real web server with a daemon's snapshot behind it."""
    alert = {
        "id": "1",
        "type": "new",
        "kind": "anomaly",
        "stream": "pump",
        "since": 900.0,
        "timestamp": 905.0,
        "score": 5.0,
        "threshold": 3.0,
        "severity": "critical",
        "top_features": [{"feature": "flow", "value": 3.25, "expected": 31.8, "contribution": 0.71}],
        "model_version": "3",
    }
    snapshot = plain_snapshot(
        started_at=0.0,
        now=1000.0,
        mqtt_connected=False,
        mqtt_url="mqtt://broker:1883",
        mqtt_error="connection refused",
        rss_bytes=44 << 20,
        streams=(
            StreamSnapshot("pump", "scoring", 700, 600, score=5.0, threshold=3.0, model_version="3"),
            StreamSnapshot("fan", "warming-up", 60, 600, eta_s=540.0),
        ),
        alerts=(alert,),
    )
    server = WebServer(HttpConfig("127.0.0.1:0"), snapshot=lambda: snapshot, registry=CollectorRegistry())
    server.start()
    yield server.url
    server.stop()


def test_status_lists_streams_and_alerts(served: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--url", served]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "gon-edge 0.1.0 on pi-1, up 16 min 40 s, 44.0 MiB",
        "broker mqtt://broker:1883: connection refused",
        "",
        "STREAM  STATE       ROWS       SCORE  THRESHOLD  MODEL",
        "pump    scoring     700        5      3          3",
        "fan     warming-up  60 of 600  -      -          -      first model in 9 min",
        "",
        "critical anomaly on pump since 1970-01-01 00:15:00 UTC: flow 3.25 (expected 31.8, 71 %)",
    ]


def test_status_as_json_is_what_the_daemon_says(served: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json", "--url", served]) == 0
    status = json.loads(capsys.readouterr().out)
    pump = status["streams"][0]
    assert {key: pump[key] for key in ("stream", "state", "rows", "score", "threshold", "model_version")} == {
        "stream": "pump",
        "state": "scoring",
        "rows": 700,
        "score": 5.0,
        "threshold": 3.0,
        "model_version": "3",
    }
    assert status["alerts"][0]["top_features"][0]["feature"] == "flow"


def test_status_of_something_else_than_a_gon_edge_says_so(
    served: str, capsys: pytest.CaptureFixture[str], mosquitto: Mosquitto
) -> None:
    assert main(["status", "--url", f"{served}metrics"]) == 69
    assert "answers 404; name the port of http.listen with --url" in capsys.readouterr().err
    assert main(["status", "--url", f"http://127.0.0.1:{mosquitto.port}"]) == 69
    assert main(["status", "--url", "not a url"]) == 69


@pytest.mark.parametrize(
    "command",
    [
        ["version"],
        ["check-config", "FILE"],
        ["config", "show", "--config", "FILE"],
        ["status", "--url", "URL"],
        ["models", "list"],
        ["top", "--help"],
        ["demo", "--help"],
    ],
)
def test_what_prints_plain_text_loads_nothing_that_draws(command: list[str], tmp_path: Path, served: str) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    places = {"FILE": str(tmp_path / "c.yaml"), "URL": served}
    code = (
        "import sys\nfrom gon_edge.commands.main import main\n"
        "try: status = main(sys.argv[1:])\nexcept SystemExit as ended: status = ended.code\n"
        "print(status, 'rich' in sys.modules, file=sys.stderr)"
    )
    words = [places.get(word, word) for word in command]
    result = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert result.stderr == "0 False\n"
