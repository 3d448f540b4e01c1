"""Any model survives its file; no damage of the file survives the reader."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gon_edge.errors import ModelFileError
from gon_edge.model.file import Model, dumps, loads
from gon_edge.model.window import Scaler

HERE = Path("model.npz")

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def models(draw):
    window, features = draw(st.integers(1, 20)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = draw(st.lists(st.text(min_size=1, max_size=8), min_size=features, max_size=features, unique=True))
    return Model(
        features=tuple(names),
        scaler=Scaler(rng.normal(size=features), rng.uniform(1e-9, 1e9, features)),
        discriminator=oracle.a_discriminator(rng, window=window, features=features),
        smoothing=draw(st.floats(0.01, 1.0)),
        threshold=draw(st.floats(0.0, 1e6)),
        typical=draw(st.floats(0.0, 1e6)),
        longest_run=rng.integers(1, 1000, features).astype(np.int32),
        interval_s=draw(st.floats(0.0, 3600.0)),
        rising=tuple(draw(st.lists(st.sampled_from(names), unique=True))),
        lowest=draw(st.sampled_from([None, rng.normal(size=features).astype(np.float32)])),
        lineage=draw(st.dictionaries(st.text(max_size=8), json_values, max_size=4)),
    )


BLOB = dumps(
    Model(
        features=("a", "b"),
        scaler=Scaler(np.zeros(2), np.ones(2)),
        discriminator=oracle.a_discriminator(np.random.default_rng(0), window=6, features=2),
        smoothing=0.3,
        threshold=3.0,
        typical=1.0,
        longest_run=np.ones(2, np.int32),
        lineage={"version": "1"},
    )
)


@settings(max_examples=40)
@given(model=models())
def test_a_model_survives_its_file(model):
    blob = dumps(model)
    again = loads(blob, HERE)
    assert dumps(again) == blob
    assert again.features == model.features
    assert again.lineage == json.loads(json.dumps(model.lineage))
    net = model.discriminator
    x = np.random.default_rng(0).normal(size=(3, net.window, net.features)).astype(np.float32)
    np.testing.assert_array_equal(again.discriminator.forward(x), net.forward(x))
    np.testing.assert_array_equal(again.discriminator.generate(x, steps=3), net.generate(x, steps=3))


@settings(max_examples=300)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(BLOB) - 1), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.integers(0, len(BLOB)) | st.just(len(BLOB)),
    tail=st.binary(max_size=8),
)
def test_damage_is_refused_or_of_no_consequence(changes, cut, tail):
    damaged = bytearray(BLOB)
    for place, byte in changes:
        damaged[place] = byte
    with contextlib.suppress(ModelFileError):
        assert dumps(loads(bytes(damaged[:cut]) + tail, HERE)) == BLOB


@settings(max_examples=100)
@given(blob=st.binary(max_size=200))
def test_anything_else_is_refused(blob):
    with pytest.raises(ModelFileError):
        loads(blob, HERE)
