"""A daemon in virtual time: real trainings of made machines, hours of readings in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from configurations import SMALLEST

from gon_edge.config.file import parse_config
from gon_edge.config.schema import Config
from gon_edge.daemon.rehearsal import Answered, News, Order, Rehearsal, Told, Trained, readings
from gon_edge.errors import ConfigError
from gon_edge.events import Reading

START = 1_700_000_000.0
FEATURES = ("flow", "pressure", "current")


class Message(NamedTuple):
    """One message of a capture."""

    topic: str
    payload: bytes
    received_at: float
    wall: float
    retained: bool


def config(**settings: Any) -> Config:
    defaults = {"warmup_rows": 200, "window": 15, "interval": "1m", **settings.pop("defaults", {})}
    return parse_config({**SMALLEST, "streams": {"defaults": defaults}, **settings})


def machine(rows: int, *, fault: range = range(0), first: int = 0, seed: int = 0) -> Iterator[Reading]:
    """A row a minute of three sensors that hang together; ``flow`` is off by 8 in ``fault``."""
    rng = np.random.default_rng(seed)
    load = rng.normal(size=rows)
    values = load[:, None] * [1.0, 0.3, 0.1] + 0.2 * rng.normal(size=(rows, 3)) + [20.0, 3.0, 1.0]
    values[fault, 0] += 8.0
    rows_ = (
        (START + 60.0 * i, dict(zip(FEATURES, row, strict=True))) for i, row in enumerate(values.tolist()) if i >= first
    )
    return readings("pump", rows_)


def played(settings: Config, recording: Iterator[Reading], *orders: Order, **rest: Any) -> tuple[list[News], Rehearsal]:
    with Rehearsal(settings) as rehearsal:
        return list(rehearsal.play(recording, orders, **rest)), rehearsal


def told(news: list[News]) -> list[tuple[str, str]]:
    return [(one.event["kind"], one.event["type"]) for one in news if isinstance(one, Told)]


def trained(news: list[News]) -> list[tuple[str, str, float]]:
    return [(n.record.version, n.record.outcome, n.at) for n in news if isinstance(n, Trained)]


def test_a_machine_is_learned_and_its_fault_is_told_as_at_its_own_time() -> None:
    news, rehearsal = played(config(), machine(500, fault=range(400, 420)))
    assert trained(news)[0] == ("1", "promoted", START + 199 * 60.0)
    assert [event for event in told(news) if event[1] != "update"] == [("anomaly", "new"), ("anomaly", "end")]
    first = next(one.event for one in news if isinstance(one, Told))
    assert START + 400 * 60.0 <= first["since"] <= first["timestamp"] <= START + 405 * 60.0
    course = rehearsal.courses["pump"]
    assert course.rows == 500
    assert len(course.scores) == len(course.thresholds) == len(course.in_alarm) == 300
    assert set(course.thresholds) == {np.float32(n.threshold) for n in news if isinstance(n, Trained)}
    alarmed = np.flatnonzero(np.frombuffer(course.in_alarm, np.uint8)) + 200
    assert 400 <= alarmed[0] <= 405
    assert np.all(np.diff(alarmed) == 1)


def test_the_same_recording_gives_the_same_alerts_and_scores_again() -> None:
    one, first = played(config(), machine(320, fault=range(300, 310)))
    other, second = played(config(), machine(320, fault=range(300, 310)))
    assert [n.event for n in one if isinstance(n, Told)] == [n.event for n in other if isinstance(n, Told)]
    assert first.courses["pump"].scores == second.courses["pump"].scores


def test_a_training_that_is_due_by_time_runs_when_it_is_due_and_its_model_judges_on() -> None:
    news, rehearsal = played(config(retrain={"every": "8h"}), machine(900))
    versions = trained(news)
    assert [version for version, _, _ in versions] == ["1", "2", "3"]
    first, second, third = (at for _, _, at in versions)
    # The jitter is a tenth.  The time that is known doubles, up to the time that is asked for.
    assert 0.9 * 199 * 60.0 <= second - first <= 1.1 * 199 * 60.0 + 60.0
    assert 0.9 * 400 * 60.0 <= third - second <= 1.1 * 28800 + 60.0
    thresholds = [n.threshold for n in news if isinstance(n, Trained)]
    assert [rehearsal.courses["pump"].thresholds[i] for i in (0, -1)] == [np.float32(thresholds[i]) for i in (0, -1)]


def test_a_stream_that_stops_is_told_when_it_has_been_silent_too_long() -> None:
    recording = [*machine(250), *machine(330, first=320)]
    news, _ = played(config(), iter(recording))
    assert told(news)[:1] == [("missing", "new")]
    missing = next(one.event for one in news if isinstance(one, Told))
    assert missing["timestamp"] == START + 249 * 60.0 + 600.0  # ten intervals


def test_time_goes_on_after_the_recording_as_far_as_it_is_asked() -> None:
    assert told(played(config(), machine(250))[0]) == []
    assert told(played(config(), machine(250), end=lambda: START + 300 * 60.0)[0]) == [("missing", "new")]


def test_an_order_is_carried_out_at_its_time_and_one_that_cannot_be_says_why() -> None:
    at = START + 290 * 60.0 + 10.0
    silence = Order(at, {"do": "silence", "stream": "pump", "for_s": 7200.0, "reason": "work"})
    wrong = Order(START + 250 * 60.0, {"do": "silence", "stream": "fan", "for_s": 60.0})
    late = Order(START + 1e6, {"do": "silences"})
    news, _ = played(config(), machine(330, fault=range(300, 320)), silence, wrong, late)
    answered = [one for one in news if isinstance(one, Answered)]
    assert [one.refused for one in answered] == ["no stream 'fan'; there are: pump", "", "the recording had ended"]
    assert answered[1].answer is not None
    assert answered[1].answer["silence"]["since"] == at
    assert told(news) == []


def test_rows_a_person_accepts_are_learned_before_the_next_row() -> None:
    fault = range(300, 400)
    accept = Order(START + 399 * 60.0 + 1.0, {"do": "accept", "stream": "pump", "since": {"ago_s": 99 * 60.0}})
    news, _ = played(config(), machine(410, fault=fault), accept)
    answered = next(one for one in news if isinstance(one, Answered))
    assert answered.answer is not None, answered.refused
    assert [round_["stream"] for round_ in answered.answer["rounds"]] == ["pump"]
    assert [at for _, _, at in trained(news)][1] == accept.at


def test_nothing_is_left_in_the_file_system_also_when_it_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def interrupted() -> Iterator[Reading]:
        yield from machine(210)
        assert list(tmp_path.iterdir())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Rehearsal(config()) as rehearsal:
        list(rehearsal.play(interrupted()))
    assert not list(tmp_path.iterdir())


def test_a_recording_in_two_pieces_is_one_recording() -> None:
    whole, pieces = list(machine(330, fault=range(300, 310))), Rehearsal(config())
    with pieces:
        news = [*pieces.play(whole[:250]), *pieces.play(whole[250:])]
    expected, rehearsal = played(config(), iter(whole))
    assert told(news) == told(expected)
    assert told(news)
    assert pieces.courses["pump"].scores == rehearsal.courses["pump"].scores


def test_messages_without_a_reading_are_counted_by_reason() -> None:
    received = [("telemetry/pump", b'{"a": 1}'), ("telemetry/pump", b"{"), ("elsewhere/pump", b'{"a": 1}')]
    with Rehearsal(config()) as rehearsal:
        messages = (Message(topic, payload, 5.0, START + 5.0, False) for topic, payload in received)
        assert list(rehearsal.play(messages)) == []
    assert rehearsal.unheard == {"bad_json": 1, "ignored": 1}


def test_what_is_wrong_with_a_configuration_is_said_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Rehearsal(config(defaults={"model": str(tmp_path / "none.npz")}))


def wearing(days: int, rise: float) -> Iterator[Reading]:
    """A row an hour of the same sensors, a load that comes every day; ``flow`` rises each day from the 33rd on."""
    rng, day = np.random.default_rng(7), np.arange(24 * days) / 24.0
    load = np.sin(2.0 * np.pi * day) + 0.3 * np.sin(2.0 * np.pi * day / 9.0)
    values = load[:, None] * [1.0, 0.3, 0.1] + rng.uniform(-0.1, 0.1, (24 * days, 3)) + [20.0, 3.0, 1.0]
    values[:, 0] += rise * np.maximum(0.0, day - 33.0)
    rows = (
        (START + 86_400.0 * at, dict(zip(FEATURES, row, strict=True)))
        for at, row in zip(day, values.tolist(), strict=True)
    )
    return readings("pump", rows)


def test_a_reading_that_wears_is_told_as_a_drift_until_a_person_calls_it_normal() -> None:
    settings = config(defaults={"interval": "1h"}, retrain={"every": "off", "on_drift": False})
    expected = Order(START + 44.5 * 86_400.0, {"do": "feedback", "alert": "pump", "answer": "expected"})
    news, _ = played(settings, wearing(46, 0.08), expected)
    events = [one.event for one in news if isinstance(one, Told) and one.event["kind"] == "drift"]
    assert [event["type"] for event in events] == ["new", *["update"] * (len(events) - 2), "end"]
    begun = START + 33 * 86_400.0
    assert begun < events[0]["timestamp"] < begun + 11 * 86_400.0  # a week, and days of which an anomaly took rows
    assert expected.at <= events[-1]["timestamp"] <= expected.at + 7200.0
    assert [cause["feature"] for cause in events[0]["top_features"]] == ["flow"]
    trend = events[-2]["top_features"][0]["trend"]
    assert trend["per_day"] == pytest.approx(0.08, rel=0.3)
    assert trend["reaches"] > 21.0
    assert [version for version, _, _ in trained(news)] == ["1", "2"]
