"""From cells to tables: means over sets, spread over seeds, the worst ratio to the best peer, Markdown, CSV, a picture.

A cell is the JSON object of one (method, set, seed); see :mod:`gon_edge.research.protocol` for its figures.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gon_edge.research.cells import Cell

OURS = frozenset({"gon-edge"})
"""Methods that are not peers: a ratio to the best peer leaves them out."""

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Summary:
    """One method over all its sets and seeds.

    Attributes
    ----------
    means : dict
        Mean of each figure over sets of the mean over seeds; NaN figures are left out.
    sd_ap, sd_f1 : float
        Standard deviation over seeds of the mean AP and of the mean F1 over sets; 0 with one seed.
    worst_ratio : float
        Smallest over sets of this method's mean AP over the best peer's on that set.
    worst_set : str
        Where that is.
    false_alarms_a_day : float
        Events over all sets per day of all their normal rows, at one row a second; mean over seeds.
    sets : int
        What it is a mean of; sets that only some methods have run are named by :func:`incomplete`.
    seeds : int
        Those that ran on every one of these sets.
    """

    method: str
    means: dict[str, float]
    sd_ap: float
    sd_f1: float
    worst_ratio: float
    worst_set: str
    false_alarms_a_day: float
    sets: int
    seeds: int


def summarise(cells: Iterable[Cell]) -> list[Summary]:
    """Return one summary a method, the best mean AP first."""
    by_method: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        if "error" not in cell:
            by_method[cell["method"]].append(cell)
    ap = {method: _by_set(rows, "ap") for method, rows in by_method.items()}
    best_peer = {
        name: max(
            (means[name] for method, means in ap.items() if method not in OURS and name in means), default=math.nan
        )
        for name in {name for means in ap.values() for name in means}
    }
    summaries = [_summary(method, rows, ap[method], best_peer) for method, rows in by_method.items()]
    return sorted(summaries, key=lambda summary: -summary.means.get("ap", -math.inf))


def settings(cells: Iterable[Cell]) -> list[Cell]:
    """Return a cell for each setting that was judged, named by its field ``setting``.

    A figure ``f1@1e-05`` is F1 at the setting ``1e-05``, and a method ``pca@wide`` is the setting ``wide`` of ``pca``;
    what a cell says of no setting holds for all of them.
    """
    made = []
    for cell in cells:
        method, _, own = cell["method"].partition("@")
        plain = {key: value for key, value in cell.items() if "@" not in key}
        for name in sorted({key.partition("@")[2] for key in cell if "@" in key}) or [""]:
            judged = {key.removesuffix(f"@{name}"): cell[key] for key in cell if name and key.endswith(f"@{name}")}
            made.append(plain | judged | {"method": method, "setting": own or name})
    return made


def at_best_setting(cells: Iterable[Cell]) -> list[Cell]:
    """Return the cells of :func:`settings` that have their method's setting of the best mean F1 over all sets.

    Each gets ``f1_left_out``: the set's F1 at the setting that is best on all *other* sets.  What F1 is above it, the
    choice has gained by knowing the set.
    """
    by_method: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        by_method[cell["method"]].append(cell)
    chosen = []
    for rows in by_method.values():
        measured = [row for row in rows if "error" not in row]
        best = _best_setting(measured)
        names = {row["dataset"] for row in measured}
        others = {name: _best_setting([row for row in measured if row["dataset"] != name]) for name in names}
        f1 = {(row["dataset"], row["seed"], row["setting"]): row["f1"] for row in measured}
        for row in rows:
            if "error" in row:
                chosen.append(row)
            elif row["setting"] == best:
                # With a single set there is no other; nothing was chosen then.
                key = row["dataset"], row["seed"], others[row["dataset"]] if len(names) > 1 else best
                chosen.append({**row, "f1_left_out": f1.get(key, math.nan)})
    return chosen


def _best_setting(rows: Sequence[Cell]) -> str:
    """Return the setting of the best mean over sets of the mean F1 over seeds; the first of equal ones."""
    by_setting: dict[str, list[Cell]] = defaultdict(list)
    for row in rows:
        by_setting[row["setting"]].append(row)
    means = {setting: np.mean(list(_by_set(group, "f1").values())) for setting, group in by_setting.items()}
    return max(means, key=means.__getitem__, default="")


def incomplete(summaries: Sequence[Summary]) -> list[str]:
    """Return the methods whose mean is over fewer sets than others' and hence is not comparable."""
    most = max((summary.sets for summary in summaries), default=0)
    return [summary.method for summary in summaries if summary.sets < most]


