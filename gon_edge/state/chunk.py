"""A few hundred rows of one stream as bytes and back: what `rows` writes, small enough to spare an SD card.

Each feature of a chunk becomes integers on its own scale, coded plainly or as differences, whichever is smaller.  High
bytes stand apart from low bytes, and all of it is one zlib stream, whose checksum also notices a bit that flips on the
disk.  Timestamps are kept to the microsecond.  A value with few decimals, as most sensors write them, is kept exactly;
any other to half a step of

    max(range / 65534, median change from row to row / 16)

within the chunk.  What is lost is at most a thirtieth of the noise: training cannot see it, and it is not worth wearing
out a card.

This module knows no file and no SQL.  A change of the format needs a new `_VERSION`; chunks of another version are
refused, and the store leaves them out.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_VERSION = 1
_HEADER = struct.Struct("<BIIHqB")  # version, crc32 of stream and features, N, F, first microsecond, has_nan

_MAX_CODE = 65534  # 16 bits hold one more.  Not critical
_LARGEST_CONTENT = 16 << 20
"""Bytes unpacked.  Not critical: the store makes chunks of 256 KiB, so more than this is no chunk of ours."""
_LARGEST = float(np.finfo(np.float32).max)
_STEPS_PER_CHANGE = 16
"""Measured at 1 Hz, 16 features of Gaussian noise: 16 gives 6.3 bits a value, 32 gives 7.2, 64 gives 8.4; a full int16
gives 15.5, with which a day cannot be written below 5 MB."""

_DECIMALS = 4  # not critical: sensors write one to three
_EXACT_RATIO = 4
"""Steps this many times finer are taken where they keep a feature exact: two bits a value."""

Names = tuple[str, ...]
"""Of a stream: the one it has, and those it had when chunks were written (`streams.rename`)."""

_SCALED, _CONSTANT, _EMPTY, _DELTA = 8, 16, 17, 128  # modes 0 to 4: that many decimals


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Consecutive rows of one stream, oldest first.

    Attributes
    ----------
    features : tuple of str
        Names of the F columns.
    timestamps : ndarray of float64, shape (N,)
        Unix seconds.
    values : ndarray of float32, shape (N, F)
        NaN where a value is unknown or was stale.
    restart : ndarray of bool, shape (N,)
        True where a window must not reach back over the row's start.
    quarantined : ndarray of bool, shape (N,)
        True where the row must not be learned.
    """

    features: tuple[str, ...]
    timestamps: NDArray[np.float64]
    values: NDArray[np.float32]
    restart: NDArray[np.bool_]
    quarantined: NDArray[np.bool_]


def encode(stream: str, chunk: RowChunk) -> bytes:
    """Return the chunk as bytes; lossy as the module says.  Infinities become NaN."""
    N, F = chunk.values.shape
    known: NDArray[np.bool_] = np.isfinite(chunk.values)
    values = _filled(chunk.values, known)
    modes, offsets, steps, codes = _quantize(values, np.logical_or.reduce(known, axis=0))

    coded = modes < _CONSTANT
    codes = codes[:, coded]
    centres = _medians(codes).astype(np.int64)
    plain = codes - centres
    delta = np.diff(codes, axis=0, prepend=codes[:1])
    use_delta = _bits(delta) < _bits(plain)
    centres = np.where(use_delta, codes[0], centres)
    residual = np.where(use_delta, delta, plain).astype(np.int16)  # modulo 65536, undone by the same modulo
    zigzag = ((residual << 1) ^ (residual >> 15)).view(np.uint16).T  # (F, N): small magnitudes, small numbers
    modes[np.flatnonzero(coded)[use_delta]] |= _DELTA

    times_us = np.rint(chunk.timestamps * 1e6).astype(np.int64)
    has_nan = not known.all()
    header = _HEADER.pack(_VERSION, _identity(stream, chunk.features), N, F, int(times_us[0]), has_nan)
    return _deflated(
        header + modes.tobytes() + offsets.tobytes() + steps.tobytes() + centres.astype(np.uint16).tobytes(),
        np.diff(times_us).tobytes()
        + np.packbits(chunk.restart).tobytes()
        + np.packbits(chunk.quarantined).tobytes()
        + (np.packbits(known.T).tobytes() if has_nan else b""),
        (zigzag >> 8).astype(np.uint8).tobytes(),
        (zigzag & 0xFF).astype(np.uint8).tobytes(),
    )


def _deflated(*sections: bytes) -> bytes:
    """One zlib stream; a section is flushed apart from the next, so each has a code table fitted to what it holds."""
    # Strongest level, largest window, default memory; Z_FILTERED is for small differences.
    deflate = zlib.compressobj(9, zlib.DEFLATED, 15, 8, zlib.Z_FILTERED)
    parts = [deflate.compress(section) + deflate.flush(zlib.Z_SYNC_FLUSH) for section in sections]
    return b"".join(parts) + deflate.flush()


