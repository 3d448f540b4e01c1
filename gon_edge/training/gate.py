"""Whether a new model may replace the one in use: both judge rows of the device's own that neither was fitted on.

Seven questions.  Are all values finite?  How many clean rows does it call abnormal?  How well does it tell injected
faults from clean rows, six kinds of them?  How large must a fault be before it raises an alert (`sensitivity`)?  Did
int8 rounding bend its first layer?  How long does a score take, and how large is the file?  The first model of a stream
has none to be compared with and no rows held out for it, which a short warm-up could not spare: it must be finite, calm
on the rows it learned, and not silent.

Synthetic faults are not real ones: moving all of a network's weights told the first apart better and the second worse
(docs/detection.md).  So separation only forbids what is clearly worse, by margins wider than the spread over seeds.

Pure numpy: this module does not know files or processes.  `child` runs it, `trainer` applies what it says, and
docs/retraining.md names its limits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gon_edge.events import Row
from gon_edge.model.daily import follow, is_difference
from gon_edge.model.detector import Detector
from gon_edge.model.file import Model, dumps
from gon_edge.model.gon import Float
from gon_edge.training.rows import TrainingRows, in_order, standardise
from gon_edge.training.sensitivity import (
    DEFAULT_RULE,
    STRENGTHS,
    AlertRule,
    Coarser,
    Told,
    compared,
    silent,
    smallest_told,
)

FAULTS = ("spike", "offset", "drift", "frozen", "noise", "swapped")
"""Kinds of faults injected into held-out clean rows.  ``frozen`` and ``swapped`` need two features that move.  One
alone that stands still only looks calmer, and whether a model says so was a matter of the seed (ROC-AUC 0.13 to 0.82);
a rule of its own in `detector` tells a still sensor."""

ALARM_RATE = 0.02
"""Of the held-out clean rows; ten times the risk asked for where that is more.  Held out or not, the newest rows drift:
on the development sets the rate was 0 on seven, where the champion's was 0 as well, and 0.2 to 0.3 on the wireless
motes, where the champion's was 0.93."""

ALARM_MARGIN = 0.01
"""Above the champion's rate.  Not critical: half of `ALARM_RATE`."""

_CALM_ROWS = 3
"""So many rows above the threshold are no reason, however few there are: one or two of 81 kept a better model out."""

SEPARATION_MARGIN = 0.05
FAULT_MARGIN = 0.15
"""ROC-AUC below the champion's, of all kinds together and of one kind.  Over three seeds the mean moved by at most 0.02
and a kind by 0.07 (development sets)."""

KEPT_SEPARATION = 0.5
"""Of what the champion tells apart better than chance, so much must be left where a person has called rows normal that
it does not know: a model of more states is coarser, and that is what was asked for.  A judgement: a new pump beside the
old one cost a seventh of it, one kind of fault two fifths."""

COARSER = 4.0
"""How many times as large as for the champion offsets may have to be before an alert is raised: two doublings of size,
the mean of its features up and down.  Between a model of half of the rows and one of seven eighths it was 0.07 to 3.1
on the development sets (two seeds each), apart from one whose threshold had jumped from 4.7 to 12.8: that was 4.9."""

QUANTIZATION_ERROR = 0.05
"""Measured 0.004 to 0.007."""

MODEL_BYTES = 4 << 20
"""500 features need 1 MB."""

FIRST_ALARM_RATE = 0.1
"""Of the rows a first model was fitted on; 0 to 0.01 on the development sets."""

_SILENT = (
    f"it would be silent: not even all features {STRENGTHS[-1]:g} standard deviations off raise an alert; wait for "
    "more rows, or leave out odd ones with gon-edge retrain --since"
)

_EPISODES = 24
_FAULT_ROWS = 20
_SPIKE_ROWS = 4
"""Stretches of clean rows that get a fault, how long it lasts, and how long a spike is looked for.  Not critical: 480
rows of each kind held the spread over seeds to the figures above, and the quick average has let a spike of one row go
to a fourth after four (0.7⁴)."""

