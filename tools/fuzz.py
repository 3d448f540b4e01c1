"""Feed mutated input, guided by coverage (atheris), to everything that reads what others wrote; judge what comes out.

::

    make fuzz                                       # every target, a million inputs each; hours
    make fuzz TARGETS="payloads topics" RUNS=100000
    python tools/fuzz.py captures --runs 100000

====================  ==================================================================================================
``payloads``          `Decoder.decode` in all formats: readings within their limits, or `PayloadError` of a known reason
``topics``            templates and topics: `config` and `payload` refuse the same, and `match` is the broker's matching
``config``            `load_config` and what the daemon builds of it: a `Config`, or one line
``models``            `loads`, mostly with a right checksum: a model that can score, or `ModelFileError`
``chunks``            packed rows: `decode`, `outline`, `requarantine`, half of the time with a right zlib stream
``database``          a state database, changed as a file or by SQL: `Store` opens, reads and writes, whatever is in it
``captures``          `Capture`: messages, or one line
``tables``            `Table`: rows with finite numbers or reasons, or one line
``answers``           answers to alerts by MQTT: an order for the scoring thread, or one line
====================  ==================================================================================================

A target stops at the first crash, an input that takes over ten seconds, or objects that pile up, and leaves the input
in ``build/fuzz/<target>``; ``python tools/fuzz.py TARGET FILE`` shows it again.  What is found becomes a test.  The
corpus starts with the literals of the tests and what the code itself writes.  Each target is a process of its own.
"""

# ruff: noqa: PT017  asserts are how a target says that something is wrong

from __future__ import annotations

import argparse
import ast
import atexit
import contextlib
import copy
import gc
import io
import json
import math
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed; type: pip install -e '.[fuzz]' (Linux on x86-64, Python 3.11 or later)")

# The tracing of atheris keeps an object of each comparison of arrays, so what piles up is counted without it.
with contextlib.nullcontext() if "--growth" in sys.argv else atheris.instrument_imports(include=["gon_edge"]):
    import numpy as np
    from paho.mqtt.client import topic_matches_sub

    from gon_edge.commands.record import Capture
    from gon_edge.config.file import load_config, options, parse_config
    from gon_edge.config.schema import LimitsConfig
    from gon_edge.config.subscription import StreamKey, SubscriptionConfig
    from gon_edge.errors import ConfigError, InputError, ModelFileError, PayloadError, StoreError
    from gon_edge.events import MASK_REASONS, REASONS, Row
    from gon_edge.links.feedback import MESSAGE_BYTES, read_answer
    from gon_edge.model import file as modelfile
    from gon_edge.model.detector import Detector
    from gon_edge.model.gon import Discriminator
    from gon_edge.state.chunk import RowChunk, decode, encode, outline, requarantine
    from gon_edge.state.database import DATABASE
    from gon_edge.state.history import RetrainRecord
    from gon_edge.state.store import Store
    from gon_edge.stream.payload import Decoder, decoders
    from gon_edge.stream.scalars import LARGEST
    from gon_edge.stream.silences import Silences
    from gon_edge.stream.topics import MAX_NAME, TopicTemplate
    from gon_edge.tables.grid import grid
    from gon_edge.tables.table import Table
    from gon_edge.training.fit import fit_model

ROOT = Path(__file__).resolve().parent.parent
PER_PROCESS = 250_000
"""Inputs of one process: what the tracing of atheris keeps would be taken for a leak."""
BLOCKS = 1000
"""Python objects that may be more after the corpus was gone through twenty times than after two: less than one a round
and input is a leak that only some inputs have, and the corpus has hundreds."""

Target = Callable[[bytes], None]


# -- payloads and topics -----------------------------------------------------------------------------------------------