def mean_ranks(cells: Iterable[Cell], figure: str = "ap") -> dict[str, float]:
    """Return each method's mean rank over sets (1 is best, ties share), for methods that ran on every set."""
    rows: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        if "error" not in cell:
            rows[cell["method"]].append(cell)
    table = {method: _by_set(group, figure) for method, group in rows.items()}
    names = {name for means in table.values() for name in means}
    table = {method: means for method, means in table.items() if set(means) == names}
    ranks: dict[str, list[float]] = defaultdict(list)
    for name in names:
        for method, means in table.items():
            better = sum(other[name] > means[name] for other in table.values())
            equal = sum(other[name] == means[name] for other in table.values())
            ranks[method].append(better + (equal + 1) / 2)
    return dict(sorted(((m, float(np.mean(r))) for m, r in ranks.items()), key=lambda item: item[1]))


def critical_difference(methods: int, sets: int, *, significance: float = 0.05) -> float:
    """Return how far mean ranks must be apart to differ (Nemenyi).

    References
    ----------
    Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7 (2006), section 3.2.2.
    """
    from scipy.stats import studentized_range  # type: ignore[import-untyped]

    critical = float(studentized_range.ppf(1 - significance, methods, np.inf)) / math.sqrt(2)
    return critical * math.sqrt(methods * (methods + 1) / (6 * sets))


_COLUMNS: tuple[tuple[str, str, str], ...] = (
    # heading, figure, format
    ("AP", "ap", ".3f"),
    ("± seeds", "sd_ap", ".3f"),
    ("ROC-AUC", "roc_auc", ".3f"),
    ("VUS-PR", "vus_pr", ".3f"),
    ("VUS-ROC", "vus_roc", ".3f"),
    ("worst ratio", "worst_ratio", ".2f"),
    ("best F1", "best_f1", ".3f"),
    ("F1", "f1", ".3f"),
    ("false alarms/day", "false_alarms_a_day", ".1f"),
    ("found", "segments_found", ".2f"),
    ("delay rows", "delay_rows", ".0f"),
    ("PA%20", "pa20_f1", ".3f"),
    ("PA-F1", "pa_f1", ".3f"),
    ("PA-F1 random", "pa_f1_random", ".3f"),
    ("Hit@100%", "hit_100", ".3f"),
    ("NDCG", "ndcg_100", ".3f"),
    ("train s", "train_s", ".1f"),
    ("µs/row", "row_us", ".0f"),
    ("µs/row batch", "row_batch_us", ".1f"),
    ("parameters", "parameters", ",.0f"),
    ("model KiB", "model_bytes", ".0f"),
    ("RSS MiB", "peak_rss_bytes", ".0f"),
)
_DECISION_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("AP", "ap", ".3f"),
    ("± seeds", "sd_ap", ".3f"),
    ("ROC-AUC", "roc_auc", ".3f"),
    ("best F1", "best_f1", ".3f"),
    ("F1", "f1", ".3f"),
    ("F1, left out", "f1_left_out", ".3f"),
    ("faults found", "found", ".2f"),
    ("false alerts/1000 rows", "false_per_1000", ".2f"),
    ("normal rows in alarm", "in_alarm", ".2f"),
    ("silent sets", "silent_sets", ".1f"),
    ("blind sets", "blind_sets", ".1f"),
)
_PUBLISHED_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("F1 (point-adjusted)", "f1", ".3f"),
    ("random, same alarm rate", "f1_random_same_rate", ".3f"),
    ("F1 unadjusted", "f1_unadjusted", ".3f"),
    ("AP", "ap", ".3f"),
    ("ROC-AUC", "roc_auc", ".3f"),
)


def markdown(cells: Sequence[Cell], *, protocol: str = "corrected") -> str:
    """Return the main table, one row a method, and under it AP (published: F1) a set."""
    summaries = summarise(cells)
    columns = {"published": _PUBLISHED_COLUMNS, "decisions": _DECISION_COLUMNS}.get(protocol, _COLUMNS)
    lines = [_line(["method", *[heading for heading, _, _ in columns]])]
    lines.append(_line(["---", *["---:"] * len(columns)]))
    for summary in summaries:
        lines.append(_line([summary.method, *[_text(_figure(summary, key), form) for _, key, form in columns]]))
    figure = "ap" if protocol == "corrected" else "f1"
    names = sorted({cell["dataset"] for cell in cells})
    lines += ["", f"{figure.upper()} a set, mean over seeds:", "", _line(["method", *names])]
    lines.append(_line(["---", *["---:"] * len(names)]))
    for summary in summaries:
        means = _by_set([cell for cell in cells if cell["method"] == summary.method and "error" not in cell], figure)
        lines.append(_line([summary.method, *[_text(means.get(name, math.nan), ".3f") for name in names]]))
    if protocol == "decisions":
        used = {cell["method"]: cell["setting"] for cell in cells if cell.get("setting")}
        lines += ["", f"Settings: {', '.join(f'{method} {setting}' for method, setting in used.items()) or 'default'}."]
        lines += ["F1, left out: each set at the setting that is best on the others."]
    if partial := incomplete(summaries):
        lines += ["", f"Not over all sets, so not comparable: {', '.join(partial)}."]
    failed = [f"{cell['method']} on {cell['dataset']} (seed {cell['seed']})" for cell in cells if "error" in cell]
    if failed:
        lines += ["", f"Failed: {'; '.join(failed)}."]
    return "\n".join(lines) + "\n"


