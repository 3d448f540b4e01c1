"""MessagePack and CBOR to the document that the same data would be as JSON.

Each library is loaded when a subscription asks for its format: cbor2 holds 1 MiB in the daemon, msgpack 0.5.
`config` has said at the start where one is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Literal

BinaryFormat = Literal["cbor", "msgpack"]

_LABELS = dict(
    zip(
        (str(number) for number in range(-6, 9)),
        ("bs", "bv", "bu", "bt", "bn", "bver", "n", "u", "v", "vs", "vb", "s", "t", "ut", "vd"),
        strict=True,
    )
)
"""RFC 8428, section 6, table 4."""


def reader(format: BinaryFormat) -> Callable[[bytes], object]:  # noqa: A002 - the name of the option a user writes
    """What reads a payload.

    Returns
    -------
    callable
        Bytes to a document of dict, list, float, bool, str and None.  It raises ``ValueError`` for what is none, and
        ``RecursionError`` for what is nested too deeply.

    Raises
    ------
    ImportError
        The library of the format is not installed.

    Examples
    --------
    >>> reader("msgpack")(bytes([0x81, 0xA1, 0x61, 0x02]))
    {'a': 2.0}
    """
    loads = _cbor() if format == "cbor" else _msgpack()

    def read(payload: bytes) -> object:
        try:
            document = loads(payload)
        except RecursionError:
            raise
        except Exception as error:  # one wrong bit makes them raise nearly anything
            raise ValueError(f"{type(error).__name__}: {error}".splitlines()[0][:120]) from error
        # CBOR can name a value a second time (tags 28 and 29): a hundred bytes would be millions of features.
        plain = _plain(document, [len(payload)])
        return _with_labels(plain) if format == "cbor" else plain

    return read


def _cbor() -> Callable[[bytes], object]:
    import io

    import cbor2

    def loads(payload: bytes) -> object:
        stream = io.BytesIO(payload)
        document = cbor2.CBORDecoder(stream).decode()
        if stream.tell() < len(payload):
            raise ValueError(f"{len(payload) - stream.tell()} bytes after the end of the document")
        return document

    return loads


def _msgpack() -> Callable[[bytes], object]:
    import msgpack

    def loads(payload: bytes) -> object:
        # Its limits on lengths are those of the payload.  timestamp=1: Unix seconds.
        document: object = msgpack.unpackb(payload, strict_map_key=False, timestamp=1)
        return document

    return loads


def _plain(value: object, left: list[int]) -> object:
    """A value as JSON has it; ``left`` is how many more values there may be."""
    left[0] -= 1
    if left[0] < 0:
        raise ValueError("more values than bytes")
    if value is None or isinstance(value, (bool, float, str)):
        return value
    if isinstance(value, (int, Decimal, Fraction)):
        return _float(value)
    if isinstance(value, dict):
        return {_key(key): _plain(item, left) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, left) for item in value]
    return value.isoformat() if isinstance(value, datetime) else f"<{type(value).__name__}>"


def _with_labels(document: object) -> object:
    """SenML has numbers for its labels in CBOR: a list of such records gets their names."""
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        return document
    if not all(item.keys() <= _LABELS.keys() for item in document):
        return document
    return [{_LABELS[key]: value for key, value in item.items()} for item in document]


def _float(value: int | Decimal | Fraction) -> float:
    try:
        return float(value)
    except (OverflowError, ValueError):
        return math.inf


def _key(key: object) -> str:
    """A key as JSON has it: a text."""
    if isinstance(key, bytes):
        return key.decode(errors="replace")
    return key if isinstance(key, str) else str(key)[:200]
