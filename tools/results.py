"""The tables of detection results, docs/{results,shipped,decisions,weeks}.csv, and the pages that show parts of them.

    python tools/results.py                                    # write the tables of README and docs anew
    python tools/results.py --check                            # exit status 1 where a page shows something else
    python tools/results.py --cells build/benchmark/cells-corrected.jsonl    # take new figures in first
    python tools/results.py --cells build/times/cells-corrected.jsonl --times    # no more than what each method costs
    python tools/results.py --cells build/benchmark/cells-decisions.jsonl    # detection, and what alerts are worth

A page holds its table between ``<!-- results: NAME -->`` and ``<!-- end of results -->``; what NAME shows is in
`TABLES`.  Each row of the files has the day and the commit its figures are of.  results.csv has a row a method, whose
times and memory are replaced with ``--times`` alone; ``timed`` is their day.  shipped.csv has gon-edge's figures by set
and seed.  decisions.csv has a row for each method, set, seed and setting, so that the choice of settings can be judged
as well; benchmark.png is drawn from it.  weeks.csv is written by tools/weeks.py.  Seeds that lack a set are left out.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import math
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gon_edge.research import datasets, table, weeks  # noqa: E402
from gon_edge.research.cells import Cell, read_cells  # noqa: E402
from gon_edge.research.recordings import PUBLIC  # noqa: E402

RESULTS = ROOT / "docs" / "results.csv"
SHIPPED = ROOT / "docs" / "shipped.csv"
DECISIONS = ROOT / "docs" / "decisions.csv"
WEEKS = ROOT / "docs" / "weeks.csv"
PICTURE = ROOT / "docs" / "img" / "benchmark.png"
NAMES = ("method", "dataset", "seed", "setting")
FIGURES = ("ap", "roc_auc", "best_f1", "f1", "found", "false_per_1000", "in_alarm", "silent", "blind")
"""Fields of decisions.csv, which ends with the day and the commit."""
DETECTION = (
    "seeds",
    "ap",
    "roc_auc",
    "vus_pr",
    "best_f1",
    "f1",
    "false_events_a_day",
    "hit_100",
    "ndcg_100",
    "model_kib",
)
COSTS = ("train_s", "row_us", "peak_mib")
"""Fields of results.csv; the costs are of the machine, in seconds, microseconds and MiB."""
BY_SET = ("ap", "roc_auc", "vus_pr", "best_f1", "f1", "segments_found", "false_alarms", "normal_rows")
"""Fields of shipped.csv between the set and the seed, and the day and the commit."""
OURS = "gon-edge"
BOLD = ("ap", "roc_auc", "vus_pr", "best_f1", "f1")
"""Figures of ours that stand out."""


class Column(NamedTuple):
    """A heading, the field of the row, and how its numbers are written; "" for a text."""

    heading: str
    field: str
    form: str = ".3f"


class Table(NamedTuple):
    """What a page shows: of which file, which field names a row (rows without it are left out), and which columns."""

    page: str
    source: Path
    name_field: str
    heading: str
    columns: tuple[Column, ...]


TABLES = {
    "short": Table(
        "README.md",
        RESULTS,
        "short",
        "Method",
        (
            Column("Average precision", "ap"),
            Column("ROC-AUC", "roc_auc"),
            Column("F1 at its own threshold", "f1"),
        ),
    ),
    "all": Table(
        "docs/detection.md",
        RESULTS,
        "title",
        "Method",
        (
            Column("seeds", "seeds", ".0f"),
            Column("AP", "ap"),
            Column("ROC-AUC", "roc_auc"),
            Column("VUS-PR", "vus_pr"),
            Column("best F1", "best_f1"),
            Column("F1", "f1"),
            Column("false events a day", "false_events_a_day", ".0f"),
            Column("Hit@100", "hit_100"),
            Column("NDCG", "ndcg_100"),
            Column("training", "train_ratio", ".1f"),
            Column("a row", "row_ratio", ".1f"),
            Column("model KiB", "model_kib", ".0f"),
            Column("MiB", "peak_mib", ".0f"),
            Column("measured", "date", ""),
            Column("timed", "timed", ""),
        ),
    ),
    "shipped": Table(
        "docs/detection.md",
        SHIPPED,
        "set",
        "Set",
        (
            Column("AP", "ap"),
            Column("ROC-AUC", "roc_auc"),
            Column("VUS-PR", "vus_pr"),
            Column("best F1 possible", "best_f1"),
            Column("F1 at the threshold", "f1"),
            Column("faults found", "segments_found", ".2f"),
            Column("false events", "false_alarms", ".1f"),
            Column("normal rows", "normal_rows", ".0f"),
        ),
    ),
    "short decisions": Table(
        "README.md",
        DECISIONS,
        "short",
        "Method",
        (
            Column("F1 at its own threshold", "f1"),
            Column("faults found", "found", ".2f"),
            Column("false alerts in 1000 normal rows", "false_per_1000", ".2f"),
            Column("normal rows in alarm", "in_alarm", ".2f"),
            Column("silent sets", "silent_sets", ".1f"),
            Column("blind sets", "blind_sets", ".1f"),
        ),
    ),
    "decisions": Table(
        "docs/detection.md",
        DECISIONS,
        "title",
        "Method",
        (
            Column("sets", "sets", ".0f"),
            Column("seeds", "seeds", ".0f"),
            Column("AP", "ap"),
            Column("±", "sd_ap"),
            Column("ROC-AUC", "roc_auc"),
            Column("best F1", "best_f1"),
            Column("F1", "f1"),
            Column("±", "sd_f1"),
            Column("F1, left out", "f1_left_out"),
            Column("found", "found", ".2f"),
            Column("false alerts in 1000", "false_per_1000", ".2f"),
            Column("in alarm", "in_alarm", ".2f"),
            Column("silent", "silent_sets", ".1f"),
            Column("blind", "blind_sets", ".1f"),
            Column("setting", "setting", ""),
        ),
    ),
    "weeks": Table(
        "docs/detection.md", WEEKS, "made", "Scenario", tuple(Column(name, name, "") for name in weeks.COLUMNS[1:])
    ),
    "recorded weeks": Table(
        "docs/detection.md", WEEKS, "recorded", "Recording", tuple(Column(name, name, "") for name in weeks.COLUMNS[1:])
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables, or check them; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 where a page differs")
    parser.add_argument("--cells", type=Path, help="cells of reproduce_table.py, whose figures replace those there")
    parser.add_argument("--times", action="store_true", help="take in their times and memory, and nothing else")
    options = parser.parse_args(arguments)
    if options.cells and options.times:
        write_rows(RESULTS, take_in_times(read_rows(RESULTS), read_cells(options.cells)))
    elif options.cells:
        cells = read_cells(options.cells)
        write_rows(RESULTS, take_in(read_rows(RESULTS), cells))
        write_rows(SHIPPED, take_in_shipped(read_rows(SHIPPED), cells))
        if any(cell["protocol"] == "decisions" for cell in cells):
            write_rows(DECISIONS, take_in_decisions(read_rows(DECISIONS), cells))
            draw(read_rows(DECISIONS), read_rows(RESULTS))
    results = read_rows(RESULTS)
    rows = {
        RESULTS: costed(results),
        SHIPPED: shipped(read_rows(SHIPPED)),
        DECISIONS: decided(read_rows(DECISIONS), results),
        WEEKS: lived(),
    }
    stale = []
    for name, shown in TABLES.items():
        path = ROOT / shown.page
        before = path.read_text(encoding="utf-8")
        after = with_table(before, name, markdown(rows[shown.source], shown))
        if after != before:
            stale.append(shown.page)
            if not options.check:
                path.write_text(after, encoding="utf-8")
    for page in dict.fromkeys(stale):
        print(f"{page}: {'differs from the files in docs; run tools/results.py' if options.check else 'written'}")
    return int(options.check and bool(stale))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    """Write a file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def take_in(rows: list[dict[str, str]], cells: list[Cell]) -> list[dict[str, str]]:
    """Return the rows with new figures of detection for every method that has run on all eight sets, the best AP first.

    A method without a row gets one, titled by its name.
    """
    by_method = {row["method"]: dict(row) for row in rows}
    for summary in _on_all_eight(cells):
        row = by_method.setdefault(
            summary.method, {**dict.fromkeys(rows[0], ""), "method": summary.method, "title": summary.method}
        )
        found = {
            **summary.means,
            "seeds": summary.seeds,
            "false_events_a_day": summary.false_alarms_a_day,
            "model_kib": summary.means["model_bytes"] / 1024,
        }
        row.update({key: f"{value:.6g}" for key, value in found.items() if key in DETECTION and math.isfinite(value)})
        row.update(_now())
    return sorted(by_method.values(), key=lambda row: -float(row["ap"]))


