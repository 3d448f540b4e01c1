"""Readings to rows on a regular grid, with clocks and devices as bad as they are in the field."""

import math
import random
from collections.abc import Callable

import numpy as np
import pytest

from gon_edge.config.schema import FeatureConfig
from gon_edge.events import Reading
from gon_edge.stream.align import MAX_FILLERS, Aligner
from gon_edge.stream.interval import LEARNING_TICKS
from gon_edge.stream.ledger import Ledger

EPOCH = 1_700_000_000.0


def held(max_hold_s: float) -> Callable[[str], FeatureConfig]:
    return lambda name: FeatureConfig(max_hold_s)


def reading(timestamp, masked=None, **values):
    return Reading("pump", timestamp, {name: float(value) for name, value in values.items()}, masked or {})


def feed(aligner, timestamps, *, received=None, **constant):
    """One reading of feature ``a`` a timestamp, valued by its position; received when stamped, by default."""
    rows = []
    for i, t in enumerate(timestamps):
        rows += aligner.add(reading(t, a=i, **constant), t if received is None else received[i])
    return rows


def stamps(rows):
    return [row.timestamp for row in rows]


def live(*, start=EPOCH, ticks=20, **options):
    """An aligner that has seen ``ticks`` live readings, one a second, received at 0, 1, 2, ..."""
    aligner = Aligner("pump", interval_s=1.0, **options)
    feed(aligner, [start + i for i in range(ticks)], received=list(range(ticks)))
    assert aligner.is_live
    return aligner


# Regular streams


def test_one_reading_a_tick_gives_one_row_a_reading_with_its_timestamp_and_values():
    aligner = Aligner("pump", interval_s=1.0)
    rows = feed(aligner, [EPOCH + 0.25 + i for i in range(50)], b=7)
    assert stamps(rows) == [EPOCH + 0.25 + i for i in range(50)]
    assert [row.values.tolist() for row in rows] == [[i, 7.0] for i in range(50)]
    assert [row.restart for row in rows] == [True] + [False] * 49
    assert not any(row.stale.any() for row in rows)
    assert (aligner.accepted, aligner.late, aligner.undecided) == (50, 0, 0)


def test_a_complete_row_is_emitted_with_the_reading_that_completes_it():
    aligner = live()
    (row,) = aligner.add(reading(EPOCH + 20, a=1), 20.1)
    assert (row.timestamp, row.received_at) == (EPOCH + 20, 20.1)


def test_rows_own_their_arrays_and_share_their_features():
    aligner = Aligner("pump", interval_s=1.0)
    first, second, third = feed(aligner, [EPOCH, EPOCH + 1, EPOCH + 2])
    first.values[0] = 99
    assert (second.values[0], third.values[0]) == (1.0, 2.0)
    assert (first.values.dtype, first.stale.dtype) == (np.float32, np.bool_)
    assert first.features is third.features
    assert aligner.features is third.features


def test_new_features_are_appended():
    aligner = live()
    (row,) = aligner.add(reading(EPOCH + 20, b=1, a=2), 20.0)
    assert row.features == ("a", "b")
    assert row.values.tolist() == [2.0, 1.0]
    assert not row.stale.any()


def test_features_past_the_limit_are_ignored_and_counted():
    ledger = Ledger()
    aligner = Aligner("pump", interval_s=1.0, max_features=2, ledger=ledger)
    for i in range(3):
        aligner.add(reading(EPOCH + i, a=1, b=2, c=3, d=4), i)
    assert aligner.features == ("a", "b")
    assert ledger.totals == {"once": 3, "crowded": 4}
    assert aligner.accepted == 3


def test_features_of_one_tick_may_come_in_messages_of_their_own():
    aligner = Aligner("pump", interval_s=1.0)
    rows = []
    for i in range(10):
        rows += aligner.add(reading(EPOCH + i, a=i), i)
        rows += aligner.add(reading(EPOCH + i + 0.1, b=10 * i), i + 0.1)
        rows += aligner.add(reading(EPOCH + i + 0.2, c=100 * i), i + 0.2)
    assert [row.values.tolist() for row in rows] == [[i, 10 * i, 100 * i] for i in range(10)]
    assert aligner.late == 0


def test_of_several_readings_in_a_tick_the_newest_counts():
    aligner = live(lateness_s=2.0)
    aligner.flush()
    for at, value in ((20.0, 1), (20.3, 2), (20.1, 3)):
        aligner.add(reading(EPOCH + at, a=value), 21.0)
    (row,) = aligner.flush()
    assert row.values.tolist() == [2.0]
    assert aligner.late == 0


