"""The detector, a row at a time: its scores are those of the array face, and its causes are the faulty sensors."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from plants import NAMES, OFFSET, F, plant

from gon_edge import Detector, FitSettings, GONDetector, Row, fit_model
from gon_edge.model.explain import Explainer, forget, normalised


@pytest.fixture(scope="module")
def fitted():
    return GONDetector().fit(plant(1200))


@pytest.fixture(scope="module")
def normal():
    """The plant after training."""
    return plant(2000)[1200:]


def stream(rows, *, features=NAMES, stale=None, restart=()):
    for t, values in enumerate(rows):
        gone = np.zeros(len(values), np.bool_) if stale is None else np.broadcast_to(stale, len(values))
        yield Row("plant", 100.0 + t, features, np.asarray(values, np.float32), gone, restart=t in restart)


@pytest.mark.parametrize("missing", [0.0, 0.05])
def test_a_stream_gets_the_scores_of_the_array(fitted, normal, missing):
    rows = normal.copy()
    rows[np.random.default_rng(0).random(rows.shape) < missing] = np.nan
    detector = Detector(fitted.model_)
    scores = [detector.update(row).score for row in stream(rows)]
    np.testing.assert_allclose(scores, fitted.decision_function(rows), rtol=2e-4)


def test_a_stream_names_the_causes_of_the_array(fitted, normal):
    rows = normal[:300].copy()
    rows[200:, 3] += 5.0 * normal[:, 3].std()
    rows[230:, 6] -= 4.0 * normal[:, 6].std()
    detector = Detector(fitted.model_, top=F)
    shares = fitted.feature_scores(rows)
    shares = shares / shares.sum(axis=1, keepdims=True)
    for t, row in enumerate(stream(rows)):
        verdict = detector.update(row)
        if t >= 200 and verdict.is_anomaly:
            for cause in verdict.causes:
                f = fitted.model_.features.index(cause.feature)
                assert cause.contribution == pytest.approx(shares[t, f], rel=2e-3, abs=1e-4)


def test_what_was_wrong_one_window_ago_is_still_a_cause(fitted, normal):
    # Labels of real faults name what moved in the whole fault, not in its last seconds.
    rows = normal[:400].copy()
    window = fitted.model_.discriminator.window
    rows[200 : 200 + window, 3] += 5.0 * normal[:, 3].std()
    rows[200 + window :, 6] -= 5.0 * normal[:, 6].std()
    shares = fitted.feature_scores(rows)
    assert set(np.argsort(-shares[200 + 2 * window - 1])[:2]) == {3, 6}
    assert shares[200 + 3 * window].argmax() == 6
    assert shares[200 + 3 * window, 3] < 0.1 * shares[200 + 3 * window].sum()


def test_a_restart_forgets_what_came_before(fitted, normal):
    detector = Detector(fitted.model_)
    rows = np.concatenate([50.0 * normal[:100], normal[100:200]])
    scores = [detector.update(row).score for row in stream(rows, restart={0, 100})]
    np.testing.assert_allclose(scores[100:], fitted.decision_function(normal[100:200]), rtol=2e-4)


@pytest.mark.parametrize("start", range(0, 760, 40))
def test_a_restart_of_a_calm_stream_is_no_anomaly(fitted, normal, start):
    # The window begins as its first row repeated, which is not normal: each restart gave W rows of false alarms.
    assert not fitted.predict(normal[start : start + 10]).any()


def test_a_fault_that_is_there_at_the_restart_is_seen_at_once(fitted, normal):
    faulty = normal[:10].copy()
    faulty[:, 3] += 10.0 * fitted.model_.scaler.scale[3]
    assert fitted.predict(faulty)[0]
    assert next(Detector(fitted.model_).update(row).causes[0].feature for row in stream(faulty)) == NAMES[3]


def test_a_verdict_says_whose_it_is(fitted, normal):
    model = fitted.model_.with_lineage(version="v3")
    verdict = Detector(model).update(next(stream(normal)))
    assert (verdict.stream, verdict.timestamp, verdict.model_version) == ("plant", 100.0, "v3")
    assert verdict.threshold == model.threshold
    assert verdict.is_anomaly == (verdict.score > verdict.threshold)
    assert type(verdict.is_anomaly) is bool
    assert type(verdict.score) is float


def test_the_order_and_the_company_of_features_do_not_matter(fitted, normal):
    plain, mixed = Detector(fitted.model_), Detector(fitted.model_)
    order = np.random.default_rng(0).permutation(F)
    names = ("unknown", *(NAMES[i] for i in order), "also unknown")
    for row, other in zip(
        stream(normal[:100]),
        stream(np.pad(normal[:100, order], [(0, 0), (1, 1)], constant_values=1e9), features=names),
        strict=True,
    ):
        a, b = plain.update(row), mixed.update(other)
        assert a.score == b.score
        assert b.missing == ()


def test_features_may_appear_while_the_stream_runs(fitted, normal):
    detector = Detector(fitted.model_)
    few = detector.update(next(stream(normal[:1, :3], features=NAMES[:3])))
    assert few.missing == NAMES[3:]
    assert detector.update(next(stream(normal[1:2]))).missing == ()


def test_a_row_of_strangers_is_masked_as_a_whole(fitted):
    verdict = Detector(fitted.model_).update(next(stream([[1.0]], features=("stranger",))))
    assert verdict.missing == NAMES
    assert not verdict.is_anomaly


@pytest.mark.parametrize("how", ["absent", "stale", "nan", "infinite"])
def test_an_unusable_feature_is_reported_and_neither_raises_nor_hides_a_score(fitted, normal, how):
    gone = 2
    kept = [f for f in range(F) if f != gone]

    def rows(readings):
        if how == "absent":
            yield from stream(readings[:, kept], features=tuple(NAMES[f] for f in kept))
        elif how == "stale":
            readings = readings.copy()
            readings[:, gone] = -1e6
            yield from stream(readings, stale=np.arange(F) == gone)
        else:
            readings = readings.copy()
            readings[:, gone] = np.nan if how == "nan" else np.inf
            yield from stream(readings)

    detector = Detector(fitted.model_)
    calm = [detector.update(row) for row in rows(normal[:300])]
    assert {verdict.missing for verdict in calm} == {(NAMES[gone],)}
    assert np.mean([verdict.is_anomaly for verdict in calm]) < 0.05
    faulty = normal[300:330].copy()
    faulty[:, 5] += 6.0 * fitted.model_.scaler.scale[5]
    alarms = [detector.update(row) for row in rows(faulty)]
    assert alarms[-1].is_anomaly
    assert alarms[-1].causes[0].feature == NAMES[5]
    assert all(cause.feature != NAMES[gone] for cause in alarms[-1].causes)


def test_a_frozen_feature_is_reported_and_comes_back(fitted):
    rows = plant(1000, seed=2)
    rows[100:900, 4] = rows[100, 4]
    detector = Detector(fitted.model_)
    frozen = [NAMES[4] in detector.update(row).missing for row in stream(rows)]
    first = frozen.index(True)
    assert 300 <= first - 100 <= 302
    assert all(frozen[first:900])
    assert not any(frozen[900:])


def test_a_feature_that_was_constant_in_training_is_never_frozen():
    rows = plant(100)
    rows[:, 1] = 3.0
    model = fit_model(rows, settings=FitSettings(window=5), rng=np.random.default_rng(0))
    detector = Detector(model)
    long = plant(1500)
    long[:, 1] = 3.0
    assert not any(detector.update(row).missing for row in stream(long))


def fault(fitted, feature, start, *, size=5.0, rows=5):
    """The last verdict of a fault in one sensor, what the sensor would have said, and the deviation of that sensor."""
    truth = plant(2000)[start - 100 : start + rows]
    readings = truth.copy()
    deviation = fitted.model_.scaler.scale[feature]
    readings[100:, feature] += size * deviation
    detector = Detector(fitted.model_)
    for row in stream(readings):
        verdict = detector.update(row)
    return verdict, truth[-1, feature], deviation


FAULTS = [(feature, start) for feature in range(F) for start in (1300, 1450, 1650)]


def test_the_first_cause_is_the_faulty_sensor_in_most_cases(fitted):
    verdicts = [(feature, fault(fitted, feature, start)[0]) for feature, start in FAULTS]
    named = [verdict.causes[0].feature == NAMES[feature] for feature, verdict in verdicts if verdict.is_anomaly]
    assert len(named) > 0.9 * len(FAULTS)
    assert np.mean(named) > 0.9


def test_the_expected_value_is_near_what_the_sensor_would_have_said(fitted):
    errors = []
    for feature, start in FAULTS:
        verdict, truth, deviation = fault(fitted, feature, start)
        (cause,) = [cause for cause in verdict.causes if cause.feature == NAMES[feature]]
        assert cause.value == pytest.approx(truth + 5.0 * deviation, abs=1e-3 * deviation)
        errors.append(abs(cause.expected - truth) / deviation)
    # The fault is 5 deviations; before it can know better, a model is off by one (the mean).
    assert np.median(errors) < 2.0
    assert max(errors) < 4.0


def test_nothing_is_expected_that_never_was() -> None:
    # Two loads of one machine rise together to 100 %.  One of them at 300 % makes the network place the other above.
    rng = np.random.default_rng(0)
    work = np.clip(np.cumsum(rng.normal(0.0, 5.0, 800)) % 100.0, 0.0, 100.0)
    rows = np.column_stack([work, 0.9 * work, 0.1 * work]) + rng.normal(0.0, 0.5, (800, 3))
    model = fit_model(rows, features=["a", "b", "c"], rng=rng)
    lowest, highest = model.extremes
    detector = Detector(model, top=3)
    readings = rows[:60].copy()
    readings[50:, :2] = 300.0, 95.0
    told = [cause for row in stream(readings, features=("a", "b", "c")) for cause in detector.update(row).causes]
    assert told
    for cause in told:
        f = model.features.index(cause.feature)
        assert lowest[f] <= cause.expected <= highest[f]


def test_a_feature_stuck_between_its_two_levels_is_named():
    # It sits at its mean: what returning to the mean would gain is nothing, and the share must not be nothing too.
    rng = np.random.default_rng(0)
    rows = plant(600)
    rows[:, 3] = OFFSET[3] + 40.0 * rng.choice([-1.0, 1.0], 600) + rng.normal(size=600)
    model = fit_model(rows, rng=rng)
    rows = rows[:60].copy()
    rows[40:, 3] = OFFSET[3]
    _, parts = Explainer(model.discriminator).explain(model.scaler.transform(rows[20:]), model.typical)
    shares = normalised(parts)
    assert shares[3] == shares.max() > 0.2


def in_alarm(model, streams):
    """Detectors of as many models, each with a row that is far from normal and explained."""
    rows = list(stream(plant(40)))
    bad = [replace(row, values=3.0 * row.values) for row in rows]
    detectors = []
    for _ in range(streams):
        net = model.discriminator.with_levels(np.array([term.tau for term in model.discriminator.terms]))
        detectors.append(Detector(replace(model, discriminator=net)))
        detectors[-1].score(rows[0])
    return detectors, rows, bad


def test_a_hundred_streams_in_alarm_keep_what_sixteen_do_and_give_it_back(fitted):
    detectors, rows, bad = in_alarm(fitted.model_, 100)
    tracemalloc.start()
    try:
        for detector in detectors:
            verdicts = [detector.update(row) for row in bad[:2]]
            assert verdicts[-1].causes
        del verdicts
        in_alarm_bytes, _ = tracemalloc.get_traced_memory()
        for detector in detectors:
            for row in rows[: fitted.model_.discriminator.window]:
                detector.score(row)
        calm_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 1_000_000 < in_alarm_bytes - calm_bytes < 1_600_000
    remembered = 100 * 5_200  # the scores of a thousand rows, from the first anomalous one on (`Decision`)
    assert calm_bytes < 100_000 + remembered  # newest rows, a few arrays for each stream


def test_causes_are_the_same_when_what_explaining_keeps_was_given_back(fitted):
    (detector,), _, bad = in_alarm(fitted.model_, 1)
    causes = detector.update(bad[0]).causes
    assert causes == detector.causes()
    forget(detector.model.discriminator)
    assert causes == detector.causes()


def test_a_fault_of_several_sensors_names_them_and_expects_them_all_near_normal(fitted):
    truth = plant(2000)[1300:1400]
    readings = truth.copy()
    together = np.arange(3)
    readings[80:, together] += 5.0 * fitted.model_.scaler.scale[together].astype(np.float32)
    detector = Detector(fitted.model_)
    for row in stream(readings):
        verdict = detector.update(row)
    assert {cause.feature for cause in verdict.causes[:3]} == {NAMES[f] for f in together}
    for f, cause in ((NAMES.index(cause.feature), cause) for cause in verdict.causes[:3]):
        assert abs(cause.expected - truth[-1, f]) < 2.5 * fitted.model_.scaler.scale[f]


def test_causes_are_sorted_shares(fitted):
    for feature, start in FAULTS[:6]:
        causes = fault(fitted, feature, start)[0].causes
        shares = [cause.contribution for cause in causes]
        assert shares == sorted(shares, reverse=True)
        assert all(0.0 < share <= 1.0 for share in shares)
        assert sum(shares) <= 1.0 + 1e-9
        assert len(causes) <= 5
        assert len({cause.feature for cause in causes}) == len(causes)


def test_no_more_causes_are_named_than_asked_for(fitted, normal):
    detector = Detector(fitted.model_, top=2)
    for row in stream(-2.0 * normal[:10]):
        verdict = detector.update(row)
    assert len(verdict.causes) == 2


def test_all_shares_together_are_1(fitted, normal):
    detector = Detector(fitted.model_, top=F)
    for row in stream(-2.0 * normal[:10]):
        verdict = detector.update(row)
    assert sum(cause.contribution for cause in verdict.causes) == pytest.approx(1.0)


def test_a_normal_row_has_no_causes(fitted, normal):
    detector = Detector(fitted.model_)
    calm = [verdict for verdict in map(detector.update, stream(normal[:200])) if not verdict.is_anomaly]
    assert len(calm) > 190
    assert all(verdict.causes == () for verdict in calm)


def test_a_cause_shows_a_value_that_was_measured_however_far_out(fitted):
    rows = plant(2000)[1300:1400].astype(np.float32)
    rows[60:70, 3] = -1e4  # far beyond where standardised values are clipped
    detector = Detector(fitted.model_)
    shown = {cause.value for row in stream(rows) for cause in detector.update(row).causes if cause.feature == NAMES[3]}
    assert -1e4 in shown
    assert shown <= set(rows[:, 3].tolist())


def test_a_cause_never_shows_a_value_that_was_generated_in_place_of_a_missing_one(fitted):
    rows = plant(2000)[1300:1400].astype(np.float32)
    rows[50:65, 3] = np.nan
    rows[70:, 3:5] += 6.0 * fitted.model_.scaler.scale[3:5].astype(np.float32)
    detector = Detector(fitted.model_)
    causes = [cause for row in stream(rows) for cause in detector.update(row).causes]
    assert {cause.feature for cause in causes} >= {NAMES[3]}
    for cause in causes:
        assert cause.value in rows[:, NAMES.index(cause.feature)]


def sunny_week(rng: np.random.Generator) -> np.ndarray:
    """Power and current of solar panels, a row a minute from nine o'clock on; both are 0 at night."""
    minute = np.arange(7 * 1440) + 9 * 60
    sun = np.maximum(0.0, np.sin((minute / 1440.0 - 0.25) * 2.0 * np.pi))
    cloud = np.repeat(rng.uniform(0.5, 1.0, len(minute) // 10), 10)
    power = np.where(sun > 0.0, np.round(4000.0 * sun * cloud * (1.0 + 0.01 * rng.normal(size=len(minute)))), 0.0)
    indoor = 30.0 + power / 400.0 + 0.2 * rng.normal(size=len(minute))
    return np.float32(np.column_stack([power, np.round(power / 230.0, 2), indoor]))


@pytest.mark.parametrize("warm_up", [480, 1440], ids=["by day", "a whole day"])
def test_solar_panels_at_night_are_off_and_not_frozen(warm_up):
    rng = np.random.default_rng(0)
    rows = sunny_week(rng)
    model = fit_model(rows[:warm_up], rng=rng)
    detector = Detector(model)
    missing = [detector.score(row).missing for row in stream(rows[warm_up:], features=("x0", "x1", "x2"))]
    assert set(missing) == {()}


def test_a_feature_at_its_lowest_in_training_may_rest_there_and_one_at_another_value_is_frozen(fitted):
    lowest = fitted.model_.lowest
    assert lowest is not None
    for value, is_frozen in ((lowest[4], False), (0.0, False), (OFFSET[4], True)):
        rows = plant(1000, seed=2).astype(np.float32)
        rows[100:, 4] = value
        detector = Detector(fitted.model_)
        missing = [detector.score(row).missing for row in stream(rows)]
        assert (NAMES[4] in missing[-1]) is is_frozen


def test_what_is_expected_of_a_reading_at_rest_is_zero_and_no_rounding() -> None:
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(20.0, 1.0, (400, 2)), np.zeros(400)])
    detector = Detector(fit_model(rows, features=["a", "b", "net"], rng=rng))
    net = np.where(np.arange(60) < 50, 0.0, 200.0)
    for t, values in enumerate(np.column_stack([rng.normal(20.0, 1.0, (60, 2)), net])):
        row = Row("pi", float(t), ("a", "b", "net"), values.astype(np.float32), np.zeros(3, np.bool_), t == 0)
        detector.score(row)
    assert [cause.expected for cause in detector.causes() if cause.feature == "net"] == [0.0]