def costed(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the rows with the time to train and to judge a row, in times of ours."""
    (ours,) = (row for row in rows if row["method"] == OURS)
    made = []
    for row in rows:
        ratios = {
            f"{name}_ratio": f"{float(row[field]) / float(ours[field]):.6g}" if row[field] else ""
            for name, field in (("train", "train_s"), ("row", "row_us"))
        }
        made.append({**row, **ratios})
    return made


def take_in_times(rows: list[dict[str, str]], cells: list[Cell]) -> list[dict[str, str]]:
    """Return the rows with what each method costs that has run on all eight sets; their detection stays."""
    day = _now()["date"]
    costs = {summary.method: summary.means for summary in _on_all_eight(cells)}
    for means in costs.values():
        means["peak_mib"] = means["peak_rss_bytes"] / table.MIB
    return [
        {**row, **{key: f"{costs[row['method']][key]:.6g}" for key in COSTS}, "timed": day}
        if row["method"] in costs
        else row
        for row in rows
    ]


def whole_seeds(cells: list[Cell], names: Sequence[str]) -> list[Cell]:
    """Return the cells of these sets, without seeds that lack a set on which another seed of their method has run."""
    found = {
        (cell["method"], cell["seed"], cell["dataset"]): cell
        for cell in cells
        if "error" not in cell and cell["dataset"] in names
    }
    run: dict[str, set[str]] = defaultdict(set)
    for method, _, name in found:
        run[method].add(name)
    return [
        cell for (method, seed, _), cell in found.items() if all((method, seed, name) in found for name in run[method])
    ]


def _on_all_eight(cells: list[Cell]) -> list[table.Summary]:
    """Return the summary of each method that has run on all of them, the best AP first."""
    summaries = table.summarise(whole_seeds(cells, datasets.DEVELOPMENT))
    return [summary for summary in summaries if summary.sets == len(datasets.DEVELOPMENT)]


def take_in_shipped(rows: list[dict[str, str]], cells: list[Cell]) -> list[dict[str, str]]:
    """Return a row for each of the eight sets and each seed of gon-edge; as they were where the cells lack a set."""
    own = [cell for cell in cells if cell["method"] == OURS and "error" not in cell]
    if not {cell["dataset"] for cell in own} >= set(datasets.DEVELOPMENT):
        return rows
    by_name = {
        (datasets.DEVELOPMENT.index(cell["dataset"]), cell["seed"]): cell
        for cell in own
        if cell["dataset"] in datasets.DEVELOPMENT
    }
    return [
        {"dataset": cell["dataset"], "seed": str(seed), **{key: f"{cell[key]:.6g}" for key in BY_SET}, **_now()}
        for (_, seed), cell in sorted(by_name.items())
    ]


def shipped(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return a row a set with its means over seeds, and one with the means over sets."""
    by_set: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        by_set[row["dataset"]].append(row)
    made = [
        {"set": name, "method": "", **{key: f"{_mean(seeds, key):.6g}" for key in BY_SET}}
        for name, seeds in by_set.items()
    ]
    # Of unequal numbers of rows a mean of counts would say nothing.
    counts = {"false_alarms": "", "normal_rows": ""}
    return [*made, {"set": "mean", "method": OURS, **{key: f"{_mean(made, key):.6g}" for key in BY_SET}, **counts}]


def _mean(rows: list[dict[str, str]], key: str) -> float:
    return sum(float(row[key]) for row in rows) / len(rows)


def take_in_decisions(rows: list[dict[str, str]], cells: list[Cell]) -> list[dict[str, str]]:
    """Return the rows in the order of their names, those of each method in the cells in place of its own.

    A method keeps its rows where they are of a set that the cells lack.
    """
    now = _now()
    by_method: dict[str, dict[tuple[str, ...], dict[str, str]]] = defaultdict(dict)
    for cell in table.settings(whole_seeds(cells, (*datasets.DEVELOPMENT, *datasets.RECORDED))):
        names = {name: str(cell[name]) for name in NAMES}
        figures = {figure: f"{cell[figure]:.6g}" for figure in FIGURES}
        by_method[cell["method"]][tuple(names.values())] = {**names, **figures, **now}
    kept = rows
    for method, own in sorted(by_method.items()):
        lacking = {row["dataset"] for row in rows if row["method"] == method} - {row["dataset"] for row in own.values()}
        if lacking:
            print(f"{method}: left out, it has not run on {', '.join(sorted(lacking))}", file=sys.stderr)
        else:
            kept = [row for row in kept if row["method"] != method]
            kept += own.values()
    return sorted(kept, key=lambda row: [row[name] for name in NAMES])


def at_best_setting(rows: list[dict[str, str]]) -> list[Cell]:
    """Return the cells that rows of decisions.csv stand for, each method at its best setting."""
    cells = [{**row, "seed": int(row["seed"]), **{figure: float(row[figure]) for figure in FIGURES}} for row in rows]
    return table.at_best_setting(cells)


def draw(rows: list[dict[str, str]], results: list[dict[str, str]]) -> None:
    """Draw how decisions.csv ranks its methods, by the titles they have in results.csv."""
    titles = {row["method"]: row["title"].strip("*") for row in results}
    cells = [{**cell, "method": titles.get(cell["method"], cell["method"])} for cell in at_best_setting(rows)]
    table.picture(cells, PICTURE)


def decided(rows: list[dict[str, str]], results: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return a row a method, as of results.csv, of what decisions.csv holds; the best F1 first.

    A mean over fewer sets is another quantity: such a method comes after the others.
    """
    chosen = at_best_setting(rows)
    titles = {row["method"]: row for row in results}
    made = []
    for summary in sorted(table.summarise(chosen), key=lambda summary: (-summary.sets, -summary.means["f1"])):
        found = {
            **summary.means,
            "sets": summary.sets,
            "seeds": summary.seeds,
            **{f"{figure}_sets": summary.means[figure] * summary.sets for figure in ("silent", "blind")},
            **({"sd_ap": summary.sd_ap, "sd_f1": summary.sd_f1} if summary.seeds > 1 else {}),
        }
        setting = next(cell["setting"] for cell in chosen if cell["method"] == summary.method)
        # What has never been ranked has no line in results.csv, and goes by its name.
        title = titles.get(summary.method, {"title": summary.method, "short": ""})
        named = {"method": summary.method, "title": title["title"], "short": title["short"]}
        figures = {"sd_ap": "", "sd_f1": "", **{key: f"{value:.6g}" for key, value in found.items()}}
        made.append({**named, "setting": setting, **figures})
    return made


def lived() -> list[dict[str, str]]:
    """Return a row a scenario of what weeks.csv holds, and one for all made machines together."""
    courses = weeks.courses_of(read_rows(WEEKS))
    made = []
    for field, which in (("made", False), ("recorded", True)):
        own = [course for course in courses if (course.name in PUBLIC) == which]
        made += [{"made": "", "recorded": "", "method": "", **_named(row, field)} for row in weeks.by_scenario(own)]
    return made


def _named(row: list[str], field: str) -> dict[str, str]:
    return {field: row[0], **dict(zip(weeks.COLUMNS[1:], row[1:], strict=True))}


def _now() -> dict[str, str]:
    """Return the day and the commit that figures are of."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    return {"date": str(datetime.datetime.now(datetime.UTC).date()), "commit": commit}


def markdown(rows: list[dict[str, str]], shown: Table) -> str:
    """Return a table as a page shows it."""
    lines = [
        "| " + " | ".join([shown.heading, *(column.heading for column in shown.columns)]) + " |",
        "|" + "---|" * (1 + len(shown.columns)),
    ]
    for row in rows:
        if not row[shown.name_field]:
            continue
        cells = [row[shown.name_field], *(_figure(row, column) for column in shown.columns)]
        if row["method"] == OURS:
            cells[0] = f"**{cells[0]}**"
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _figure(row: dict[str, str], column: Column) -> str:
    if not row[column.field] or not column.form:
        return row[column.field]
    text = format(float(row[column.field]), column.form)
    text = text.removeprefix("0") if column.form == ".3f" else text
    return f"**{text}**" if row["method"] == OURS and column.field in BOLD else text


def with_table(text: str, name: str, shown: str) -> str:
    """Return a page with a table put between its marks."""
    begin, end = f"<!-- results: {name} -->", "<!-- end of results -->"
    found = re.subn(f"{re.escape(begin)}.*?{re.escape(end)}", f"{begin}\n{shown}\n{end}", text, flags=re.DOTALL)
    if found[1] != 1:
        sys.exit(f"results: the mark {begin} stands {found[1]} times; once is right")
    return found[0]


if __name__ == "__main__":
    sys.exit(main())