def test_jitter_below_half_an_interval_makes_no_empty_and_no_double_tick():
    rng = random.Random(1)
    aligner = Aligner("pump", interval_s=1.0)
    rows = feed(aligner, [EPOCH] + [EPOCH + i + rng.uniform(-0.4, 0.4) for i in range(1, 500)])
    assert [row.values[0] for row in rows] == list(range(500))
    assert stamps(rows) == [EPOCH + i for i in range(500)]


@pytest.mark.parametrize("period", [1.004, 0.996])
def test_a_device_slightly_off_its_interval_slips_one_tick_at_a_time(period):
    # Near the middle between two ticks plain rounding would make empty and double ticks at random, for many rows.
    rng = random.Random(2)
    aligner = Aligner("pump", interval_s=1.0)
    rows = feed(aligner, [EPOCH + i * period + rng.uniform(-0.02, 0.02) for i in range(2000)])
    steps = np.diff([row.values[0] for row in rows])
    assert np.count_nonzero(steps != 1) == pytest.approx(abs(period - 1) * 2000, abs=1)
    assert np.all(np.diff(stamps(rows)) == 1.0)


# The interval


@pytest.mark.parametrize("interval", [0.1, 0.5, 1.0, 7.0, 60.0, 600.0])
def test_the_interval_is_learned_and_no_reading_is_lost_meanwhile(interval):
    aligner = Aligner("pump")
    timestamps = [EPOCH + i * interval for i in range(40)]
    rows = []
    for i, t in enumerate(timestamps):
        assert (aligner.interval_s is None) == (rows == [])
        rows += aligner.add(reading(t, a=i), t)
    assert aligner.interval_s == interval
    assert stamps(rows) == pytest.approx(timestamps)
    assert [row.values[0] for row in rows] == list(range(40))


def test_the_interval_is_that_of_the_fastest_feature():
    aligner = Aligner("pump")
    for i in range(200):
        aligner.add(reading(EPOCH + i * 0.5, fast=i), i * 0.5)
        if i % 10 == 0:
            aligner.add(reading(EPOCH + i * 0.5 + 0.01, slow=i), i * 0.5)
    assert aligner.interval_s == 0.5
    assert aligner.late == 0


def test_readings_out_of_order_while_learning_are_sorted_in():
    aligner = Aligner("pump")
    rows = feed(aligner, [EPOCH + i for i in (0, 2, 1, 3, 5, 4, 6, 7, 8, 9, 10, 11)])
    assert stamps(rows) == [EPOCH + i for i in range(12)]
    assert aligner.late == 0


def test_a_backlog_received_in_a_burst_is_not_taken_for_the_interval():
    # A broker delivers what it kept for a persistent session at once; stamped at receipt it looks like a fast sensor.
    aligner = Aligner("pump")
    timestamps = [EPOCH + i * 0.0005 for i in range(1000)] + [EPOCH + 1 + i for i in range(30)]
    feed(aligner, timestamps)
    assert aligner.interval_s == 1.0
    assert aligner.accepted + aligner.late + aligner.undecided == len(timestamps)


def test_an_irregular_stream_gets_an_interval_too():
    rng = random.Random(3)
    aligner = Aligner("pump")
    t = EPOCH
    for _ in range(60):
        t += rng.expovariate(1 / 10)
        aligner.add(reading(t, a=1), t)
    assert 2 <= aligner.interval_s <= 20


def test_a_stream_whose_clock_stands_still_stays_within_bounds():
    aligner = Aligner("pump", max_features=10)
    for i in range(20_000):
        aligner.add(reading(EPOCH, a=i), i)
    assert aligner.undecided < 1000
    assert aligner.late + aligner.undecided == 20_000
    feed(aligner, [EPOCH + i for i in range(1, 40)])
    assert aligner.interval_s == 1.0


def test_masked_readings_count_towards_learning_and_its_bounds():
    aligner = Aligner("pump", max_features=10)
    for i in range(12):
        aligner.add(reading(EPOCH + i, masked={"a": "null"}), i)
    assert aligner.interval_s == 1.0
    assert aligner.features == ("a",)


def test_an_odd_first_reading_does_not_set_the_phase_of_a_learned_grid():
    # Delayed by nearly half an interval it would put every later reading next to the middle between two ticks.
    rng = random.Random(4)
    aligner = Aligner("pump")
    timestamps = [EPOCH + 0.45] + [EPOCH + i + rng.uniform(-0.1, 0.1) for i in range(1, 200)]
    assert [row.values[0] for row in feed(aligner, timestamps)] == list(range(200))


