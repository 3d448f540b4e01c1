"""Nothing is lost in silence: whatever comes, over whatever configuration, ends in a count with a reason.

    published = accepted + late + invalid + masked + ignored + dropped

Messages are dropped by the queue in front of this path alone, which counts them itself (links/mqtt/test_queue.py).
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from strategies import documents, numbers

from gon_edge.config.file import parse_config
from gon_edge.config.schema import Config
from gon_edge.events import IGNORED_REASONS, LOST_REASONS, MASK_REASONS, REASONS
from gon_edge.stream.heard import Heard, Step
from gon_edge.stream.ledger import IN_WORDS
from gon_edge.stream.pipeline import Pipeline
from gon_edge.stream.stream import Stream

WALL = 1_796_000_000.0  # November 2026
VALUES_LOST = ("excluded", "crowded", "once", "behind", "ahead", "still", "no_interval")

SUBSCRIPTIONS = (
    {"topic": "t/{stream}", "timestamp": "t"},
    {"topic": "t/{stream}", "format": "json"},
    {"topic": "t/{stream}/{feature}", "timestamp": "t"},
    {"topic": "$share/g/t/{stream...}/x"},
    {"topic": "h/{stream}/{feature...}", "format": "value"},
    {"topic": "h/{stream}/{feature}", "retained": "seed"},
    {"topic": "t/#", "format": "influx", "stream": "lines"},
    {"topic": "t/+", "items": "a", "stream": {"key": "t"}, "name_key": "n", "value_key": "v"},
    {"topic": "#", "stream": "rest"},
    {"topic": "+/{stream}/#", "timestamp": "t"},
)
TOPICS = ("t/a", "t/b", "t/c", "t/a/x", "h/a/temp", "h/a/light/on", "elsewhere", "a//b")
FOREIGN = ("gon-edge/pi/state/a", "gon-edge/pi/alert", "homeassistant/sensor/a/config", "homeassistant/status")

clocks = st.integers(0, 40).map(lambda s: WALL + s / 2) | st.sampled_from(
    [WALL, WALL + 3600, 0, 20261130091554, 4e11, None, "", "noon", "2026-11-13T10:00:00"]
)
readings = st.dictionaries(
    st.sampled_from(["a", "b", "flow", "skip", "x" * 200]) | st.integers(0, 999).map("one-off {}".format),
    numbers | st.sampled_from([None, True, "ON", "open", "21 C", float("nan"), {"deep": 1.5}, [1, "x"]]),
    max_size=5,
)
stamped = st.builds(lambda values, clock: {**values, "t": clock}, readings, clocks)
payloads = (
    stamped.map(lambda document: json.dumps(document).encode())
    | st.lists(stamped, max_size=4).map(lambda items: json.dumps(items).encode())
    | st.one_of(documents, readings).map(lambda document: json.dumps(document).encode())
    | st.sampled_from(
        [b"21.5", b"ON", b"hello", b"", b"{", b"\xff\xfe\x00", b"m,host=p a=1,b=2i 17960000000", b"17960:1:2"]
    )
    | st.binary(max_size=30)
)
messages = st.lists(
    st.tuples(
        st.sampled_from(TOPICS[:4]) | st.sampled_from(TOPICS) | st.sampled_from(FOREIGN),
        payloads,
        st.floats(0, 3),
        st.integers(0, 9).map(lambda n: n == 0),
    ),
    min_size=10,
    max_size=60,
)
configurations = st.builds(
    lambda subscriptions, features, streams, defaults: {
        "node": "pi",
        "mqtt": {"url": "mqtt://localhost"},
        "subscriptions": subscriptions,
        "limits": {"features": features, "streams": streams},
        "streams": {"defaults": defaults},
    },
    st.lists(st.sampled_from(SUBSCRIPTIONS), min_size=1, max_size=3),
    st.sampled_from([1, 3, 500]),
    st.sampled_from([1, 2, 100]),
    st.fixed_dictionaries(
        {}, optional={"interval": st.just("1s"), "exclude": st.just(["skip*", "one*"]), "include": st.just(["[a-f]*"])}
    ),
)


class Account:
    """What a daemon would have counted."""

    def __init__(self, config: Config) -> None:
        self.streams: list[Stream] = []  # those that were forgotten as well
        self.offered = self.values = self.settled = self.forgotten = 0
        self.dropped: Counter[str] = Counter()
        self.pipeline = Pipeline(config, self._open, offset_s=WALL)
        self._config = config

    def _open(self, name: str, now: float) -> Stream:
        limit = self._config.limits.features
        self.streams.append(Stream(name, self._config.stream(name), max_features=limit, opened_at=now))
        return self.streams[-1]

    def take(self, topic: str, payload: bytes, at: float, *, retained: bool) -> Heard:
        heard = self.pipeline.take(topic, payload, at, retained=retained)
        self.offered += len(heard.readings)
        self.values += sum(len(reading.values) for reading in heard.readings)
        self.dropped.update(part.reason for reading in heard.readings for part in reading.dropped)
        self.forgotten += sum(stream.aligner.undecided for stream in heard.forgotten)
        self.settle(heard.steps)
        return heard

    def settle(self, steps: Iterable[Step]) -> None:
        self.settled += sum(step.accepted + step.late + step.unwanted for step in steps)

    def waiting(self, stream: Stream) -> int:
        """Values of readings of which it is not known yet what becomes of them."""
        aligner: Any = stream.aligner
        learning = aligner._learning.readings if aligner._learning else ()
        return sum(len(received.reading.values) for received in (*aligner._set_aside, *learning))


@given(configuration=configurations, messages=messages)
def test_every_message_every_reading_and_every_value_ends_in_a_count_with_a_reason(configuration, messages):
    account = Account(parse_config(configuration))
    at = 0.0
    for topic, payload, pause_s, retained in messages:
        heard = account.take(topic, payload, at, retained=retained)
        is_read, is_ignored = bool(heard.readings), bool(heard.ignored) and not heard.readings
        assert [is_read, is_ignored, heard.refused is not None].count(True) == 1
        reasons = {*heard.ignored, *heard.rejected, *heard.masked}
        assert {*heard.ignored} <= {*IGNORED_REASONS}
        assert {*heard.rejected, *([heard.refused.reason] if heard.refused else [])} <= {*REASONS}
        assert {*heard.masked} <= {*MASK_REASONS}
        assert reasons <= IN_WORDS.keys()
        if topic in FOREIGN:
            assert not is_read
        at += pause_s
        account.settle(account.pipeline.pass_time(at))
    event(f"readings: {min(account.offered, 20) // 5 * 5}+, streams: {min(len(account.streams), 3)}")
    check(account, configuration)


def check(account: Account, configuration: dict[str, Any]) -> None:
    """Readings and values: what came is what was settled, waits, or was lost for a reason."""
    undecided = sum(stream.aligner.undecided for stream in account.pipeline.streams.values())
    assert account.offered == account.settled + undecided + account.forgotten

    lost: Counter[str] = Counter()
    for stream in account.streams:
        lost.update(stream.ledger.totals)
        named: Counter[str] = Counter()
        for entry in stream.ledger.entries:
            named[entry.reason] += entry.count
        assert named == stream.ledger.totals
    assert {*lost} <= {*MASK_REASONS, *LOST_REASONS}
    taken = sum(stream.aligner.columns.taken + account.waiting(stream) for stream in account.streams)
    if not any(entry.get("retained") for entry in configuration["subscriptions"]):  # a seed is a value twice
        assert account.values == taken + sum(lost[reason] for reason in VALUES_LOST)
        assert account.dropped == Counter({reason: lost[reason] for reason in account.dropped})


@pytest.mark.parametrize("seed", range(6))
def test_long_histories_of_many_devices_balance_as_well(seed: int):
    """Deeper than examples go: streams that learn their interval, fill up, and are forgotten."""
    rng = random.Random(seed)
    configuration = {
        "node": "pi",
        "mqtt": {"url": "mqtt://localhost"},
        "subscriptions": [rng.choice(SUBSCRIPTIONS[:5]) for _ in range(2)] + [SUBSCRIPTIONS[8]],
        "limits": {"features": rng.choice([3, 20, 500]), "streams": rng.choice([2, 100])},
        "streams": {"defaults": {"exclude": ["skip*"]} if seed % 2 else {}},
    }
    account = Account(parse_config(configuration))
    offsets = {name: rng.choice([0, 0, 3600, -7200]) for name in "abcd"}
    for i in range(3000):
        at, device = i / 5, rng.choice("abcd")
        clock: object = WALL + at + offsets[device] - rng.choice([0, 0, 0, 30])
        if rng.random() < 0.1:
            clock = rng.choice([None, WALL, 20261130091554, "noon", ""])
        names = [rng.choice(["flow", "temp", "skip", f"one-off {i}", "door"]) for _ in range(3)]
        document = {name: rng.choice([1.5 * i, None, "open", "21 C", "north"]) for name in names}
        topic = rng.choice([f"t/{device}", f"t/{device}/x", f"h/{device}/temp", *FOREIGN])
        payload = rng.choice([json.dumps({**document, "t": clock}), "21.5", "{", ""]).encode()
        account.take(topic, payload, at, retained=rng.random() < 0.02)
        account.settle(account.pipeline.pass_time(at))
    assert account.settled > 200
    check(account, configuration)
