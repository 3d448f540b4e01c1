"""Pictures of scores: nothing high is lost by thinning, and both formats hold what the model says."""

from __future__ import annotations

import json
import re
import struct
import xml.etree.ElementTree as ET
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from e2e.daemons import FEATURES, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from gon_edge.commands.main import main
from gon_edge.commands.plot import MOST_COLUMNS, PngCanvas, SvgCanvas, Thinned, draw, height
from gon_edge.events import Row
from gon_edge.model.detector import Detector
from gon_edge.model.file import Model, save_model
from gon_edge.training.fit import fit_model

START = 1_700_000_000.0
CURRENT = np.zeros(4, np.bool_)
HOSTILE = ("<b>flow</b>&\"'", "\x1b[2Jpressure", "current" * 12, "温度")


def table(count: int, seed: int, fault: float = 0.0) -> np.ndarray:
    return np.array([[json.loads(row)[name] for name in FEATURES] for row in rows(count, seed=seed, fault=fault)])


@pytest.fixture(scope="module")
def model() -> Model:
    return replace(fit_model(table(500, 9), features=FEATURES, rng=np.random.default_rng(0)), interval_s=1.0)


@pytest.fixture(scope="module")
def judged(model: Model) -> Thinned:
    return judge(model, np.concatenate([table(900, 1), table(30, 2, fault=6.0), table(400, 3)]))


def judge(model: Model, values: np.ndarray) -> Thinned:
    detector, thinned = Detector(model), Thinned(model.features)
    for t, row in enumerate(values.astype(np.float32)):
        at = START + t + (7200.0 if t > 1100 else 0.0)
        thinned.add(at, detector.score(Row("pump", at, model.features, row, CURRENT)), detector)
    return thinned


def test_thinning_keeps_the_number_of_rows_the_highest_score_and_its_cause(model: Model, judged: Thinned):
    detector = Detector(model)
    values = np.concatenate([table(900, 1), table(30, 2, fault=6.0), table(400, 3)]).astype(np.float32)
    verdicts = [detector.score(Row("pump", float(t), model.features, row, CURRENT)) for t, row in enumerate(values)]
    scores = [verdict.score for verdict in verdicts]
    assert judged.rows == sum(column.rows for column in judged.columns) == 1330
    assert judged.anomalies == sum(column.anomalies for column in judged.columns) == sum(v.is_anomaly for v in verdicts)
    assert judged.highest == max(column.high for column in judged.columns) == max(scores)
    assert judged.highest_at == START + int(np.argmax(scores))
    assert min(column.low for column in judged.columns) == min(scores)
    assert model.features[int(np.argmax(judged.blame()))] == "flow"


def test_columns_are_bounded_and_none_bridges_a_silence(judged: Thinned):
    assert len(judged.columns) <= 2 * MOST_COLUMNS
    assert max(column.last_at - column.first_at for column in judged.columns) < 60.0


@settings(max_examples=15)
@given(st.lists(st.sampled_from([1.0, 1.0, 1.0, 100.0, -50.0]), min_size=1, max_size=2500))
def test_whatever_the_times_columns_are_bounded_and_can_be_drawn(steps: list[float]):
    thinned = Thinned(("a",))
    fake = _Account()
    at = START
    for step in steps:
        at += step
        thinned.add(at, _verdict(at, 1.0), fake)  # type: ignore[arg-type]
    assert sum(column.rows for column in thinned.columns) == len(steps)
    assert len(thinned.columns) <= 2 * MOST_COLUMNS + 1
    draw(SvgCanvas(960, height(thinned)), thinned, title="t", is_time=True)


class _Account:
    """A detector that explains every row alike: fitting one is not what is tested."""

    def account(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.ones(1), np.ones(1, np.float32), np.ones(1)


def _verdict(at: float, score: float):
    from gon_edge.events import Verdict

    return Verdict("pump", at, score, 2.0, score > 2.0, (), (), "1")


def test_an_account_agrees_with_the_causes(model: Model):
    detector = Detector(model)
    for t, row in enumerate(np.concatenate([table(100, 1), table(20, 2, fault=6.0)]).astype(np.float32)):
        detector.score(Row("pump", float(t), model.features, row, CURRENT))
    share, measured, expected = detector.account()
    first = detector.causes()[0]
    f = model.features.index(first.feature)
    assert share[f] == pytest.approx(first.contribution)
    assert share.sum() == pytest.approx(1.0)
    assert measured[f] == pytest.approx(first.value, abs=1e-5)
    assert expected[f] == pytest.approx(first.expected, rel=0.2)


def test_the_svg_is_well_formed_with_hostile_names_and_holds_a_style_for_dark_mode():
    model = replace(fit_model(table(300, 9), features=HOSTILE, rng=np.random.default_rng(0)), interval_s=1.0)
    thinned = judge(model, table(200, 1))
    canvas = SvgCanvas(960, height(thinned))
    draw(canvas, thinned, title="<x>\x07", is_time=True, alerts=[(START, START + 9)])
    text = canvas.svg("<x>\x07", whole=True)
    root = ET.fromstring(text)
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "<b>flow</b>&\"'" in words
    assert "\\x1b[2Jpressure" in words
    assert "<x>\\x07" in words
    assert "<b>" not in text
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"nan|inf\b", re.sub(r"<text.*?</text>", "", text))


def test_the_png_is_one_and_shows_the_threshold(judged: Thinned):
    canvas = PngCanvas(960, height(judged))
    draw(canvas, judged, title="pump", is_time=True)
    png = canvas.png()
    width, tall = struct.unpack(">II", png[16:24])
    assert (width, tall) == (960, height(judged))
    length = struct.unpack(">I", png[33:37])[0]
    pixels = np.frombuffer(zlib.decompress(png[41 : 41 + length]), np.uint8).reshape(tall, 1 + 3 * width)[:, 1:]
    red = (pixels.reshape(tall, width, 3) == (0xB3, 0x26, 0x1E)).all(axis=2)
    assert red.any(axis=1).sum() >= 2
    assert red.sum() > 200


def test_plot_writes_what_the_ending_asks_for_and_refuses_others(model: Model, tmp_path: Path, capsys):
    save_model(model, tmp_path / "m.npz")
    lines = [json.loads(row) for row in rows(200)]
    csv = [",".join(["time", *FEATURES]), *(",".join(str(line[k]) for k in ("time", *FEATURES)) for line in lines)]
    (tmp_path / "a.csv").write_text("\n".join(csv) + "\n")
    common = ["plot", str(tmp_path / "a.csv"), "--model", str(tmp_path / "m.npz")]
    assert main([*common, "--time-column", "time", "-o", str(tmp_path / "a.svg")]) == 0
    assert "2023-11-14" in (tmp_path / "a.svg").read_text()
    assert main([*common, "-o", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert main([*common, "-o", str(tmp_path / "a.gif")]) == 2
    (tmp_path / "a.csv").write_text(csv[0] + "\n")
    assert main([*common, "-o", str(tmp_path / "b.svg")]) == 66
    assert "has no rows" in capsys.readouterr().err
    assert not (tmp_path / "b.svg").exists()