_FEATURES = 50
_LIMITS = LimitsConfig(features=_FEATURES)
_PAYLOADS = ("payload", "document", "bare", "lines", "items", "senml", "scalars", "times", "wire")
DECODERS = (
    (Decoder(SubscriptionConfig("t/{stream}", timestamp="t"), _LIMITS), "t/pump"),
    (Decoder(SubscriptionConfig("t/{stream}", timestamp="a.t"), _LIMITS), "t/pump"),
    (Decoder(SubscriptionConfig("t/{stream}/{feature}"), _LIMITS), "t/pump/flow"),
    (Decoder(SubscriptionConfig("t/{stream}/{feature...}", "value"), _LIMITS), "t/pump/a/b"),
    (Decoder(SubscriptionConfig("t/{stream}", "value"), _LIMITS), "t/pump"),
    (Decoder(SubscriptionConfig("t/#", "influx"), _LIMITS), "t/x"),
    (Decoder(SubscriptionConfig("t/{stream}", "influx"), _LIMITS), "t/pump"),
    (Decoder(SubscriptionConfig("c/{stream}/{feature...}", "collectd"), _LIMITS), "c/pi/cpu/idle"),
    (Decoder(SubscriptionConfig("t/{stream}", "cbor", timestamp="t"), _LIMITS), "t/pump"),
    (Decoder(SubscriptionConfig("t/{stream}", "msgpack", timestamp="t"), _LIMITS), "t/pump"),
    (Decoder(SubscriptionConfig("spBv1.0/g/+/{stream}/#", "sparkplug"), _LIMITS), "spBv1.0/g/NBIRTH/pump"),
    (Decoder(SubscriptionConfig("spBv1.0/g/+/{stream}/#", "sparkplug"), _LIMITS), "spBv1.0/g/DDATA/pump/oil"),
    (
        Decoder(SubscriptionConfig("t/{stream...}/{feature}", timezone="Europe/Berlin", decimal="comma"), _LIMITS),
        "t/a/b/c",
    ),
    (Decoder(SubscriptionConfig("t/{stream}", "senml"), _LIMITS), "t/pump"),
    (Decoder(SubscriptionConfig("t/#", "senml", stream=StreamKey(("bn",))), _LIMITS), "t/pump"),
    (Decoder(SubscriptionConfig("t/{stream}", items="values", name_key=("id", "n"), value_key="v"), _LIMITS), "t/pump"),
    (Decoder(SubscriptionConfig("t/#", stream=StreamKey(("id", "model")), name_key=("n",)), _LIMITS), "t/pump"),
    (Decoder(SubscriptionConfig("t/#", items="{stream}", value_key="values", timestamp="ts"), _LIMITS), "t/pump"),
)


def payloads(data: bytes) -> None:
    """One message; the first byte says which subscription it comes by."""
    decoder, topic = DECODERS[data[0] % len(DECODERS)] if data else DECODERS[0]
    try:
        decoded = decoder.decode(topic, data[1:])
    except PayloadError as error:
        assert error.reason in REASONS, error.reason
        assert "\n" not in str(error), "an error is one line"
        return
    assert decoded.readings
    assert set(decoded.rejected) <= set(REASONS)
    assert set(decoded.masked) <= set(MASK_REASONS)
    for reading in decoded.readings:
        names = [*reading.values, *reading.masked]
        assert len(names) == len(set(names)) <= _FEATURES
        assert all(0 < len(name) <= MAX_NAME and name.isprintable() for name in (reading.stream, *names))
        assert not set(reading.stream) & set("+#/")
        assert all(type(value) is float and -LARGEST <= value <= LARGEST for value in reading.values.values())
        assert set(reading.masked.values()) <= set(MASK_REASONS)
        assert reading.timestamp is None or 0 <= reading.timestamp < 253402300800


def topics(data: bytes) -> None:
    """A template and a topic, a line each."""
    text, _, topic = data.decode(errors="replace").partition("\n")
    try:
        template = TopicTemplate.parse(text)
    except ValueError:
        template = None
    placed = template is not None and template.has_stream
    subscription = {"topic": text, "format": "json", "stream": None if placed else "s"}
    try:
        parse_config({"mqtt": {"url": "mqtt://h"}, "subscriptions": [subscription]}, environ={})
        accepted = True
    except ConfigError:
        accepted = False
    if "${" not in text and text not in ("auto", "off"):
        assert accepted == (template is not None), "config and payload disagree on a template"
    if template is None or not topic:
        return
    names = template.match(topic)
    if names is not None:
        assert topic_matches_sub(template.filter, topic), "took a topic its subscription does not cover"
    elif "...}" not in text:
        assert not topic_matches_sub(template.filter, topic), "left a topic its subscription covers"


# -- files -------------------------------------------------------------------------------------------------------------

# In memory: a file is written for each input.  libFuzzer ends without saying so, so who started us clears up.
_MEMORY = os.environ.get("TMPDIR") or ("/dev/shm" if Path("/dev/shm").is_dir() else None)
_SCRATCH = Path(tempfile.mkdtemp(prefix="gon-edge-fuzz-", dir=_MEMORY))
atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)


