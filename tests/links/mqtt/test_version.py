"""Which version of MQTT is spoken after which failure; with real connections in `test_client`."""

from __future__ import annotations

import pytest

from gon_edge.links.mqtt.lost import Lost
from gon_edge.links.mqtt.version import Version

SILENT = Lost("timeout", "no answer", wrong_version=True)
REFUSED = Lost("protocol", "unsupported version", wrong_version=True, is_said=True)
CUT = Lost("lost", "cut")


def test_a_broker_that_nobody_knows_is_spoken_to_by_one_version_and_the_other() -> None:
    version = Version((True, False))
    assert [(version.failed(SILENT, n), str(version)) for n in (1, 2, 3)] == [
        (True, "3.1.1"),
        (False, "5"),
        (True, "3.1.1"),
    ]


@pytest.mark.parametrize(("failure", "spoken"), [(SILENT, "5"), (CUT, "5"), (REFUSED, "3.1.1")])
def test_one_that_has_spoken_5_is_spoken_to_by_3_1_1_only_where_it_says_so(failure: Lost, spoken: str) -> None:
    version = Version((True, False))
    version.accepted()
    version.failed(failure, 1)
    assert str(version) == spoken


def test_one_that_stays_silent_is_tried_by_3_1_1_and_after_that_by_5_again() -> None:
    version = Version((True, False))
    version.accepted()
    assert [version.failed(SILENT, n) for n in range(1, 6)] == [False, False, False, False, True]
    version.accepted()
    version.failed(CUT, 1)
    assert str(version) == "5"


def test_what_the_configuration_says_counts() -> None:
    version = Version((False,))
    assert not version.failed(REFUSED, 1)
    assert str(version) == "3.1.1"
