"""What docs/decisions.csv takes in, and what the pages show of it."""

import importlib.util
import sys
from pathlib import Path

import pytest

from gon_edge.research import datasets
from gon_edge.research.machines import SCENARIOS
from gon_edge.research.recordings import PUBLIC

ROOT = Path(__file__).resolve().parents[2]
SETS = (*datasets.DEVELOPMENT, *datasets.RECORDED)
SAME = {"ap": 0.6, "roc_auc": 0.8, "best_f1": 0.7, "found": 0.5, "false_per_1000": 0.1, "in_alarm": 0.2, "blind": 0.0}


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("results", ROOT / "tools" / "results.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def a_run(method, sets, **figures):
    """A cell a set; the first set's fault is never found."""
    common = {"method": method, "seed": 0, "protocol": "decisions", **SAME, **figures}
    return [{**common, "dataset": name, "silent": float(name == sets[0])} for name in sets]


def test_a_run_over_all_sets_replaces_the_methods_rows_and_nobody_elses(tool):
    before = tool.take_in_decisions([], a_run("pca", SETS, f1=0.1) + a_run("gon-edge", SETS, f1=0.2))
    after = tool.take_in_decisions(before, a_run("gon-edge", SETS, f1=0.3))
    f1 = {(row["method"], row["f1"]) for row in after}
    assert f1 == {("pca", "0.1"), ("gon-edge", "0.3")}
    assert len(after) == 2 * len(SETS)
    assert {*after[0]} == {*tool.NAMES, *tool.FIGURES, "date", "commit"}


def test_a_method_that_lacks_a_set_or_failed_there_changes_nothing(tool, capsys):
    before = tool.take_in_decisions([], a_run("pca", SETS, f1=0.1))
    failed = {"method": "pca", "dataset": SETS[-1], "seed": 0, "protocol": "decisions", "error": "killed"}
    assert tool.take_in_decisions(before, [*a_run("pca", SETS[:-1], f1=0.9), failed]) == before
    assert f"pca: left out, it has not run on {SETS[-1]}\n" in capsys.readouterr().err


def test_a_method_on_fewer_sets_says_on_how_many_and_comes_after_the_others(tool):
    rows = tool.take_in_decisions([], a_run("pca", SETS, f1=0.1) + a_run("tranad", SETS[:-4], f1=0.9))
    assert [(row["method"], row["sets"]) for row in tool.decided(rows, [])] == [("pca", "19"), ("tranad", "15")]


def test_a_method_is_shown_at_its_best_setting_with_counts_of_silent_and_blind_sets(tool):
    cells = a_run("pca", SETS, **{"f1": 0.1, "f1@0.001": 0.1, "f1@1e-05": 0.4, "found@1e-05": 0.25})
    cells += a_run("knn", SETS, f1=0.5)
    titles = [{"method": name, "title": name.upper(), "short": ""} for name in ("pca", "knn")]
    first, second = tool.decided(tool.take_in_decisions([], cells), titles)
    assert (first["title"], first["setting"]) == ("KNN", "")
    assert (second["setting"], second["f1"], second["f1_left_out"], second["found"]) == ("1e-05", "0.4", "0.4", "0.25")
    assert (second["silent_sets"], second["blind_sets"]) == ("1", "0")


def test_new_figures_replace_old_ones_with_their_day_and_only_where_every_set_was_run(tool):
    old = {"seeds": "1", "ap": "0.1", "hit_100": "", "date": "2026-11-22", "commit": "57ec0c3"}
    rows = [{"method": name, "title": name, "short": "", **old} for name in ("pca", "knn")]
    figures = {"protocol": "corrected", "model_bytes": 2048, "peak_rss_bytes": 1 << 20}
    cells = [
        {"method": "knn", "dataset": name, "seed": seed, "ap": 0.5, **figures}
        for name in datasets.DEVELOPMENT
        for seed in (0, 1)
    ]
    elsewhere = {"method": "knn", "dataset": datasets.RECORDED[0], "seed": 2, "ap": 0.9, **figures}
    cells += [elsewhere, {"method": "pca", "dataset": datasets.DEVELOPMENT[0], "seed": 0, "ap": 0.9, **figures}]
    knn, pca = tool.take_in(rows, cells)
    assert (pca["ap"], pca["date"]) == ("0.1", "2026-11-22")
    assert (knn["ap"], knn["seeds"], knn["model_kib"]) == ("0.5", "2", "2")
    assert knn["date"] > "2026-11-22"
    assert knn["commit"] != "57ec0c3"


def test_times_and_memory_are_taken_in_alone_and_a_new_method_gets_a_row(tool):
    old = {"ap": "0.9", "train_s": "4", "row_us": "8", "peak_mib": "90", "date": "2026-11-22", "timed": "2026-11-22"}
    figures = {"protocol": "corrected", "seed": 0, "ap": 0.5, "model_bytes": 2048}
    cost = {"train_s": 40.0, "row_us": 7.0, "peak_rss_bytes": 1 << 20}
    cells = [{"method": name, "dataset": on, **figures, **cost} for name in ("pca", "lof") for on in SETS]
    rows = [{"method": "pca", "title": "PCA", **old}]

    pca, lof = tool.take_in(rows, cells)
    assert [pca[key] for key in ("ap", "train_s", "row_us", "peak_mib", "timed")] == [
        "0.5",
        "4",
        "8",
        "90",
        "2026-11-22",
    ]
    assert (lof["title"], lof["ap"], lof["train_s"], lof["timed"]) == ("lof", "0.5", "", "")

    (timed,) = tool.take_in_times(rows, cells)
    assert [timed[key] for key in ("ap", "train_s", "row_us", "peak_mib", "date")] == [
        "0.9",
        "40",
        "7",
        "1",
        "2026-11-22",
    ]
    assert timed["timed"] > "2026-11-22"
    assert tool.take_in_times(rows, cells[1:]) == rows


def test_a_seed_that_lacks_a_set_is_left_out(tool):
    cells = [*a_run("pca", SETS, f1=0.1), {**a_run("pca", SETS, f1=0.9)[0], "seed": 1}]
    assert {row["seed"] for row in tool.take_in_decisions([], cells)} == {"0"}


def test_what_ships_has_a_row_a_set_and_means_over_seeds_and_sets(tool):
    names = datasets.DEVELOPMENT
    cells = [
        {"method": "gon-edge", "dataset": name, "seed": seed, **dict.fromkeys(tool.BY_SET, 0.2 + 0.2 * seed)}
        for seed in (1, 0)
        for name in names
    ]
    rows = tool.take_in_shipped([], cells)
    assert [(row["dataset"], row["seed"]) for row in rows[:3]] == [(names[0], "0"), (names[0], "1"), (names[1], "0")]
    assert tool.take_in_shipped(rows, cells[: len(names) - 1]) == rows
    *sets, mean = tool.shipped(rows)
    assert [row["set"] for row in sets] == list(names)
    assert (sets[0]["ap"], mean["f1"], mean["false_alarms"]) == ("0.3", "0.3", "")


def test_weeks_have_a_row_a_scenario_and_recordings_a_table_of_their_own(tool):
    rows = tool.lived()
    made, recorded = ([row[field] for row in rows if row[field]] for field in ("made", "recorded"))
    assert made[-1] == "all"
    assert set(made[:-1]) <= set(SCENARIOS)
    assert set(recorded) <= {*PUBLIC, "all"}