def comma_separated(cells: Sequence[Cell]) -> str:
    """Return every cell as one CSV line, all figures."""
    text = io.StringIO()
    keys = ["method", "dataset", "seed", "protocol"]
    figures = sorted({key for cell in cells for key in cell} - set(keys))
    writer = csv.DictWriter(text, [*keys, *figures], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(cells)
    return text.getvalue()


def picture(cells: Sequence[Cell], path: Path, *, figure: str = "ap") -> None:
    """Draw a box of `figure` over sets and seeds for each method, and the mean ranks with the critical difference.

    A method that has run on fewer sets than others is left out.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    summaries = summarise(cells)[::-1]
    partial = incomplete(summaries)
    summaries = [summary for summary in summaries if summary.method not in partial]
    values = [
        [cell[figure] for cell in cells if cell["method"] == s.method and _is_number(cell.get(figure))]
        for s in summaries
    ]
    ranks = mean_ranks(cells, figure)
    fig, (left, right) = plt.subplots(1, 2, figsize=(12, 1.2 + 0.3 * len(summaries)), layout="constrained", sharey=True)
    heights = range(1, len(summaries) + 1)
    left.boxplot(values, orientation="horizontal", widths=0.6, flierprops={"markersize": 3})
    left.plot([np.mean(v) if v else np.nan for v in values], list(heights), "D", color="tab:red", markersize=4)
    left.set_yticks(list(heights), [s.method for s in summaries])
    left.set_xlabel(f"{figure.upper()} over sets and seeds (red: mean)")
    left.set_xlim(0, 1)
    sets = len({cell["dataset"] for cell in cells})
    right.plot([ranks.get(s.method, np.nan) for s in summaries], list(heights), "o")
    if len(ranks) > 1 and sets > 1:
        best = min(ranks.values())
        distance = critical_difference(len(ranks), sets)
        right.axvspan(best, best + distance, alpha=0.15, label=f"not separable from the best (CD {distance:.1f})")
        right.legend(loc="lower left")
    right.set_xlabel("mean rank over sets, 1 is best")
    for axis in (left, right):
        axis.grid(axis="x", alpha=0.3)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def _summary(method: str, rows: list[Cell], ap: dict[str, float], best_peer: dict[str, float]) -> Summary:
    figures = sorted({key for row in rows for key, value in row.items() if _is_number(value)} - {"seed"})
    means = {figure: float(np.mean(list(values.values()))) for figure in figures if (values := _by_set(rows, figure))}
    seeds = sorted({row["seed"] for row in rows})
    # Only seeds that ran on every set: a mean over fewer sets is another quantity.
    a_seed = [[row for row in rows if row["seed"] == seed] for seed in seeds]
    whole = [group for group in a_seed if len(_by_set(group, "ap")) == len(ap)]
    ratios = {name: value / best_peer[name] for name, value in ap.items() if best_peer.get(name, 0) > 0}
    worst = min(ratios, key=ratios.__getitem__, default="")
    days = sum(row.get("normal_rows", 0.0) for row in rows) / 86_400
    return Summary(
        method=method,
        means=means,
        sd_ap=_deviation(whole, "ap"),
        sd_f1=_deviation(whole, "f1"),
        worst_ratio=ratios.get(worst, math.nan),
        worst_set=worst,
        false_alarms_a_day=sum(row.get("false_alarms", 0.0) for row in rows) / days if days else math.nan,
        sets=len(ap),
        seeds=len(whole),
    )


def _deviation(seeds: list[list[Cell]], figure: str) -> float:
    """Return the standard deviation over seeds of a figure's mean over sets; 0 with one seed."""
    means = [np.mean(list(values.values())) for rows in seeds if (values := _by_set(rows, figure))]
    return float(np.std(means, ddof=1)) if len(means) > 1 else 0.0


def _by_set(rows: list[Cell], figure: str) -> dict[str, float]:
    """Return a figure's mean over seeds for each set that has it."""
    values: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if _is_number(row.get(figure)):
            values[row["dataset"]].append(float(row[figure]))
    return {name: float(np.mean(group)) for name, group in values.items()}


def _figure(summary: Summary, key: str) -> float:
    if key in {"sd_ap", "worst_ratio", "false_alarms_a_day"}:
        return float(getattr(summary, key))
    if key in {"silent_sets", "blind_sets"}:
        return summary.sets * summary.means.get(key.removesuffix("_sets"), math.nan)
    value = summary.means.get(key, math.nan)
    return value / {"model_bytes": 1024, "peak_rss_bytes": MIB}.get(key, 1)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else ""


def _line(parts: Sequence[str]) -> str:
    return f"| {' | '.join(parts)} |"
