"""One stream from readings to alerts, pure: the golden test and what the states promise."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gon_edge.config.schema import StreamConfig
from gon_edge.config.subscription import SubscriptionConfig
from gon_edge.events import Alert, Reading, Row
from gon_edge.model.daily import SUFFIX, DayMemory
from gon_edge.model.file import Model, load_model
from gon_edge.model.window import Scaler
from gon_edge.stream import backlog
from gon_edge.stream.held import alert_json
from gon_edge.stream.history import unpacked
from gon_edge.stream.outcome import Outcome
from gon_edge.stream.payload import Decoder
from gon_edge.stream.stream import Stream
from gon_edge.training.fit import fit_model

GOLDEN = Path(__file__).parents[1] / "golden" / "fault.json"
NAMES = ("flow", "pressure", "current")
SETTINGS = StreamConfig(warmup_rows=50, interval_s=1.0)


def values(count: int, seed: int, fault: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    load = np.zeros(count)
    for t in range(1, count):
        load[t] = 0.9 * load[t - 1] + rng.normal()
    rows = np.array([20.0, 3.0, 1.2]) + load[:, None] * [1.0, 0.2, 0.1] + 0.1 * rng.normal(size=(count, 3))
    rows[:, 0] += fault
    return rows


@pytest.fixture(scope="module")
def model() -> Model:
    """A model of ``values(600, 0)``; kept as a file, so that better training does not change what is golden here."""
    return load_model(GOLDEN.with_name("pump.npz"))


def readings(rows: np.ndarray, start: float = 1000.0) -> Iterator[Reading]:
    for t, row in enumerate(rows.tolist()):
        yield Reading("pump", start + t, dict(zip(NAMES, row, strict=True)))


def run(stream: Stream, rows: np.ndarray, start: float = 1000.0) -> list[Outcome]:
    return [o for reading in readings(rows, start) for o in stream.add(reading, reading.timestamp or 0.0)]


def stream_with(model: Model | None, settings: StreamConfig = SETTINGS, **options: object) -> Stream:
    return Stream("pump", settings, max_features=10, model=model, timer=lambda: 0.0, **options)  # type: ignore[arg-type]


def test_recorded_messages_give_the_recorded_alerts(model: Model) -> None:
    """Bytes in, alerts out, as written down in tests/golden/fault.json (scores to float32 rounding)."""
    decoder = Decoder(SubscriptionConfig("telemetry/{stream}", timestamp="time"))
    stream = stream_with(model)
    events: list[Alert] = []
    rows = np.concatenate([values(60, 1), values(20, 2, fault=8.0), values(60, 3)])
    for t, row in enumerate(rows.round(3).tolist()):
        payload = json.dumps({"time": 1_700_000_000 + t, **dict(zip(NAMES, row, strict=True))}).encode()
        for reading in decoder.decode("telemetry/pump", payload).readings:
            events += [alert for o in stream.add(reading, float(t)) for alert in o.alerts]
    found = [alert_json(event) for event in events]
    expected = json.loads(GOLDEN.read_text())
    assert [(e["type"], e["id"], e["severity"], e["timestamp"]) for e in found] == [
        (e["type"], e["id"], e["severity"], e["timestamp"]) for e in expected
    ]
    for event, wanted in zip(found, expected, strict=True):
        assert event["score"] == pytest.approx(wanted["score"], rel=1e-3)
        assert [f["feature"] for f in event["top_features"]] == [f["feature"] for f in wanted["top_features"]]
        for cause, other in zip(event["top_features"], wanted["top_features"], strict=True):
            assert cause["expected"] == pytest.approx(other["expected"], rel=1e-2)
    assert found[0]["top_features"][0]["feature"] == "flow"


def test_a_stream_without_a_model_warms_up_and_raises_nothing() -> None:
    stream = stream_with(None)
    outcomes = run(stream, values(49, 1, fault=100.0))
    assert stream.state == "warming-up"
    assert not stream.warmed_up
    assert all(o.verdict is None and not o.alerts for o in outcomes)
    run(stream, values(2, 2), start=1049.0)
    assert stream.warmed_up


def test_rows_that_come_during_the_first_training_are_scored_after_it(model: Model) -> None:
    stream = stream_with(None)
    run(stream, values(50, 1))
    stream.train()
    assert run(stream, values(300, 2), start=1050.0) == []
    assert (stream.state, stream.behind) == ("training", 300)
    stream.use(model)
    caught = [o for _ in range(5) for o in stream.catch_up(100)]
    direct = run(stream_with(model), values(300, 2), start=1050.0)
    assert [o.row.timestamp for o in caught] == [o.row.timestamp for o in direct]
    assert [o.verdict.score for o in caught if o.verdict] == [o.verdict.score for o in direct if o.verdict]
    assert all(o.waited for o in caught)
    assert stream.behind == 0


def test_rows_that_come_while_another_stream_is_trained_wait_too(model: Model) -> None:
    stream = stream_with(None)
    assert len(run(stream, values(50, 1))) == 50
    assert run(stream, values(30, 2), start=1050.0) == []
    assert (stream.state, stream.warmed_up, stream.behind) == ("warming-up", True, 30)
    stream.use(model)
    assert len(stream.catch_up(100)) == 30


@pytest.mark.parametrize("is_started", [False, True])
def test_what_a_first_training_does_to_the_machine_is_no_news(model: Model, is_started: bool) -> None:
    """Rows that came while it went on, and the window after them, count as the end of the warm-up."""
    lenient = replace(model, threshold=1000.0).with_lineage(version="shipped:pump")
    stream = stream_with(None, starters=(lenient,) if is_started else ())
    run(stream, values(50, 1))
    stream.train()
    meanwhile = run(stream, values(10, 2, fault=8.0), start=1050.0)
    stream.use(model)
    outcomes = [*meanwhile, *stream.catch_up(100), *run(stream, values(60, 3), start=1060.0)]
    assert any(o.verdict is not None and o.verdict.is_anomaly for o in outcomes)
    assert not [alert for o in outcomes for alert in o.alerts]
    assert all(o.withheld is None for o in outcomes)
    (first, *_) = (alert for o in run(stream, values(20, 4, fault=8.0), start=1120.0) for alert in o.alerts)
    assert first.type == "new"


def test_a_fault_during_a_first_training_is_told_after_it(model: Model) -> None:
    stream = stream_with(None)
    run(stream, values(50, 1))
    stream.train()
    rows = values(100, 2, fault=8.0)
    run(stream, rows[:10], start=1050.0)
    stream.use(model)
    outcomes = [*stream.catch_up(100), *run(stream, rows[10:], start=1060.0)]
    (alert,) = (alert for o in outcomes for alert in o.alerts if alert.type == "new")
    assert alert.timestamp == 1060.0 + model.discriminator.window + SETTINGS.alerts.clear_rows - 1.0


def test_rows_beyond_the_memory_of_the_backlog_come_out_without_a_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "BACKLOG_BYTES", 256 << 10)
    stream = stream_with(None)
    run(stream, values(50, 1))
    stream.train()
    count = backlog.BACKLOG_BYTES // 20
    outcomes = run(stream, np.ones((count, 3)), start=1050.0)
    assert outcomes
    assert all(o.verdict is None and o.waited for o in outcomes)
    assert len(outcomes) + stream.behind == count
    lost = len(stream.give_up_training())
    assert len(outcomes) + lost == count
    assert stream.state == "warming-up"


def test_every_row_has_exactly_one_outcome(model: Model) -> None:
    stream = stream_with(None)
    stamps = [o.row.timestamp for o in run(stream, values(60, 1))]
    stream.train()
    stamps += [o.row.timestamp for o in run(stream, values(40, 2), start=1060.0)]
    stream.use(model)
    stamps += [o.row.timestamp for o in run(stream, values(40, 3), start=1100.0)]
    stamps += [o.row.timestamp for o in stream.catch_up(1000)]
    assert stamps == [1000.0 + t for t in range(140)]


def test_a_fault_that_goes_on_is_one_alert_and_then_another_state_that_stays_told(model: Model) -> None:
    stream = stream_with(model)
    run(stream, values(60, 1))
    alerts = [a for o in run(stream, values(2000, 2, fault=8.0), start=1060.0) for a in o.alerts]
    # After a thousand rows it is told as another state, and that alert stays open.
    assert [(a.kind, a.type) for a in alerts if a.type != "update"] == [
        ("anomaly", "new"),
        ("anomaly", "end"),
        ("changed", "new"),
    ]
    assert len(stream.policy.active) == 1


def test_an_open_alert_survives_a_restart_with_its_id(model: Model) -> None:
    stream = stream_with(model)
    alerts = [a for o in run(stream, np.concatenate([values(60, 1), values(30, 2, fault=8.0)])) for a in o.alerts]
    restored = stream_with(model)
    restored.resume(0, json.loads(json.dumps(stream.policy.state())))
    later = [a for o in run(restored, values(60, 3), start=1090.0) for a in o.alerts]
    assert alerts[0].type == "new"
    assert [(a.type, a.id) for a in later] == [("end", alerts[0].id)]


def test_a_stream_that_stops_is_stale_and_says_what_is_missing(model: Model) -> None:
    stream = stream_with(model)
    run(stream, values(30, 1))
    alerts = stream.silent(1100.0)
    assert stream.state == "stale"
    assert [(a.type, a.kind) for a in alerts] == [("new", "missing")]
    assert sorted(cause.feature for cause in alerts[0].top_features) == sorted(NAMES)
    assert stream.silent(1101.0) == ()
    run(stream, values(1, 2), start=1102.0)
    assert stream.state == "scoring"


def test_a_stream_whose_clock_stands_still_has_stopped(model: Model) -> None:
    stream = stream_with(model)
    run(stream, values(30, 1))
    now = stream.heard_at
    for _ in range(120):
        now += 1.0
        stream.add(Reading("pump", stream.aligner.last_timestamp, dict.fromkeys(NAMES, 0.0)), now)
        assert stream.has_stopped(now) == (now - stream.heard_at > 60.0)
    (alert,) = stream.stop(now)
    assert (alert.kind, alert.severity) == ("missing", "critical")
    assert alert.timestamp == stream.aligner.last_timestamp + 60.0
    assert not stream.has_stopped(now + 1000.0)


def test_a_stream_that_stops_during_the_warm_up_raises_nothing() -> None:
    stream = stream_with(None)
    run(stream, values(10, 1))
    assert stream.silent(1100.0) == ()


def test_a_missing_sensor_is_its_own_alert_and_does_not_raise_the_score(model: Model) -> None:
    stream = stream_with(model)
    run(stream, values(60, 1))
    alerts, scores = [], []
    for reading in readings(values(60, 2), start=1060.0):
        rest = {name: value for name, value in reading.values.items() if name != "flow"}
        for o in stream.add(replace(reading, values=rest), reading.timestamp or 0.0):
            alerts += o.alerts
            scores.append(o.verdict.score if o.verdict else 0.0)
    assert [(a.type, a.kind, [c.feature for c in a.top_features]) for a in alerts] == [("new", "missing", ["flow"])]
    assert max(scores) < model.threshold


def test_features_are_chosen_by_globs(model: Model) -> None:
    settings = replace(SETTINGS, include=("fl*", "pressure"), exclude=("pressure",))
    stream = stream_with(None, settings)
    run(stream, values(5, 1))
    assert stream.aligner.features == ("flow",)


def test_seeds_fill_what_the_first_fresh_reading_lacks() -> None:
    stream = stream_with(None)
    stream.seed(Reading("pump", None, {"flow": 1.0, "pressure": 2.0}))
    outcomes = stream.add(Reading("pump", 1000.0, {"flow": 5.0}), 0.0) + stream.flush()
    assert outcomes[0].row.features == ("flow", "pressure")
    assert outcomes[0].row.values.tolist() == [5.0, 2.0]


def test_causes_are_found_when_asked_for_and_only_while_anomalous(model: Model) -> None:
    stream = stream_with(model)
    run(stream, values(60, 1))
    assert stream.causes() == ()
    run(stream, values(10, 2, fault=8.0), start=1060.0)
    assert stream.causes()[0].feature == "flow"


# -- starters: a shipped model scores until the stream has its own -----------------------------------------------------


def test_a_starter_scores_from_the_first_row_and_gives_way_to_the_streams_own_model(model: Model) -> None:
    starter = model.with_lineage(version="shipped:pump")
    stream = stream_with(None, starters=(starter,))
    outcomes = run(stream, values(60, 1))
    assert all(o.verdict is not None and o.verdict.model_version == "shipped:pump" for o in outcomes)
    assert not any(o.alerts for o in outcomes)
    assert (stream.state, stream.model, stream.scored_by) == ("warming-up", None, starter)
    assert stream.warmed_up
    stream.train()
    (during,) = run(stream, values(1, 4), start=1060.0)
    assert during.verdict is not None
    assert (stream.state, stream.behind) == ("training", 0)
    stream.use(model.with_lineage(version="1"))
    (after,) = run(stream, values(1, 5), start=1061.0)
    assert after.verdict is not None
    assert (after.verdict.model_version, stream.starter, stream.state) == ("1", None, "scoring")
    assert list(stream.scores) == [after.verdict.score]


def test_a_starter_waits_for_a_row_that_has_all_its_features(model: Model) -> None:
    stream = stream_with(None, starters=(model,))
    rows = values(40, 1)
    early = [o for r in list(readings(rows))[:20] for o in stream.add(_only(r, "flow", "pressure"), r.timestamp or 0.0)]
    late = [o for r in list(readings(rows))[20:] for o in stream.add(r, r.timestamp or 0.0)]
    assert [o.verdict for o in early] == [None] * len(early)
    assert late
    assert all(o.verdict is not None for o in late[1:])


def test_features_a_starter_does_not_know_raise_nothing_with_it(model: Model) -> None:
    stream = stream_with(None, starters=(model,))
    noise = np.random.default_rng(0).normal(size=200) * np.geomspace(1.0, 1e6, 200)
    outcomes = []
    for t, reading in enumerate(readings(values(200, 1))):
        extra = {} if 60 <= t < 120 else {"strange": float(noise[t])}  # wild, and missing for a minute
        outcomes += stream.add(replace(reading, values={**reading.values, **extra}), reading.timestamp or 0.0)
    assert not any(o.alerts for o in outcomes)
    assert not any(o.verdict.missing for o in outcomes if o.verdict)


def test_a_fault_in_the_warm_up_is_an_alert_with_a_starter(model: Model) -> None:
    stream = stream_with(None, starters=(model,))
    outcomes = run(stream, np.concatenate([values(30, 1), values(15, 2, fault=8.0)]))
    assert [alert.type for o in outcomes for alert in o.alerts][:1] == ["new"]


def test_a_relative_feature_of_a_starter_may_lie_at_any_level(model: Model) -> None:
    changes = Scaler(model.scaler.mean * [0.0, 1.0, 1.0], model.scaler.scale)
    relative = replace(model, scaler=changes).with_lineage(relative=["flow"])
    rows = values(60, 1) + np.array([7000.0, 0.0, 0.0])
    for starter, quiet in ((model, False), (relative, True)):
        outcomes = run(stream_with(None, starters=(starter,)), rows)
        assert (not any(o.alerts for o in outcomes)) is quiet


def _only(reading: Reading, *names: str) -> Reading:
    return replace(reading, values={name: reading.values[name] for name in names})


def test_the_next_model_goes_on_with_the_window_of_the_one_before(model: Model) -> None:
    """A detector that begins with an empty window finds a slow fault normal for 40 rows, and that ended its alert."""
    swapped, steady = stream_with(model), stream_with(model)
    for stream in (swapped, steady):
        run(stream, values(100, 1))
    swapped.use(model)
    later = [run(stream, values(60, 2, fault=4.0), start=1100.0) for stream in (swapped, steady)]
    scores = [[o.verdict.score for o in outcomes if o.verdict] for outcomes in later]
    assert scores[0] == pytest.approx(scores[1], rel=0.05)
    assert len(later[0]) == 60


def test_a_feature_the_model_does_not_know_is_seen(model: Model) -> None:
    stream = stream_with(model)
    run(stream, values(5, 1))
    assert not stream.new_feature
    stream.add(Reading("pump", 1005.0, {"flow": 20.0, "pressure": 3.0, "current": 1.2, "speed": 1.0}), 1005.0)
    stream.flush()
    assert stream.new_feature


def test_other_settings_count_from_the_next_reading(model: Model) -> None:
    stream = stream_with(model)
    run(stream, values(5, 1))
    stream.configure(replace(SETTINGS, exclude=("flow",)))
    outcomes = run(stream, values(60, 1), start=1005.0)
    assert outcomes[-1].row.stale[list(outcomes[-1].row.features).index("flow")]


@pytest.mark.parametrize("silenced", [None, frozenset({"flow"})])
def test_work_that_is_done_when_a_silence_ends_raises_nothing_afterwards(
    model: Model, silenced: frozenset[str] | None
) -> None:
    stream = stream_with(model)
    run(stream, values(60, 1))
    stream.silence(silenced)
    worked = run(stream, values(60, 2, fault=8.0), start=1060.0)
    assert any(o.verdict.is_anomaly for o in worked if o.verdict)
    assert [a for o in worked for a in o.alerts] == []
    stream.silence(frozenset())
    after = run(stream, values(100, 1), start=1120.0)
    assert [a for o in after for a in o.alerts] == []
    assert not after[1].verdict.is_anomaly


def test_a_fault_that_is_there_when_a_silence_ends_is_raised_then(model: Model) -> None:
    stream = stream_with(model)
    stream.silence(None)
    run(stream, values(60, 2, fault=8.0))
    stream.silence(frozenset())
    alerts = [a for o in run(stream, values(20, 3, fault=8.0), start=1060.0) for a in o.alerts]
    assert (alerts[0].type, alerts[0].since) == ("new", 1060.0)
    assert "end" not in {a.type for a in alerts}


def test_a_silence_that_begins_or_grows_forgets_no_row(model: Model) -> None:
    straight, silenced = stream_with(model), stream_with(model)
    for stream in (straight, silenced):
        run(stream, values(60, 1))
    silenced.silence(frozenset({"flow"}))
    silenced.silence(frozenset({"flow", "pressure"}))
    one, other = (run(stream, values(60, 2), start=1060.0) for stream in (straight, silenced))
    assert [o.verdict.score for o in one if o.verdict] == [o.verdict.score for o in other if o.verdict]


def test_what_was_expected_is_kept_beside_the_readings_while_something_is_wrong_and_only_then(model: Model) -> None:
    stream = stream_with(model)
    run(stream, values(300, 1))
    assert np.isnan(unpacked(stream.readings.copy()[1], 3)[2]).all()
    run(stream, values(120, 2, fault=9.0), start=1300.0)
    low, high, expected = unpacked(stream.readings.copy()[1], 3)
    flow = stream.readings.features.index("flow")
    wrong = np.flatnonzero(np.isfinite(expected[:, flow]))
    assert len(wrong) >= 4
    assert low[wrong[-1], flow] > 25.0
    assert (expected[wrong, flow] < high[wrong, flow] - 2.0).all()


def test_nothing_is_expected_of_a_reading_that_is_no_cause(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    # It is moved, too, towards a window that would be normal: a calm speed was drawn far from what was expected of it.
    monkeypatch.setattr("gon_edge.stream.stream.SMALLEST_SHARE", 0.5)
    stream = stream_with(model)
    run(stream, np.concatenate([values(300, 1), values(120, 2, fault=9.0)]))
    expected = unpacked(stream.readings.copy()[1], 3)[2]
    told = np.isfinite(expected).any(axis=0)
    assert [name for name, has in zip(stream.readings.features, told, strict=True) if has] == ["flow"]


def test_readings_are_kept_before_there_is_a_model() -> None:
    stream = stream_with(None)
    run(stream, values(20, 1))
    assert stream.readings.features == NAMES
    assert np.isfinite(unpacked(stream.readings.copy()[1], 3)[:2, -1]).all()


def test_rows_are_learned_while_one_feature_is_missing_but_not_that_feature(model: Model) -> None:
    stream = stream_with(model)
    rows = values(1000, 4)
    rows[400:, 1] = rows[400, 1]
    outcomes = run(stream, rows)
    frozen = [o for o in outcomes if o.verdict and o.verdict.missing]
    assert len(frozen) == pytest.approx(300, abs=2)
    assert {alert.kind for alert in stream.policy.active} == {"missing"}
    calm = [o for o in frozen if not o.verdict.is_anomaly]  # type: ignore[union-attr]
    assert len(calm) > 250
    assert {o.withheld for o in calm} <= {None, "alert"}
    assert [o.withheld for o in calm].count(None) > 0.9 * len(calm)
    assert all(o.row.stale.tolist() == [False, True, False] for o in frozen)


def test_an_anomalous_row_is_not_learned_while_a_feature_is_missing(model: Model) -> None:
    stream = stream_with(model)
    rows = values(900, 4)
    rows[400:, 1] = rows[400, 1]
    rows[850:, 0] += 8.0
    outcomes = run(stream, rows)
    assert {alert.kind for alert in stream.policy.active} == {"anomaly", "missing"}
    assert {o.withheld for o in outcomes[-30:]} == {"alert"}


def test_a_stream_compares_with_other_days_also_those_of_an_earlier_run_and_with_a_new_model() -> None:
    """Day mode at night: two days are remembered, the third night is judged by two models in turn."""
    rng = np.random.default_rng(0)
    times = 600.0 * np.arange(6 * 144)
    warm = 18.0 + 3.0 * ((times % 86400.0 >= 21600.0) & (times % 86400.0 < 79200.0)) + 0.1 * rng.normal(size=len(times))
    rows = warm[:, None].astype(np.float32)
    memory = DayMemory()
    memory.add(times, ("indoor",), rows)
    learned = np.hstack([rows, memory.around(times, ("indoor",), rows)])
    models = [
        fit_model(learned, features=("indoor", "indoor" + SUFFIX), rng=np.random.default_rng(seed)) for seed in (0, 1)
    ]

    def night(stream: Stream) -> list[float]:
        night_rows = [
            Row("pump", 6 * 86400.0 + 600.0 * i, ("indoor",), np.float32([21.0]), np.zeros(1, np.bool_))
            for i in range(30)
        ]
        scores = []
        for i, row in enumerate(night_rows):
            if i == 20:
                stream.use(models[1])
            scores += [o.verdict.score for o in stream.judge([row]) if o.verdict is not None]
        return scores

    lived = stream_with(models[0])
    for timestamp, row in zip(times, rows, strict=True):
        lived.judge([Row("pump", float(timestamp), ("indoor",), row, np.zeros(1, np.bool_))])
    restarted = stream_with(models[0])
    restarted.past.give([(times, ("indoor",), rows)])
    forgetful = stream_with(models[0])
    assert min(night(stream)[-1] for stream in (lived, restarted)) > night(forgetful)[-1] + 1.0


def test_rows_that_cannot_be_learned_do_not_bring_the_warm_up_on_and_are_counted() -> None:
    stream = stream_with(None)
    stream.silence(None)
    run(stream, values(60, 1))
    assert (stream.rows, stream.unusable, stream.warmed_up) == (0, {"silenced": 60}, False)
    stream.silence(frozenset())
    run(stream, values(51, 2), start=1060.0)
    assert (stream.rows, stream.warmed_up) == (51, True)


# -- drift -------------------------------------------------------------------------------------------------------------

HOURLY = StreamConfig(warmup_rows=50, interval_s=3600.0, max_gap_s=1e6)
MIDNIGHT = 1_767_571_200.0  # in UTC, a Monday


def weeks(days: int, wear: float = 0.0) -> np.ndarray:
    """A row an hour; the flow rises by so much a day from the 22nd day on."""
    rows = values(24 * days, 4)
    rows[:, 0] += wear * np.maximum(0.0, np.arange(24 * days) / 24 - 21)
    return rows


def run_hourly(stream: Stream, rows: np.ndarray, first_day: int = 0) -> list[Outcome]:
    stamps = MIDNIGHT + 86_400.0 * first_day + 3600.0 * np.arange(len(rows))
    return [
        outcome
        for at, row in zip(stamps.tolist(), rows.tolist(), strict=True)
        for outcome in stream.add(Reading("pump", at, dict(zip(NAMES, row, strict=True))), at)
    ]


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(scope="module")
def limited(model: Model) -> Model:
    """The model, with what its readings went to in training."""
    return replace(model, lowest=np.float32([15.0, 2.0, 0.7]), highest=np.float32([25.0, 4.0, 1.7]))


def drifts(outcomes: list[Outcome]) -> list[Alert]:
    return [alert for outcome in outcomes for alert in outcome.alerts if alert.kind == "drift"]


@pytest.mark.usefixtures("utc")
def test_a_reading_that_wears_is_one_alert_of_a_drift_and_its_twin_none(limited: Model) -> None:
    assert drifts(run_hourly(stream_with(limited, HOURLY), weeks(32))) == []
    told = drifts(run_hourly(stream_with(limited, HOURLY), weeks(32, wear=0.16)))
    assert [alert.type for alert in told] == ["new", *["update"] * (len(told) - 1)]
    assert len({alert.id for alert in told}) == 1
    days = [(alert.timestamp - MIDNIGHT) // 86_400.0 for alert in told]
    assert 24 <= days[0] <= 29
    assert days == sorted(set(days))  # once a day at most
    cause = told[-1].top_features[0]
    assert cause.feature == "flow"
    assert cause.trend is not None
    assert cause.trend.per_day == pytest.approx(0.16, rel=0.3)
    assert cause.trend.reaches == pytest.approx(26.0)  # a tenth of the range above what training had


@pytest.mark.usefixtures("utc")
def test_rows_under_a_drift_are_not_learned_and_a_restart_forgets_nothing(limited: Model) -> None:
    rows = weeks(32, wear=0.16)
    whole = run_hourly(stream_with(limited, HOURLY), rows)
    first, second = stream_with(limited, HOURLY), stream_with(limited, HOURLY)
    told = drifts(run_hourly(first, rows[: 24 * 29]))
    second.resume(0, json.loads(json.dumps(first.memory())))
    told += drifts(run_hourly(second, rows[24 * 29 :], first_day=29))
    assert [(a.id, a.type, a.timestamp) for a in told] == [(a.id, a.type, a.timestamp) for a in drifts(whole)]
    begun = drifts(whole)[0].timestamp
    assert {o.withheld for o in whole if o.row.timestamp >= begun} == {"alert"}


@pytest.mark.usefixtures("utc")
def test_a_drift_that_a_person_calls_normal_ends_at_the_next_row(limited: Model) -> None:
    rows = weeks(34, wear=0.16)
    stream = stream_with(limited, HOURLY)
    told = drifts(run_hourly(stream, rows[: 24 * 32]))
    stream.answered(told[0].since, MIDNIGHT + 32 * 86_400.0, fault=True)
    assert drifts(run_hourly(stream, rows[24 * 32 : 24 * 32 + 2], first_day=32))[-1].type == "update"
    stream.answered(told[0].since, MIDNIGHT + 32.1 * 86_400.0, fault=False)
    after = run_hourly(stream, rows[24 * 32 + 2 :], first_day=32)
    assert [(a.type, a.timestamp) for a in drifts(after)][:1] == [("end", after[0].row.timestamp)]
    assert after[-1].withheld is None


@pytest.mark.usefixtures("utc")
def test_a_model_of_all_rows_knows_what_drifts(limited: Model) -> None:
    rows = weeks(33, wear=0.16)
    stream = stream_with(limited, HOURLY)
    assert drifts(run_hourly(stream, rows[: 24 * 32]))
    stream.use(replace(limited, lineage={"version": "2"}))
    stream.learned()
    assert drifts(run_hourly(stream, rows[24 * 32 :], first_day=32))[0].type == "end"