_SIZE = {"spike": 6.0, "offset": 2.0, "drift": 4.0, "noise": 2.0}
"""Sizes of faults, in standard deviations of the clean rows.  Small enough that a good model does not tell all of them
apart, so that there is something to lose (docs/retraining.md)."""

_CONSTANT = 1e-5
"""A feature whose deviation is less than this part of its mean does not move: what `window.Scaler` believes."""

_LATENCY_ROWS = 100
"""Scores that are timed.  Not critical: enough for a median, and a hundredth of a second."""

_SLOWEST_S = 0.05
"""Seconds a score may take where the interval is unknown.  Not critical: a thousand times what it takes on a server
(docs/cost.md)."""

_CHANCE = 0.5
"""ROC-AUC of a score that knows nothing.  A model that is surely wrong is not counted as worse than that."""


@dataclass(frozen=True, slots=True)
class GateScores:
    """What one model did on the held-out rows.

    Attributes
    ----------
    alarm_rate : float
        Share of the clean rows above the model's threshold.
    separation : mapping of str to float
        ROC-AUC of injected rows against clean ones, for each kind of fault; empty without held-out rows.
    """

    alarm_rate: float
    separation: Mapping[str, float]

    @property
    def mean_separation(self) -> float:
        """Mean over the kinds, one below chance counting as chance; NaN without."""
        kinds = self.separation.values()
        return sum(max(value, _CHANCE) for value in kinds) / len(kinds) if kinds else math.nan


