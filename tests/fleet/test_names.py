from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gon_edge.fleet.names import Names, key_of, levels_of, stream_of, topic_of

names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)


@given(names)
def test_a_key_gives_the_name_of_its_stream_back_and_is_one_token(name):
    key = key_of(name)
    assert stream_of(key) == name
    assert set(key) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-=")


@given(st.lists(st.text("ab.", min_size=1).map(lambda level: level.replace("//", "")), min_size=1, max_size=4))
def test_a_topic_survives_its_way_through_a_subject(levels):
    topic = "/".join(levels)
    assert topic_of(levels_of(topic)) == topic


def test_empty_levels_are_written_as_the_gateway_of_nats_writes_them():
    assert [levels_of(topic) for topic in ("/a", "a/", "a//b")] == ["/.a", "a./", "a./.b"]
    assert [topic_of(levels) for levels in ("/.a", "a./", "a./.b")] == ["/a", "a/", "a//b"]


def test_two_fleets_on_one_server_share_no_name():
    def all_of(names):
        fixed = (names.telemetry, names.events, names.rows, names.trainings, names.models)
        buckets = (names.states, names.days, names.owners, names.workers)
        subjects = (names.partition(0), names.events_of(0), names.rows_of(0, "a"), names.training)
        return {*fixed, *buckets, *subjects}

    assert not all_of(Names("plant")) & all_of(Names("plant-2"))
    assert len(all_of(Names("plant"))) == 13
