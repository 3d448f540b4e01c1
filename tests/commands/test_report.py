"""The report: what the store holds about a stream, on a page that runs nothing and needs nobody."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tracemalloc
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from e2e.daemons import FEATURES, rows

from gon_edge.commands import figure
from gon_edge.commands.main import main
from gon_edge.commands.report import stream_report
from gon_edge.config.file import parse_config
from gon_edge.errors import InputError
from gon_edge.events import Reading, Row
from gon_edge.state.folder import ModelFolder
from gon_edge.state.history import RetrainRecord
from gon_edge.state.store import Store
from gon_edge.stream.held import alert_json
from gon_edge.stream.stream import Stream
from gon_edge.training.fit import fit_model

START = 1_700_000_000.0
NAME = "<img src=x onerror=alert(1)>\"'&"
HOSTILE = ("</svg><script>alert(1)</script>", "pressure", "current", "temperature")
DAY = {"ago_s": 86400.0 / 4}


class Page(HTMLParser):
    """Tags with attributes, text, and whether every tag is closed in its turn."""

    VOID = ("meta",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a daemon leaves: calm, a fault, calm, a sensor that is gone, calm."""
    folder = tmp_path_factory.mktemp("state")
    learned = np.array([[json.loads(row)[name] for name in FEATURES] for row in rows(500, seed=9)])
    model = replace(fit_model(learned, features=HOSTILE, rng=np.random.default_rng(0)), interval_s=1.0)
    model = model.with_lineage(version="3", trained_at=START - 60.0, rows=500)
    ModelFolder(folder).install(NAME, model)
    config = parse_config({"mqtt": {"url": "mqtt://x"}, "subscriptions": [{"topic": "{stream}"}]})
    stream = Stream(NAME, config.stream(NAME), max_features=10, model=model)
    parts = [(600, 0.0, ""), (60, 6.0, ""), (300, 0.0, ""), (400, 0.0, "pressure"), (200, 0.0, "")]
    with Store.open(folder) as store:
        for ago in (3, 1):
            for line in rows(900, start=START - 86_400.0 * ago, seed=ago):
                values = json.loads(line)
                row = Row(NAME, values.pop("time"), HOSTILE, np.float32(list(values.values())), np.zeros(4, np.bool_))
                store.add_row(row, False, now=0.0)
        at = START
        for seed, (count, fault, without) in enumerate(parts, 1):
            for line in rows(count, start=at, seed=seed, fault=fault):
                values = dict(zip(HOSTILE, [json.loads(line)[name] for name in FEATURES], strict=True))
                values.pop(without, None)
                for outcome in stream.add(Reading(NAME, json.loads(line)["time"], values, {}), at - START):
                    store.add_row(outcome.row, False, now=0.0)
                    for alert in outcome.alerts:
                        store.add_alert(alert_json(alert))
            at += count
        record = ("rejected", 50 << 20, 500, "<b>worse</b> on injected faults")
        store.add_retrain(RetrainRecord(NAME, "", START + 100.0, 12.0, *record))
        assert store.flush(1.0)
    return folder


def test_the_page_tells_what_happened(state_dir: Path):
    page = Page(stream_report(state_dir, NAME, DAY))
    assert page.open == []
    assert "critical anomaly" in page.text
    assert "</svg><script>alert(1)</script> 30.84 (expected" in page.text  # the feature to blame, with its value
    assert "warning missing" in page.text
    assert "pressure is missing" in page.text
    assert "rejected" in page.text
    assert "<b>worse</b> on injected faults" in page.text
    assert "version 3, trained 2023-11-14 22:12:20" in page.text
    assert "highest score" in page.text
    assert "1560" in page.text


def test_each_anomaly_is_drawn_with_its_causes_before_and_during_it_and_on_other_days(state_dir: Path):
    text = stream_report(state_dir, NAME, {"at": START})
    labels = [a["aria-label"] for tag, a in Page(text).tags if tag == "svg"]
    with Store.open(state_dir, read_only=True) as store:
        anomalies = [alert for alert in store.alerts(50, NAME) if alert["kind"] == "anomaly"]
    assert len(labels) == 1 + len(anomalies) >= 2
    causes = [cause["feature"] for cause in anomalies[-1]["top_features"]][:3]
    assert causes[0] == HOSTILE[0]
    assert labels[-1] == f"{', '.join(causes)} before and during the alert of 2023-11-14 22:23:20 UTC"
    (drawn,) = re.findall(r"critical anomaly since 2023-11-14 22:23:20.*?</svg>", text, re.DOTALL)
    # Two lines of other days for each cause, and one in the key.
    assert len(re.findall(rf'stroke="{figure.LIGHT["other"]}"', drawn)) == 2 * len(causes) + 1
    assert "earlier days" in drawn


def test_the_page_runs_nothing_and_fetches_nothing(state_dir: Path):
    text = stream_report(state_dir, NAME, DAY)
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "img", "link", "iframe", "object", "b"}
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on") or a in ("style", "src")]
    assert text.count("//") == 0
    style = text.partition("<style>")[2].partition("</style>")[0]
    hashed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{hashed}';")
    assert style.count("prefers-color-scheme: dark") == 2  # the page, and the picture in it
    assert text.count("<style>") == 1


def test_since_leaves_out_what_was_before(state_dir: Path):
    text = stream_report(state_dir, NAME, {"at": START + 1400.0})
    assert "critical anomaly" not in text
    assert "None in this time." in text


@pytest.mark.parametrize(
    ("stream", "since", "what"),
    [("nobody", DAY, "has no rows in"), (NAME, {"at": START + 9e5}, "its newest is of 2023-11-14")],
)
def test_what_is_not_there_is_one_clear_line(state_dir: Path, stream: str, since: dict[str, float], what: str):
    with pytest.raises(InputError, match=what):
        stream_report(state_dir, stream, since)


@pytest.mark.slow  # tracemalloc looks at every allocation
def test_memory_does_not_grow_with_the_rows(state_dir: Path):
    peaks = []
    for at in (START + 1260.0, START):
        tracemalloc.start()
        stream_report(state_dir, NAME, {"at": at})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (2 << 20)


def test_the_command_writes_the_page(state_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = tmp_path / "gon-edge.yaml"
    shown = {"mqtt": {"url": "mqtt://x"}, "subscriptions": [{"topic": "{stream}"}], "state_dir": str(state_dir)}
    config.write_text(json.dumps(shown))
    out = tmp_path / "report.html"
    assert main(["report", NAME, "--since", "24h", "-o", str(out), "--config", str(config)]) == 0
    assert out.read_text().startswith("<!doctype html>")
    assert main(["report", NAME, "--since", "1m", "-o", "/nowhere/x.html", "--config", str(config)]) == 73
    assert "cannot be written" in capsys.readouterr().err
