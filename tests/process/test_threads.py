"""Threads that must not end."""

from __future__ import annotations

import threading

import pytest

from gon_edge.process.threads import ThreadEnded, Watch


def test_an_exception_that_ends_a_thread_is_logged_and_raised_by_the_next_look(caplog):
    with Watch() as watch:
        watch.look()
        thread = threading.Thread(target=lambda: [][1], name="gon-edge mqtt")
        thread.start()
        thread.join()
        with pytest.raises(ThreadEnded, match="'gon-edge mqtt'"):
            watch.look()
    (record,) = caplog.records
    assert record.levelname == "CRITICAL"
    assert record.exc_info is not None


def test_a_needed_thread_that_has_just_returned_is_missed():
    with Watch() as watch:
        thread = threading.Thread(target=lambda: None, name="gon-edge http")
        thread.start()
        thread.join()
        with pytest.raises(ThreadEnded, match="'gon-edge http'"):
            watch.look(thread)


def test_afterwards_threads_end_as_before():
    before = threading.excepthook
    with Watch():
        assert threading.excepthook is not before
    assert threading.excepthook is before
