"""Silences always end, survive a restart, and say which features nobody wants to hear of."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gon_edge.stream.silences import LONGEST_S, LONGEST_TEXT, MOST, MOST_BYTES, Silence, Silences


def silence(feature: str = "", until: float = 200.0, since: float = 100.0, stream: str = "pump") -> Silence:
    return Silence(stream, feature, since, until, "why")


def test_a_silence_ends_by_itself() -> None:
    book = Silences()
    book.add(silence())
    assert book.features("pump", 199.9) is None
    assert book.features("pump", 200.0) == frozenset()
    assert book.expire(199.9) == []
    assert book.expire(200.0) == [silence()]
    assert book.state() == []


def test_features_add_up_and_the_stream_covers_them() -> None:
    book = Silences()
    book.add(silence("flow"))
    book.add(silence("current", until=300.0))
    assert book.features("pump", 150.0) == {"flow", "current"}
    assert book.features("pump", 250.0) == {"current"}
    assert book.features("boiler", 150.0) == frozenset()
    book.add(silence())
    assert book.features("pump", 150.0) is None
    assert [s.feature for s in book.active(150.0)] == ["flow", "", "current"]


def test_another_one_for_the_same_takes_its_place() -> None:
    book = Silences()
    book.add(silence(until=200.0))
    book.add(silence(until=150.0))
    assert book.active(160.0) == []


def test_removing() -> None:
    book = Silences()
    for feature in ("", "flow", "current"):
        book.add(silence(feature))
    assert book.remove("pump", "flow") == [silence("flow")]
    assert book.remove("pump", "flow") == []
    assert len(book.remove("pump")) == 2


def test_they_survive_a_restart_and_nonsense_does_not() -> None:
    book = Silences()
    book.add(silence("flow"))
    state = json.loads(json.dumps(book.state()))
    assert Silences(state).state() == book.state()
    assert Silences([*state, {"stream": "x"}, 7, {**state[0], "until": "never"}]).state() == book.state()
    assert Silences(None).state() == Silences({"a": 1}).state() == []


@pytest.mark.parametrize("length_s", [0.0, -1.0, LONGEST_S + 1.0, float("inf"), float("nan")])
def test_none_is_for_ever_or_over_before_it_begins(length_s: float) -> None:
    with pytest.raises(ValueError, match="up to 366 days"):
        Silences().add(silence(until=100.0 + length_s))


def test_their_texts_are_bounded() -> None:
    book = Silences()
    book.add(replace(silence(), reason="r" * LONGEST_TEXT))
    with pytest.raises(ValueError, match="the reason has 501 characters; write at most 500"):
        book.add(replace(silence(), reason="r" * (LONGEST_TEXT + 1)))
    with pytest.raises(ValueError, match="the name of the feature has 501 characters"):
        book.add(silence("f" * (LONGEST_TEXT + 1)))
    assert [len(s.reason) for s in book.active(150.0)] == [LONGEST_TEXT]


def test_all_of_them_together_are_bounded_in_bytes() -> None:
    # Each change writes them all to the card, and a command got no answer that was longer than the socket takes.
    book = Silences()
    wrench = "\U0001f527"  # 12 bytes of JSON
    added = 21
    for i in range(added):
        book.add(replace(silence(f"f{i}"), reason=wrench * LONGEST_TEXT))
    with pytest.raises(ValueError, match="more than 128 KiB"):
        book.add(replace(silence("f"), reason=wrench * LONGEST_TEXT))
    assert len(json.dumps(book.state())) <= MOST_BYTES + 2 * added
    book.add(replace(silence("f0"), reason="shorter"))  # in place of the one that is there
    book.remove("pump", "f1")
    book.add(replace(silence("f1"), reason=wrench * LONGEST_TEXT))
    book.expire(1e9)
    assert book.state() == []
    for i in range(added):
        book.add(replace(silence(f"g{i}"), reason=wrench * LONGEST_TEXT))


def test_their_number_is_bounded() -> None:
    book = Silences()
    for i in range(MOST):
        book.add(silence(f"f{i}"))
    with pytest.raises(ValueError, match="remove some"):
        book.add(silence("one more"))
    book.add(silence("f0", until=300.0))  # in place of another


def test_one_that_a_wrong_clock_put_into_the_future_does_not_count() -> None:
    assert not silence(since=1e9, until=1e9 + 100.0).active(1000.0)
    assert silence().active(90.0)  # a clock that is a little behind
