"""No text of a device, model, file or daemon steers the terminal of whoever looks at it, whichever command prints."""

from __future__ import annotations

import io
import json
import logging
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from prometheus_client import CollectorRegistry
from snapshots import ALERT, SCORING, plain_snapshot

from gon_edge.commands.arguments import output, write_json
from gon_edge.commands.main import _MODULES, main
from gon_edge.config.schema import HttpConfig
from gon_edge.events import Row
from gon_edge.links.web.server import WebServer
from gon_edge.model.file import save_model
from gon_edge.state.folder import ModelFolder
from gon_edge.state.history import RetrainRecord
from gon_edge.state.store import Store
from gon_edge.stream.columns import Held
from gon_edge.stream.ledger import Entry
from gon_edge.training.fit import fit_model

EVIL = "pump\x1b[2J\x9b31m\u202e\u2028\r\x07\nowned"
"""Escape sequences of 7 and of 8 bits, a change of direction, and line breaks that would begin a line of their own."""

NAME = EVIL.replace("\n", "").replace("\r", "")  # where a line break cannot stand
FEATURES = (EVIL, "flow")

ELSEWHERE = {
    "run": "its log, see tests/process/test_logs.py and tests/test_security.py",
    "demo": "made of the story it tells",
    "publish": "prints its arguments alone, until Ctrl-C",
    "record": "needs a broker, see test_record.py; what it prints are its arguments",
    "listen": "needs a broker, see test_listen.py for what it makes of messages",
    "fleet": "needs NATS or a broker, see tests/fleet/test_look.py and test_view.py for what they print",
    "version": "made here",
    "completion": "made here",
}
"""Commands that print nothing foreign here, and why."""


@pytest.fixture(scope="module")
def model():
    rows = np.random.default_rng(0).normal(size=(300, 2))
    lineage = {
        "version": "1", "trained_at": 1.7e9, "since": 1e300, "rows": EVIL, "parent": EVIL, "data": [EVIL, EVIL],
        EVIL: {EVIL: EVIL}, "detects": {EVIL: {EVIL: [EVIL, EVIL, EVIL]}, "spike": {"flow": [1.0, EVIL, 3]}},
    }  # fmt: skip
    return fit_model(rows, features=list(FEATURES), rng=np.random.default_rng(1)).with_lineage(**lineage)


@pytest.fixture(scope="module")
def place(model, tmp_path_factory):
    """A folder whose every file holds hostile text."""
    place = tmp_path_factory.mktemp("place")
    state = place / f"state {NAME}"
    folder = ModelFolder(state)
    for version in ("1", "2"):
        folder.install(EVIL, model.with_lineage(version=version))
    folder.install("gone", replace(model, threshold=9.0))
    (folder.file("bad").parent).mkdir()
    folder.file("bad").write_bytes(b"no model")
    with Store.open(state) as store:
        for i in range(800):
            value = np.float32([np.sin(i), i % 7])
            store.add_row(Row(EVIL, 1.7e9 + i, FEATURES, value, np.zeros(2, bool), False), False, 0.0)
        cause = {"feature": EVIL, "value": 1.0, "expected": 2.0, "contribution": 0.5}
        store.add_alert({**ALERT, "id": f"a1{EVIL}", "stream": EVIL, "top_features": [cause]})
        store.add_retrain(RetrainRecord(EVIL, EVIL, 1.7e9, 1.0, "failed", 1, 1, EVIL))
        assert store.flush(1.0)
    save_model(model, place / "model.npz")
    (place / "rows.csv").write_text(
        f'time,"{EVIL}",flow,"other{EVIL}"\n' + "".join(f"{1.7e9 + i:.0f},{i % 5},{i % 7},1\n" for i in range(60)),
        newline="",
    )
    config = {
        "mqtt": {"url": "mqtt://localhost:1", "client_id": NAME},
        "http": {"listen": "off"},
        "subscriptions": [{"topic": "telemetry/{stream}"}],
        "state_dir": str(state),
    }
    (place / "config.yaml").write_text(yaml.safe_dump(config))
    (place / "wrong.yaml").write_text(json.dumps({**config, EVIL: EVIL}))
    return place


