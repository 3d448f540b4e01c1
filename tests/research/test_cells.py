"""Cells on disk: what a killed command left is read, and goes on."""

import json

from gon_edge.research.cells import append_cell, read_cells


def test_cells_come_back_as_they_were_added(tmp_path):
    path = tmp_path / "cells.jsonl"
    assert read_cells(path) == []
    for seed in range(3):
        append_cell(path, {"method": "pca", "seed": seed})
    assert read_cells(path) == [{"method": "pca", "seed": seed} for seed in range(3)]


def test_a_line_cut_off_anywhere_is_left_out_and_swallows_no_other(tmp_path):
    # Two of the tools ended in a traceback on it, and could not go on.
    whole = [{"method": "knn", "seed": seed, "figures": {"ap": 0.5}} for seed in range(3)]
    last = json.dumps(whole[1])
    for cut in range(len(last) + 1):
        path = tmp_path / f"{cut}.jsonl"
        append_cell(path, whole[0])
        with path.open("a") as file:
            file.write(last[:cut])
        append_cell(path, whole[2])
        kept = whole if cut == len(last) else [whole[0], whole[2]]
        assert read_cells(path) == kept, cut