def config(data: bytes) -> None:
    """A configuration file."""
    path = _SCRATCH / "config.yaml"
    path.write_bytes(data)
    try:
        loaded = load_config(path, environ={})
        decoders(loaded)
    except ConfigError as error:
        assert "\n" not in str(error), "an error is one line"
        return
    assert dict(options(loaded))["mqtt.url"]


def _small_model() -> modelfile.Model:
    """Of two scales, for speed: the others have the same arrays again."""
    rng = np.random.default_rng(0)
    model = fit_model(rng.normal(size=(200, 2)), features=["a", "b"], rng=rng)
    whole = model.discriminator
    model = replace(model, discriminator=Discriminator(whole.scales[:2], 2, whole.bias))
    return model.with_lineage(version="1", trained_at=1.5, relative=["a"])


VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 40, 1.5, -0.5, 10**30, 1e308, math.nan, math.inf, -math.inf),
    *("", "a", "1", [], [1], ["a", "b"], ["a", "a"], [["a"], "b"], {}, {"version": [1]}, {"relative": 3}),
    *({"relative": ["a", "z"]}, {"trained_at": "x"}, [[1, 1.0, 1.0, 1.0]], "x" * 300),
)


NUMBERS = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 3.4e38, -3.4e38, 1e-45, 1e308, 127.0, -128.0, 1e9)
KINDS = ("f4", "f8", "i4", "i1", "u1", "f2", "c8", "?", ">f4", "S3", "U2", "M8[s]")


def _zipped(files: dict[str, bytes]) -> bytes:
    """An archive, not compressed, in a tenth of the time `zipfile` takes."""
    entries, directory, at = [], [], 0
    for name, file in files.items():
        key = f"{name}.npy".encode()
        of_file = struct.pack("<4H3L2H", 0, 0, 0, 33, zlib.crc32(file), len(file), len(file), len(key), 0)
        entries += [b"PK\3\4\x14\0", of_file, key, file]
        directory += [b"PK\1\2\x14\0\x14\0", of_file, struct.pack("<3H2L", 0, 0, 0, 0, at), key]
        at += 6 + len(of_file) + len(key) + len(file)
    central = b"".join(directory)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(files), len(files), len(central), at, 0)
    return b"".join((*entries, central, end))