def _inflated(payload: bytes) -> bytes:
    """What `_deflated` took; a file from elsewhere must not unpack to gigabytes."""
    inflate = zlib.decompressobj()
    content = inflate.decompress(payload, _LARGEST_CONTENT)
    if not inflate.eof:
        raise zlib.error("cut off, or larger than any chunk")
    return content


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things are in the unpacked bytes of a chunk."""

    rows: int
    first_us: int
    has_nan: bool
    times: int
    restart: int
    quarantined: int
    known: int
    high: int
    low: int

    @classmethod
    def read(cls, streams: Names, features: tuple[str, ...], content: bytes) -> _Layout:
        """From the header and the modes, which `content` must hold at least."""
        N, F, first_us, has_nan = _header(streams, features, content)
        modes = np.frombuffer(content, np.uint8, F, _HEADER.size)
        coded = int(np.count_nonzero((modes & ~np.uint8(_DELTA)) < _CONSTANT))
        bits = -(-N // 8)
        times = _HEADER.size + 9 * F + 2 * coded
        restart = times + 8 * (N - 1)
        known = restart + 2 * bits
        high = known + (-(-N * F // 8) if has_nan else 0)
        return cls(N, first_us, has_nan, times, restart, restart + bits, known, high, high + coded * N)


def outline(streams: Names, features: tuple[str, ...], payload: bytes) -> RowChunk:
    """The chunk without values, which then have shape (N, 0): a tenth of the work of `decode`.

    Raises
    ------
    ValueError
        As `decode` does, except that damage of the values is not seen.
    """
    try:
        inflate = zlib.decompressobj()
        content = inflate.decompress(payload, _HEADER.size + len(features))
        layout = _Layout.read(streams, features, content)
        if layout.known > len(content):
            content += inflate.decompress(inflate.unconsumed_tail, layout.known - len(content))
        times_us = np.frombuffer(content, np.int64, layout.rows - 1, layout.times)
        restart, quarantined = (_bit_row(content, at, layout.rows) for at in (layout.restart, layout.quarantined))
    except (zlib.error, struct.error) as error:
        raise ValueError(f"damaged chunk: {error}") from None
    timestamps = np.concatenate(([layout.first_us], times_us)).astype(np.int64).cumsum() / 1e6
    return RowChunk(features, timestamps, np.empty((layout.rows, 0), np.float32), restart, quarantined)


def _bit_row(content: bytes, at: int, count: int) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(content, np.uint8, -(-count // 8), at), count=count).view(np.bool_)


def requarantine(
    streams: Names, features: tuple[str, ...], payload: bytes, since: float, until: float, quarantined: bool
) -> tuple[bytes, int]:
    """The payload with the rows from `since` to `until` (Unix seconds) quarantined or released, and how many changed.

    Values are not touched: they would lose precision each time.

    Raises
    ------
    ValueError
        As `decode` does.
    """
    held = outline(streams, features, payload)
    wanted = np.where((held.timestamps >= since) & (held.timestamps <= until), quarantined, held.quarantined)
    changed = int(np.count_nonzero(wanted != held.quarantined))
    if not changed:
        return payload, 0
    try:
        content = _inflated(payload)
    except zlib.error as error:
        raise ValueError(f"damaged chunk: {error}") from None
    at = _Layout.read(streams, features, content)
    flags = content[at.times : at.quarantined] + np.packbits(wanted).tobytes() + content[at.known : at.high]
    return _deflated(content[: at.times], flags, content[at.high : at.low], content[at.low :]), changed


def restamp(streams: Names, features: tuple[str, ...], payload: bytes, delta_s: float) -> bytes:
    """The payload with every row `delta_s` later; values and flags are not touched.

    Raises
    ------
    ValueError
        As `decode` does.
    """

    def later(version: int, identity: int, N: int, F: int, first_us: int, has_nan: int) -> bytes:
        return _HEADER.pack(version, identity, N, F, first_us + round(delta_s * 1e6), has_nan)

    return _with_header(streams, features, payload, later)


def _with_header(streams: Names, features: tuple[str, ...], payload: bytes, change: Callable[..., bytes]) -> bytes:
    """The payload with the header that ``change`` makes of its fields; all else stays as it is."""
    try:
        content = _inflated(payload)
        at = _Layout.read(streams, features, content)
        header = change(*_HEADER.unpack_from(content))
    except (zlib.error, struct.error) as error:
        raise ValueError(f"damaged chunk: {error}") from None
    names = header + content[_HEADER.size : at.times]
    return _deflated(names, content[at.times : at.high], content[at.high : at.low], content[at.low :])


def decode(streams: Names, features: tuple[str, ...], payload: bytes) -> RowChunk:
    """Inverse of `encode`.

    Raises
    ------
    ValueError
        If the bytes are damaged, of another version, or of another stream or feature set.
    """
    try:
        content = _inflated(payload)
        N, F, first_us, has_nan = _header(streams, features, content)
    except (zlib.error, struct.error) as error:
        raise ValueError(f"damaged chunk: {error}") from None
    at = _HEADER.size

    def take(dtype: type[np.generic], count: int) -> NDArray[np.generic]:
        nonlocal at
        array = np.frombuffer(content, dtype, count, at)
        at += array.nbytes
        return array

    def take_bits(shape: tuple[int, ...]) -> NDArray[np.bool_]:
        count = int(np.prod(shape))
        return np.unpackbits(take(np.uint8, -(-count // 8)).view(np.uint8), count=count).view(np.bool_).reshape(shape)

    modes = take(np.uint8, F).astype(np.int64)
    offsets = take(np.float32, F).astype(np.float64)
    steps = take(np.float32, F).astype(np.float64)
    use_delta, modes = modes & _DELTA != 0, modes & ~_DELTA
    coded = np.flatnonzero(modes < _CONSTANT)
    centres = take(np.uint16, len(coded)).astype(np.uint16)
    times_us = np.concatenate(([first_us], take(np.int64, N - 1))).astype(np.int64).cumsum()
    restart, quarantined = take_bits((N,)), take_bits((N,))
    known = take_bits((F, N)).T if has_nan else np.ones((N, F), np.bool_)
    high, low = (take(np.uint8, len(coded) * N).astype(np.uint16).reshape(len(coded), N) for _ in range(2))

    zigzag = high << 8 | low
    residual = (zigzag >> 1) ^ -(zigzag & 1)  # (F coded, N), modulo 65536
    values = np.repeat(np.where(modes == _EMPTY, np.nan, offsets)[None, :], N, axis=0)  # (N, F)
    for row, column in enumerate(coded):
        codes = residual[row].cumsum(dtype=np.uint16) if use_delta[column] else residual[row]
        codes = (codes + centres[row]).astype(np.float64)
        if modes[column] == _SCALED:
            values[:, column] += codes * steps[column]
        else:
            scale = 10.0 ** modes[column]
            values[:, column] = (np.rint(offsets[column] * scale) + codes) / scale
    np.clip(values, -_LARGEST, _LARGEST, out=values)  # half a step past the largest float32 would be infinite
    values[~known] = np.nan
    return RowChunk(features, times_us / 1e6, values.astype(np.float32), restart, quarantined)


def _header(streams: Names, features: tuple[str, ...], content: bytes) -> tuple[int, int, int, bool]:
    """N, F, the first microsecond and whether a value is unknown, of a chunk of these streams and features."""
    version, identity, N, F, first_us, has_nan = _HEADER.unpack_from(content)
    of_these = any(identity == _identity(stream, features) for stream in streams)
    if version != _VERSION or not of_these or len(features) != F or N < 1:
        raise ValueError("a chunk of another version, stream or feature set")
    return N, F, first_us, bool(has_nan)


def _identity(stream: str, features: tuple[str, ...]) -> int:
    return zlib.crc32("\0".join((stream, *features)).encode())


def _bits(residual: NDArray[np.int64]) -> NDArray[np.float64]:
    """What a column will cost, up to a constant."""
    return np.asarray(np.log2(1.0 + np.abs(residual)).sum(axis=0))


def _filled(values: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Copy with every unknown value replaced by the one before it, or the first known one; 0 in an empty column."""
    N, F = values.shape
    source = np.where(known, np.arange(N)[:, None], 0)
    np.maximum.accumulate(source, axis=0, out=source)
    np.maximum(source, known.argmax(axis=0), out=source)
    filled = values[source, np.arange(F)].astype(np.float64)
    filled[:, ~known.any(axis=0)] = 0.0
    return filled


