"""Pictures drawn from a model that is fitted here: docs/img/explain-*.png of docs/explanation.md, and plot.png.

The pump is that of the tutorial: speed, flow, power and the warmth of a bearing, a row a second, and the flow blocked
for a while.  The seed is fixed, so what the page says about the pictures stays true::

    python tools/make_pictures.py
"""

from __future__ import annotations

import argparse
import io
import math
import random
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gon_edge.commands import plot  # noqa: E402
from gon_edge.commands.thinned import Thinned  # noqa: E402
from gon_edge.estimator import GONDetector  # noqa: E402
from gon_edge.events import Row  # noqa: E402
from gon_edge.model.detector import Detector  # noqa: E402
from gon_edge.model.explain import Explainer  # noqa: E402
from gon_edge.model.file import Model  # noqa: E402
from gon_edge.training.fit import fit_model  # noqa: E402
from gon_edge.training.rows import TrainingRows  # noqa: E402

FEATURES = ("speed", "flow", "power", "bearing")
UNITS = ("1/min", "l/s", "kW", "°C")
NORMAL_ROWS, CLOGGED, ROWS = 900, (900, 960), 1100
DRAWN = slice(840, 1060)
BEGIN, POWER_UNKNOWN = 1_767_607_200.0, range(1200, 1320)  # 2026-01-05 10:00 UTC
GREEN, RED, GREY, BLUE = "#00897b", "#d0443a", "#8a8f98", "#3366cc"


def pump(rows: int, *, clogged: tuple[int, int], hunting_from: int) -> NDArray[np.float64]:
    """Return rows (T, F) of the pump; from ``hunting_from`` on its speed swings eight times as fast, but no further."""
    rng = random.Random(1)
    bearing, out = 41.0, []
    for t in range(rows):
        blocked = 0.3 if clogged[0] <= t < clogged[1] else 0.0
        speed = 2900 + 60 * math.sin(t / 25 if t < hunting_from else 8 * t / 25) + rng.gauss(0, 4)
        flow = speed / 145 * (1 - blocked) + rng.gauss(0, 0.1)
        power = speed / 2000 * (1 + blocked / 2) + rng.gauss(0, 0.01)
        bearing += (30 + 8 * power - bearing) / 60 + rng.gauss(0, 0.02)
        out.append((speed, flow, power, bearing))
    return np.array(out)


def climb(model: Model, rows: NDArray[np.float64], path: Path) -> None:
    """Draw a window of the fault, some steps of its climb, and how the score falls on the way."""
    net = model.discriminator
    end = CLOGGED[0] + 24  # the fault has been there for 24 of the window's 40 rows
    explains = Explainer(net)
    look = explains.look(model.scaler.transform(rows[end - net.window : end]))
    reached = [explains.climb(look, model.typical, steps=n) for n in range(13)]
    steps = [reached[n] for n in (0, 1, 2, 4, 12)]
    way = [explains.look(window).abnormality for window in reached]
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.9), width_ratios=(1, 1, 0.9))
    ago = np.arange(-net.window + 1, 1)
    for axis, name in zip(axes, ("flow", "power"), strict=False):
        f = FEATURES.index(name)
        for i, step in enumerate(steps[1:-1], 1):
            axis.plot(ago, model.scaler.inverse(step)[:, f], color=GREEN, alpha=0.15 + 0.12 * i, lw=1)
        axis.plot(ago, model.scaler.inverse(steps[0])[:, f], color=RED, lw=2, label="was")
        axis.plot(ago, model.scaler.inverse(steps[-1])[:, f], color=GREEN, lw=2, label="should have been")
        axis.set(title=f"{name}, {UNITS[f]}", xlabel="rows before now")
    axes[0].legend(frameon=False, fontsize=8, loc="center right")
    axes[2].plot(way, color=RED, marker="o", ms=3, lw=1.5)
    axes[2].axhline(model.typical, color=GREEN, lw=1.2, ls="--")
    axes[2].text(12, model.typical + 4, "a typical normal window", color=GREEN, fontsize=8, ha="right")
    axes[2].set(title="how abnormal the window is", xlabel="steps", xticks=range(0, 13, 4), ylim=(0, None))
    _save(figure, path)


