"""When the broker was heard, and for how long it was not."""

from __future__ import annotations

import random

from gon_edge.links.mqtt.hearing import STANDSTILL_S, Heard, Hearing


def test_before_the_first_broker_nothing_is_heard():
    hearing = Hearing(100.0)
    hearing.begin(107.0)
    assert hearing.so_far == Heard(107.0, offline_s=7.0)


def test_what_the_dead_connection_did_not_bring_was_not_heard_either():
    hearing = Hearing(0.0)
    hearing.begin(0.0)
    for now in range(100):  # the loss shows after a minute and a half
        hearing.turn(float(now))
        hearing.sign(min(now, 10.0))
    assert hearing.so_far == Heard(10.0)
    hearing.begin(130.0)
    assert hearing.so_far == Heard(130.0, offline_s=120.0)


def test_a_round_that_took_too_long_was_a_standstill():
    hearing = Hearing(0.0)
    hearing.begin(0.0)
    hearing.sign(0.5)
    hearing.turn(1.0)
    hearing.turn(1.0 + STANDSTILL_S)
    assert hearing.so_far == Heard(0.5)
    hearing.turn(1001.0 + STANDSTILL_S)
    assert hearing.so_far == Heard(1000.5, asleep_s=1000.0)


def test_no_second_counts_twice_whatever_happens():
    rng = random.Random(3)
    for _ in range(200):
        now, heard_s = 0.0, 0.0  # heard: as a naive account has it, up to the newest sign
        hearing = Hearing(now)
        last_sign, connected, standstill_s = 0.0, False, 0.0
        for _ in range(50):
            step = rng.choice([0.5, 1.0, 2.5, 30.0, 500.0])
            now += step
            what = rng.choice(["turn", "sign", "begin"]) if connected else "begin"
            if what == "begin":
                hearing.begin(now)
                last_sign, connected, standstill_s = now, True, 0.0
            else:
                hearing.turn(now)
                standstill_s += step if step > STANDSTILL_S else 0.0
                if what == "sign":
                    hearing.sign(now)
                    heard_s += now - last_sign - standstill_s
                    last_sign, standstill_s = now, 0.0
        so_far = hearing.so_far
        assert so_far.until - so_far.away_s == heard_s


def test_a_broker_that_was_asked_and_answered_late_was_not_there():
    hearing = Hearing(0.0)
    hearing.begin(0.0)
    hearing.sign(10.0)
    hearing.sign(70.5, asked_at=70.0)  # idle, and at once there
    assert hearing.so_far == Heard(70.5)
    hearing.sign(150.5, asked_at=131.0)
    assert hearing.so_far == Heard(150.5, offline_s=80.0)
