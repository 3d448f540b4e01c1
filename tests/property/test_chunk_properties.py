"""Packing, for any rows: what comes back is what was given, within what is promised."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from gon_edge.state.chunk import RowChunk, decode, encode

FLOATS = st.floats(width=32, allow_infinity=True, allow_nan=True)


@st.composite
def row_chunks(draw) -> RowChunk:
    N, F = draw(st.integers(1, 40)), draw(st.integers(0, 6))
    element = draw(st.sampled_from([FLOATS, st.floats(-100, 100, width=32), st.sampled_from([0.0, 0.1, 20.55, 1e4])]))
    values = draw(npst.arrays(np.float32, (N, F), elements=element.map(np.float32)))
    steps = draw(npst.arrays(np.int64, N, elements=st.integers(-(10**9), 10**9)))
    flags = npst.arrays(np.bool_, N)
    names = tuple(draw(st.lists(st.text(max_size=5), min_size=F, max_size=F, unique=True)))
    return RowChunk(names, (1_700_000_000_000_000 + steps.cumsum()) / 1e6, values, draw(flags), draw(flags))


@given(row_chunks())
def test_a_packed_chunk_comes_back_within_what_is_promised(chunk):
    back = decode(("s",), chunk.features, encode("s", chunk))
    np.testing.assert_array_equal(back.restart, chunk.restart)
    np.testing.assert_array_equal(back.quarantined, chunk.quarantined)
    np.testing.assert_allclose(back.timestamps, chunk.timestamps, rtol=0, atol=1e-6)
    for column in range(len(chunk.features)):
        given_values, returned = chunk.values[:, column].astype(np.float64), back.values[:, column].astype(np.float64)
        known = np.isfinite(given_values)
        np.testing.assert_array_equal(np.isnan(returned), ~known)
        if known.any():
            filled = given_values[np.maximum.accumulate(np.where(known, np.arange(len(known)), known.argmax()))]
            change = np.median(np.abs(np.diff(filled))) if len(filled) > 1 else 0.0
            span = np.ptp(given_values[known])
            step = max(span / 65534, change / 16, 1.2e-38) * 1.000001
            rounding = np.abs(given_values[known]) * 2.0**-23 + 1e-45
            assert (np.abs(returned - given_values)[known] <= step / 2 + rounding).all()


@given(st.binary(max_size=300))
def test_bytes_that_are_no_chunk_are_refused(payload):
    try:
        decode(("s",), ("a",), payload)
    except ValueError:
        return
    raise AssertionError("garbage was taken for rows")


@given(row_chunks(), st.data())
def test_a_flipped_bit_in_a_chunk_is_noticed(chunk, data):
    payload = bytearray(encode("s", chunk))
    bit = data.draw(st.integers(0, 8 * len(payload) - 1))
    payload[bit // 8] ^= 1 << bit % 8
    try:
        back = decode(("s",), chunk.features, bytes(payload))
    except ValueError:
        return
    same = decode(("s",), chunk.features, encode("s", chunk))  # bits between two sections carry nothing
    np.testing.assert_array_equal(back.values, same.values)
    np.testing.assert_array_equal(back.timestamps, same.timestamps)
