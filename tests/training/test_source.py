"""Which rows a round reads, from the store or from a file."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from jobs import plain_job, stored

from gon_edge.errors import InputError
from gon_edge.events import Row
from gon_edge.model.daily import LEAST_SPAN_S, SUFFIX, DayMemory
from gon_edge.state.store import Store
from gon_edge.training.rows import BLOCK_ROWS
from gon_edge.training.source import Source


def test_all_usable_rows_are_read_in_order_with_restarts_where_some_are_left_out(tmp_path):
    asked = plain_job(stored(tmp_path, 3000, quarantined=range(1000, 1300)), until=3500.0, since=1100.0)
    source = Source(asked)
    rows, _, _ = source.read(source.usable)
    expected = [i for i in range(100, 2501) if not 1000 <= i < 1300]
    assert (source.stored, source.quarantined, source.usable) == (2401, 300, len(expected))
    assert rows.values[:, 0].tolist() == expected
    assert (rows.timestamps - 1000.0).tolist() == expected
    assert (rows.timestamps[rows.restart] - 1000.0).tolist() == [100, 1300]
    everything = dataclasses.replace(asked, include_quarantined=True)
    assert Source(everything).usable == 2401


def test_how_many_of_the_newest_rows_are_withheld_is_counted_with_the_time(tmp_path):
    source = Source(plain_job(stored(tmp_path, 3000, quarantined=range(1000, 1300)), until=3499.0))
    newest = 3499.0 - 1000.0  # rows are a second apart from 1000 on
    assert source.withheld(0.0) == pytest.approx(300 / (newest + 1.0))
    assert source.withheld(2199.0) == pytest.approx(100 / 1300)
    assert source.withheld(2300.0) == 0.0
    assert source.withheld(9999.0) == 0.0


def test_a_sample_begins_a_piece_at_each_block_and_keeps_rows_together(tmp_path):
    asked = plain_job(stored(tmp_path, 9000))
    rows, _, _ = Source(asked).read(3000)
    assert len(rows.values) == 3000
    steps = np.diff(rows.values[:, 0])
    assert ((steps == 1.0) | rows.restart[1:]).all()
    assert rows.restart.sum() <= 3000 // BLOCK_ROWS
    np.testing.assert_array_equal(rows.values[:, 1], 3.0 * rows.values[:, 0])


def test_how_long_a_feature_may_stand_still_is_taken_from_all_rows_not_from_the_sample(tmp_path):
    fresh = np.zeros(2, np.bool_)
    with Store.open(tmp_path) as store:
        for i in range(6000):
            values = np.float32([i // 2500, i])
            store.add_row(Row("pump", float(i), ("slow", "fast"), values, fresh, i == 0), False, now=0.0)
        store.flush(0.0)
    asked = plain_job(tmp_path)
    assert Source(asked).read(2000)[1].tolist() == [2500, 1]


def test_features_are_those_of_the_newest_rows_then_older_ones_and_none_without_a_value(tmp_path):
    fresh = {n: np.zeros(n, np.bool_) for n in (2, 3)}
    with Store.open(tmp_path) as store:
        for i in range(100):
            store.add_row(Row("pump", float(i), ("old", "a"), np.float32([1, i]), fresh[2], i == 0), False, now=0.0)
        for i in range(100, 200):
            values = np.float32([i, 2 * i, np.nan])
            store.add_row(Row("pump", float(i), ("b", "a", "dead"), values, fresh[3]), False, now=0.0)
        store.flush(0.0)
    asked = plain_job(tmp_path)
    source = Source(asked)
    assert source.features == ("b", "a", "dead", "old")
    rows, _, _ = source.read(200)
    assert rows.features == ("b", "a", "old")
    assert rows.values[150].tolist()[:2] == [150.0, 300.0]
    assert np.isnan(rows.values[150, 2])
    assert np.isnan(rows.values[50, 0])


def test_what_a_person_confirmed_comes_first_as_well_with_the_window_before_it(tmp_path):
    asked = plain_job(stored(tmp_path, 400), window=15, accepted=((1300.0, 1309.0), (1360.0, 1362.0)))
    source = Source(asked)
    rows, _, twice = source.read(source.usable)
    first = [*range(286, 310), *range(346, 363)][-30:]  # two windows at most
    assert (twice, len(rows.values)) == (30, 430)
    assert rows.values[:, 0].tolist() == [*first, *range(400)]
    assert np.flatnonzero(rows.restart).tolist() == [0, first.index(346), 30]
    assert Source(plain_job(tmp_path, window=15)).read(400)[2] == 0


def test_a_fault_is_never_read_whatever_else_is_asked_for(tmp_path):
    folder = stored(tmp_path, 300, quarantined=range(100, 120))
    asked = plain_job(folder, faults=((1100.0, 1119.0), (1200.0, 1204.0)), include_quarantined=True)
    source = Source(asked)
    rows, _, _ = source.read(source.usable)
    assert source.usable == 275
    assert rows.values[:, 0].tolist() == [*range(100), *range(120, 200), *range(205, 300)]
    assert (rows.timestamps[rows.restart] - 1000.0).tolist() == [0, 120, 205]


def test_rows_that_a_person_named_come_with_a_window_before_them_though_they_are_left_out(tmp_path):
    folder = stored(tmp_path, 3000, quarantined=range(100, 120))
    source = Source(plain_job(folder, window=15))
    rows, first = source.named((1100.0, 1119.0))
    assert (rows.values[:, 0].tolist(), first) == ([*map(float, range(85, 120))], 15)
    rows, first = source.named((995.0, 1002.0))
    assert (rows.values[:, 0].tolist(), first) == ([0.0, 1.0, 2.0], 0)
    rows, first = source.named((1500.0, 9000.0))
    assert (rows.values[first, 0], len(rows.values) - first) == (500.0, 1000)
    assert source.named((9000.0, 9010.0)) is None
    assert source.named((0.0, 10.0)) is None


# -- from a file -------------------------------------------------------------------------------------------------------


def test_a_file_is_read_instead_of_the_store_with_its_times_and_gaps(tmp_path):
    lines = ["datetime;a;note;b", *(f"2026-01-01T00:{i // 60:02}:{i % 60:02}Z;{i};text;{i / 4}" for i in range(100))]
    del lines[41:61]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    asked = plain_job(tmp_path, rows_file=str(tmp_path / "rows.csv"))
    source = Source(asked)
    assert (source.stored, source.quarantined, source.usable) == (80, 0, 80)
    rows, _, _ = source.read(80)
    assert rows.features == ("a", "b")
    assert rows.values[:, 0].tolist() == [*range(40), *range(60, 100)]
    assert np.flatnonzero(rows.restart).tolist() == [0, 40]
    assert rows.timestamps[1] - rows.timestamps[0] == 1.0
    (tmp_path / "rows.csv").write_text("time,a\n0,1\n1,2\n")
    assert Source(asked).read(2)[0].timestamps.tolist() == [0.0, 1.0]


def test_a_file_has_its_own_interval_and_rows_of_it_are_one_piece(tmp_path):
    (tmp_path / "rows.csv").write_text("time,a\n" + "\n".join(f"{60 * i},{i}" for i in range(3000)))
    asked = plain_job(tmp_path, rows_file=str(tmp_path / "rows.csv"), rows_options={"since": {"ago_s": 6000.0}})
    source = Source(asked)
    rows, _, _ = source.read(source.usable)
    assert (source.interval_s, source.usable, rows.restart.sum()) == (60.0, 101, 1)
    job = dataclasses.replace(asked, alerts_a_day=1.0).at_interval(source.interval_s)
    assert (job.interval_s, job.settings.risk) == (60.0, 60.0 / 86400.0)


def test_options_that_nobody_knows_are_one_line(tmp_path):
    (tmp_path / "rows.csv").write_text("time,a\n0,1\n1,2\n")
    with pytest.raises(InputError, match="how to read it is not understood"):
        Source(plain_job(tmp_path, rows_file=str(tmp_path / "rows.csv"), rows_options={"colour": "red"}))


def test_rows_of_a_file_without_times_are_counted(tmp_path):
    (tmp_path / "rows.csv").write_text("a\n" + "\n".join(map(str, range(3000))))
    asked = plain_job(tmp_path, rows_file=str(tmp_path / "rows.csv"), interval_s=2.0)
    rows, _, _ = Source(asked).read(3000)
    assert rows.timestamps.tolist() == [2.0 * i for i in range(3000)]
    assert rows.restart.sum() == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [("time,a\nyesterday,1\n", r"rows.csv:2: 'yesterday' is no time"), ("time\n1\n", "has no column of values")],
)
def test_a_file_that_cannot_be_learned_from_says_where(tmp_path, text, says):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        Source(plain_job(tmp_path, rows_file=str(tmp_path / "rows.csv")))


def days_stored(tmp_path, days, *, quarantined=range(0), features=("indoor", "meter")):
    """A row in ten minutes: a reading that knows day and night, and a counter."""
    fresh = np.zeros(len(features), np.bool_)
    rng = np.random.default_rng(0)
    rows = []
    with Store.open(tmp_path) as store:
        for i in range(round(days * 144)):
            values = np.float32([18.0 + 3.0 * (36 <= i % 144 < 132) + 0.1 * rng.normal(), 5.0 * i])[: len(features)]
            rows.append(values)
            store.add_row(Row("pump", 600.0 * i, features, values, fresh, i == 0), i in quarantined, now=0.0)
        store.flush(0.0)
    return np.array(rows)


def test_rows_of_some_days_come_with_their_differences_to_other_days_and_counters_without(tmp_path):
    wrong = range(700, 720)
    rows = days_stored(tmp_path, 10, quarantined=wrong)
    source = Source(plain_job(tmp_path, until=1e9))
    read, longest, _ = source.read(source.usable)
    assert source.features == ("indoor", "meter", "indoor" + SUFFIX, "meter" + SUFFIX)
    assert read.features == ("indoor", "meter", "indoor" + SUFFIX)
    assert len(longest) == 3
    kept = np.array([i for i in range(1440) if i not in wrong])
    assert (read.timestamps / 600.0).tolist() == kept.tolist()
    assert (read.timestamps[read.restart] / 600.0).tolist() == [0, 720]
    later = read.timestamps >= 7 * 86400.0
    # Rows under an alert are of other days, too.
    expected = DayMemory().take(600.0 * np.arange(1440), ("indoor",), rows[:, :1])[kept][later, 0]
    np.testing.assert_allclose(read.values[later, 2], expected, atol=0.02)  # the store keeps 16 bits of a value
    assert np.isfinite(read.values[~later, 2]).all()  # the first days are compared with those after them
    assert np.abs(read.values[~later, 2]).max() < 0.5


@pytest.mark.parametrize(
    ("patterns", "compared"), [({}, ["indoor"]), ({"gauge": ("met*",)}, ["indoor", "meter"]), ({"counter": ("*",)}, [])]
)
def test_what_a_person_calls_a_counter_or_a_gauge_decides_what_is_compared(tmp_path, patterns, compared):
    days_stored(tmp_path, 7)
    source = Source(plain_job(tmp_path, until=1e9, **patterns))
    read, _, _ = source.read(source.usable)
    assert read.features == ("indoor", "meter", *(name + SUFFIX for name in compared))


def test_rows_of_a_short_record_come_as_they_are(tmp_path):
    days_stored(tmp_path, LEAST_SPAN_S / 86400.0)  # the last row is an interval short of it
    source = Source(plain_job(tmp_path, until=1e9))
    assert source.features == ("indoor", "meter")
    assert source.read(source.usable)[0].values.shape[1] == 2


def test_rows_that_a_person_named_come_with_their_differences_to_the_days_before_them(tmp_path):
    rows = days_stored(tmp_path, 10)
    source = Source(plain_job(tmp_path, until=1e9))
    begin = 9 * 86400.0
    read, first = source.named((begin, begin + 6000.0))
    times = 600.0 * np.arange(1440)
    assert read.features == source.features
    assert read.timestamps[first] == begin
    expected = DayMemory().take(times, ("indoor",), rows[:, :1])[np.isin(times, read.timestamps), 0]
    np.testing.assert_allclose(read.values[:, 2], expected, atol=0.02)
