"""One path from message to alert: routing, stamping, room for streams, the pass of time, and what is said of each."""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from gon_edge.config.file import parse_config
from gon_edge.events import Reading
from gon_edge.model.file import Model, load_model
from gon_edge.stream.heard import Heard
from gon_edge.stream.pipeline import Pipeline
from gon_edge.stream.stream import Stream
from gon_edge.stream.topics import TopicTemplate
from gon_edge.training.fit import fit_model

WALL = 1_700_000_000.0
GOLDEN = Path(__file__).parents[1] / "golden" / "pump.npz"
CONFIG = """
node: pi
mqtt: {url: "mqtt://localhost"}
subscriptions:
  - {topic: "telemetry/{stream}", format: json, timestamp: t}
  - {topic: "home/{stream}/{feature}", format: value, retained: seed}
  - {topic: "#", format: json, stream: rest}
limits: {streams: 2}
streams: {defaults: {interval: 1s, warmup_rows: 50}}
"""


def pipeline(
    model: Model | None = None, text: str = CONFIG, is_wanted: Callable[[str], bool] = lambda name: False
) -> Pipeline:
    config = parse_config(yaml.safe_load(text))

    def open_stream(name: str, now: float) -> Stream:
        return Stream(name, config.stream(name), max_features=10, model=model, opened_at=now)

    return Pipeline(config, open_stream, offset_s=WALL, is_wanted=is_wanted)


def say(it: Pipeline, name: str, at: float, **values: float) -> Heard:
    return it.take(f"telemetry/{name}", json.dumps({"t": WALL + at, **values}).encode(), at)


def pass_seconds(it: Pipeline, begin: int, end: int) -> list[str]:
    """Let time pass a second at a time; names of the streams found to have stopped."""
    return [step.stream.name for at in range(begin, end) for step in it.pass_time(float(at)) if step.stopped]


def test_the_first_subscription_that_matches_reads_a_message():
    it = pipeline()
    assert [s.name for s in say(it, "pump", 0.0, a=1.0).opened] == ["pump"]
    assert [s.name for s in it.take("elsewhere", b'{"a": 1}', 1.0).opened] == ["rest"]


def test_a_topic_is_matched_once_a_subscription_and_not_again(monkeypatch: pytest.MonkeyPatch):
    matched: list[str] = []
    match = TopicTemplate.match
    monkeypatch.setattr(TopicTemplate, "match", lambda self, topic: matched.append(self.text) or match(self, topic))
    it = pipeline()
    for second in range(3):
        say(it, "pump", float(second), a=1.0)
    assert matched == ["telemetry/{stream}", "home/{stream}/{feature}", "#"]


def test_topics_without_end_fill_no_memory():
    it = pipeline()
    for number in range(2500):
        it.take(f"telemetry/pump/{number}", b"no reading", 0.0)
    assert len(it._routed) <= 1000


def test_a_message_that_holds_no_reading_is_refused_with_its_reason():
    heard = pipeline().take("telemetry/pump", b"{", 0.0)
    assert heard.refused is not None
    assert heard.refused.reason == "bad_json"
    assert not heard.steps


def test_a_topic_of_no_subscription_is_ignored():
    it = pipeline(text=CONFIG.replace('  - {topic: "#", format: json, stream: rest}\n', ""))
    assert it.take("elsewhere", b'{"a": 1}', 1.0) == Heard(ignored=Counter(no_subscription=1))


def test_retained_messages_are_ignored_or_seed_their_stream():
    it = pipeline()
    assert it.take("telemetry/pump", b'{"a": 1}', 0.0, retained=True) == Heard(ignored=Counter(retained=1))
    seeded = it.take("home/hall/temp", b"21", 0.0, retained=True)
    assert (seeded.ignored, [s.name for s in seeded.opened], seeded.steps) == ({"seed": 1}, ["hall"], [])


def test_readings_without_a_timestamp_get_the_time_of_their_receipt():
    it = pipeline()
    for at in range(5):
        it.take("home/hall/temp", b"21", float(at))
    row = it.streams["hall"].last_row
    assert row is not None
    assert row.timestamp == pytest.approx(WALL + 3.0, abs=1.0)
    assert it.streams["hall"].stamped_by_receipt