@pytest.fixture(scope="module")
def url():
    """Of a real server, with a daemon's answers."""
    evil = replace(
        SCORING, name=EVIL, features={EVIL: Held(1.0)}, dropped=(Entry(EVIL, "text", 1, EVIL),), missing=(EVIL,),
        training=EVIL, waits=EVIL, model_version=EVIL,
    )  # fmt: skip
    cause = {"feature": EVIL, "value": 1.0, "expected": 2.0, "contribution": 0.5}
    alerts = (
        {**ALERT, "stream": EVIL, "severity": EVIL, "kind": EVIL, "since": 1e300, "top_features": [cause]},
        {**ALERT, "id": "2", "stream": EVIL, "together": {"count": 3, "of": 4, "streams": [EVIL]}},
    )
    silence = {"stream": EVIL, "feature": EVIL, "since": 1.7e9, "until": 1.8e9, "reason": EVIL}
    snapshot = plain_snapshot(
        node=EVIL, version=EVIL, mqtt_connected=False, mqtt_url=EVIL, mqtt_error=EVIL, streams=(evil,), alerts=alerts,
        silences=(silence,),
    )  # fmt: skip
    server = WebServer(HttpConfig("127.0.0.1:0"), snapshot=lambda: snapshot, registry=CollectorRegistry())
    server.start()
    yield server.url
    server.stop()


COMMANDS = {
    "check-config": [["CONFIG"], ["CONFIG", "--json"], ["WRONG"], ["WRONG", "--json"], [f"/none{EVIL}"]],
    "config": [["show", "--config", "CONFIG"], ["show", "--json", "--config", "CONFIG"]],
    "status": [["--url", "URL"], ["--url", "URL", "--json"], ["--url", f"http://{NAME}"]],
    "top": [["--once", "--url", "URL"]],
    "try": [
        ["x/pump", json.dumps({EVIL: EVIL, "flow": 1}), "--config", "CONFIG"], [f"a/{NAME}", EVIL],
        [NAME, EVIL, "--json"],
    ],
    "replay": [["CSV", "--stream", EVIL, "--broker", "mqtt://localhost:1"], [f"/none{EVIL}", "--stream", "x"]],
    "rehearse": [["CSV", "--config", "CONFIG", "--stream", EVIL], [f"/none{EVIL}", "--config", "CONFIG"]],
    "score": [["CSV", "--model", "MODEL", "-o", "OUT"], [f"/none{EVIL}", "--model", "MODEL"], ["CSV", "--model", EVIL]],
    "plot": [["CSV", "--model", "MODEL", "-o", "OUT.svg"], ["CSV", "--model", EVIL, "-o", "x.svg"]],
    "report": [[EVIL, "--config", "CONFIG", "-o", "OUT.html"], [f"no{EVIL}", "--config", "CONFIG", "-o", "OUT.html"]],
    "sample": [[EVIL, "--config", "CONFIG"], [f"no{EVIL}", "--config", "CONFIG"]],
    "models": [
        ["list", "--config", "CONFIG"], ["list", "--json", "--config", "CONFIG"],
        ["show", f"stream:{EVIL}", "--config", "CONFIG"], ["show", "MODEL", "--json"], ["show", EVIL],
        ["verify", "--config", "CONFIG"], ["verify", "MODEL", "--json"],
        ["diff", f"{EVIL}@1", "gone", "--config", "CONFIG"],
        ["diff", f"{EVIL}@1", "gone", "--json", "--config", "CONFIG"],
        ["export", EVIL, "OUT.npz", "--config", "CONFIG"], ["import", EVIL, "MODEL", "--config", "CONFIG"],
        ["rollback", EVIL, "1", "--config", "CONFIG"], ["rollback", EVIL, EVIL, "--config", "CONFIG"],
    ],
    "retrain": [
        [EVIL, "--dry-run", "--config", "CONFIG"], [EVIL, "--from", "CSV", "--dry-run", "--config", "CONFIG"],
        [f"no{EVIL}", "--config", "CONFIG"], [EVIL, "--since", "1s", "--config", "CONFIG"],
    ],
    "silence": [
        ["add", EVIL, "--feature", EVIL, "--for", "2h", "--reason", EVIL, "--config", "CONFIG"],
        ["list", "--config", "CONFIG"], ["list", "--json", "--config", "CONFIG"],
        ["rm", EVIL, "--config", "CONFIG"], ["rm", EVIL, "--config", "CONFIG"],
    ],
    "streams": [
        ["list", "--config", "CONFIG"], ["list", "--json", "--config", "CONFIG"],
        ["remove", EVIL, "--dry-run", "--config", "CONFIG"], ["remove", f"no{EVIL}", "--config", "CONFIG"],
        ["rename", f"no{EVIL}", EVIL, "--config", "CONFIG"],
    ],
    "alerts": [["--config", "CONFIG"], ["--json", "--config", "CONFIG"]],
    "feedback": [[f"a1{EVIL}", "true", "--note", EVIL, "--config", "CONFIG"], [EVIL, "wrong", "--config", "CONFIG"]],
    "missed": [[EVIL, "--at", "1h", "--config", "CONFIG"], [f"no{EVIL}", "--at", "1h", "--config", "CONFIG"]],
    "accept": [[f"no{EVIL}", "--since", "1h", "--config", "CONFIG"]],
    "doctor": [["--config", "CONFIG"], ["--json", "--config", "CONFIG"], ["--config", "WRONG"]],
}  # fmt: skip
"""What is tried of each command, in this order, so that what one leaves is what another prints."""


