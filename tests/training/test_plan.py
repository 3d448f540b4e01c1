"""What a job would take of the rows there are, and in which memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from jobs import MIB, plain_job, stored

from gon_edge.training.plan import plan, predicted_peak_bytes, rows_within
from gon_edge.training.settings import FitSettings


def test_a_plan_says_what_would_be_used(tmp_path):
    planned = plan(plain_job(stored(tmp_path, 2500, quarantined=range(100)), window=40))
    assert (planned.stored_rows, planned.quarantined_rows, planned.usable_rows, planned.rows) == (2500, 100, 2400, 2400)
    assert (planned.features, planned.windows, planned.batch) == (2, 2400, 256)
    assert (planned.shrunk, planned.refused) == ("", "")
    assert planned.predicted_peak_bytes == predicted_peak_bytes(2400, 2, FitSettings(window=40))
    assert planned.predicted_peak_bytes < planned.budget_bytes


def test_rows_that_are_learned_twice_are_planned_for(tmp_path):
    folder = stored(tmp_path, 2500)
    planned = plan(plain_job(folder, window=40, accepted=((1100.0, 1200.0),)))
    assert planned.rows == 2500
    assert planned.predicted_peak_bytes == predicted_peak_bytes(2500 + 125, 2, FitSettings(window=40))
    budget = predicted_peak_bytes(2000, 2, FitSettings(window=40))
    tight = plan(plain_job(folder, window=40, accepted=((1100.0, 1200.0),), budget_bytes=budget))
    assert tight.rows < 2000
    assert tight.predicted_peak_bytes <= budget


def test_a_plan_that_must_shrink_says_to_what_and_why(tmp_path):
    folder = stored(tmp_path, 5000)
    asked = plan(plain_job(folder, max_rows=1000))
    assert asked.rows == 1000
    assert asked.shrunk.startswith("1000 of 5000 rows, in blocks spread over their whole span: as many as")
    budget = predicted_peak_bytes(3000, 2, FitSettings(window=15))
    tight = plan(plain_job(folder, budget_bytes=budget))
    assert tight.rows == 3000
    assert tight.shrunk.endswith("more do not fit the memory budget")
    assert tight.predicted_peak_bytes <= budget


def test_a_plan_that_cannot_be_done_says_what_to_do(tmp_path):
    folder = stored(tmp_path, 100)
    assert plan(plain_job(folder)).refused == ""
    assert "100 normal rows are stored and 120 are needed; wait" in plan(plain_job(folder, window=60)).refused
    assert "0 normal rows" in plan(plain_job(folder, stream="fan")).refused
    assert "raise retrain.memory_budget" in plan(plain_job(folder, budget_bytes=20 * MIB)).refused


@given(features=st.integers(1, 500), window=st.integers(1, 200), budget=st.integers(0, 1 << 30))
def test_as_many_rows_as_are_said_to_fit_are_predicted_within_the_budget(features, window, budget):
    settings = FitSettings(window=window)
    rows = rows_within(budget, features, settings)
    assert rows == 0 or predicted_peak_bytes(rows, features, settings) <= budget
    assert predicted_peak_bytes(rows + 1, features, settings) > budget
