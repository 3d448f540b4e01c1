"""Pictures of scores: both formats hold what the model says, for light and dark, and names do no harm."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from e2e.daemons import rows
from judged import FEATURES, START, judge, model_of, table

from gon_edge.commands import figure
from gon_edge.commands.main import main
from gon_edge.commands.plot import causes_element, element, picture
from gon_edge.commands.thinned import Thinned
from gon_edge.errors import InputError
from gon_edge.events import Row, Verdict
from gon_edge.model.file import Model, save_model

Image = pytest.importorskip("PIL.Image")

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = ("<b>$flow^2$</b>&\"'", "\x1b[2Jpressure", "current" * 12, "_温度")


@pytest.fixture(scope="module")
def model() -> Model:
    return model_of(FEATURES)


@pytest.fixture(scope="module")
def judged(model: Model) -> Thinned:
    """Calm, a fault, calm, a sensor that is gone, two hours of nothing, calm."""
    values = np.concatenate([table(500, 1), table(30, 2, fault=6.0), table(470, 3)])
    return judge(model, values, silent_from=800, lacks=slice(650, 700))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def is_near(shown: np.ndarray, colour: str) -> np.ndarray:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (abs(shown - wanted) <= 2).all(axis=2)


def words(svg: str) -> list[str]:
    return ["".join(text.itertext()).strip() for text in ET.fromstring(svg).iter(f"{SVG}text")]


def test_the_svg_says_what_stands_where(judged: Thinned):
    said = words(picture(judged, "a.svg", title="pump", is_time=True).decode())
    assert {"pump", "score", "what the score is made of", *FEATURES} <= set(said)
    assert {"threshold", "above the threshold", "actual", "expected", "no value"} <= set(said)
    assert "2023-11-15 UTC" in said  # beside the hours
    assert {"22:30", "00:00"} & set(said) or "11-15" in said
    assert any(re.fullmatch(r"highest [\d.]+ at 2023-11-14 22:2\d:\d\d UTC", text) for text in said)


def test_rows_without_a_time_are_numbered(judged: Thinned):
    said = words(picture(judged, "a.svg", title="pump", is_time=False).decode())
    assert "row" in said
    assert not any("UTC" in text for text in said)


def test_names_are_text_and_nothing_else_in_both_formats():
    judged = judge(model_of(HOSTILE, 300), table(200, 1))
    svg = picture(judged, "a.svg", title="<x>\x07 $x$", is_time=True).decode()
    said = words(svg)
    assert "<b>$flow^2$</b>&\"'" in said
    assert "\\x1b[2Jpressure" in said
    assert "<x>\\x07 $x$" in said
    assert said.count("_温度") == 2  # matplotlib leaves a label that begins with "_" out of a legend
    assert any(text.startswith("currentcurrent") and text.endswith("…") for text in said)
    assert "<b>" not in svg
    assert not re.search(r"nan|inf\b", re.sub(r"<text.*?</text>", "", svg, flags=re.DOTALL))
    assert picture(judged, "a.png", title="$x_$", is_time=True).startswith(b"\x89PNG")


def test_lines_break_where_nothing_was_recorded(judged: Thinned):
    root = ET.fromstring(picture(judged, "a.svg", title="pump", is_time=True).decode())
    score = next(
        path.attrib["d"]
        for path in root.iter(f"{SVG}path")
        if path.get("stroke") == figure.LIGHT["score"] and path.get("clip-path")
    )
    assert score.count("M") == 2
    first, second = ([float(x) for x in re.findall(r"([\d.]+) [\d.]+ ", stroke)] for stroke in score.split("M")[1:])
    assert min(second) - max(first) > 600.0


def test_faults_and_missing_values_are_shaded(judged: Thinned):
    shown = pixels(picture(judged, "a.png", title="pump", is_time=True))
    for colour in ("alert", "gone", "threshold", "score", "expected", "part0"):
        assert is_near(shown, figure.LIGHT[colour]).sum() > 100, colour


def test_alerts_are_shaded_in_every_panel(judged: Thinned):
    svg = element(judged, title="pump", alerts=[(START + 500.0, START + 540.0)])
    root = ET.fromstring(svg)
    shades = [path for path in root.iter("path") if path.get("fill") == figure.LIGHT["alert"] and path.get("clip-path")]
    assert len(shades) == 2 + len(FEATURES)
    assert "alert" in ["".join(text.itertext()) for text in root.iter("text")]


def test_the_causes_of_an_alert_are_drawn_beside_other_days(judged: Thinned):
    times = START + np.arange(0.0, 600.0, 10.0)
    days = {"flow": [(times, np.full(60, float(value), np.float32)) for value in (15, 18)]}
    svg = causes_element(judged, ["flow", "current"], title="<why>", alert=(START + 500.0, START + 540.0), days=days)
    root = ET.fromstring(svg)
    assert root.get("aria-label") == "<why>"
    said = ["".join(text.itertext()).strip() for text in root.iter("text")]
    assert {"flow", "current", "actual", "expected", "earlier days"} <= set(said)
    assert not {"pressure", "score"} & set(said)
    faint = [
        path for path in root.iter("path") if path.get("stroke") == figure.LIGHT["other"] and path.get("clip-path")
    ]
    assert len(faint) == 2
    shades = [path for path in root.iter("path") if path.get("fill") == figure.LIGHT["alert"] and path.get("clip-path")]
    assert len(shades) == 2


@pytest.mark.parametrize(("theme", "ground"), [("auto", "#ffffff"), ("light", "#ffffff"), ("dark", "#1a201e")])
def test_a_theme_is_light_or_dark_and_an_svg_follows_its_viewer(judged: Thinned, theme: str, ground: str):
    png = picture(judged, "a.png", title="pump", is_time=True, theme=theme)
    assert is_near(pixels(png), ground).mean() > 0.5
    svg = picture(judged, "a.svg", title="pump", is_time=True, theme=theme).decode()
    assert ("prefers-color-scheme: dark" in svg) == (theme == "auto")
    assert f'fill="{ground}"' in svg


@pytest.mark.parametrize(
    "times",
    [[0.0], [253402300799.0], [0.0, 253402300799.0], [1e9, 1e9 + 1e-3], [5.0, 4.0, 3.0], [1e9] * 3],
    ids=["1970", "9999", "all time", "a millisecond", "backwards", "at once"],
)
@pytest.mark.parametrize("is_time", [True, False])
def test_whatever_the_times_there_is_a_picture(times: list[float], is_time: bool):
    thinned = Thinned(("a",))
    for at in times:
        verdict = Verdict("pump", at, 0.0, 2.0, False, (), (), "1")
        row = Row("pump", at, ("a",), np.array([1e30], np.float32), np.zeros(1, np.bool_))
        thinned.add(at, row, verdict, _Explains())  # type: ignore[arg-type]
    assert picture(thinned, "a.svg", title="pump", is_time=is_time)


class _Explains:
    """A detector that can say nothing of a value."""

    def account(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.zeros(1), np.full(1, np.nan, np.float32), np.ones(1)


def test_another_ending_is_refused(judged: Thinned):
    with pytest.raises(InputError, match=r"pictures are \.svg or \.png"):
        picture(judged, "a.gif", title="pump", is_time=True)


def test_plot_writes_what_the_ending_asks_for_and_refuses_others(model: Model, tmp_path: Path, capsys):
    save_model(model, tmp_path / "m.npz")
    lines = [json.loads(row) for row in rows(200)]
    csv = [",".join(["time", *FEATURES]), *(",".join(str(line[k]) for k in ("time", *FEATURES)) for line in lines)]
    (tmp_path / "a.csv").write_text("\n".join(csv) + "\n")
    common = ["plot", str(tmp_path / "a.csv"), "--model", str(tmp_path / "m.npz")]
    for options in (["--time-column", "time"], []):  # found by its name
        assert main([*common, *options, "-o", str(tmp_path / "a.svg")]) == 0
        assert "2023-11-14" in (tmp_path / "a.svg").read_text()
    assert main([*common, "--theme", "dark", "-o", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert main([*common, "-o", str(tmp_path / "a.gif")]) == 2
    (tmp_path / "a.csv").write_text(csv[0] + "\n")
    assert main([*common, "-o", str(tmp_path / "b.svg")]) == 66
    assert "has no rows" in capsys.readouterr().err
    assert not (tmp_path / "b.svg").exists()


def test_a_plot_is_of_one_machine(model: Model, tmp_path: Path, capsys):
    save_model(model, tmp_path / "m.npz")
    lines = [json.loads(row) for row in rows(20)]
    csv = [",".join(["time", "machine", *FEATURES])]
    for who in ("x", "y"):
        csv += [",".join([str(line["time"]), who, *(str(line[k]) for k in FEATURES)]) for line in lines]
    (tmp_path / "a.csv").write_text("\n".join(csv) + "\n")
    common = ["plot", str(tmp_path / "a.csv"), "--model", str(tmp_path / "m.npz"), "-o", str(tmp_path / "a.svg")]
    assert main(common) == 66
    assert "a picture is of one machine; name it with --only: x, y" in capsys.readouterr().err
    assert main([*common, "--only", "y"]) == 0
    assert "20 rows, 0 of them anomalous" in capsys.readouterr().err
