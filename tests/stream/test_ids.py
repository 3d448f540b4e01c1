"""Names of alerts: what they say, and that none is given twice."""

from __future__ import annotations

import json

import pytest

from gon_edge.events import ALERT_KINDS
from gon_edge.stream.ids import Ids, said_by


def test_a_name_says_stream_kind_and_when_it_began():
    assert Ids("pump").new("drift", 1_795_356_164.791) == "pump-drift-20261122T140244.791Z"


def test_no_name_is_given_twice_where_the_clock_goes_back():
    ids = Ids("pump")
    names = [ids.new("anomaly", since) for since in (100.0, 100.0, 50.0, 200.0, 100.0)]
    assert len(set(names)) == 5


def test_kinds_are_counted_apart():
    ids = Ids("pump")
    assert ids.new("anomaly", 100.0).replace("anomaly", "missing") == ids.new("missing", 100.0)


def test_a_restart_forgets_no_name():
    ids = Ids("pump")
    first = ids.new("anomaly", 100.0)
    assert Ids("pump", json.loads(json.dumps(ids.state()))).new("anomaly", 100.0) != first


@pytest.mark.parametrize("kind", ALERT_KINDS)
@pytest.mark.parametrize("stream", ["pump", "hall-1/pump-drift-20261122T140244Z", "Z"])
def test_a_name_can_be_read_back(kind, stream):
    ids = Ids(stream)
    names = [ids.new(kind, since) for since in (1_795_356_164.5, 1_795_356_164.5, 1_795_356_170.0)]
    assert [said_by(name) for name in names] == [(kind, since) for since in (1_795_356_164.5,) * 2 + (1_795_356_170.0,)]


@pytest.mark.parametrize(
    "name", ["", "pump", "pump-fault-20261122T140244Z", "pump-drift-20261322T140244Z", "pump-drift-20261122T140244Z\n"]
)
def test_what_is_no_name_of_an_alert_says_nothing(name):
    assert said_by(name) is None


def test_a_time_beyond_calendars_has_a_name_too():
    assert Ids("pump").new("anomaly", 2.0**60) == "pump-anomaly-1152921504606846976Z"
