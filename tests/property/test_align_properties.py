"""What holds for every stream, however bad its clock and its manners."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from strategies import Heard, Message, Pause, histories, timelines

from gon_edge.config.schema import FeatureConfig
from gon_edge.events import Reading, Row
from gon_edge.stream.align import Aligner

EPOCH = 1_700_000_000.0


@given(
    interval=st.sampled_from([0.1, 0.5, 1.0, 7.0, 60.0]) | st.floats(0.05, 4000).map(lambda s: float(f"{s:.3g}")),
    phase=st.floats(0, 1),
    values=st.lists(
        st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=3, max_size=3), min_size=9, max_size=40
    ),
    learned=st.booleans(),
    pace=st.sampled_from([1.0, 1e-4]),
)
def test_one_reading_a_tick_gives_one_row_a_reading_with_equal_values(interval, phase, values, learned, pace):
    start = EPOCH + phase * interval
    aligner = Aligner("pump", interval_s=None if learned else interval, max_gap_s=10 * interval)
    rows = []
    for i, (a, b, c) in enumerate(values):
        t = start + i * interval
        rows += aligner.add(Reading("pump", t, {"a": a, "b": b, "c": c}), (t - start) * pace)
    rows += aligner.flush()
    if (
        learned and aligner.interval_s != interval
    ):  # snapped to a usual interval nearby: as many rows, but for the drift
        assert abs(aligner.interval_s - interval) <= 0.1001 * aligner.interval_s
        assert abs(len(rows) - len(values)) <= 1 + 0.12 * len(values)
        return
    assert [row.values.tolist() for row in rows] == values
    assert np.allclose([row.timestamp - start for row in rows], np.arange(len(values)) * interval, rtol=0, atol=1e-5)
    assert [row.restart for row in rows] == [True] + [False] * (len(values) - 1)
    assert not any(row.stale.any() for row in rows)
    assert (aligner.accepted, aligner.late) == (len(values), 0)


def held(max_hold_s: float) -> Callable[[str], FeatureConfig]:
    return lambda name: FeatureConfig(max_hold_s)


def rows_of(heard: list[Heard], max_hold_s: float) -> list[tuple[dict[str, float], set[str]]]:
    """Held values and stale features a tick, from the definition: the newest reading of each feature up to the tick."""
    expected = []
    for tick in range(max(one.tick for one in heard) + 1):
        values: dict[str, float] = {}
        newest: dict[str, float] = {}
        for one in sorted(heard, key=lambda one: one.timestamp):  # stable: of equal timestamps the last received counts
            if one.tick <= tick:
                values.update(one.values)
                newest.update(dict.fromkeys(one.values, one.timestamp))
        expected.append((values, {name for name, at in newest.items() if tick - at > max_hold_s}))
    return expected


def check(rows: list[Row], expected: list[tuple[dict[str, float], set[str]]]) -> None:
    assert [row.timestamp for row in rows] == list(range(len(expected)))
    for row, (values, stale) in zip(rows, expected, strict=True):
        known = {name: row.values[j] for j, name in enumerate(row.features) if not math.isnan(row.values[j])}
        assert known == values
        unseen = set(row.features) - set(values)
        assert {name for j, name in enumerate(row.features) if row.stale[j]} == stale | unseen


@given(heard=timelines(lateness_s=0.0), time_passes=st.booleans())
def test_in_order_rows_hold_the_newest_value_of_each_feature(heard, time_passes):
    """Each feature reports in order, so nothing is late but what comes after its row was complete without it."""
    aligner = Aligner("pump", interval_s=1.0, rule=held(3.0), max_gap_s=100.0, lateness_s=0.5)
    rows = []
    for one in heard:
        rows += aligner.add(Reading("pump", one.timestamp, one.values), one.received_at)
        if time_passes:
            rows += aligner.advance(one.received_at)
    rows += aligner.flush()
    assert (aligner.accepted, aligner.late) == (len(heard), 0)
    check(rows, rows_of(heard, 3.0))


@given(heard=st.sampled_from([1.0, 2.5, 8.0]).flatmap(lambda s: st.tuples(st.just(s), timelines(lateness_s=s))))
def test_disorder_within_the_lateness_changes_no_row(heard):
    lateness_s, heard = heard
    aligner = Aligner("pump", interval_s=1.0, rule=held(3.0), max_gap_s=100.0, lateness_s=lateness_s + 0.5)
    rows = []
    for one in heard:
        rows += aligner.add(Reading("pump", one.timestamp, one.values), one.received_at)
    rows += aligner.flush()
    assert (aligner.accepted, aligner.late, aligner.clock_steps) == (len(heard), 0, 0)
    check(rows, rows_of(heard, 3.0))


@settings(max_examples=60)  # long ones: sixty histories are some 2,000 messages
@given(
    history=histories(),
    interval=st.sampled_from([None, 1.0, 0.25, 10.0]),
    lateness_s=st.sampled_from([0.0, 0.3, 3.0]),
    max_gap_s=st.sampled_from([None, 2.0, 20.0]),
)
def test_whatever_happens_every_reading_is_accounted_for_and_rows_are_regular(history, interval, lateness_s, max_gap_s):
    aligner = Aligner("pump", interval_s=interval, lateness_s=lateness_s, max_gap_s=max_gap_s, max_features=4)
    given_values: dict[str, set[float]] = {}
    rows: list[Row] = []
    added = 0
    for happening in [*history, None]:
        if isinstance(happening, Message):
            for name, value in happening.reading.values.items():
                given_values.setdefault(name, set()).add(value)
            rows += aligner.add(happening.reading, happening.received_at)
            added += 1
        elif isinstance(happening, Pause):
            rows += aligner.advance(happening.received_by)
        elif happening is None:
            rows += aligner.flush()
        else:
            aligner.shift(happening.delta_s)
        assert aligner.accepted + aligner.late + aligner.undecided == added
    assert aligner.undecided == 0

    gap_ticks = (
        0.0 if aligner.interval_s is None else (max_gap_s or max(60.0, 10 * aligner.interval_s)) / aligner.interval_s
    )
    assert len(rows) <= (added + len(history)) * (gap_ticks + 2)
    event(f"clock steps: {min(aligner.clock_steps, 3)}, restarts: {min(sum(row.restart for row in rows), 4)}")
    for row in rows:
        assert len(row.features) == len(row.values) == len(row.stale) <= 4
        assert len(set(row.features)) == len(row.features)
        for name, value, is_stale in zip(row.features, row.values, row.stale, strict=True):
            if math.isnan(value):
                assert is_stale
            else:
                assert value in given_values[name]
    assert not rows or rows[0].restart
    off_grid = [
        later
        for earlier, later in pairwise(rows)
        if not later.restart and not math.isclose(later.timestamp - earlier.timestamp, aligner.interval_s, abs_tol=1e-5)
    ]
    assert len(off_grid) <= aligner.clock_steps


@settings(max_examples=60)  # long ones: sixty histories are some 2,000 messages
@given(history=histories(), interval=st.sampled_from([None, 1.0]))
def test_after_whatever_happened_a_good_stream_is_followed_again(history, interval):
    """No timestamp, however wrong, spoils a stream for good."""
    aligner = Aligner("pump", interval_s=interval)
    received_at, timestamp = 0.0, 0.0
    for happening in history:
        if isinstance(happening, Message):
            aligner.add(happening.reading, happening.received_at)
            received_at, timestamp = happening.received_at, happening.reading.timestamp
        elif isinstance(happening, Pause):
            aligner.advance(happening.received_by)
    rows = []
    for i in range(1, 200):
        rows = aligner.add(Reading("pump", timestamp + 2e6 + i, {"a": float(i)}), received_at + i)
    assume(aligner.interval_s is not None and aligner.interval_s <= 2.0)
    rows += aligner.add(Reading("pump", timestamp + 2e6 + 200, {"a": 200.0}), received_at + 200)
    rows += aligner.add(Reading("pump", timestamp + 2e6 + 204, {"a": 204.0}), received_at + 204)
    newest = rows[-1]
    assert newest.values[newest.features.index("a")] in (200.0, 204.0)
    assert not newest.stale[newest.features.index("a")]


@settings(max_examples=60)  # long ones: sixty histories are some 2,000 messages
@given(
    history=histories(),
    interval=st.sampled_from([None, 1.0, 0.25, 10.0]),
    lateness_s=st.sampled_from([0.0, 0.3, 3.0]),
    max_gap_s=st.sampled_from([None, 2.0, 20.0]),
)
def test_time_alone_changes_something_when_it_is_due_and_nothing_before(history, interval, lateness_s, max_gap_s):
    """Whoever jumps from one due time to the next sees what a look at every moment would have seen."""
    aligner = Aligner("pump", interval_s=interval, lateness_s=lateness_s, max_gap_s=max_gap_s)
    now = 0.0
    for happening in history:
        if isinstance(happening, Message):
            now = happening.received_at
            aligner.add(happening.reading, now)
        elif isinstance(happening, Pause):
            now = happening.received_by
            aligner.advance(now)
        else:
            aligner.shift(happening.delta_s)
    while (due_at := aligner.due_at) < math.inf:
        event("due")
        undecided = aligner.undecided
        if due_at - 1e-3 > now:
            assert aligner.advance(due_at - 1e-3) == []
            assert aligner.undecided == undecided
            assert aligner.due_at == due_at
        now = max(now, due_at) + 1e-3
        assert aligner.advance(now) or aligner.undecided < undecided
    undecided = aligner.undecided
    assert aligner.advance(now + 1e7) == []
    assert aligner.undecided == undecided
