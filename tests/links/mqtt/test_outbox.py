"""What is kept for the broker, and in which order it leaves."""

from __future__ import annotations

from gon_edge.links.mqtt.outbox import Outbox, Outgoing


def event(text: str) -> Outgoing:
    return Outgoing("alert", text.encode())


def state(topic: str, text: str) -> Outgoing:
    return Outgoing(topic, text.encode(), retain=True)


def taken(outbox: Outbox) -> list[Outgoing]:
    return list(iter(outbox.take, None))


def test_events_leave_in_order_and_before_states_of_which_the_latest_counts() -> None:
    outbox = Outbox(10)
    for message in (state("pump", "1"), state("fan", "1"), state("pump", "2")):
        outbox.put_state(message)
    for text in "ab":
        assert outbox.put_event(event(text)) == []
    assert len(outbox) == 4
    assert taken(outbox) == [event("a"), event("b"), state("pump", "2"), state("fan", "1")]
    assert len(outbox) == 0


def test_the_oldest_events_go_when_there_is_no_room_and_are_counted() -> None:
    outbox = Outbox(2)
    assert [outbox.put_event(event(text)) for text in "abcd"] == [[], [], [event("a")], [event("b")]]
    assert taken(outbox) == [event("c"), event("d")]


def test_states_are_repeated_and_removed_topics_are_not() -> None:
    outbox = Outbox(2)
    for message in (state("pump", "1"), state("fan", "1"), state("fan", "")):
        outbox.put_state(message)
    assert taken(outbox) == [state("pump", "1"), state("fan", "")]
    outbox.repeat_states()
    assert taken(outbox) == [state("pump", "1")]


def test_what_was_not_acknowledged_comes_before_what_waits_and_no_removal_is_forgotten() -> None:
    outbox = Outbox(3)
    outbox.put_event(event("c"))
    assert outbox.put_back([event("x"), event("a"), state("fan", ""), event("b")]) == [event("x")]  # no room
    assert taken(outbox) == [event("a"), event("b"), event("c")]
    outbox.repeat_states()
    assert taken(outbox) == [state("fan", "")]


def test_a_newer_state_is_not_undone_by_a_removal_that_comes_back() -> None:
    outbox = Outbox(1)
    outbox.put_state(state("fan", "again"))
    outbox.put_back([state("fan", "")])
    assert taken(outbox) == [state("fan", "again")]
