"""The summary of cells, and the tool end to end on a small set."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gon_edge.research import table

ROOT = Path(__file__).resolve().parents[2]


def a_cell(method, dataset, seed, ap, **figures):
    return {"method": method, "dataset": dataset, "seed": seed, "protocol": "corrected", "ap": ap, **figures}


CELLS = [
    a_cell("pca", "A", 0, 0.8, false_alarms=1.0, normal_rows=43_200.0, model_bytes=2048),
    a_cell("pca", "B", 0, 0.2, false_alarms=0.0, normal_rows=43_200.0, model_bytes=2048),
    a_cell("knn", "A", 0, 0.4),
    a_cell("knn", "A", 1, 0.6),
    a_cell("knn", "B", 0, 0.5),
    a_cell("knn", "B", 1, 0.7),
    a_cell("gon-edge", "A", 0, 0.9),
    a_cell("gon-edge", "B", 0, 0.3),
]


def by_method(cells):
    return {summary.method: summary for summary in table.summarise(cells)}


def test_means_are_over_sets_of_means_over_seeds_and_the_best_comes_first():
    assert [summary.method for summary in table.summarise(CELLS)] == ["gon-edge", "knn", "pca"]
    assert by_method(CELLS)["knn"].means["ap"] == pytest.approx((0.5 + 0.6) / 2)


def test_the_spread_is_that_of_the_mean_over_sets():
    assert by_method(CELLS)["knn"].sd_ap == pytest.approx(np.std([0.45, 0.65], ddof=1))
    assert by_method(CELLS)["pca"].sd_ap == 0.0


def test_a_seed_that_did_not_run_on_every_set_is_no_part_of_the_spread_and_not_counted():
    knn = by_method([*CELLS, a_cell("knn", "A", 2, 0.0)])["knn"]
    assert knn.sd_ap == pytest.approx(np.std([0.45, 0.65], ddof=1))
    assert knn.seeds == 2


def test_the_worst_ratio_is_to_the_best_peer_and_the_product_is_none():
    ours = by_method(CELLS)["gon-edge"]
    assert (ours.worst_set, ours.worst_ratio) == ("B", pytest.approx(0.3 / 0.6))
    assert by_method(CELLS)["pca"].worst_ratio == pytest.approx(0.2 / 0.6)
    assert by_method(CELLS)["knn"].worst_ratio == pytest.approx(0.5 / 0.8)  # 0.8 is pca's, not the product's 0.9


def test_false_alarms_are_pooled_over_all_normal_rows():
    assert by_method(CELLS)["pca"].false_alarms_a_day == pytest.approx(1.0)


def test_a_method_that_lacks_sets_is_named_and_so_is_a_failed_cell():
    cells = [*CELLS, a_cell("lof", "A", 0, 0.99), {"method": "usad", "dataset": "A", "seed": 0, "error": "killed"}]
    text = table.markdown(cells)
    assert "Not over all sets, so not comparable: lof." in text
    assert "Failed: usad on A (seed 0)." in text


def test_mean_ranks_share_ties_and_leave_out_who_did_not_run_everywhere():
    cells = [a_cell(m, s, 0, ap) for m, s, ap in [("a", "A", 0.9), ("b", "A", 0.9), ("c", "A", 0.1)]]
    cells += [a_cell(m, s, 0, ap) for m, s, ap in [("a", "B", 0.5), ("b", "B", 0.4), ("c", "B", 0.6)]]
    assert table.mean_ranks([*cells, a_cell("d", "A", 0, 1.0)]) == {"a": 1.75, "c": 2.0, "b": 2.25}


def test_the_critical_difference_is_the_published_one():
    # Demšar 2006, section 3.2.2: four methods on fourteen sets.
    assert table.critical_difference(4, 14) == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=0.01)


def test_markdown_has_a_row_a_method_and_units_in_the_heading():
    lines = table.markdown(CELLS).splitlines()
    assert lines[0].startswith("| method | AP |")
    assert lines[2].startswith("| gon-edge | 0.600 |")
    assert "model KiB" in lines[0]
    assert " 2 |" in next(line for line in lines if line.startswith("| pca |"))  # 2048 bytes


def test_csv_has_a_line_a_cell_and_every_figure():
    rows = list(csv.DictReader(io.StringIO(table.comma_separated(CELLS))))
    assert len(rows) == len(CELLS)
    assert {"method", "seed", "ap", "false_alarms"} <= set(rows[0])


def test_the_picture_is_a_png(tmp_path):
    pytest.importorskip("matplotlib")
    table.picture(CELLS, tmp_path / "table.png")
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def a_folder(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.zeros((150, 2), dtype=np.uint8)
    labels[60:80, 1] = 1
    test = rng.normal(size=(150, 2)) + 6 * labels
    np.savez(tmp_path / "pump.npz", train=rng.normal(size=(200, 2)), test=test, labels=labels)
    return tmp_path


def run_tool(folder, *arguments):
    command = [sys.executable, ROOT / "tools" / "reproduce_table.py", "--data", folder, "--out", folder / "out"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=100, check=False)


def test_the_tool_runs_cells_prints_the_table_and_takes_up_where_it_stopped(a_folder):
    pytest.importorskip("matplotlib")
    first = run_tool(a_folder, "--methods", "largest-z,random", "--sets", "pump", "--seeds", "2")
    assert first.returncode == 0, first.stderr
    assert "| largest-z | 1.0" in first.stdout
    assert "3/3" in first.stderr  # largest-z has no seed and runs once
    cells = a_folder / "out" / "cells-corrected.jsonl"
    with cells.open("a") as file:
        file.write('{"method": "rand')  # a run killed while it wrote
    again = run_tool(a_folder, "--methods", "largest-z,random", "--sets", "pump", "--seeds", "3")
    assert again.returncode == 0, again.stderr
    assert "1/1" in again.stderr
    assert {suffix for path in (a_folder / "out").iterdir() if (suffix := path.suffix)} == {
        ".jsonl",
        ".md",
        ".csv",
        ".png",
    }
    seeds = [cell["seed"] for line in cells.read_text().splitlines() if (cell := _json(line)).get("method") == "random"]
    assert seeds == [0, 1, 2]  # the half line swallowed none
    assert all("peak_rss_bytes" in json.loads(line) for line in cells.read_text().splitlines()[:3])


def _json(line):
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return {}


def test_the_tool_names_what_it_does_not_know(a_folder):
    assert run_tool(a_folder, "--methods", "nothing", "--sets", "pump").returncode == 66
    unknown_set = run_tool(a_folder, "--methods", "random", "--sets", "nowhere")
    assert unknown_set.returncode == 66
    assert "there are: pump" in unknown_set.stderr