def threshold(model: Model, rows: NDArray[np.float64], path: Path) -> None:
    """Draw flow and score over time, with the threshold and the fault."""
    detector = GONDetector()
    detector.model_ = model
    score = detector.decision_function(rows)
    t = np.arange(len(rows)) - CLOGGED[0]
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9, 3.6), sharex=True, height_ratios=(1, 1.4))
    top.plot(t[DRAWN], rows[DRAWN, 1], color=GREY, lw=1.2)
    top.set(title="flow, l/s")
    bottom.plot(t[DRAWN], score[DRAWN], color=GREEN, lw=1.5)
    over = np.where(score > model.threshold, score, np.nan)
    bottom.plot(t[DRAWN], over[DRAWN], color=RED, lw=2)
    bottom.axhline(model.threshold, color=GREY, ls="--", lw=1.2)
    bottom.text(t[DRAWN][0], model.threshold + 0.5, "threshold", color=GREY, fontsize=8)
    for axis in (top, bottom):
        axis.axvspan(0, CLOGGED[1] - CLOGGED[0], color=RED, alpha=0.08, lw=0)
    alert = int(np.flatnonzero(over[CLOGGED[0] :] > 0)[2])
    bottom.annotate("alert", (alert, score[CLOGGED[0] + alert]), (-25, 14), arrowprops={"arrowstyle": "->"}, fontsize=9)
    bottom.set(title="score", xlabel="seconds since the pump clogged", ylim=(0, None))
    _save(figure, path)


def scales(model: Model, rows: NDArray[np.float64], hunting: NDArray[np.float64], path: Path) -> None:
    """Draw what each scale adds to the score: to one wild reading, and to normal readings in an order that is not."""
    net = model.discriminator
    spike = rows[: NORMAL_ROWS - 1].copy()
    spike[-60, 2] += 0.6
    shown = slice(-120, None)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
    for axis, values, title in (
        (axes[0], spike, "one wild reading"),
        (axes[1], hunting[:NORMAL_ROWS], "a speed that swings too fast"),
    ):
        z = model.scaler.transform(values)
        data = TrainingRows(z, np.zeros(len(z), np.bool_), net.window)
        energy = data.energies(net, np.arange(len(z))[-140:])
        terms = [scale.share * np.log1p(energy[:, s] / scale.tau) for s, scale in enumerate(net.scales)]
        x = np.arange(len(terms[0]))[shown] - len(terms[0]) + 1
        names = [f"{scale.rows} row{'s' if scale.rows > 1 else ''}" for scale in net.scales]
        colours = ("#b2dfdb", "#4db6ac", "#00897b", "#004d40")
        axis.stackplot(x, [term[shown] for term in terms], labels=names, colors=colours, lw=0)
        axis.set(title=title, xlabel="rows before now")
    axes[0].set(ylabel="added to the score")
    axes[0].legend(frameon=False, fontsize=8, title="the last", title_fontsize=8, reverse=True, loc="upper left")
    _save(figure, path)


def scores(model: Model, rows: NDArray[np.float64], path: Path) -> None:
    """Draw what ``gon-edge plot`` draws; the power is not told for two minutes."""
    detector, thinned = Detector(model), Thinned(FEATURES)
    for t, values in enumerate(rows.astype(np.float32)):
        stale = np.array([name == "power" and t in POWER_UNKNOWN for name in FEATURES])
        row = Row("pump", BEGIN + t, FEATURES, np.where(stale, np.float32(np.nan), values), stale)
        thinned.add(row.timestamp, row, detector.score(row), detector)
    title = f"pump.csv, model pump.npz: {thinned.rows} rows, {thinned.anomalies} anomalous"
    drawn = Image.open(io.BytesIO(plot.picture(thinned, path.name, title=title, is_time=True)))
    # 64 colours are enough for lines and text, and make a third of the bytes.
    drawn.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def _save(figure: plt.Figure, path: Path) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set_size(10)
        axis.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Fit the model and draw the pictures into the folder named, or docs/img."""
    parser = argparse.ArgumentParser(description="Draw the pictures of docs/explanation.md.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs" / "img")
    folder: Path = parser.parse_args().folder
    rows = pump(ROWS, clogged=CLOGGED, hunting_from=ROWS)
    model = fit_model(rows[:600], features=FEATURES, rng=np.random.default_rng(0))
    climb(model, rows, folder / "explain-climb.png")
    threshold(model, rows, folder / "explain-threshold.png")
    hunting = pump(ROWS, clogged=(ROWS, ROWS), hunting_from=NORMAL_ROWS - 60)
    scales(model, rows, hunting, folder / "explain-scales.png")
    scores(model, pump(1600, clogged=CLOGGED, hunting_from=1600), folder / "plot.png")
    print(f"threshold {model.threshold:.2f}, typical {model.typical:.2f}; 4 pictures in {folder}")


if __name__ == "__main__":
    main()
