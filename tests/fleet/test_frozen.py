"""A stream that goes on elsewhere, beside one that was never moved."""

from __future__ import annotations

import base64
import functools
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from gon_edge.config.schema import AlertsConfig, StreamConfig
from gon_edge.events import Reading
from gon_edge.fleet.frozen import FrozenError, freeze, thaw
from gon_edge.model.file import load_model
from gon_edge.stream.stream import Stream

MODEL = load_model(Path(__file__).parents[1] / "golden" / "pump.npz")


def stream(model=MODEL, starters=(), **settings):
    settings = StreamConfig(alerts=AlertsConfig(**settings))
    return Stream("pump", settings, max_features=50, model=model, starters=starters)


def readings(count=340):
    """A reading a second with jitter, two faults, a gap, and a feature that is silent for a while."""
    rng = np.random.default_rng(0)
    for i in range(count):
        at = 1.77e9 + i + rng.normal(0.0, 0.05) + (90.0 if i > 300 else 0.0)
        values = rng.normal(MODEL.scaler.mean, 0.3 * MODEL.scaler.scale) + 8.0 * MODEL.scaler.scale * (150 < i < 180)
        named = dict(zip(MODEL.features, values.tolist(), strict=True))
        if 200 < i < 260:
            del named["flow"]
        yield Reading("pump", at, named), at + 0.1


def judged(stream, some):
    found = []
    for reading, received_at in some:
        found += map(repr, stream.add(reading, received_at))
    return found


@functools.cache
def at_once(is_scored):
    return judged(stream(MODEL if is_scored else None), readings())


@pytest.mark.parametrize("cut", [1, 40, 155, 230, 303])
@pytest.mark.parametrize("model", [MODEL, None], ids=["scored", "warming-up"])
def test_a_stream_that_goes_on_elsewhere_gives_the_same_outcomes_to_the_last_bit(cut, model):
    every = list(readings())
    before, after = stream(model), stream(model)
    found = judged(before, every[:cut])
    thaw(freeze(before), after)
    assert found + judged(after, every[cut:]) == at_once(model is MODEL)


def test_a_stream_that_has_got_its_model_elsewhere_goes_on_though_others_could_have_begun_with_it():
    before, after = stream(None, starters=[MODEL]), stream()
    before.use(MODEL)
    judged(before, list(readings(50)))
    thaw(freeze(before), after)
    assert judged(after, list(readings())[50:]) == judged(before, list(readings())[50:])


RELATIVE = MODEL.with_lineage(version="shipped:pump", relative=["flow"])


@pytest.mark.parametrize("cut", [9, 155, 230])
def test_a_stream_that_a_starter_scores_goes_on_with_it_from_the_level_it_began_at(cut):
    every = list(readings())
    before, after, alone = (stream(None, starters=[MODEL, RELATIVE][::-1]) for _ in range(3))
    found = judged(before, every[:cut])
    thaw(freeze(before), after)
    assert after.starter.version == "shipped:pump"
    assert found + judged(after, every[cut:]) == judged(alone, every)


def test_a_starter_that_is_not_there_any_more_is_said():
    before = stream(None, starters=[MODEL])
    judged(before, list(readings(50)))
    with pytest.raises(FrozenError, match="the starter 7 is not one of its own"):
        thaw(freeze(before), stream(None, starters=[RELATIVE]))


def test_what_belongs_to_the_worker_stays_its_own():
    before, after = stream(raise_rows=2), stream(raise_rows=1)
    judged(before, list(readings(50)))
    ledger = after.ledger
    thaw(freeze(before), after)
    assert after.model is MODEL
    assert after.ledger is ledger is after.aligner._ledger
    assert after.settings.alerts.raise_rows == 1


def test_text_of_another_version_or_model_is_refused():
    text = freeze(stream())
    size, _, content = zlib.decompress(base64.b64decode(text)).partition(b"\n")
    version, (began, written) = json.loads(content[: int(size)])

    def changed(version, written):
        body = json.dumps([version, [began, written]]).encode()
        return base64.b64encode(zlib.compress(b"%d\n%b%b" % (len(body), body, content[int(size) :]))).decode()

    thaw(changed(version, written), stream())
    with pytest.raises(FrozenError, match=r"gon-edge 0\.0"):
        thaw(changed("0.0", written), stream())
    with pytest.raises(FrozenError, match="other attributes: rows"):
        thaw(changed(version, {**written, "has": {k: v for k, v in written["has"].items() if k != "rows"}}), stream())
    with pytest.raises(FrozenError):
        thaw(text, stream(model=None))


@pytest.mark.parametrize("cls", ["os:system", "gon_edge.process.child:start_child", "gon_edge.stream.stream:freeze"])
def test_only_classes_of_data_are_made(cls):
    text = freeze(stream())
    size, _, content = zlib.decompress(base64.b64decode(text)).partition(b"\n")
    version, (began, written) = json.loads(content[: int(size)])
    written["has"]["verdict"] = {"~": "object", "of": cls, "has": {}}
    body = json.dumps([version, [began, written]]).encode()
    hostile = base64.b64encode(zlib.compress(b"%d\n%b%b" % (len(body), body, content[int(size) :]))).decode()
    with pytest.raises(FrozenError, match="no class of data"):
        thaw(hostile, stream())


@pytest.mark.parametrize("text", ["", "nonsense", base64.b64encode(zlib.compress(b"3\n[1]")).decode()])
def test_what_is_no_such_text_is_refused(text):
    with pytest.raises(FrozenError):
        thaw(text, stream())
