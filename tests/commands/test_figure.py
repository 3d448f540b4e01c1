"""Figures as files: the same bytes everywhere, without a display, a home or a word; what is said without matplotlib."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gon_edge.commands import figure as fig
from gon_edge.model.file import load_model

ROOT = Path(__file__).resolve().parents[2]

DRAW = """
import sys
from gon_edge.commands import figure as fig
with fig.canvas(fig.LIGHT) as figure:
    fig.resize(figure, 200, 100)
    axes = fig.panel(figure, 40, 10, 150, 60)
    fig.across(axes, fig.place(0.0, is_time=True), fig.place(7200.0, is_time=True), is_time=True)
    axes.plot([0.0, 1.0], [1.0, 2.0], color=fig.LIGHT["score"])
    sys.stdout.buffer.write(fig.png(figure) if sys.argv[1] == "png" else fig.svg(figure, "a", css="").encode())
"""


def draw(kind: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", DRAW, kind]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MPL", "XDG"))}
    return subprocess.run(command, capture_output=True, env=kept | environ, timeout=100, check=False)


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_same_figure_gives_the_same_bytes_whatever_the_settings_of_the_user(kind: str, tmp_path: Path):
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nlines.linewidth: 9\nsvg.fonttype: path\n")
    plain = draw(kind, PYTHONHASHSEED="1")
    other = draw(kind, PYTHONHASHSEED="2", MATPLOTLIBRC=str(tmp_path), MPLBACKEND="qtagg", TZ="Asia/Tokyo")
    assert plain.stdout == other.stdout
    assert len(plain.stdout) > 1000
    assert (plain.stderr, other.stderr) == (b"", b"")


def test_a_home_that_cannot_be_written_costs_no_word_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "home").write_text("")  # no folder can be made below a file, not even by root
    (tmp_path / "tmp").mkdir()
    drawn = draw("png", HOME=str(tmp_path / "home"), TMPDIR=str(tmp_path / "tmp"))
    assert (drawn.returncode, drawn.stderr) == (0, b"")
    assert drawn.stdout.startswith(b"\x89PNG")
    assert not list((tmp_path / "tmp").iterdir())


def test_an_empty_cache_costs_no_word(tmp_path: Path):
    drawn = draw("png", HOME=str(tmp_path), MPLCONFIGDIR=str(tmp_path))
    assert (drawn.returncode, drawn.stderr) == (0, b"")


def test_an_svg_holds_no_date_no_style_attribute_and_nothing_from_elsewhere():
    text = draw("svg").stdout.decode()
    root = ET.fromstring(text)
    assert root.get("role") == "img"
    assert root.get("aria-label") == "a"
    attributes = {name for element in root.iter() for name in element.attrib}
    assert not attributes & {"style", "{http://www.w3.org/1999/xlink}href"}
    assert "metadata" not in text
    assert text.replace("http://www.w3.org/2000/svg", "").count("//") == 0
    names = {text.strip() for text in root.itertext() if text.strip()}
    assert {"00:30", "01:00", "1970-01-01 UTC"} <= names


@pytest.mark.parametrize(
    ("begin", "end", "labels"),
    [
        ((2025, 11, 20), (2026, 1, 20), ["2025-12-01", "12-15", "2026-01-01", "01-15"]),
        ((2026, 1, 5), (2026, 1, 8), ["01-05", "01-06", "01-07", "01-08"]),
        ((2023, 3, 1), (2026, 2, 1), ["2023-07", "2024-01", "2024-07", "2025-01", "2025-07", "2026-01"]),
    ],
)
def test_days_have_their_year_where_it_changes(begin: tuple[int, ...], end: tuple[int, ...], labels: list[str]):
    first, last = (datetime(*day, tzinfo=UTC).timestamp() / 86400.0 for day in (begin, end))  # type: ignore[misc]
    with fig.canvas(fig.LIGHT) as figure:
        fig.resize(figure, 960, 200)
        axes = fig.panel(figure, 60, 20, 880, 120)
        fig.across(axes, first, last, is_time=True)
        figure.canvas.draw()
        shown = [label.get_text() for label in axes.get_xticklabels()]
    assert shown == labels or set(labels) <= set(shown)


def test_each_light_colour_has_one_dark_one():
    dark: dict[str, str] = {}
    for name, light in fig.LIGHT.items():
        assert dark.setdefault(light, fig.DARK[name]) == fig.DARK[name], name
        assert f'[fill="{light}"]{{fill:{fig.DARK[name]}}}' in fig.DARK_STYLE
    assert fig.LIGHT.keys() == fig.DARK.keys()


@pytest.mark.parametrize(("back", "fore"), [("ground", "ink"), ("ground", "soft"), ("alert", "threshold")])
@pytest.mark.parametrize("colours", [fig.LIGHT, fig.DARK], ids=["light", "dark"])
def test_text_and_threshold_can_be_read(colours: dict[str, str], back: str, fore: str):
    """Contrast of at least 4.5 for text (WCAG 2.1, 1.4.3)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(colours[back]), luminance(colours[fore])))
    assert (high + 0.05) / (low + 0.05) > 4.5


@pytest.mark.parametrize(
    ("library", "words"),
    [
        ("matplotlib", ["plot", "x.csv", "--model", "pump", "-o", "x.svg"]),
        ("matplotlib", ["report", "pump", "-o", "x.html", "--config", "c.yaml"]),
        ("jinja2", ["report", "pump", "-o", "x.html", "--config", "c.yaml"]),
    ],
)
def test_without_a_library_one_line_says_what_to_install(library: str, words: list[str], tmp_path: Path):
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT, json.dumps([library]), *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert run.returncode == 69
    (line,) = run.stderr.splitlines()
    assert library in line
    assert "pip install 'gon-edge[plot]'" in line
    assert "sudo apt install python3-matplotlib python3-jinja2" in line


def test_scores_need_no_library_for_pictures(tmp_path: Path):
    model = load_model(ROOT / "models" / "motes.npz")
    rows = [",".join(model.features), *([",".join(["1.5"] * len(model.features))] * 50)]
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    command = [sys.executable, "-c", WITHOUT, json.dumps(["matplotlib", "jinja2"]), "score", "a.csv"]
    command += ["--model", str(ROOT / "models" / "motes.npz")]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == 51


WITHOUT = """
import json, sys
sys.modules |= dict.fromkeys(json.loads(sys.argv[1]))  # an import of None fails
from gon_edge.commands.main import main
sys.exit(main(sys.argv[2:]))
"""
