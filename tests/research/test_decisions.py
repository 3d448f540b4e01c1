"""What alerts are worth: counted by hand on small recordings."""

from __future__ import annotations

import numpy as np
import pytest

from gon_edge.research import decisions, protocol, table
from gon_edge.research.datasets import Dataset


def recording(rows: int, faults: list[tuple[int, int]], starts: tuple[int, ...] = (0,)) -> Dataset:
    labels = np.zeros(rows, np.bool_)
    for first, last in faults:
        labels[first:last] = True
    restart = np.zeros(rows, np.bool_)
    restart[list(starts)] = True
    return Dataset("made", np.zeros((10, 1)), np.zeros((rows, 1)), labels, restart=restart)


def scored(rows: int, *spans: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scores = np.full(rows, 0.1)
    for first, last in spans:
        scores[first:last] = 5.0
    return scores, scores > 1.0, np.ones(rows)


def test_a_found_fault_a_missed_one_and_a_false_alert_are_counted():
    made = recording(1000, [(200, 220), (500, 520)])
    figures = decisions.judge(made, *scored(1000, (205, 215), (800, 810)))
    assert figures["found"] == 0.5
    assert figures["false_per_1000"] == pytest.approx(1000 / 960)
    # An alert begins with its first anomalous row and ends with the fifteenth normal one.
    assert figures["in_alarm"] == pytest.approx((9 + 24) / 960)
    assert (figures["silent"], figures["blind"]) == (0.0, 0.0)
    assert figures["f1"] == pytest.approx(2 * 10 / (20 + 40))


def test_two_odd_rows_are_no_alert():
    figures = decisions.judge(recording(300, [(100, 102)]), *scored(300, (100, 102)))
    assert (figures["found"], figures["silent"]) == (0.0, 1.0)


def test_a_fault_over_a_seam_is_one_in_each_run_and_alerts_end_with_theirs():
    made = recording(400, [(150, 250)], starts=(0, 200))
    assert decisions.faults(made.labels, made.restart) == [(150, 200), (200, 250)]
    scores, rows, level = scored(400, (160, 200))
    assert decisions.alerts(scores, rows, level, made.restart) == [(160, 200)]
    assert decisions.judge(made, scores, rows, level)["found"] == 0.5


def test_an_alert_over_everything_is_blind_and_finds_all():
    figures = decisions.judge(recording(300, [(100, 120)]), *scored(300, (0, 300)))
    assert (figures["found"], figures["blind"], figures["in_alarm"]) == (1.0, 1.0, 1.0)


def test_every_run_is_scored_alone_and_peers_get_each_risk():
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(400, 2)), rng.normal(size=(300, 2))
    test[120:140] += 8.0
    test[220:240] += 8.0
    made = recording(300, [(120, 140), (220, 240)], starts=(0, 150))
    made = Dataset("made", train, test, made.labels, restart=made.restart)
    ours = protocol.measure("gon-edge", made, random_state=0, protocol="decisions")
    peer = protocol.measure("pca-40", made, random_state=0, protocol="decisions")
    assert (ours["found"], ours["silent"]) == (1.0, 0.0)
    assert {f"f1@{risk:g}" for risk in protocol.RISKS} <= peer.keys()
    corrected = protocol.measure("pca-40", made, random_state=0)
    costs = {"train_s", "row_us", "row_batch_us", "peak_rss_bytes"}
    assert {key: peer[key] for key in corrected.keys() - costs} == {
        key: value for key, value in corrected.items() if key not in costs
    }
    cells = [{"method": "pca-40", "dataset": "made", "seed": 0, **peer}]
    (chosen,) = table.at_best_setting(table.settings(cells))
    assert chosen["f1"] == max(peer[f"f1{risk}"] for risk in ("", *(f"@{risk:g}" for risk in protocol.RISKS)))
    assert "faults found" in table.markdown([chosen], protocol="decisions")


def judged(method: str, dataset: str, seed: int = 0, **f1: float) -> dict[str, object]:
    """A cell with F1 at settings."""
    return {"method": method, "dataset": dataset, "seed": seed, "ap": 0.5, **{f"f1@{key}": f1[key] for key in f1}}


def test_a_cell_is_taken_apart_into_one_for_each_setting():
    cell = {**judged("pca", "A", low=0.1, high=0.9), "f1": 0.1, "found@low": 1.0, "found@high": 0.0}
    assert table.settings([cell, {"method": "knn@wide", "dataset": "A", "seed": 0, "f1": 0.2}]) == [
        {"method": "pca", "dataset": "A", "seed": 0, "ap": 0.5, "f1": 0.9, "found": 0.0, "setting": "high"},
        {"method": "pca", "dataset": "A", "seed": 0, "ap": 0.5, "f1": 0.1, "found": 1.0, "setting": "low"},
        {"method": "knn", "dataset": "A", "seed": 0, "f1": 0.2, "setting": "wide"},
    ]


def test_left_out_is_each_set_at_what_is_best_on_the_others():
    # "low" is best on the mean, thanks to A alone: without A it is not.
    cells = [judged("pca", "A", low=0.9, high=0.1), judged("pca", "B", low=0.4, high=0.5)]
    cells += [judged("pca", "C", low=0.4, high=0.5)]
    chosen = {cell["dataset"]: cell for cell in table.at_best_setting(table.settings(cells))}
    assert {name: cell["f1"] for name, cell in chosen.items()} == {"A": 0.9, "B": 0.4, "C": 0.4}
    assert {name: cell["f1_left_out"] for name, cell in chosen.items()} == {"A": 0.1, "B": 0.4, "C": 0.4}
    assert "Settings: pca low." in table.markdown(list(chosen.values()), protocol="decisions")


def test_left_out_goes_by_the_mean_over_seeds_and_gives_every_seed_its_own_figure():
    cells = [judged("pca", name, seed, low=0.2 + seed / 10, high=0.24) for name in "AB" for seed in (0, 1)]
    chosen = table.at_best_setting(table.settings(cells))
    assert [(cell["setting"], cell["seed"]) for cell in chosen] == [("low", 0), ("low", 1)] * 2
    assert [cell["f1_left_out"] for cell in chosen] == pytest.approx([0.2, 0.3] * 2)


def test_a_method_without_settings_gains_nothing_by_choice():
    cells = [{"method": "gon-edge", "dataset": name, "seed": 0, "f1": f1} for name, f1 in (("A", 0.3), ("B", 0.5))]
    chosen = table.at_best_setting(table.settings(cells))
    assert [cell["f1_left_out"] for cell in chosen] == [0.3, 0.5]


def test_a_failed_cell_stays_to_be_named():
    failed = {"method": "pca", "dataset": "B", "seed": 0, "error": "killed"}
    chosen = table.at_best_setting(table.settings([judged("pca", "A", low=0.9), failed]))
    assert [cell.get("error") for cell in chosen] == [None, "killed"]