def _quantize(
    values: NDArray[np.float64], present: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Choose a scale for each column; return modes, offsets, steps (F,) and codes (N, F) from 0 to 65534."""
    lowest = values.min(axis=0)
    span = values.max(axis=0) - lowest
    change = _medians(np.abs(np.diff(values, axis=0))) if len(values) > 1 else np.zeros_like(span)
    step = np.maximum(span / _MAX_CODE, change / _STEPS_PER_CHANGE)
    # Up to the next float32, so that the largest code stays in range; and never 0, whatever underflows.
    steps = np.nextafter(np.maximum(step, np.finfo(np.float32).tiny).astype(np.float32), np.float32(np.inf))
    modes = np.full(span.shape, _SCALED, np.uint8)
    codes = np.minimum(np.rint((values - lowest) / steps.astype(np.float64)), _MAX_CODE)

    narrow = values.astype(np.float32)
    for decimals in reversed(range(_DECIMALS + 1)):
        scale = 10.0**decimals
        whole = np.rint(values * scale)
        exact = ((whole / scale).astype(np.float32) == narrow).all(axis=0)
        use = exact & (span * scale <= _MAX_CODE) & (_EXACT_RATIO / scale >= step)
        modes[use] = decimals
        codes[:, use] = whole[:, use] - np.rint(lowest[use] * scale)
    modes[span == 0] = _CONSTANT
    modes[~present] = _EMPTY
    steps[modes != _SCALED] = 0.0
    return modes, lowest.astype(np.float32), steps, codes.astype(np.int64)


def _medians(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Median of each column (F,) of values (N, F), N at least 1.

    Not ``numpy.median``: its selection kernels, paged in once, stay with the daemon for good, 2 MiB of them.
    """
    half = len(values) // 2
    medians = np.empty(values.shape[1])
    for f, column in enumerate(values.T):
        ordered = sorted(column.tolist())
        medians[f] = 0.5 * (ordered[half] + ordered[~half])
    return medians