# Hold and staleness


def test_a_missing_tick_is_filled_with_held_values():
    aligner = Aligner("pump", interval_s=1.0)
    rows = feed(aligner, [EPOCH, EPOCH + 1, EPOCH + 4])
    assert stamps(rows) == [EPOCH + i for i in range(5)]
    assert [row.values[0] for row in rows] == [0, 1, 1, 1, 2]
    assert [row.restart for row in rows] == [True, False, False, False, False]


def test_a_value_older_than_max_hold_is_stale():
    aligner = Aligner("pump", interval_s=1.0, rule=held(2.0))
    rows = feed(aligner, [EPOCH, EPOCH + 1, EPOCH + 5])
    assert [bool(row.stale[0]) for row in rows] == [False, False, False, False, True, False]
    assert rows[4].values[0] == 1.0


def test_by_default_a_value_is_held_for_five_cadences_of_its_feature():
    aligner = Aligner("pump", interval_s=1.0, max_gap_s=200.0)
    rows = []
    for i in range(60):
        rows += aligner.add(reading(EPOCH + i, fast=i, **({"slow": i} if i % 10 == 0 else {})), i)
    assert not any(row.stale.any() for row in rows)
    rows = aligner.add(reading(EPOCH + 160, fast=0), 160)
    stale_after = {name: min(row.timestamp for row in rows if row.stale[j]) - last
                   for j, (name, last) in enumerate({"fast": EPOCH + 59, "slow": EPOCH + 50}.items())}  # fmt: skip
    assert stale_after == {"fast": 6.0, "slow": 51.0}


def test_a_silent_feature_turns_stale_while_the_others_go_on_and_no_longer_holds_up_rows():
    aligner = live()
    for i in range(20, 40):
        aligner.add(reading(EPOCH + i, a=i, b=i), i)
    emitted = {i: aligner.add(reading(EPOCH + i, a=i), i) for i in range(40, 60)}
    rows = [row for rows in emitted.values() for row in rows]
    assert [bool(row.stale[1]) for row in rows] == [False] * 5 + [True] * 15
    assert stamps(emitted[59]) == [EPOCH + 59]
    assert aligner.late == 0


def test_a_feature_that_comes_back_is_fresh_again():
    # Its first reading finds the tick emitted: nobody waited for it.  It must not stay late for ever.
    aligner = live(rule=held(3.0))
    rows = []
    for i in range(20, 60):
        rows += aligner.add(reading(EPOCH + i, a=i), i)
        if not 30 <= i < 45:
            rows += aligner.add(reading(EPOCH + i + 0.2, b=i), i + 0.2)
    assert any(row.stale[1] for row in rows if len(row.stale) > 1)
    assert [bool(row.stale[1]) for row in rows[-10:]] == [False] * 10
    assert [row.values.tolist() for row in rows[-5:]] == [[i, i] for i in range(55, 60)]
    assert aligner.late <= 2


def test_a_masked_feature_is_known_but_its_value_is_not_refreshed():
    aligner = live(rule=held(3.0))
    rows = []
    for i in range(20, 30):
        rows += aligner.add(reading(EPOCH + i, masked={"b": "nan"}, a=i), i)
    assert [row.timestamp for row in rows] == [EPOCH + i for i in range(20, 30)]
    assert all(math.isnan(row.values[1]) and row.stale[1] for row in rows)
    rows = []
    for i in range(30, 40):
        rows += aligner.add(reading(EPOCH + i, masked={"a": "null"}, b=i), i)
    assert [row.values[0] for row in rows] == [29.0] * 10
    assert [bool(row.stale[0]) for row in rows] == [False] * 3 + [True] * 7


def test_a_value_that_is_taken_back_is_stale_at_once_until_the_next_one():
    aligner = Aligner("pump", interval_s=1.0, rule=held(1000.0))
    feed(aligner, [EPOCH + i for i in range(5)], received=range(5), b=1)
    rows = aligner.add(reading(EPOCH + 5, masked={"a": "gone"}, b=1), 5)
    rows += aligner.add(reading(EPOCH + 6, b=1), 6)
    rows += aligner.add(reading(EPOCH + 7, a=0, b=1), 7)
    assert [(bool(row.stale[0]), math.isnan(row.values[0])) for row in rows] == [(True, True)] * 2 + [(False, False)]
    assert not any(row.stale[1] for row in rows)


