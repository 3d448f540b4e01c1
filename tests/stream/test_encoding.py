"""What lies around a payload: compression, bounded, and the encoding of its text."""

import gzip
import zlib

import cbor2
import msgpack
import pytest

from gon_edge.stream.encoding import binary_format, inflated, is_compressed, text_of

DOCUMENT = b'{"flow": 1.5, "pressure": 2}'
PACKED = gzip.compress(DOCUMENT, mtime=0)


@pytest.mark.parametrize("level", [1, 6, 9])
def test_gzip_and_zlib_give_their_content(level):
    assert inflated(gzip.compress(DOCUMENT, level), 100) == DOCUMENT
    assert inflated(zlib.compress(DOCUMENT, level), 100) == DOCUMENT


@pytest.mark.parametrize("plain", [b"", b"x", b"21.5", DOCUMENT, b"xylem,host=a v=1", bytes([0x81, 0xA1, 0x61, 0x02])])
def test_what_is_not_compressed_stays_as_it_is(plain):
    assert not is_compressed(plain)
    assert inflated(plain, 1) == plain


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_content_as_large_as_the_limit_is_read_and_a_byte_more_is_not(compress):
    assert inflated(compress(bytes(1000)), 1000) == bytes(1000)
    with pytest.raises(OverflowError, match="hold more than 999"):
        inflated(compress(bytes(1000)), 999)


def test_a_bomb_is_refused_before_it_fills_the_memory():
    import tracemalloc

    bomb = zlib.compress(bytes(50 << 20), 9)
    tracemalloc.start()
    with pytest.raises(OverflowError):
        inflated(bomb, 256 << 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        (PACKED[:-9], "end early"),
        (PACKED + b"more", "4 bytes after the end"),
        (PACKED[:12] + b"\xff" + PACKED[13:], "damaged"),
        (zlib.compress(DOCUMENT)[:-1] + b"!", "damaged"),
    ],
)
def test_damaged_data_are_refused_with_the_reason(damaged, why):
    with pytest.raises(ValueError, match=why):
        inflated(damaged, 1000)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_in_utf_8_and_in_utf_16_with_a_byte_order_mark(encoding):
    assert text_of("21,5 °C".encode(encoding)) == "21,5 °C"


def test_both_byte_orders_of_utf_16_are_read():
    assert text_of(b"\xfe\xff\x00O\x00N") == text_of(b"\xff\xfeO\x00N\x00") == "ON"


def test_latin_1_is_refused_and_the_message_says_what_to_do():
    with pytest.raises(ValueError, match=r"byte 3 is 0xB0, which is '°' in Latin-1: set the device to UTF-8, or conv"):
        text_of("21 °C".encode("latin-1"))


def test_a_binary_document_where_text_is_expected_names_its_format():
    for written, dumps in (("cbor", cbor2.dumps), ("msgpack", msgpack.packb)):
        document = dumps({"temperature": 21.5, "on": True})
        assert binary_format(document) == written
        with pytest.raises(ValueError, match=f"begins like {written}: write format: {written}"):
            text_of(document)
    assert binary_format(b"") is binary_format(b'{"a": 1}') is None


@pytest.mark.parametrize("payload", [b"\xff\xfe\x00", b"\xff\xfe\x00\xd8", b"\x80", b"\xc3("])
def test_bytes_that_are_no_text_are_refused_in_one_line(payload):
    with pytest.raises(ValueError, match="byte") as caught:
        text_of(payload)
    assert "\n" not in str(caught.value)