class _Models:
    """A small model, its header and its arrays changed by the input, with the checksum that belongs to them."""

    def __init__(self) -> None:
        self.blob = modelfile.dumps(_small_model())
        with zipfile.ZipFile(io.BytesIO(self.blob)) as archive:
            self.files = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
        self.arrays = {name: np.lib.format.read_array(io.BytesIO(file)) for name, file in self.files.items()}
        self.header = json.loads(self.arrays.pop("header").tobytes())
        del self.header["checksum"]

    def changed(self, changes: bytes) -> bytes:
        """The file; the first byte says how many of the others belong to the header."""
        of_header = 2 * (changes[0] % 8) if changes else 0
        header = self._header(changes[1 : 1 + of_header])
        arrays = self._arrays(changes[1 + of_header :][:24])
        header["checksum"] = modelfile._checksum(header, arrays)
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        return _zipped({name: self._file(name, array) for name, array in arrays.items()})

    def _file(self, name: str, array: Any) -> bytes:
        if array is self.arrays.get(name):
            return self.files[name]
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, array)
        return buffer.getvalue()

    def _header(self, changes: bytes) -> dict[str, Any]:
        """Each pair of bytes chooses an entry and a value."""
        header: dict[str, Any] = json.loads(json.dumps(self.header))
        for place, value in zip(changes[::2], changes[1::2], strict=False):
            key = sorted(self.header)[place % len(self.header)]
            within = place // len(self.header)
            chosen = copy.deepcopy(VALUES[value % len(VALUES)])
            if key == "scales" and within:
                with suppress(TypeError, IndexError, KeyError):  # an earlier pair has put something else there
                    header["scales"][0][within % 4] = chosen
            else:
                header[key] = chosen
        return header

    def _arrays(self, changes: bytes) -> dict[str, Any]:
        """Each four bytes choose an array, what is done to it, a place and a value."""
        arrays = dict(self.arrays)
        names = sorted(arrays)
        for which, how, place, value in zip(*(changes[i : len(changes) // 4 * 4 : 4] for i in range(4)), strict=True):
            name = names[which % len(names)]
            array = arrays[name]
            number = NUMBERS[value % len(NUMBERS)]
            with suppress(ValueError, TypeError, IndexError, OverflowError, RuntimeError), np.errstate(all="ignore"):
                match how % 12:
                    case 0 | 1 | 2 if array.size:
                        array = array.copy()
                        array.reshape(-1)[place % array.size] = number
                    case 3:
                        array = np.full_like(array, number)
                    case 4:
                        array = array.astype(KINDS[value % len(KINDS)])
                    case 5:
                        array = array[: place % (len(array) + 1)]
                    case 6:
                        array = array.T
                    case 7:
                        array = array[None]
                    case 8:
                        array = array.reshape(-1)
                    case 9:
                        array = arrays[names[place % len(names)]]
                    case 10:
                        array = np.concatenate([array, array])
                    case 11:
                        array = np.zeros((value % 3, place % 5), array.dtype)
            arrays[name] = array
        return arrays

    def __call__(self, data: bytes) -> None:
        blob = data[1:] if data[:1] == b"F" else self.changed(data[1:])
        try:
            model = modelfile.loads(blob, Path("m.npz"))
        except ModelFileError as error:
            assert "\n" not in str(error), "an error is one line"
            return
        F = len(model.features)
        detector = None
        for value in (0.0, 1.0):
            row = Row("s", 1.0 + value, model.features, np.full(F, value, np.float32), np.zeros(F, np.bool_))
            detector = detector or Detector(model.at_level_of(model.features, row.values))
            verdict = detector.score(row)
            assert math.isfinite(verdict.score), "a score that no threshold can be compared with"
        str(model.version), float(model.lineage.get("trained_at", 0.0))


# -- the store ---------------------------------------------------------------------------------------------------------

_NAMES = ("a", "b")


def _database() -> bytes:
    directory = Path(tempfile.mkdtemp(dir=_SCRATCH))
    with Store.open(directory) as store:
        for i in range(40):
            store.add_row(Row("s", 60.0 + i, _NAMES, np.float32([i, 0.5]), np.zeros(2, np.bool_)), i == 7, now=0.0)
        store.add_alert({"id": "x", "type": "new", "stream": "s", "since": 61.0})
        store.put_state("alerts/s", {"a": 1})
        store.put_state("silences", [{"stream": "s", "feature": "", "since": 1, "until": 2, "reason": "r"}])
        store.add_retrain(RetrainRecord("s", "1", 60.0, 1.0, "promoted", 1, 40, ""))
        store.flush(now=1.0)
    return (directory / DATABASE).read_bytes()


def _chunk(restart: bool) -> bytes:
    rng = np.random.default_rng(1)
    values = np.column_stack([rng.normal(size=30).round(2), rng.normal(size=30)]).astype(np.float32)
    values[3, 0] = np.nan
    flags = np.zeros((2, 30), np.bool_)
    flags[0, 0] = restart
    return encode("s", RowChunk(_NAMES, 60.0 + np.arange(30.0), values, flags[0], flags[1]))


def chunks(data: bytes) -> None:
    """``D`` and what packed rows unpack to, or anything else and packed rows."""
    payload = zlib.compress(data[1:], 1) if data[:1] == b"D" else data[1:]
    known = None
    with suppress(ValueError):
        chunk = decode(("s",), _NAMES, payload)
        known = chunk.timestamps
        N = len(known)
        assert N > 0, "a chunk without a row"
        assert chunk.values.shape == (N, 2)
        assert chunk.restart.shape == chunk.quarantined.shape == (N,)
        assert not np.isinf(chunk.values).any()
    with suppress(ValueError):
        short = outline(("s",), _NAMES, payload)
        assert len(short.timestamps) > 0, "a chunk without a row"
        assert known is None or np.array_equal(known, short.timestamps)
    with suppress(ValueError):
        requarantine(("s",), _NAMES, payload, 0.0, 1e9, True)


CELLS = (
    *(("stream", "id"), ("stream", "name"), ("feature_set", "id"), ("feature_set", "names")),
    *(("chunk", name) for name in ("id", "stream", "feature_set", "newest", "rows", "gap", "payload")),
    *(("alert", name) for name in ("id", "stream", "active", "since", "event")),
    *(("state", "key"), ("state", "value"), ("retrain", "seq"), ("retrain", "stream"), ("retrain", "record")),
)


class _Databases:
    """``P`` and places changed in a sound file, ``Q`` and cells changed by SQL, or anything else and a whole file."""

    def __init__(self) -> None:
        self.sound = _database()

    def patched(self, changes: bytes) -> bytes:
        """Each three bytes are a place and a value."""
        content = bytearray(self.sound)
        for high, low, value in zip(changes[::3], changes[1::3], changes[2::3], strict=False):
            content[(high << 8 | low) % len(content)] = value
        return bytes(content)

    def written(self, changes: bytes) -> bytes:
        """Each part, up to ``0xFF 0xFF``, is a cell, a type and a value."""
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            db.deserialize(self.sound[:18] + b"\x01\x01" + self.sound[20:])  # memory has no WAL
            for part in changes.split(b"\xff\xff")[:4]:
                table, column = CELLS[part[0] % len(CELLS)] if part else CELLS[0]
                kind, value = part[1] % 6 if len(part) > 1 else 4, part[2:]
                values = (
                    value.decode(errors="replace"),
                    value,
                    int.from_bytes(value[:8], signed=True),
                    struct.unpack("<d", value[:8].ljust(8, b"\0"))[0],
                    None,
                    value,
                )
                how = "CAST(? AS TEXT)" if kind == 5 else "?"  # which need not be UTF-8
                with suppress(sqlite3.Error):
                    db.execute(f"UPDATE OR REPLACE {table} SET {column} = {how}", (values[kind],))
            content = bytes(db.serialize())
        return content[:18] + b"\x02\x02" + content[20:]

    def __call__(self, data: bytes) -> None:
        content = data
        if data[:1] in (b"P", b"Q"):
            content = (self.patched if data[:1] == b"P" else self.written)(data[1:])
        for stale in _SCRATCH.glob(f"{DATABASE}*"):
            stale.unlink()
        (_SCRATCH / DATABASE).write_bytes(content)
        try:
            held = Store.open(_SCRATCH)
        except StoreError as error:
            assert "newer" in str(error)
            return
        with held:
            if held.recovered and zlib.crc32(content) % 16:
                return  # what follows begins with an empty database then, whatever was in this one
            for stream in held.streams():
                held.rows(stream)
                list(held.outline(stream))
                held.quarantine(stream, 60.0, 70.0)
            held.alerts()
            held.retrains()
            held.state("alerts/s")
            Silences(held.state("silences"))
            held.add_row(Row("s", 200.0, _NAMES, np.zeros(2, np.float32), np.zeros(2, np.bool_)), False, now=0.0)
            held.add_alert({"id": "y", "type": "new", "stream": "s", "since": 62.0})
            held.put_state("alerts/s", {"a": 2})
            held.flush(now=10.0)
            held.rows("s")


# -- captures ----------------------------------------------------------------------------------------------------------


def captures(data: bytes) -> None:
    """A capture, zipped or not."""
    path = _SCRATCH / "capture.jsonl"
    path.write_bytes(data)
    try:
        with Capture(str(path)) as capture:
            for message in capture:
                assert isinstance(message.payload, bytes)
                message.topic.encode()
                assert math.isfinite(message.received_at)
            assert capture.ended_at is None or math.isfinite(capture.ended_at)
    except InputError as error:
        assert "\n" not in str(error), "an error is one line"


# -- tables ------------------------------------------------------------------------------------------------------------


def tables(data: bytes) -> None:
    """A CSV file, zipped or not."""
    path = _SCRATCH / "table.csv"
    path.write_bytes(data)
    try:
        with Table(str(path)) as table:
            assert all("\n" not in line for line in table.said()), "a line is one"
            for record in table.records():
                assert not table.has_times or 0.0 <= record.at < 253402300800.0
                assert all(value in MASK_REASONS or math.isfinite(value) for value in record.values)
            for _ in grid(table, table.features):
                pass
    except InputError as error:
        assert "\n" not in str(error), "an error is one line"


# -- answers -----------------------------------------------------------------------------------------------------------


def answers(data: bytes) -> None:
    """An answer to an alert, as it comes by MQTT."""
    try:
        asked = read_answer(data)
    except InputError as error:
        assert "\n" not in str(error), "an error is one line"
        return
    assert asked["do"] in ("feedback", "missed")
    assert len(asked["note"].encode()) <= MESSAGE_BYTES
    if asked["do"] == "missed":
        assert 0 <= asked["at"]["at"] < 253402300800


# -- seeds -------------------------------------------------------------------------------------------------------------


def _literals(*files: str) -> list[bytes]:
    """Every piece of text and bytes in some tests: what their authors thought of."""
    found: set[bytes] = set()
    for file in files:
        for node in ast.walk(ast.parse((ROOT / "tests" / file).read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
                found.add(node.value if isinstance(node.value, bytes) else node.value.encode(errors="replace"))
    return sorted(text for text in found if 0 < len(text) < 4096)


def _seeds(target: str) -> list[bytes]:
    if target == "payloads":
        texts = _literals(*(f"stream/test_{name}.py" for name in _PAYLOADS))
        # A metric of each kind by the schema of Sparkplug; a small document of CBOR and of MessagePack; all deflated.
        texts += [b"\x08\xe8\x07\x12\x11\x0a\x01a\x10\x07\x20\x0a\x69\0\0\0\0\0\0\xf8\x3f"]
        texts += [
            b"\xa2atg1970-01aa\x83\x01\xfb?\xf8\0\0\0\0\0\0\xf6",
            b"\x82\xa1t\x05\xa1a\x93\x01\xcb?\xf8\0\0\0\0\0\0\xc0",
        ]
        texts += [zlib.compress(text) for text in texts[-3:]]
        return [bytes([i]) + text for text in texts for i in range(len(DECODERS))]
    if target == "topics":
        templates = [text for text in _literals("stream/test_topics.py", "config/test_subscription.py") if b"/" in text]
        return [template + b"\n" + template.replace(b"{", b"").replace(b"}", b"") for template in templates]
    if target == "config":
        full = (ROOT / "configs" / "gon-edge.yaml").read_bytes()
        bare = b"\n".join(line for line in full.splitlines() if not line.strip().startswith(b"#"))
        return [
            bare,
            (ROOT / "configs" / "minimal.yaml").read_bytes(),
            *_literals("config/test_file.py", "config/test_values.py"),
        ]
    if target == "models":
        models = _Models()
        headers = [b"H\x01" + bytes([i, i]) for i in range(4 * len(models.header))]
        arrays = [b"H\0" + bytes([i, how, how, i]) for i in range(len(models.arrays)) for how in range(12)]
        return [b"F" + models.blob, b"H", *headers, *arrays]
    if target == "chunks":
        packed = [_chunk(True), _chunk(False)]
        identity = zlib.crc32("\0".join(("s", *_NAMES)).encode())
        headers = [struct.pack("<BIIHqB", 1, identity, N, 2, 0, 0) + bytes(40) for N in (0, 1, 2, 2**32 - 1)]
        unpacked = [*(zlib.decompress(payload) for payload in packed), *headers]
        return [*(b"C" + payload for payload in packed), *(b"D" + content for content in unpacked)]
    if target == "database":
        deep = b"[" * 2000
        texts = (b"[]", b"null", b'{"a": NaN}', b'["a", "b"]', b'["a", "a"]', b"7", b"\xff", deep, _chunk(True), b"")
        cells = [b"Q" + bytes([i, kind]) + text for i in range(len(CELLS)) for kind, text in enumerate(texts)]
        patches = [b"P" + bytes([high, low, 255]) for high in range(0, 100, 3) for low in (0, 9, 200)]
        return [_database(), *cells, *patches]
    if target == "tables":
        exports = (ROOT / "tests" / "tables" / "exports").iterdir()
        return [path.read_bytes()[:2048] for path in exports] + _literals(
            "tables/test_times.py", "tables/test_cells.py"
        )
    if target == "answers":
        return _literals("links/test_feedback.py")
    head = b'{"gon-edge capture": 1, "version": "0", "broker": "b", "topics": ["t"], "received_at": 1.5, "wall": 2.5}\n'
    entry = (
        b'{"topic": "t/a", "payload": "{}", "received_at": 2.0, "wall": 3.0, "retained": false, "qos": 1}\n'
        b'{"topic": "t/a", "payload_base64": "/w==", "received_at": 2.5, "wall": 3.5, "retained": true, "qos": 0}\n'
    )
    whole = head + entry + b'{"ended_at": 3.0, "wall": 4.0}\n'
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    odd = (b"null", b'"x"', b"1e999", b"NaN", b"[]", b'"\\ud800"', b"9" * 400, b"[" * 1800)
    changed = [whole.replace(old, b" " + new, 1) for new in odd for old in (b" 3.0", b" 2.0", b" 1}", b' "t/a"')]
    return [head, whole, packer.compress(whole) + packer.flush(), *changed, *_literals("commands/test_record.py")]


TARGETS: dict[str, tuple[Callable[[], Target], int]] = {
    "payloads": (lambda: payloads, 1024),
    "topics": (lambda: topics, 256),
    "config": (lambda: config, 2048),
    "models": (_Models, 16384),
    "chunks": (lambda: chunks, 2048),
    "database": (_Databases, 24576),
    "captures": (lambda: captures, 2048),
    "tables": (lambda: tables, 2048),
    "answers": (lambda: answers, 1024),
}
"""Each target and the longest input, in bytes, it is given."""


# -- running -----------------------------------------------------------------------------------------------------------


def _fuzz(name: str, runs: int, corpus: Path, files: list[str], for_s: int) -> None:
    make, longest = TARGETS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in _seeds(name):
        (corpus / f"seed-{zlib.crc32(seed):08x}").write_bytes(seed[:longest])
    limits = [f"-max_len={longest}", "-len_control=0", "-timeout=10", "-rss_limit_mb=1024"]
    limits += [f"-artifact_prefix={corpus.parent}/", *([f"-max_total_time={for_s}"] if for_s else [])]
    more = files or [f"-runs={runs}", "-print_final_stats=1", "-reload=0", str(corpus)]
    atheris.Setup([sys.argv[0], *limits, *more], make())
    atheris.Fuzz()


def _growth(name: str, corpus: Path) -> int:
    """Go through the corpus again and again; 1 when objects pile up."""
    target = TARGETS[name][0]()
    inputs = [path.read_bytes() for path in sorted(corpus.iterdir())]
    blocks = 0
    for i in range(20):
        for data in inputs:
            target(data)
        gc.collect()
        if i == 1:
            blocks = sys.getallocatedblocks()
    more = sys.getallocatedblocks() - blocks
    print(f"== {name}: {more:+d} objects after 18 times {len(inputs)} inputs", flush=True)
    return int(more > BLOCKS)


def _held(name: str, runs: int, for_s: int, work: Path) -> bool:
    """Whether a target got through so many inputs, and piles up nothing."""
    command = [sys.executable, __file__, name, "--work", str(work)]
    scratch = {**os.environ, "TMPDIR": str(_SCRATCH)}
    until = time.monotonic() + for_s
    for begun in range(0, runs, PER_PROCESS):
        left_s = math.ceil(until - time.monotonic()) if for_s else 0
        if for_s and left_s <= 0:
            break
        limits = ["--runs", str(min(runs - begun, PER_PROCESS)), "--seconds", str(left_s)]
        if subprocess.run([*command, *limits], env=scratch).returncode:
            return False
    return not subprocess.run([*command, "--growth"], env=scratch).returncode


def main() -> int:
    """Run the targets one after the other; the number of those that failed is the exit status."""
    parser = argparse.ArgumentParser(description="Fuzz what reads foreign input.", epilog=__doc__.split("\n\n")[1])
    parser.add_argument("target", nargs="?", choices=TARGETS, help="only this one, in this process")
    parser.add_argument("file", nargs="*", help="run these inputs only")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS), metavar="TARGET")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs of each (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=0, help="stop a target after this time; 0 is never")
    parser.add_argument("--growth", action="store_true", help="only count what piles up over the corpus of a target")
    parser.add_argument("--work", type=Path, default=Path("build/fuzz"), help="corpus and findings (%(default)s)")
    args = parser.parse_args()
    if args.growth:
        return _growth(args.target, args.work / args.target / "corpus")
    if args.target:
        _fuzz(args.target, args.runs, args.work / args.target / "corpus", args.file, args.seconds)
    failed = []
    for name in args.targets:
        print(f"== {name}: {args.runs} inputs", flush=True)
        if not _held(name, args.runs, args.seconds, args.work):
            failed.append(name)
    print(f"failed: {', '.join(failed)}; the inputs are in {args.work}" if failed else "no target failed")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
