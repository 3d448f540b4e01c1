"""What lies around a payload's content: gzip and zlib, and how its text is encoded.

Compression is seen by its first bytes and needs no option: no format that gon-edge reads can begin like it.  What comes
out is bounded as the message is, so that a few bytes cannot fill the memory.
"""

from __future__ import annotations

import codecs
import zlib
from typing import Literal

_GZIP = b"\x1f\x8b\x08"  # RFC 1952: the magic number, and deflate, the only method there is
_EITHER = 32 + zlib.MAX_WBITS  # zlib.h: a header of gzip or of zlib


def inflated(payload: bytes, limit: int) -> bytes:
    """The content of a gzip or zlib payload; any other payload as it is.

    Parameters
    ----------
    payload : bytes
    limit : int
        Most bytes of content.

    Raises
    ------
    OverflowError
        There is more content than that.
    ValueError
        The compressed data are damaged or end early.

    Examples
    --------
    >>> inflated(zlib.compress(b"21.5"), 100), inflated(b"21.5", 100)
    (b'21.5', b'21.5')
    """
    if not is_compressed(payload):
        return payload
    stream = zlib.decompressobj(_EITHER)
    try:
        content = stream.decompress(payload, limit + 1)
    except zlib.error as error:
        raise ValueError(f"damaged gzip or zlib data: {error}") from None
    if len(content) > limit:
        raise OverflowError(f"{len(payload)} bytes hold more than {limit}")
    if not stream.eof:
        raise ValueError("gzip or zlib data that end early")
    if stream.unused_data:
        raise ValueError(f"{len(stream.unused_data)} bytes after the end of gzip or zlib data")
    return content


def is_compressed(payload: bytes) -> bool:
    """Whether a payload begins like gzip (RFC 1952) or zlib (RFC 1950)."""
    if payload[:3] == _GZIP:
        return True
    # deflate with a window of 32 KiB, which every writer takes; the two bytes are a multiple of 31.
    return len(payload) > 2 and payload[0] == 0x78 and (payload[0] << 8 | payload[1]) % 31 == 0


def text_of(payload: bytes) -> str:
    """The text of a payload: UTF-8, or UTF-16 that begins with a byte order mark.

    Raises
    ------
    ValueError
        It is neither; the message says what it may be and what to do.

    Examples
    --------
    >>> text_of("21,5 °C".encode("utf-16"))
    '21,5 °C'
    """
    if payload[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        try:
            return payload.decode("utf-16")
        except UnicodeDecodeError as error:
            raise ValueError(f"begins like UTF-16 and is none: byte {error.start}") from None
    try:
        return payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(hint_of(payload, error)) from None


def hint_of(payload: bytes, error: UnicodeDecodeError) -> str:
    """What a payload that is not UTF-8 may be, and what to do."""
    found = binary_format(payload) if error.start == 0 else None
    if found is not None:
        return f"no text; it begins like {found}: write format: {found}"
    byte = payload[error.start]
    # As printable text Latin-1 has these; C1 controls and most of what is binary lie below.
    likely = f", which is {chr(byte)!r} in Latin-1" if byte > 0xA0 else ""
    return (
        f"byte {error.start} is 0x{byte:02X}{likely}: set the device to UTF-8, or convert the text on its way, in "
        "Node-RED for example"
    )


def binary_format(payload: bytes) -> Literal["cbor", "msgpack"] | None:
    """What a payload that is no text begins like: the map of a document in CBOR (RFC 8949) or in MessagePack.

    A guess for people; a map of more than 15 keys in MessagePack, or 23 in CBOR, is not told.

    Examples
    --------
    >>> binary_format(bytes([0xA1, 0x61, 0x61, 0x02])), binary_format(bytes([0x81, 0xA1, 0x61, 0x02]))
    ('cbor', 'msgpack')
    """
    first = payload[0] if payload else 0
    if 0xA1 <= first <= 0xBF:
        return "cbor"
    return "msgpack" if 0x81 <= first <= 0x8F else None
