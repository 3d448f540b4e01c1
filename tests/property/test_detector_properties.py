"""Whatever rows come, both faces give one finite score each, the same one, and blame only what is there."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from gon_edge import Detector, FitSettings, GONDetector, Row, fit_model

NAMES = ("a", "b", "c")
SMALL = FitSettings(window=6, hidden=4, prototypes=2)

values = (
    st.floats(-100.0, 100.0, width=32)
    | st.floats(width=32)
    | st.sampled_from([0.0, math.nan, math.inf, -math.inf, 3e38, -3e38, 1e-40])
)


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 2)) @ rng.normal(size=(2, 3)) * [1.0, 20.0, 1e-3] + [0.0, -500.0, 5.0]
    detector = GONDetector(window=SMALL.window, hidden=SMALL.hidden, prototypes=SMALL.prototypes)
    detector.model_ = fit_model(rows, features=NAMES, settings=SMALL, rng=rng)
    return detector


@st.composite
def streams(draw):
    """Rows of a stream whose features come, go and change places."""
    out = []
    for t in range(draw(st.integers(1, 15))):
        names = tuple(draw(st.permutations([*NAMES, "d"]))[: draw(st.integers(1, 4))])
        row = draw(arrays(np.float32, len(names), elements=values))
        stale = draw(arrays(np.bool_, len(names)))
        out.append(Row("s", float(t), names, row, stale, restart=draw(st.booleans()) and t > 0))
    return out


@settings(max_examples=80)
@given(rows=streams())
def test_any_row_gets_a_verdict(fitted, rows):
    detector = Detector(fitted.model_)
    came: set[tuple[str, float]] = set()  # what the window may still hold
    for row in rows:
        verdict = detector.update(row)
        came = set() if row.restart else came
        came |= set(zip(row.features, row.values.tolist(), strict=True))
        assert math.isfinite(verdict.score)
        assert verdict.is_anomaly == (verdict.score > verdict.threshold)
        held = dict(zip(row.features, zip(row.values.tolist(), row.stale.tolist(), strict=True), strict=True))
        missing = {name for name in NAMES if name not in held or held[name][1] or not math.isfinite(held[name][0])}
        assert set(verdict.missing) == missing
        assert not {cause.feature for cause in verdict.causes} & missing
        assert sum(cause.contribution for cause in verdict.causes) <= 1.0 + 1e-9
        for cause in verdict.causes:
            assert 0.0 < cause.contribution <= 1.0
            assert (cause.feature, cause.value) in came
            assert cause.expected is not None
            assert math.isfinite(cause.expected)


@settings(max_examples=60)
@given(rows=arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=values))
def test_the_stream_and_the_array_agree(fitted, rows):
    detector = Detector(fitted.model_)
    stale = np.zeros(3, np.bool_)
    scores = [detector.update(Row("s", float(t), NAMES, row, stale)).score for t, row in enumerate(rows)]
    np.testing.assert_allclose(scores, fitted.decision_function(rows), rtol=1e-3, atol=1e-4)


@settings(max_examples=60)
@given(data=st.data(), rows=arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=values))
def test_the_stream_and_the_array_agree_over_restarts(fitted, data, rows):
    restart = data.draw(arrays(np.bool_, len(rows)))
    detector = Detector(fitted.model_)
    stale = np.zeros(3, np.bool_)
    stream = [Row("s", float(t), NAMES, row, stale, restart=bool(restart[t])) for t, row in enumerate(rows)]
    scores = [detector.update(row).score for row in stream]
    np.testing.assert_allclose(scores, fitted.decision_function(rows, restart), rtol=1e-3, atol=1e-4)


@settings(max_examples=60)
@given(data=st.data(), rows=arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=values))
def test_recordings_are_judged_together_as_alone(fitted, data, rows):
    restart = data.draw(arrays(np.bool_, len(rows)))
    pieces = np.split(rows, np.flatnonzero(restart[1:]) + 1)
    for judge in (fitted.decision_function, fitted.feature_scores):
        alone = np.concatenate([judge(piece) for piece in pieces])
        np.testing.assert_allclose(judge(rows, restart), alone, rtol=1e-3, atol=1e-3)


@settings(max_examples=60)
@given(rows=arrays(np.float64, st.tuples(st.integers(2, 30), st.just(3)), elements=st.floats()), cut=st.integers(1, 29))
def test_no_score_depends_on_what_comes_later(fitted, rows, cut):
    cut = min(cut, len(rows))
    whole = fitted.decision_function(rows)
    assert np.isfinite(whole).all()
    np.testing.assert_allclose(fitted.decision_function(rows[:cut]), whole[:cut], rtol=1e-3, atol=1e-4)


@settings(max_examples=12)
@given(
    rows=arrays(
        np.float64,
        array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=25),
        elements=st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, 0.0, 1.0]),
    )
)
def test_any_rows_can_be_fitted_and_scored(rows):
    detector = GONDetector(window=4, hidden=3, prototypes=2).fit(rows)
    assert math.isfinite(detector.threshold_)
    assert np.isfinite(detector.decision_function(rows)).all()
    shares = detector.feature_scores(rows)
    assert (shares >= 0.0).all()
    assert np.isfinite(shares).all()
