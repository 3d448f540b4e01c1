"""The wire format of Protocol Buffers: bytes of one message to its fields, by number.

Source: "Encoding", protobuf.dev.  Forty lines that read what Sparkplug's one small schema needs; the library of that
name would hold 2.3 MiB in the daemon.  What a field means is its reader's business (`sparkplug`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types.  3 and 4, groups, were given up before Sparkplug was written."""

_VARINT_BITS = 64  # of the widest number the format has
_GOES_ON = 0x80  # of a byte of such a number: another one follows
_FIXED = {FIXED64: 8, FIXED32: 4}


def fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """The fields of a message, in their order.

    Yields
    ------
    number : int
        Of the field.
    kind : int
        Its wire type.
    value : int or bytes
        Of a varint the number, unsigned; else the bytes.

    Raises
    ------
    ValueError
        The bytes are no message.

    Examples
    --------
    >>> list(fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02, 0x68, 0x69])))
    [(1, 0, 150), (2, 2, b'hi')]
    """
    at, end = 0, len(message)
    while at < end:
        key = message[at]  # mostly one byte: numbers below 16
        at += 1
        if key >= _GOES_ON:
            key, at = _varint(message, at - 1)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError(f"byte {at}: a field without a number")
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            size, at = _varint(message, at)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f"byte {at}: there is no wire type {kind}")
        if size > end - at:
            raise ValueError(f"byte {at}: a field of {size} bytes, and {end - at} are left")
        yield number, kind, message[at : at + size]
        at += size


def double(value: int | bytes) -> float:
    """A ``double`` or ``float`` from its eight or four bytes."""
    if not isinstance(value, bytes) or len(value) not in _FIXED.values():
        raise ValueError("a number that is not fixed in size")
    return float(struct.unpack("<d" if len(value) == _FIXED[FIXED64] else "<f", value)[0])


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """An unsigned number of seven bits a byte, low ones first, and where it ends."""
    if at < len(message) and message[at] < _GOES_ON:
        return message[at], at + 1
    number = shift = 0
    while at < len(message):
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < _GOES_ON:
            return number & (1 << _VARINT_BITS) - 1, at
        shift += 7
        if shift >= _VARINT_BITS:
            break
    raise ValueError(f"byte {at}: a number that does not end")