def test_of_one_tick_the_newer_of_a_value_and_its_end_counts():
    for readings, value in (([(0.1, 3.0), (0.3, None)], None), ([(0.1, None), (0.3, 3.0)], 3.0)):
        aligner = Aligner("pump", interval_s=1.0)
        feed(aligner, [EPOCH + i for i in range(5)], received=range(5), b=1)
        for after, said in readings:
            gone = {"a": "gone"} if said is None else {}
            aligner.add(reading(EPOCH + 5 + after, masked=gone, **({} if said is None else {"a": said})), 5 + after)
        rows = aligner.advance(30)
        assert rows[0].timestamp == EPOCH + 5
        assert (None if math.isnan(rows[0].values[0]) else rows[0].values[0]) == value


def test_a_label_that_never_was_a_number_becomes_no_column():
    aligner = live()
    aligner.add(reading(EPOCH + 20, masked={"name": "text", "a": "text", "never": "gone"}), 20)
    assert aligner.features == ("a",)


def test_a_masked_feature_does_not_hold_up_its_row():
    aligner = Aligner("pump", interval_s=1.0, rule=held(30.0))
    feed(aligner, [EPOCH + i for i in range(10)], b=1)
    (row,) = aligner.add(reading(EPOCH + 10, masked={"b": "null"}, a=10), 10.0)
    assert (row.timestamp, row.values.tolist(), row.stale.tolist()) == (EPOCH + 10, [10.0, 1.0], [False, False])


def test_an_outage_of_a_feature_does_not_make_it_be_held_for_longer_ever_after():
    aligner = Aligner("pump", interval_s=1.0)
    for i in range(3656):
        aligner.add(reading(EPOCH + i, a=i, **({} if 50 <= i < 3650 else {"b": i})), i)
    rows = feed(aligner, [EPOCH + i for i in range(3656, 3668)])
    assert rows[4].stale.tolist() == [False, False]
    assert rows[-1].stale.tolist() == [False, True]


# Lateness