def test_a_step_says_what_became_of_its_readings():
    it = pipeline()
    for at in range(10):
        say(it, "pump", float(at), a=1.0)
    late = say(it, "pump", 4.0, a=9.0)
    (at_once,) = say(it, "pump", 11.0, a=1.0).steps
    counted = [(step.accepted, step.late) for step in (*late.steps, at_once)]
    assert sum(accepted for accepted, _ in counted) == 1
    assert sum(late for _, late in counted) == 1


def test_a_stream_for_which_there_is_no_room_is_named():
    it = pipeline()
    say(it, "a", 0.0, x=1.0)
    say(it, "b", 1.0, x=1.0)
    heard = say(it, "c", 2.0, x=1.0)
    assert (heard.crowded_out, heard.ignored, list(it.streams)) == (["c"], {"no_room": 1}, ["a", "b"])


def test_a_stream_that_fell_silent_before_it_had_a_model_makes_room():
    it = pipeline()
    say(it, "a", 0.0, x=1.0)
    say(it, "b", 50.0, x=1.0)
    assert pass_seconds(it, 51, 101) == ["a"]
    heard = say(it, "c", 101.0, x=1.0)
    assert [s.name for s in heard.forgotten] == ["a"]
    assert list(it.streams) == ["b", "c"]


def test_a_silent_stream_that_is_to_be_trained_keeps_its_place():
    it = pipeline(is_wanted=lambda name: name == "a")
    say(it, "a", 0.0, x=1.0)
    say(it, "b", 50.0, x=1.0)
    pass_seconds(it, 51, 101)
    assert say(it, "c", 101.0, x=1.0).crowded_out == ["c"]


def test_a_stream_that_stops_is_told_once_with_its_alert():
    model = load_model(GOLDEN)
    it = pipeline(model)
    for at in range(60):
        say(it, "pump", float(at), flow=20.0, pressure=3.0, current=1.2)
    steps = [step for at in range(60, 300) for step in it.pass_time(float(at)) if step.stopped]
    assert len(steps) == 1
    assert [(alert.type, alert.kind) for alert in steps[0].alerts] == [("new", "missing")]


def test_a_wall_clock_that_is_set_is_followed_by_streams_stamped_on_receipt():
    it = pipeline()
    for at in range(20):
        it.take("home/hall/temp", b"21", float(at))
    assert it.set_clock(WALL + 0.2) == 0.0
    assert it.set_clock(WALL + 3600.0) == 3600.0
    for at in range(20, 40):
        heard = it.take("home/hall/temp", b"21", float(at))
        assert all(step.late == 0 and step.clock_steps == 0 for step in heard.steps)
    row = it.streams["hall"].last_row
    assert row is not None
    assert row.timestamp == pytest.approx(WALL + 3600.0 + 38.0, abs=1.0)


def test_rows_before_an_alert_may_be_learned_and_rows_under_it_may_not():
    it = pipeline(load_model(GOLDEN))
    outcomes = []
    for at in range(140):
        fault = 30.0 if 60 <= at < 80 else 0.0
        for step in say(it, "pump", float(at), flow=20.0 + fault, pressure=3.0, current=1.2).steps:
            outcomes += step.outcomes
    withheld = {o.row.timestamp - WALL for o in outcomes if o.withheld == "alert"}
    assert not withheld & set(range(60))
    assert set(range(60, 80)) <= withheld
    assert 139.0 - 1.0 not in withheld


def test_rows_of_a_silenced_stream_and_stale_ones_are_withheld_with_their_reason():
    it = pipeline(load_model(GOLDEN))
    it.open("pump", 0.0).policy.silence(None)
    outcomes = [
        o
        for at in range(10)
        for step in say(it, "pump", float(at), flow=20.0, pressure=3.0, current=1.2).steps
        for o in step.outcomes
    ]
    assert {o.withheld for o in outcomes} == {"silenced"}


