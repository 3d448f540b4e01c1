"""The time of the server, heard from its messages."""

from __future__ import annotations

import time

import pytest

from gon_edge.fleet.servertime import ServerTime


def test_the_time_of_the_server_is_never_later_than_it_is():
    clock = ServerTime()
    assert clock.now() == pytest.approx(time.time(), abs=0.5)
    ahead = time.time() + 100.0
    clock.hear(ahead - 3.0)  # it took three seconds to come
    assert clock.now() == pytest.approx(ahead - 3.0, abs=0.5)
    clock.hear(ahead)
    clock.hear(ahead - 50.0)
    assert clock.now() == pytest.approx(ahead, abs=0.5)