def test_a_late_reading_revises_a_row_not_yet_emitted():
    aligner = Aligner("pump", interval_s=1.0, lateness_s=2.0)
    rows = []
    for t, value in ((0, 0), (1, 1), (3, 3), (2, 2), (4, 4), (5, 5)):
        rows += aligner.add(reading(EPOCH + t, a=value), t)
    rows += aligner.flush()
    assert [row.values[0] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert (aligner.accepted, aligner.late) == (6, 0)


def test_with_lateness_a_complete_row_waits_for_revisions():
    aligner = Aligner("pump", interval_s=1.0, lateness_s=2.0)
    emitted = [stamps(aligner.add(reading(EPOCH + t, a=t), t)) for t in range(4)]
    assert emitted == [[], [], [EPOCH], [EPOCH + 1]]


def test_a_later_reading_is_counted_and_no_row_shows_it():
    aligner = live()
    assert aligner.add(reading(EPOCH + 15, a=99), 20) == []
    rows = aligner.add(reading(EPOCH + 20, a=20), 20)
    assert rows[0].values.tolist() == [20.0]
    assert (aligner.accepted, aligner.late, aligner.undecided) == (21, 1, 0)


def test_every_message_twice_is_half_of_them_late_and_the_rows_are_the_same():
    aligner = Aligner("pump", interval_s=1.0)
    rows = []
    for i in range(50):
        rows += aligner.add(reading(EPOCH + i, a=i), i)
        rows += aligner.add(reading(EPOCH + i, a=i), i + 0.001)
    rows += aligner.flush()
    assert [row.values[0] for row in rows] == list(range(50))
    assert aligner.accepted + aligner.late == 100
    assert aligner.late >= 48


def test_a_redelivered_burst_on_a_live_stream_is_late_and_no_clock_step():
    aligner = live()
    assert feed(aligner, [EPOCH + i for i in range(5, 20)], received=[20 + i * 1e-3 for i in range(15)]) == []
    (row,) = aligner.add(reading(EPOCH + 20, a=20), 20.1)
    assert row.timestamp == EPOCH + 20
    assert (aligner.late, aligner.clock_steps) == (15, 0)


def test_disorder_wider_than_a_clock_step_is_still_disorder_where_lateness_allows_it():
    aligner = Aligner("pump", interval_s=1.0, lateness_s=20.0)
    order = [*range(20), 31, *range(20, 31), *range(32, 60)]
    rows = feed(aligner, [EPOCH + i for i in order], received=[float(i) for i in range(60)]) + aligner.flush()
    assert [row.values[0] for row in rows] == [order.index(i) for i in range(60)]
    assert (aligner.late, aligner.clock_steps) == (0, 0)


def test_late_readings_that_do_not_follow_each_other_are_no_clock_step():
    aligner = live(ticks=100)
    feed(aligner, [EPOCH + i for i in (10, 40, 70, 20, 50, 80)], received=[100 + 10 * i for i in range(6)])
    assert (aligner.late, aligner.undecided, aligner.clock_steps) == (5, 1, 0)


# Gaps


def test_a_gap_in_a_recording_restarts_without_filling():
    aligner = Aligner("pump", interval_s=1.0)
    rows = feed(aligner, [EPOCH + i for i in (0, 1, 2, 103, 104, 105)], received=[0.0] * 6)
    assert stamps(rows) == [EPOCH + i for i in (0, 1, 2, 103, 104, 105)]
    assert [row.restart for row in rows] == [True, False, False, True, False, False]
    assert (aligner.accepted, aligner.clock_steps) == (6, 0)


def test_a_live_silence_longer_than_max_gap_restarts():
    aligner = live()
    rows = feed(aligner, [EPOCH + 500.3, EPOCH + 501.3], received=[500.3, 501.3])
    assert [(row.timestamp, row.restart) for row in rows] == [(EPOCH + 500.3, True), (EPOCH + 501.3, False)]
    assert aligner.clock_steps == 0


def test_gaps_of_any_length_give_a_bounded_number_of_rows():
    aligner = Aligner("pump", interval_s=0.01, max_gap_s=1e9)
    rows = feed(aligner, [EPOCH, EPOCH + 0.01, EPOCH + 1e6, EPOCH + 1e6 + 0.01], received=[0.0] * 4)
    assert len(rows) == 4
    aligner = Aligner("pump", interval_s=0.01, max_gap_s=1e9)
    assert len(feed(aligner, [EPOCH, EPOCH + 0.01 * MAX_FILLERS], received=[0.0] * 2)) == MAX_FILLERS + 1


def test_a_max_gap_of_few_intervals_is_respected():
    aligner = Aligner("pump", interval_s=1.0, max_gap_s=2.0)
    rows = feed(aligner, [EPOCH + i for i in (0, 1, 4, 5)], received=[0.0] * 4)
    assert [(row.timestamp - EPOCH, row.restart) for row in rows] == [(0, True), (1, False), (4, True), (5, False)]


def test_a_single_reading_after_a_gap_is_taken_when_none_follows():
    aligner = live(max_gap_s=10.0)
    assert aligner.add(reading(EPOCH + 5000, a=7), 20.0) == []  # a jump: the clock, or a wrong timestamp?
    assert aligner.undecided == 1
    rows = aligner.advance(25.0) + aligner.advance(31.0)
    assert aligner.undecided == 0
    rows += aligner.flush()
    assert (aligner.accepted, aligner.late, aligner.undecided) == (21, 0, 0)
    assert (rows[-1].timestamp, rows[-1].values.tolist(), rows[-1].restart) == (EPOCH + 5000, [7.0], True)


# The passing of time


def test_a_silence_of_the_whole_stream_makes_no_rows_until_it_goes_on():
    aligner = live(rule=held(5.0), max_gap_s=30.0)
    assert [row for now in np.arange(19.0, 40.0, 0.25) for row in aligner.advance(float(now))] == []
    rows = aligner.add(reading(EPOCH + 40, a=7), 40.0)
    assert stamps(rows) == [EPOCH + i for i in range(20, 41)]
    assert [bool(row.stale[0]) for row in rows] == [False] * 5 + [True] * 15 + [False]
    assert {row.received_at for row in rows} == {40.0}


@pytest.mark.parametrize("seconds", [20, 300])
def test_readings_kept_by_the_broker_while_it_could_not_be_reached_come_in_their_order(seconds):
    aligner = live()
    rows = []
    for now in np.arange(19.0, 20.0 + seconds, 0.25):
        rows += aligner.advance(float(now))
    for i in range(20, 20 + seconds):  # in a burst, with looks at the clock between
        rows += aligner.add(reading(EPOCH + i, a=i), 20.0 + seconds + 0.001 * (i - 20))
        rows += aligner.advance(20.0 + seconds + 0.001 * (i - 20))
    assert stamps(rows) == [EPOCH + i for i in range(20, 20 + seconds)]
    assert not any(row.stale.any() or row.restart for row in rows)
    assert (aligner.late, aligner.clock_steps) == (0, 0)


def test_a_row_is_due_half_an_interval_after_its_tick():
    aligner = Aligner("pump", interval_s=1.0)
    feed(aligner, [EPOCH + i for i in range(20)], received=list(range(20)), b=1)
    assert aligner.add(reading(EPOCH + 20, a=20), 20.0) == []  # b may come yet
    assert aligner.advance(20.4) == []
    assert stamps(aligner.advance(20.6)) == [EPOCH + 20]


def test_a_clock_that_is_behind_by_hours_does_not_make_readings_late():
    aligner = live(start=EPOCH - 7200)
    for i in range(20, 100):
        assert aligner.advance(i - 0.01) == []
        assert stamps(aligner.add(reading(EPOCH - 7200 + i, a=i), i)) == [EPOCH - 7200 + i]
    assert aligner.late == 0


def test_time_makes_no_rows_in_a_replay():
    aligner = Aligner("pump", interval_s=1.0)
    feed(aligner, [EPOCH + i for i in range(100)], received=[i * 1e-4 for i in range(100)])
    assert not aligner.is_live
    assert [row for now in range(1, 1000) for row in aligner.advance(float(now))] == []


def test_time_makes_no_rows_between_the_uploads_of_a_device_that_batches():
    aligner = Aligner("pump", interval_s=1.0)
    for minute in range(10):
        received = 60.0 * minute
        for second in range(60):
            aligner.add(reading(EPOCH + 60 * minute + second, a=second), received + second * 1e-3)
        for now in range(1, 60):
            assert aligner.advance(received + now) == []
    assert (aligner.accepted, aligner.late) == (600, 0)


@pytest.mark.parametrize("batch", [2, 5, 8])
def test_readings_sent_a_few_at_a_time_are_not_overtaken_by_held_rows(batch):
    aligner = Aligner("pump", interval_s=1.0)
    for i in range(0, 200, batch):
        for now in np.arange(i - batch + 0.1, i, 0.25):
            aligner.advance(float(now))
        for j in range(batch):
            aligner.add(reading(EPOCH + i + j - batch, a=i), float(i) + j * 1e-3)
    assert aligner.late <= batch  # the first batches, before it is known that they are batches


def test_a_delay_that_grows_for_good_makes_only_a_few_readings_late():
    aligner = live()
    for i in range(20, 120):
        for now in np.arange(i - 1 + 3.1, i + 3, 0.25):
            aligner.advance(float(now))
        aligner.add(reading(EPOCH + i, a=i), i + 3.0)
    assert aligner.late <= 4
    assert aligner.clock_steps == 0


def test_the_last_row_of_a_recording_comes_in_the_end():
    aligner = Aligner("pump", interval_s=1.0, lateness_s=3.0)
    rows = feed(aligner, [EPOCH + i for i in range(5)], received=[0.0] * 5)
    assert stamps(rows) == [EPOCH, EPOCH + 1]
    assert stamps(aligner.advance(61.0)) == [EPOCH + 2, EPOCH + 3, EPOCH + 4]


def test_flush_emits_what_is_left():
    aligner = Aligner("pump")
    assert feed(aligner, [EPOCH, EPOCH + 5, EPOCH + 10]) == []
    assert stamps(aligner.flush()) == [EPOCH, EPOCH + 5, EPOCH + 10]
    assert aligner.interval_s == 5.0
    assert aligner.flush() == []

    single = Aligner("pump")
    single.add(reading(EPOCH, a=1), 0)
    assert stamps(single.flush()) == [EPOCH]
    assert Aligner("pump").flush() == []


def test_flush_takes_a_last_reading_after_a_gap():
    aligner = Aligner("pump", interval_s=1.0)
    rows = feed(aligner, [EPOCH, EPOCH + 1, EPOCH + 1000], received=[0.0] * 3) + aligner.flush()
    assert [(row.timestamp - EPOCH, row.restart) for row in rows] == [(0, True), (1, False), (1000, True)]
    assert (aligner.accepted, aligner.late) == (3, 0)


def test_a_replay_a_little_slower_than_life_is_not_overtaken_by_held_rows():
    aligner = Aligner("pump", interval_s=1.0)
    for i in range(100):
        received = i / 0.6
        for now in np.arange(received - 1.5, received, 0.1):
            aligner.advance(float(now))
        aligner.add(reading(EPOCH + i, a=i), received)
    assert aligner.late <= 2


# Clocks that are set


def drive(aligner, clock, seconds):
    """One reading a second, stamped by ``clock(true time)``, with time passing in between."""
    rows = []
    for i in range(seconds):
        for now in np.arange(i - 0.75, i, 0.25):
            rows += aligner.advance(float(now))
        rows += aligner.add(reading(clock(float(i)), a=i), float(i))
    return rows + aligner.advance(seconds - 0.01)


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (30.0, EPOCH),  # 1970 at boot, then NTP
        (EPOCH, EPOCH + 3600.0),  # summer time
        (EPOCH, EPOCH + 20.0),  # a drift corrected, shorter than a gap
        (EPOCH, EPOCH + 20.4),
        (EPOCH, EPOCH - 20.0),
        (EPOCH, EPOCH - 3600.0),
        (EPOCH, EPOCH - 3599.6),
        (EPOCH, 30.0),  # a device that lost its clock
    ],
)
def test_a_clock_that_is_set_makes_neither_a_gap_nor_a_row_twice(before, after, learned):
    aligner = Aligner("pump", interval_s=None if learned else 1.0)
    rows = drive(aligner, lambda t: (before if t < 40 else after) + t, 80)
    assert [row.values[0] for row in rows] == list(range(80))
    assert [row.restart for row in rows] == [True] + [False] * 79
    assert not any(row.stale.any() for row in rows)
    assert stamps(rows) == [(before if i < 40 else after) + i for i in range(80)]
    assert (aligner.accepted, aligner.late, aligner.clock_steps) == (80, 0, 1)