@pytest.fixture(autouse=True)
def log():
    """Commands set up the log of the whole process; the tests after these have their own again."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_every_command_is_looked_at():
    assert sorted(_MODULES) == sorted([*COMMANDS, *ELSEWHERE])


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_foreign_reaches_a_terminal_raw(command, place, url, tmp_path, capsys, monkeypatch):
    here = tmp_path / "place"
    shutil.copytree(place, here)
    config = (place / "config.yaml").read_text()
    monkeypatch.setattr("gon_edge.commands.doctor.service.unit_properties", lambda *_: {})
    words = {
        "CONFIG": str(here / "config.yaml"), "WRONG": str(here / "wrong.yaml"), "CSV": str(here / "rows.csv"),
        "MODEL": str(here / "model.npz"), "URL": url, "OUT": str(tmp_path / f"out {NAME}"),
    }  # fmt: skip
    state = yaml.safe_load(config)
    state["state_dir"] = str(here / f"state {NAME}")
    (here / "config.yaml").write_text(yaml.safe_dump(state))
    seen = False
    for tried in COMMANDS[command]:
        arguments = [command]
        for word in tried:
            name, dot, ending = word.partition(".")
            arguments.append(words[name] + dot + ending if name in words else word)
        try:
            main(arguments)
        except SystemExit:
            raise AssertionError(f"{arguments} is no command: {capsys.readouterr().err}") from None
        said = capsys.readouterr()
        for text in (said.out, said.err):
            raw = {c for c in text if not c.isprintable() and c != "\n"}
            assert not raw, (arguments, raw, text)
            assert "\nowned" not in text, (arguments, text)
            seen = seen or "\\x1b" in text or "\\u001b" in text or "\\e" in text
    assert seen, f"nothing hostile was printed by {command}"


def test_json_is_the_same_value_with_nothing_that_steers_a_terminal(capsys):
    value = {EVIL: [EVIL, "\udcff", "Grüße 温度 \U000e0001", 1.5]}
    write_json(value)
    text = capsys.readouterr().out
    assert json.loads(text) == value
    assert "Grüße 温度" in text
    assert all(c.isprintable() or c == "\n" for c in text)


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_data_is_escaped_for_a_terminal_and_left_alone_for_a_file(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout", screen := Screen())
    with output("-") as out:
        out.write(f"time,{NAME}\n1,2\n")
    assert screen.getvalue().startswith("time,pump\\x1b[2J\\x9b31m\\u202e")
    assert screen.getvalue().count("\n") == 2
    monkeypatch.setattr("sys.stdout", piped := io.StringIO())
    with output("-") as out:
        out.write(f"time,{NAME}\n")
    assert piped.getvalue() == f"time,{NAME}\n"