def fleet(count: int) -> Pipeline:
    """So many calm streams with a model, a row a second for three seconds."""
    it = pipeline(load_model(GOLDEN), CONFIG.replace("streams: 2", f"streams: {count}"))
    for at in range(3):
        for i in range(count):
            say(it, f"pump{i}", float(at), flow=19.8, pressure=2.96, current=1.19)
    return it


def test_two_streams_that_fall_silent_together_are_one_group_with_one_leader():
    it = fleet(2)
    news = [alert for at in range(3, 90) for step in it.pass_time(float(at)) for alert in step.alerts]
    assert [alert.type for alert in news] == ["new"] * 2
    assert {alert.group for alert in news} == {news[0].id}
    assert [alert.id for alert in news if alert.id == alert.group] == [news[0].id]
    ends = []
    for at in range(90, 130):
        for i in range(2):
            heard = say(it, f"pump{i}", float(at), flow=19.8, pressure=2.96, current=1.19)
            ends += [alert for step in heard.steps for alert in step.alerts if alert.kind == "missing"]
    assert {alert.type for alert in ends} == {"end"}
    assert {(alert.id, alert.group) for alert in ends} == {(alert.id, alert.group) for alert in news}


def test_an_open_alert_keeps_its_group_over_a_restart():
    it = fleet(2)
    news = [alert for at in range(3, 90) for step in it.pass_time(float(at)) for alert in step.alerts]
    states = {name: stream.policy.state() for name, stream in it.streams.items()}
    again = pipeline(load_model(GOLDEN))
    for name, state in states.items():
        again.open(name, 90.0).resume(0, json.loads(json.dumps(state)))
    open_now = [alert for stream in again.streams.values() for alert in stream.policy.active]
    assert {(alert.id, alert.group) for alert in open_now} == {(alert.id, news[0].id) for alert in news}


def test_a_reading_without_a_message_takes_the_same_way():
    by_message, by_reading = pipeline(), pipeline()
    for at in range(12):
        said = say(by_message, "pump", float(at), a=at)
        heard = by_reading.take_reading(Reading("pump", WALL + at, {"a": float(at)}), float(at))
        assert [s.name for s in heard.opened] == [s.name for s in said.opened]
        rows = [[outcome.row.timestamp for step in one.steps for outcome in step.outcomes] for one in (said, heard)]
        assert rows[0] == rows[1]


def test_time_alone_changes_nothing_before_it_is_due():
    it = pipeline()
    assert it.due_at() == math.inf
    for at in range(12):
        say(it, "pump", float(at), a=1.0)
    stops_at = it.due_at()  # the stream's silence: all its rows are out
    assert not any(step.stopped or step.outcomes for step in it.pass_time(stops_at))
    assert it.due_at() == stops_at
    assert [step.stopped for step in it.pass_time(stops_at + 0.1)] == [False, True]
    assert it.due_at() == math.inf


def test_the_next_subscription_reads_what_the_first_one_cannot():
    it = pipeline(text=CONFIG.replace("telemetry/{stream}", "{stream}/+/+"))
    heard = it.take("home/hall/temp", b"21 ", 0.0)
    assert (heard.refused, heard.subscription, [s.name for s in heard.opened]) == (
        None,
        "home/{stream}/{feature}",
        ["hall"],
    )


def test_own_topics_and_discovery_never_become_a_stream_of_a_wildcard():
    it = pipeline()
    for topic in ("gon-edge/pi/state/pump", "gon-edge/other/state/pump", "gon-edge/pi/alert"):
        assert it.take(topic, b'{"score": 1}', 0.0) == Heard(ignored=Counter(own=1), subscription="#")
    found = it.take("homeassistant/sensor/x/config", b'{"min": 1}', 0.0)
    assert found == Heard(ignored=Counter(discovery=1), subscription="#")
    assert it.take("homeassistant/sensor/x/state", b'{"value": 1}', 0.0).steps  # as mqtt_statestream publishes


