"""MessagePack and CBOR, as their libraries write them, to the document that JSON would give."""

import random
from datetime import UTC, datetime
from decimal import Decimal
from math import inf

import cbor2
import msgpack
import pytest

from gon_edge.stream.binary import reader

DOCUMENT = {"flow": 1.5, "count": 7, "on": True, "none": None, "state": "idle", "cells": [{"v": 3.3}, {"v": -4}]}
PLAIN = {"flow": 1.5, "count": 7.0, "on": True, "none": None, "state": "idle", "cells": [{"v": 3.3}, {"v": -4.0}]}


@pytest.mark.parametrize(("written", "dumps"), [("cbor", cbor2.dumps), ("msgpack", msgpack.packb)])
class TestBoth:
    def test_a_document_is_what_its_json_would_be(self, written, dumps):
        assert reader(written)(dumps(DOCUMENT)) == PLAIN
        assert type(reader(written)(dumps(7))) is float

    def test_keys_that_are_no_text_become_text(self, written, dumps):
        assert reader(written)(dumps({1: 2, b"b": 3, None: 4})) == {"1": 2.0, "b": 3.0, "None": 4.0}

    def test_bytes_become_text_that_is_no_number(self, written, dumps):
        assert reader(written)(dumps({"image": b"\x00\x01"})) == {"image": "<bytes>"}

    def test_what_is_cut_off_or_goes_on_is_refused(self, written, dumps):
        whole = dumps(DOCUMENT)
        for damaged in (whole[:-1], whole + b"\x01", b""):
            with pytest.raises(ValueError, match=r".") as caught:
                reader(written)(damaged)
            assert "\n" not in str(caught.value)

    def test_random_damage_is_read_or_refused(self, written, dumps):
        rng, read = random.Random(1), reader(written)
        for i in range(3000):
            message = bytearray(dumps(DOCUMENT)) if i % 2 else bytearray(rng.randbytes(rng.randrange(1, 40)))
            message[rng.randrange(len(message))] = rng.randrange(256)
            try:
                read(bytes(message))
            except (ValueError, RecursionError):
                continue

    def test_deep_nesting_is_refused(self, written, dumps):
        deep = (b"\x81" if written == "cbor" else b"\x91") * 100_000
        with pytest.raises((ValueError, RecursionError)):
            reader(written)(deep)


def test_a_document_of_cbor_that_names_its_values_again_and_again_is_refused():
    nested: object = [1.0]
    for _ in range(30):
        nested = [nested, nested]
    bomb = cbor2.dumps(nested, value_sharing=True)
    assert len(bomb) < 300
    with pytest.raises(ValueError, match="more values than bytes"):
        reader("cbor")(bomb)


def test_tagged_numbers_and_times_of_cbor_are_read():
    when = datetime(2026, 1, 5, 10, 14, 33, tzinfo=UTC)
    document = {"t": when, "d": Decimal("1.25"), "huge": 10**400}
    assert reader("cbor")(cbor2.dumps(document)) == {"t": "2026-01-05T10:14:33+00:00", "d": 1.25, "huge": inf}


def test_a_time_of_msgpack_is_unix_seconds():
    when = datetime(2026, 1, 5, 10, 14, 33, tzinfo=UTC)
    assert reader("msgpack")(msgpack.packb({"t": when}, datetime=True)) == {"t": when.timestamp()}


def test_senml_has_its_labels_by_number_in_cbor_and_other_lists_keep_their_keys():
    pack = [{-2: "urn:dev:ow:10e2:", -3: 1767607473.5, 0: "voltage", 1: "V", 2: 120.1}, {0: "on", 6: -5, 4: True}]
    assert reader("cbor")(cbor2.dumps(pack)) == [
        {"bn": "urn:dev:ow:10e2:", "bt": 1767607473.5, "n": "voltage", "u": "V", "v": 120.1},
        {"n": "on", "t": -5.0, "vb": True},
    ]
    assert reader("cbor")(cbor2.dumps([{0: 1, 9: 2}])) == [{"0": 1.0, "9": 2.0}]
    assert reader("cbor")(cbor2.dumps([1, 2])) == [1.0, 2.0]
