"""Rows taken one by one, until they are packed."""

import numpy as np
from storing import FEATURES, row

from gon_edge.state.buffer import RowBuffer


def test_rows_come_back_in_their_order_whatever_number_of_times_the_arrays_grew():
    buffer = RowBuffer(FEATURES)
    for i in range(300):
        buffer.add(row(i, restart=i == 7), i % 2 == 0)
    rows = buffer.rows()
    assert rows.features == FEATURES
    np.testing.assert_array_equal(rows.timestamps, 1000.0 + np.arange(300))
    np.testing.assert_array_equal(rows.values[:, 0], np.arange(300))
    assert np.flatnonzero(rows.restart).tolist() == [7]
    assert rows.quarantined.tolist() == [i % 2 == 0 for i in range(300)]


def test_what_was_given_away_is_not_changed_by_the_rows_that_follow():
    buffer = RowBuffer(FEATURES)
    buffer.add(row(1), False)
    before = buffer.rows()
    buffer.length = 0
    buffer.add(row(2), True)
    assert (before.values[0, 0], bool(before.quarantined[0])) == (1.0, False)


def test_a_value_that_is_held_over_from_long_ago_is_kept_as_unknown():
    buffer = RowBuffer(FEATURES)
    buffer.add(row(1, stale=("flow",)), False)
    assert np.isnan(buffer.rows().values[0]).tolist() == [True, False]


def test_a_chunk_takes_as_much_memory_however_many_features_there_are():
    few, many = RowBuffer(("a",)), RowBuffer(tuple(f"x{i}" for i in range(500)))
    assert many.limit < few.limit
    assert many.limit * many.row_bytes <= 256 << 10