def test_topics_of_another_gon_edge_are_read_where_a_subscription_names_them():
    it = pipeline(text=CONFIG.replace("telemetry/{stream}", "gon-edge/+/state/{stream}"))
    assert it.take("gon-edge/other/state/pump", b'{"score": 1}', 0.0).steps
    assert it.take("gon-edge/pi/state/pump", b'{"score": 1}', 0.0).ignored == {"own": 1}


def test_a_timestamp_of_the_year_2612_is_named_and_the_time_of_receipt_counts():
    it = pipeline()
    it.offset_s = 1_796_000_000.0  # November 2026
    heard = it.take("telemetry/pump", b'{"t": 20261399991554, "a": 1.5}', 5.0)  # as milliseconds
    (step,) = heard.steps
    assert step.lost == {"future": 1}
    ((key, example),) = [(told.key, told.example) for told in step.fresh]
    assert (key, example[:4]) == ("t", "2612")
    assert step.stream.stamped_by_receipt
    unset = pipeline()
    unset.offset_s = 0.0  # nobody has set this clock: it cannot say what lies in the future
    assert unset.take("telemetry/pump", b'{"t": 1700000000, "a": 1.5}', 5.0).steps[0].lost == {}


def test_a_timestamp_key_that_is_not_there_is_named():
    (step,) = pipeline().take("telemetry/pump", b'{"time": 1700000000, "a": 1.5}', 5.0).steps
    assert step.lost == {"no_time": 1}
    assert [told.key for told in step.fresh] == ["t"]


def test_a_feature_whose_clock_is_an_hour_ahead_is_named_with_its_offset():
    it = pipeline()
    for at in range(20):
        say(it, "pump", at, a=1.0)
        say(it, "pump", at + 3600.0, b=2.0) if at % 3 == 0 else None
    (entry,) = it.streams["pump"].ledger.entries
    assert (entry.key, entry.reason, entry.count) == ("b", "ahead", 7 - 1 + 1 * (19 % 3 == 0))
    assert entry.example.startswith("+3")


def test_keys_left_out_are_counted_and_so_is_a_reading_of_nothing_else():
    it = pipeline(text=CONFIG.replace("interval: 1s", 'interval: 1s, exclude: ["x*"]'))
    (step,) = say(it, "pump", 0.0, x1=1.0, x2=2.0).steps
    assert (step.unwanted, step.lost, step.accepted, step.late) == (1, {"excluded": 2}, 0, 0)


def test_of_600_topics_of_one_stream_the_100_that_find_no_place_are_named_and_counted():
    config = parse_config(yaml.safe_load(CONFIG))
    it = Pipeline(config, lambda name, now: Stream(name, config.stream(name), max_features=500), offset_s=WALL)
    for second in range(4):
        for i in range(600):
            it.take(f"home/hall/f{i}", b"1", second + i / 10_000)
    stream = it.streams["hall"]
    assert len(stream.aligner.features) == 500
    assert stream.ledger.totals["crowded"] >= 100
    crowded = {entry.key for entry in stream.ledger.entries if entry.reason == "crowded"}
    assert crowded
    assert not crowded & set(stream.aligner.features)


# -- silences that are no news -----------------------------------------------------------------------------------------


