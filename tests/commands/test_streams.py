"""Streams from the command line while no daemon runs and no broker answers; with both it is in e2e/test_streams."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import states
from e2e.servers import free_port
from shell import run


@pytest.fixture
def config(tmp_path: Path) -> str:
    states.leave(tmp_path / "state")
    file = tmp_path / "config.yaml"
    settings = {
        "node": "pi-1",
        "state_dir": str(tmp_path / "state"),
        "mqtt": {"url": f"mqtt://127.0.0.1:{free_port()}"},
        "subscriptions": [{"topic": "telemetry/{stream}"}],
        "streams": {"overrides": {"pump": {"window": 20}}},
    }
    file.write_text(json.dumps(settings))
    return str(file)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["remove", "kiln"], 66, "no stream 'kiln'; there are: fan, pump"),
        (["remove", "kiln", "--dry-run"], 66, "no stream 'kiln'"),
        (["rename", "kiln", "oven"], 66, "no stream 'kiln'"),
        (["rename", "fan", "pump"], 66, "stream 'pump' has a model of its own"),
        (["rename", "fan", "fan"], 66, "the new name is empty, or the one it has"),
        (["rename", "fan"], 2, "NEW"),
        ([], 2, "COMMAND"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(capsys, config, arguments, status, said):
    where = ["--config", config] if arguments else []
    before = run(capsys, "streams", "list", "--config", config)
    got, out, err = run(capsys, "streams", *arguments, *where)
    assert (got, out) == (status, "")
    assert said in err
    assert run(capsys, "streams", "list", "--config", config) == before


def test_the_list_has_a_line_for_each_stream(capsys, config):
    status, out, err = run(capsys, "streams", "list", "--config", config)
    assert (status, err) == (0, "")
    heading, fan, pump = (line.split() for line in out.splitlines())
    assert heading == ["STREAM", "SCORED", "ROWS", "NEWEST", "(UTC)", "MODEL", "KEPT", "ALERTS", "OPEN", "SILENCES"]
    assert fan[:8] == ["fan", "-", "60", "2026-02-02", "02:39", "-", "0", "0"]
    assert pump[:9] == ["pump", "-", "60", "2026-02-02", "02:39", "2", "2", "2", "2"]


def test_a_dry_run_says_what_would_go_and_deletes_nothing(capsys, config):
    before = run(capsys, "streams", "list", "--json", "--config", config)
    status, out, err = run(capsys, "streams", "remove", "pump", "--dry-run", "--config", config)
    assert (status, out, err) == (
        0,
        "stream 'pump' would be removed: 60 rows, 2 models, 2 alerts, 0 silences\n",
        "",
    )
    assert run(capsys, "streams", "list", "--json", "--config", config) == before


def test_a_name_that_the_configuration_still_has_and_topics_that_the_broker_still_keeps_are_said(capsys, config):
    status, out, err = run(capsys, "streams", "rename", "pump", "oven\x1b[2J", "--config", config)
    assert status == 0
    assert out == "stream 'pump' is called 'oven\\x1b[2J' now: 60 rows, 2 models, 2 alerts, 0 silences\n"
    assert "the broker still keeps gon-edge/pi-1/state/pump" in err
    assert "streams.overrides.pump; rename it" in err
    assert "\x1b" not in out + err
    _, out, _ = run(capsys, "streams", "list", "--json", "--config", config)
    assert [one["stream"] for one in json.loads(out)] == ["fan", "oven\x1b[2J"]
