"""Hypothesis strategies: what devices send, and when."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from gon_edge.events import Reading
from gon_edge.stream.scalars import LARGEST
from gon_edge.stream.topics import MAX_NAME

numbers = st.floats(-LARGEST, LARGEST) | st.integers(-(10**12), 10**12).map(float)
"""Numbers a row can hold."""

names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)
"""Names of features: printable."""

plain_names = names.filter(lambda name: "." not in name)

levels = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="+#/"), max_size=6)
"""Levels of a topic, empty ones included."""

scalars = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text(max_size=2 * MAX_NAME)
    | st.sampled_from(["21.5", "ON", "off", "nan", "-inf", "1e999", "1_0", "2020-03-09 10:14:33", "\ud800", "\0"])
)

documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.just("t"), inner, max_size=4),
    max_leaves=20,
)
"""Whatever can be written as JSON."""

nested_numbers = st.recursive(
    numbers,
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(plain_names, inner, min_size=1, max_size=3),
    max_leaves=12,
)


@dataclass(frozen=True)
class Heard:
    """One reading of a timeline whose tick is known, because it was made from it."""

    tick: int
    timestamp: float
    received_at: float
    values: dict[str, float]


@st.composite
def timelines(draw: st.DrawFn, *, lateness_s: float, max_ticks: int = 40) -> list[Heard]:
    """Readings around the ticks 0, 1, 2, ... of a grid of 1 s, each delivered within ``lateness_s`` of its time.

    Jitter is up to 0.2 intervals, several readings may share a tick, ticks may be missing, features come and go.
    The first reading is on tick 0, on time, and older than every other.
    """
    heard = [Heard(0, 0.0, 0.0, {"a": 0.0})]
    for tick in range(1, draw(st.integers(1, max_ticks))):
        for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
            timestamp = tick + draw(st.integers(-20, 20)) / 100
            delay_s = draw(st.integers(0, int(lateness_s * 100))) / 100
            features = draw(st.sets(st.sampled_from("abcd"), min_size=1))
            values = {name: float(draw(st.integers(-1000, 1000))) for name in sorted(features)}
            heard.append(Heard(tick, timestamp, timestamp + delay_s, values))
    return sorted(heard, key=lambda one: one.received_at)


@dataclass(frozen=True)
class Message:
    reading: Reading
    received_at: float


@dataclass(frozen=True)
class Pause:
    received_by: float


@dataclass(frozen=True)
class Shift:
    delta_s: float


@st.composite
def histories(draw: st.DrawFn, *, max_size: int = 60) -> list[Message | Pause | Shift]:
    """Whatever can happen to an aligner: regular stretches, gaps, jumps, repeats, disorder, clocks set."""
    timestamp, received_at = draw(st.sampled_from([0.0, 30.0, 1.7e9])), 0.0
    history: list[Message | Pause | Shift] = []
    steps = st.sampled_from([1.0, 1.0, 1.0, 1.0, 0.9, 1.2, 0.5, 0.0, -1.0, -3.0, 4.0, 12.0, 100.0, -100.0, 1e6, -1e6])
    for _ in range(draw(st.integers(1, max_size))):
        step_s = draw(steps)
        received_at += draw(st.sampled_from([abs(step_s), 1.0, 1.0, 0.0, 1e-3, 100.0]))
        what = draw(st.sampled_from(["message"] * 8 + ["pause", "shift"]))
        if what == "message":
            timestamp += step_s
            values = draw(st.dictionaries(st.sampled_from("abc"), st.integers(-9, 9).map(float), max_size=3))
            masked = draw(st.dictionaries(st.sampled_from("cde"), st.sampled_from(["null", "text", "nan"]), max_size=1))
            masked = {name: reason for name, reason in masked.items() if name not in values}
            history.append(Message(Reading("pump", timestamp, values, masked), received_at))
        elif what == "pause":
            history.append(Pause(received_at))
        else:
            timestamp += step_s
            history.append(Shift(step_s))
    return history