def two_features() -> Model:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.normal(20.0, 1.0, 400), (np.arange(400) // 10) % 2], axis=1).astype(np.float32)
    return fit_model(rows, features=["fast", "slow"], rng=rng)


MODEL_OF_TWO = functools.cache(two_features)


def missing_alerts(heard: Heard) -> list[str]:
    return [f"{alert.type} {c.feature}" for step in heard.steps for alert in step.alerts if alert.kind == "missing"
            for c in alert.top_features]  # fmt: skip


def tell(it: Pipeline, begin: int, end: int, slow: Collection[int] = ()) -> list[str]:
    """`fast` every second, `slow` at some; the news of what is missing."""
    news = []
    for at in range(begin, end):
        values = {"fast": 20.0 + 0.1 * (at % 7)} | ({"slow": at // 10 % 2} if at in slow else {})
        news += missing_alerts(say(it, "pump", float(at), **values))
        for step in it.pass_time(at + 0.9):
            news += [f"{alert.type} {c.feature}" for alert in step.alerts if alert.kind == "missing"
                     for c in alert.top_features]  # fmt: skip
    return news


def restarted(it: Pipeline, now: float) -> Pipeline:
    """The same stream in the next run, from what this one would store."""
    again = pipeline(MODEL_OF_TWO())
    stream = it.streams["pump"]
    state = json.loads(json.dumps([stream.memory(), stream.aligner.columns.state()]))
    again.open("pump", now).resume(stream.rows, *state)
    return again


def test_after_a_restart_a_slow_feature_is_missing_only_after_its_usual_time():
    it = pipeline(MODEL_OF_TWO())
    assert tell(it, 0, 200, slow=range(0, 200, 10)) == []
    it = restarted(it, 1000.0)
    assert tell(it, 1000, 1300, slow=range(1009, 1200, 10)) == ["new slow"]


def test_a_feature_slower_than_the_memory_of_any_run_is_not_missing():
    it = pipeline(MODEL_OF_TWO())
    assert tell(it, 0, 1000, slow=(0, 900)) == []


def test_a_sensor_that_reports_on_change_is_neither_missing_nor_frozen_and_is_judged_by_its_last_value():
    it = pipeline(MODEL_OF_TWO())
    changes = (3, 5, 300, 301, 900, 902)
    assert tell(it, 0, 2500, slow=changes) == []
    row = it.streams["pump"].last_row
    assert row is not None
    assert row.stale.tolist() == [False, False]


def test_a_silenced_pattern_of_features_is_never_missing_and_the_others_are_learned_on():
    rule = "streams: {defaults: {interval: 1s, features: {'sl*': {missing_after: never}}}}"
    it = pipeline(MODEL_OF_TWO(), CONFIG.replace("streams: {defaults: {interval: 1s, warmup_rows: 50}}", rule))
    assert tell(it, 0, 60, slow=range(60)) == []
    outcomes = []
    for at in range(60, 400):
        heard = say(it, "pump", float(at), fast=20.0 + 0.1 * (at % 7))
        assert missing_alerts(heard) == []
        outcomes += [outcome for step in heard.steps for outcome in step.outcomes]
    assert {outcome.withheld for outcome in outcomes} <= {None, "alert"}
    assert outcomes[-1].row.stale.tolist() == [False, True]


def test_a_stream_whose_sensors_all_report_on_change_has_never_stopped():
    it = pipeline(MODEL_OF_TWO())
    for at in (0, 2, 4000, 4003, 9000, 9001, 20000, 20003):
        say(it, "pump", float(at), fast=1.0, slow=1.0)
        list(it.pass_time(at + 0.9))
    assert not any(step.stopped for at in range(20004, 90000, 600) for step in it.pass_time(float(at)))


def test_a_row_that_waits_for_the_first_model_keeps_its_excuses():
    it = pipeline()
    tell(it, 0, 80, slow=(0, 1, 2, 3, 4))
    tell(it, 80, 100, slow=())
    stream = it.streams["pump"]
    stream.train()
    stream.use(MODEL_OF_TWO())
    assert [alert.kind for o in stream.catch_up(1000) for alert in o.alerts] == ["missing"]  # slow, known at 1 Hz
    it = pipeline()
    tell(it, 0, 100, slow=(0,))  # unknown
    stream = it.streams["pump"]
    stream.use(MODEL_OF_TWO())
    assert [alert.kind for o in stream.catch_up(1000) for alert in o.alerts if alert.kind == "missing"] == []


def test_what_holds_no_value_begins_no_stream_and_is_counted():
    it = pipeline(text=CONFIG.replace("format: json", "format: auto"))
    heard = it.take("telemetry/lamp", b"online", 0.0)
    assert (heard.ignored, heard.masked, it.streams) == ({"no_value": 1}, {"text": 1}, {})
    assert it.take("telemetry/lamp", b'{"a": 1.0}', 1.0).steps
    assert it.take("telemetry/lamp", b"online", 2.0).ignored == {}


def test_a_time_relative_to_now_is_relative_to_the_receipt():
    it = pipeline(text=CONFIG.replace("format: json, timestamp: t", "format: senml"))
    it.offset_s = 1_000_000.0
    pack = b'[{"n": "a", "t": -2, "v": 1}, {"n": "a", "t": -1, "v": 2}, {"n": "a", "v": 3}]'
    steps = [*it.take("telemetry/pump", pack, 10.0).steps, *it.pass_time(40.0)]
    rows = [outcome.row for step in steps for outcome in (*step.outcomes, *step.stream.flush())]
    assert [(row.timestamp, row.values.tolist()) for row in rows] == [
        (1_000_008.0, [1.0]),
        (1_000_009.0, [2.0]),
        (1_000_010.0, [3.0]),
    ]


def test_a_sensor_that_is_left_out_from_now_on_is_missed_no_more():
    it = pipeline(MODEL_OF_TWO())
    assert tell(it, 0, 60, slow=range(20)) == ["new slow"]
    stream = it.streams["pump"]
    stream.configure(replace(stream.settings, exclude=("slow",)))
    assert tell(it, 60, 100) == ["end slow"]


def test_a_device_that_is_off_every_night_is_missed_three_times_and_then_when_it_stays_away():
    it = pipeline(MODEL_OF_TWO(), CONFIG.replace("interval: 1s", "interval: 10s"))
    news = []
    for begin in range(0, 5 * 4000, 4000):
        told = []
        for at in range(begin, begin + 1000, 10):
            told += missing_alerts(say(it, "pv", float(at), fast=20.0 + at % 70 / 10, slow=at // 40 % 5))
        for at in range(begin + 1000, begin + 4000, 50):
            told += [alert.type for step in it.pass_time(float(at)) for alert in step.alerts if alert.kind == "missing"]
        news.append(told.count("new"))
    assert news == [1, 1, 1, 0, 0]
    assert any(alert.type == "new" for step in it.pass_time(24_000.0) for alert in step.alerts)


def test_messages_heard_together_give_what_they_give_one_by_one():
    rng = np.random.default_rng(0)
    messages = []
    for at in range(120):
        for name in ("pump", "fan"):
            values = {f: round(float(v), 3) for f, v in zip("ab", rng.normal(50.0 * (at > 90), 1.0, 2), strict=True)}
            if rng.random() < 0.1:
                del values["b"]
            messages.append((f"telemetry/{name}", json.dumps({"t": WALL + at, **values}).encode(), float(at)))
    messages += [("telemetry/late", b"{}", 120.0), ("telemetry/pump", b"no JSON", 120.0)]
    alone, together = pipeline(load_model(GOLDEN)), pipeline(load_model(GOLDEN))
    one_by_one = [alone.take(*message) for message in messages]
    heard = [together.hear(*message) for message in messages]
    for each in heard:
        together.judge(each)
    assert [told(each) for each in heard] == [told(each) for each in one_by_one]
    assert any(step.outcomes and step.outcomes[0].verdict for each in heard for step in each.steps)


def told(heard: Heard) -> object:
    """What a message became, without the objects of its pipeline."""
    steps = [
        (step.stream.name, step.accepted, step.late, step.lost, [str(o.row) + str(o.verdict) for o in step.outcomes])
        for step in heard.steps
    ]
    return heard.ignored, str(heard.refused), heard.subscription, steps


def test_a_round_asks_no_stream_that_is_not_due(monkeypatch: pytest.MonkeyPatch):
    it = pipeline(text=CONFIG.replace("streams: 2", "streams: 50"))
    for i in range(50):
        for at in range(3):
            say(it, f"s{i}", float(at), a=1.0)
    list(it.pass_time(4.0))
    asked: list[str] = []
    advance = Stream.advance
    monkeypatch.setattr(Stream, "advance", lambda self, by: asked.append(self.name) or advance(self, by))
    assert list(it.pass_time(4.2)) == []
    say(it, "s7", 5.0, a=1.0)
    assert list(it.pass_time(8.0)) == []
    list(it.pass_time(63.0))  # the others have stopped
    assert asked == [f"s{i}" for i in range(50) if i != 7]