def test_a_clock_set_while_the_interval_is_learned_makes_neither_a_gap_nor_a_row_twice():
    aligner = Aligner("pump")
    rows = drive(aligner, lambda t: (30.0 if t < 4 else EPOCH) + t, 40)
    assert [row.values[0] for row in rows] == list(range(40))
    assert [row.restart for row in rows] == [True] + [False] * 39
    assert aligner.clock_steps == 1


def test_a_clock_set_back_and_forth_is_followed():
    aligner = Aligner("pump", interval_s=1.0)
    rows = drive(aligner, lambda t: EPOCH + t + (7200.0 if (t // 50) % 2 else 0.0), 500)
    assert [row.values[0] for row in rows] == list(range(500))
    assert (aligner.clock_steps, aligner.late) == (9, 0)


def test_a_clock_set_in_a_stream_of_single_values_is_followed():
    aligner = Aligner("pump", interval_s=1.0)
    rows = []
    for i in range(100):
        base = EPOCH if i < 50 else EPOCH + 86400
        for j, name in enumerate("abc"):
            rows += aligner.add(reading(base + i + 0.1 * j, **{name: i}), i + 0.1 * j)
    rows += aligner.flush()
    assert [row.values.tolist() for row in rows] == [[i, i, i] for i in range(100)]
    assert (aligner.late, aligner.clock_steps) == (0, 1)


def test_one_reading_of_a_wrong_future_changes_nothing():
    aligner = Aligner("pump", interval_s=1.0)
    rows = drive(aligner, lambda t: EPOCH + t + (1e9 if t == 30 else 0.0), 60)
    assert stamps(rows) == [EPOCH + i for i in range(60)]
    assert rows[30].values[0] == 29.0
    assert (aligner.accepted, aligner.late, aligner.clock_steps) == (59, 1, 0)


def test_one_reading_of_a_wrong_past_changes_nothing():
    aligner = Aligner("pump", interval_s=1.0)
    rows = drive(aligner, lambda t: 5.0 if t == 30 else EPOCH + t, 60)
    assert stamps(rows) == [EPOCH + i for i in range(60)]
    assert (aligner.accepted, aligner.late, aligner.clock_steps) == (59, 1, 0)


def test_a_stream_recovers_from_several_wrong_timestamps():
    aligner = Aligner("pump", interval_s=1.0)
    rows = drive(aligner, lambda t: EPOCH + t + (1e9 if t in (30, 31) else 0.0), 60)
    assert [row.values[0] for row in rows][-20:] == list(range(40, 60))
    assert aligner.accepted + aligner.late == 60
    assert aligner.late == 0


def test_a_recording_replayed_again_starts_over():
    aligner = Aligner("pump", interval_s=1.0)
    once = [EPOCH + i for i in range(100)]
    rows = feed(aligner, once + once, received=[i * 1e-3 for i in range(200)])
    assert stamps(rows) == once + once
    assert [i for i, row in enumerate(rows) if row.restart] == [0, 100]
    assert (aligner.accepted, aligner.late) == (200, 0)
    assert not any(row.stale.any() for row in rows)


def test_a_fast_replay_into_a_stream_that_was_live_is_taken_up():
    aligner = live()
    rows = feed(aligner, [EPOCH - 1e6 + i for i in range(100)], received=[20 + i * 1e-3 for i in range(100)])
    assert stamps(rows) == [EPOCH - 1e6 + i for i in range(100)]
    assert rows[0].restart


def test_the_values_from_before_a_recording_started_over_are_stale():
    aligner = Aligner("pump", interval_s=1.0)
    for i in range(100):
        aligner.add(reading(EPOCH + i, a=i, b=i), i * 1e-3)
    rows = feed(aligner, [EPOCH + i for i in range(10)], received=[0.2] * 10)
    assert [row.stale.tolist() for row in rows] == [[False, True]] * 10


def test_a_wall_clock_that_is_set_shifts_a_stream_stamped_at_receipt():
    aligner = Aligner("pump", interval_s=1.0, lateness_s=2.0)
    rows, offset = [], 30.0
    for i in range(60):
        if i == 40:
            offset = EPOCH
            aligner.shift(EPOCH - 30.0)
        rows += aligner.add(reading(offset + i, a=i), float(i))
        rows += aligner.advance(i + 0.5)
    rows += aligner.flush()
    assert [row.values[0] for row in rows] == list(range(60))
    assert [row.restart for row in rows] == [True] + [False] * 59
    assert not any(row.stale.any() for row in rows)
    assert stamps(rows)[-20:] == [EPOCH + i for i in range(40, 60)]
    assert (aligner.late, aligner.clock_steps) == (0, 1)


def test_time_goes_on_making_rows_right_after_a_clock_was_set():
    aligner = Aligner("pump", interval_s=1.0)
    feed(aligner, [EPOCH + i for i in range(20)], received=list(range(20)), b=1)
    aligner.shift(1000.0)
    assert aligner.is_live
    assert aligner.add(reading(EPOCH + 1020, a=20), 20.0) == []
    assert stamps(aligner.advance(20.6)) == [EPOCH + 1020]


def test_the_wall_clock_may_be_set_while_the_interval_is_learned():
    aligner = Aligner("pump")
    rows = feed(aligner, [30.0, 31.0, 32.0])
    aligner.shift(EPOCH)
    rows += feed(aligner, [EPOCH + 33.0 + i for i in range(20)], received=[33.0 + i for i in range(20)])
    assert stamps(rows) == [EPOCH + 30 + i for i in range(23)]


def test_readings_of_a_clock_that_stands_still_are_late_and_make_no_rows():
    aligner = Aligner("pump", interval_s=1.0, rule=held(5.0))
    rows = drive(aligner, lambda t: EPOCH + min(t, 30.0), 400)
    assert aligner.accepted == 31
    assert aligner.late > 200
    assert aligner.undecided < 200
    assert stamps(rows) == [EPOCH + i for i in range(31)]


# Arguments


@pytest.mark.parametrize(
    "options",
    [
        {"interval_s": 0.0},
        {"interval_s": -1.0},
        {"interval_s": math.nan},
        {"max_gap_s": 0.0},
        {"lateness_s": -1},
    ],
)
def test_durations_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="seconds"):
        Aligner("pump", **options)


def test_a_reading_without_a_timestamp_is_refused():
    with pytest.raises(ValueError, match="timestamp"):
        Aligner("pump").add(reading(None, a=1), 0.0)


def test_as_many_readings_are_needed_to_learn_as_documented():
    aligner = Aligner("pump")
    feed(aligner, [EPOCH + i for i in range(LEARNING_TICKS - 1)])
    assert (aligner.interval_s, aligner.undecided) == (None, LEARNING_TICKS - 1)
    aligner.add(reading(EPOCH + LEARNING_TICKS - 1, a=0), 0.0)
    assert (aligner.interval_s, aligner.undecided) == (1.0, 0)


def test_what_waits_for_an_interval_that_never_comes_is_counted_as_such():
    ledger = Ledger()
    aligner = Aligner("pump", max_features=1, ledger=ledger)
    for i in range(100):
        aligner.add(reading(EPOCH, a=1), float(i))
    assert ledger.totals == {"no_interval": 100 - 64}
    assert aligner.waits_for.startswith("the timestamps stand still")