@dataclass(frozen=True, slots=True)
class GateReport:
    """The gate's verdict and what it rests on.

    Attributes
    ----------
    passed : bool
    reasons : tuple of str
        Why not, a line each; empty when passed.
    finite : bool
        False: the model must not be used, whoever asks.
    held_out_rows : int
        Clean rows both judged and neither was fitted on; 0 where there were none: for a first model, and for one
        trained again before there were new rows.
    challenger : GateScores
    champion : GateScores or None
        None for a first model.
    quantization_error : float
        Largest deviation of the int8 first layer from orthonormal rows.
    model_bytes : int
    latency_s : float
        Median time of one score.
    detects : mapping of str to mapping of str to tuple or None
        The smallest fault of each kind on each feature that raises an alert: standard deviations, size in engineering
        units, rows until the alert.  null where none does.
    coarser : float or None
        How many times as large as for the champion a fault has to be; null where nothing can be said.
    """

    passed: bool
    reasons: tuple[str, ...]
    finite: bool
    held_out_rows: int
    challenger: GateScores
    champion: GateScores | None
    quantization_error: float
    model_bytes: int
    latency_s: float
    detects: Mapping[str, Mapping[str, Told | None]] = field(default_factory=dict)
    coarser: float | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON values, as the child says them and the history keeps them."""
        return asdict(self)


# Many parameters: what is judged, on which rows, and what was asked for.
def judge(
    challenger: Model,
    champion: Model | None,
    rows: Float,
    restart: NDArray[np.bool_],
    features: Sequence[str],
    *,
    risk: float,
    seed: int,
    rule: AlertRule = DEFAULT_RULE,
    widened: bool = False,
    withheld: float = 0.0,
) -> GateReport:
    """Compare two models on rows neither was fitted on.

    Parameters
    ----------
    challenger : Model
        Its ``interval_s`` says how long a score may take.
    champion : Model or None
        The model in use; None for the first one, which is judged on the rows it was fitted on.
    rows : ndarray of float32, shape (T, F)
        Clean rows in engineering units, oldest first; NaN where a value is missing.
    restart : ndarray of bool, shape (T,)
        True where a row does not follow the one before it.
    features : sequence of str
        Names of the F columns.  Those that a model lacks are not shown to it; those only it has count as their mean.
    risk : float
        Probability of a false alarm for one normal row that was asked for.
    seed : int
        Of the injected faults; both models get the same ones.
    rule : AlertRule
        By which rows above the threshold become an alert.
    widened : bool
        A person has called rows normal that the champion does not know.  ``rows`` are others, which both must know: the
        challenger may tell faults in them less well, but not much less.
    withheld : float
        For how much of the time of these rows the champion had an alert: what lay under it is not among them.
    """
    finite = challenger.finite
    error = max(_tilt(scale.weight.dequantize()) for scale in challenger.discriminator.scales)
    model_bytes = len(dumps(challenger))
    reasons = [] if finite else ["it holds values that are not finite"]
    new, old = _scores(challenger, champion, rows, restart, features, seed) if finite else (GateScores(1.0, {}), None)
    if old is not None:
        old = replace(old, alarm_rate=max(old.alarm_rate, withheld))
    latency = [_latency_s(model, rows, features) for model in (challenger, champion) if finite and model is not None]
    if error > QUANTIZATION_ERROR:
        reasons.append(f"int8 rounding bent its first layer by {error:.3f}; at most {QUANTIZATION_ERROR:g} is allowed")
    detects: dict[str, dict[str, Told | None]] = {}
    coarser: Coarser | None = None
    if finite and champion is None:
        detects = smallest_told(challenger, rows, restart, features, rule)
        if new.alarm_rate > FIRST_ALARM_RATE:
            reasons.append(f"it calls {_percent(new.alarm_rate)} of the rows it learned abnormal")
        told = any(size for kind in detects.values() for size in kind.values())
        if not told and silent(challenger, rows, restart, features, rule):
            reasons.append(_SILENT)
    if finite and champion is not None and old is not None:
        window, interval_s = challenger.discriminator.window, challenger.interval_s
        whole = int((TrainingRows(rows, restart, window).age >= window).sum())
        reasons += (_blurred if widened else _worse)(new, old, risk, max(1, whole))
        coarser = compared(challenger, champion, rows, restart, features, rule)
        reasons += [] if widened else _too_coarse(coarser)
        slowest = max(interval_s / 2.0, 2.0 * latency[1]) if interval_s else _SLOWEST_S
        if latency[0] > slowest:
            reasons.append(f"a score takes {1e3 * latency[0]:.1f} ms; at most {1e3 * slowest:.1f} ms is allowed")
        if model_bytes > MODEL_BYTES:
            reasons.append(f"its file has {model_bytes} bytes; at most {MODEL_BYTES} are allowed")
    return GateReport(
        passed=not reasons,
        reasons=tuple(reasons),
        finite=finite,
        held_out_rows=len(rows) if champion is not None else 0,
        challenger=new,
        champion=old,
        quantization_error=round(error, 6),
        model_bytes=model_bytes,
        latency_s=latency[0] if latency else math.inf,
        detects=detects,
        coarser=None if coarser is None else coarser.ratio,
    )


def _too_coarse(coarser: Coarser | None) -> list[str]:
    """Whether faults must be several times as large as for the model in use, and what a person can do then."""
    if coarser is None or coarser.ratio <= COARSER:
        return []
    after, before = ("none" if size is None else f"{size:+.4g}" for size in (coarser.size, coarser.size_before))
    reason = (
        f"faults must be {coarser.ratio:.2g} times as large before it raises an alert, on {coarser.feature!r} {after} "
        f"instead of {before}; leave out odd rows with gon-edge retrain --since"
    )
    return [reason]


def _alarming(new: GateScores, old: GateScores, risk: float, rows: int, *, widened: bool = False) -> list[str]:
    """Whether the challenger calls too many of so many normal rows abnormal."""
    allowed = min(max(ALARM_RATE, 10.0 * risk), old.alarm_rate + ALARM_MARGIN)
    # A champion that is itself in alarm says that normal has moved: half as many alarms are a gain then.
    allowed = max(allowed, old.alarm_rate if widened else old.alarm_rate / 2.0, _CALM_ROWS / rows)
    if new.alarm_rate <= allowed:
        return []
    reason = (
        f"it calls {_percent(new.alarm_rate)} of the held-out normal rows abnormal, the model in use "
        f"{_percent(old.alarm_rate)}; at most {_percent(allowed)} is allowed"
    )
    return [reason]


def _blurred(new: GateScores, old: GateScores, risk: float, rows: int) -> list[str]:
    """What speaks against a challenger that knows more states than the champion."""
    reasons = _alarming(new, old, risk, rows, widened=True)
    left = _CHANCE + KEPT_SEPARATION * (old.mean_separation - _CHANCE)
    if new.mean_separation < left:
        reasons.append(
            "with the rows that were called normal it tells injected faults from clean rows with ROC-AUC "
            f"{new.mean_separation:.3f}, the model in use with {old.mean_separation:.3f}; at least {left:.3f} is "
            "needed, so accept a shorter time, or only the new state with --only"
        )
    return reasons


def _worse(new: GateScores, old: GateScores, risk: float, rows: int) -> list[str]:
    """What speaks against the challenger beside the champion, on so many rows."""
    reasons = _alarming(new, old, risk, rows)
    if new.mean_separation < old.mean_separation - SEPARATION_MARGIN:
        reasons.append(
            f"it tells injected faults from clean rows with ROC-AUC {new.mean_separation:.3f}, the model in use with "
            f"{old.mean_separation:.3f}; at most {SEPARATION_MARGIN:g} less is allowed"
        )
    for kind, separation in new.separation.items():
        if max(separation, _CHANCE) < old.separation[kind] - FAULT_MARGIN:
            reasons.append(
                f"faults of kind {kind}: ROC-AUC {separation:.3f}, the model in use {old.separation[kind]:.3f}; "
                f"at most {FAULT_MARGIN:g} less is allowed"
            )
    return reasons


def _percent(share: float) -> str:
    percent = 100.0 * share
    return f"{percent:.0f} %" if percent >= 10.0 else f"{percent:.2g} %"  # .2g writes 100 as 1e+02


def _scores(
    challenger: Model,
    champion: Model | None,
    rows: Float,
    restart: NDArray[np.bool_],
    features: Sequence[str],
    seed: int,
) -> tuple[GateScores, GateScores | None]:
    models = [challenger] if champion is None else [challenger, champion]
    rates = []
    for model in models:
        scores, whole = scored(model, rows, restart, features)
        rates.append(float((scores[whole] > model.threshold).mean()) if whole.any() else 0.0)
    separation: list[dict[str, float]] = [{} for _ in models]
    window = max(model.discriminator.window for model in models)
    clean = None if champion is None else _episodes(rows, restart, window)
    if clean is not None:
        faulty = np.arange(len(clean[0])) >= window  # (W + _FAULT_ROWS,): where a fault is in an episode
        calm = [_episode_scores(model, clean, features)[:, faulty] for model in models]
        # A fault added to the level of a counter is one odd rate and then none: faults go into the other features.
        counters = {name for model in models for name in model.rising}
        # What a reading differs from other days follows it.
        levels = np.array([name not in counters and not is_difference(name, features) for name in features], np.bool_)
        for kind, episodes in _faults(clean, rows, levels, window, np.random.default_rng((seed, 6))):
            follow(episodes, clean, features)
            end = _SPIKE_ROWS if kind == "spike" else _FAULT_ROWS
            for i, model in enumerate(models):
                abnormal = _episode_scores(model, episodes, features)[:, faulty]
                separation[i][kind] = round(roc_auc(abnormal[:, :end].ravel(), calm[i][:, :end].ravel()), 4)
    found = [GateScores(round(rate, 6), told) for rate, told in zip(rates, separation, strict=True)]
    return found[0], None if champion is None else found[1]


def scored(
    model: Model, rows: Float, restart: NDArray[np.bool_], features: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Smoothed scores (T,) of rows (T, F), and where the window behind them is whole."""
    shown = in_order(model.features, rows, features)
    net = model.discriminator
    data = TrainingRows(standardise(model.judged(shown, restart), model.scaler, shown), restart, net.window)
    energies = data.energies(net, np.arange(len(data)))
    raw = net.abnormality_after_restart(energies, data.age, model.typical)
    return model.smoother().smooth(raw, restart), data.age >= net.window


