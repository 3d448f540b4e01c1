"""Rows kept in arrays come out as they went in, in their order and within their memory."""

from __future__ import annotations

import numpy as np

from gon_edge.events import Row
from gon_edge.stream.backlog import BACKLOG_BYTES, Backlog, Newest


def row(t: int, features: tuple[str, ...] = ("a", "b")) -> Row:
    values = np.full(len(features), float(t), np.float32)
    return Row("pump", float(t), features, values, np.array([t % 2 == 0] * len(features)), t % 7 == 0, t + 0.5)


def same(got: Row, wanted: Row) -> bool:
    return (
        (got.stream, got.timestamp, got.features, got.restart, got.received_at)
        == (wanted.stream, wanted.timestamp, wanted.features, wanted.restart, wanted.received_at)
        and np.array_equal(got.values, wanted.values)
        and np.array_equal(got.stale, wanted.stale)
    )


def test_rows_come_out_as_they_went_in_also_when_a_feature_is_new():
    kept = Backlog("pump")
    rows = [row(t) for t in range(300)] + [row(t, ("a", "b", "c")) for t in range(300, 700)]
    assert not [lost for one in rows for lost in kept.push(one)]
    assert len(kept) == 700
    assert all(same(kept.pop(), one) for one in rows)
    assert len(kept) == 0


def test_past_its_memory_the_oldest_come_out():
    kept = Backlog("pump")
    pushed = 0
    lost: list[Row] = []
    while not lost:
        lost = kept.push(row(pushed))
        pushed += 1
    assert [one.timestamp for one in lost] == list(range(len(lost)))
    assert len(kept) == pushed - len(lost)
    assert 20 * pushed < BACKLOG_BYTES < 60 * pushed  # 34 bytes a row of two features: 16 of times, 8 of values, flags


def test_the_newest_rows_are_those_of_a_window():
    newest = Newest(40)
    for t in range(100):
        newest.push(row(t))
    assert [one.timestamp for one in newest.rows("pump")] == list(range(60, 100))
    newest.push(row(100, ("a", "b", "c")))
    assert [one.timestamp for one in newest.rows("pump")] == [100.0]