def _episode_scores(model: Model, episodes: Float, features: Sequence[str]) -> NDArray[np.float64]:
    """Scores (E, L) of episodes (E, L, F), each begun anew."""
    count, length, width = episodes.shape
    restart = np.arange(count * length) % length == 0
    return scored(model, episodes.reshape(-1, width), restart, features)[0].reshape(count, length)


def _episodes(rows: Float, restart: NDArray[np.bool_], window: int) -> Float | None:
    """Stretches (E, W + L, F) of unbroken clean rows, evenly spread; None when there is none."""
    length = window + _FAULT_ROWS
    age = TrainingRows(rows, restart, window).age
    ends = np.flatnonzero(age >= length)
    if not len(ends):
        return None
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, _EPISODES).astype(np.intp))]
    stretches: Float = rows[ends[:, None] + np.arange(1 - length, 1)]
    return stretches


def _faults(
    clean: Float, rows: Float, allowed: NDArray[np.bool_], window: int, rng: np.random.Generator
) -> Iterator[tuple[str, Float]]:
    """Every kind of fault in a copy of ``clean`` (E, W + L, F) from row W on, in a quarter of what moves and may."""
    count, features = len(clean), rows.shape[1]
    mean, spread = np.zeros((2, features))
    for f, column in enumerate(rows.T):
        known = column[np.isfinite(column)].astype(np.float64)
        if known.size:
            mean[f], spread[f] = known.mean(), known.std()
    moving = np.flatnonzero(allowed & (spread > _CONSTANT * np.abs(mean)))
    if not len(moving):
        return
    hit = np.zeros((count, 1, features), np.bool_)
    for e in range(count):
        hit[e, 0, rng.permutation(moving)[: -(-len(moving) // 4)]] = True
    sign = rng.choice([-1.0, 1.0], (count, 1, features))
    ramp = np.linspace(0.0, 1.0, _FAULT_ROWS)[:, None]
    first = np.arange(_FAULT_ROWS)[:, None] == 0
    added = {
        "spike": _SIZE["spike"] * first * sign,
        "offset": _SIZE["offset"] * sign,
        "drift": _SIZE["drift"] * ramp * sign,
        "noise": _SIZE["noise"] * rng.standard_normal((count, _FAULT_ROWS, features)),
    }
    for kind in FAULTS:
        if kind in ("frozen", "swapped") and len(moving) < 2:
            continue
        faulty = clean.copy()
        part = faulty[:, window:]
        if kind in added:
            part += np.where(hit, added[kind] * spread, 0.0).astype(np.float32)
        elif kind == "frozen":
            part[:] = np.where(hit, clean[:, window - 1 : window], part)
        else:
            for e in range(count):
                a, b = rng.permutation(moving)[:2]
                ratio = spread[b] / spread[a]
                x, y = part[e, :, a].copy(), part[e, :, b].copy()
                part[e, :, a], part[e, :, b] = mean[a] + (y - mean[b]) / ratio, mean[b] + (x - mean[a]) * ratio
        yield kind, faulty


def _tilt(weight: Float) -> float:
    """How far the rows (H, n) are from orthonormal: the largest entry of ``W W' - 1``, rows of zeros apart."""
    used = weight[np.any(weight != 0.0, axis=1)]
    return float(np.abs(used @ used.T - np.eye(len(used))).max(initial=0.0))


def _latency_s(model: Model, rows: Float, features: Sequence[str]) -> float:
    """Median seconds of one score of the row-at-a-time detector."""
    detector, names = Detector(model), tuple(features)
    fresh = np.zeros(len(names), np.bool_)
    took = []
    for t, values in enumerate(rows[:_LATENCY_ROWS]):
        began = time.perf_counter()
        detector.score(Row("", float(t), names, values, fresh))
        took.append(time.perf_counter() - began)
    return sorted(took)[len(took) // 2]


def roc_auc(high: NDArray[np.float64], low: NDArray[np.float64]) -> float:
    """Probability that a value of ``high`` (N,) is above one of ``low`` (M,); a tie counts half."""
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, "left") + np.searchsorted(ordered, high, "right")
    return float(below.mean() / (2 * len(low)))
