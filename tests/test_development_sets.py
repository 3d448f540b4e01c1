"""Detection of real faults: better than scores that know nothing, and no worse for being int8.

How good it is beyond that is docs/detection.md's; here stands what must never be lost.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from e2e.servers import FETCH, unmet
from threadpoolctl import threadpool_limits

import gon_edge.training.subspaces
from gon_edge import GONDetector
from gon_edge.errors import InputError
from gon_edge.model.gon import Discriminator
from gon_edge.model.quantize import QuantizedLinear
from gon_edge.research import datasets, metrics

pytestmark = pytest.mark.slow  # every development set is learned and scored


class KeptFloat(QuantizedLinear):
    """int8 weights that remember what they were."""

    weights: list[np.ndarray] = []  # noqa: RUF012  the dataclass' fields are elsewhere

    @classmethod
    def from_float(cls, weight):
        cls.weights.append(weight)
        return QuantizedLinear.from_float(weight)


class Exact:
    """A layer as it was before it became int8."""

    def __init__(self, weight):
        self.weight = weight

    def dequantize(self):
        return self.weight


def trivial_scores(train, test):
    """The four scores that need no model."""
    deviation = np.where(train.std(axis=0) > 0.0, train.std(axis=0), 1.0)
    z = np.abs(test - train.mean(axis=0)) / deviation
    return {
        "random": np.random.default_rng(0).random(len(test)),
        "distance from train mean": np.abs(test - train.mean(axis=0)).mean(axis=1),
        "largest z": z.max(axis=1),
        "last difference": np.abs(np.diff(test, axis=0, prepend=test[:1])).mean(axis=1),
    }


@pytest.fixture(scope="module")
def precision():
    """Average precision by set and score; ours is "gon", and "float" the same without rounding to int8."""
    try:
        datasets.data_folder()
    except InputError:
        unmet("the data sets are not here", FETCH)
    table = {}
    # One thread: on busy cores the threads of a small product wait for each other ten times as long as it takes.
    with pytest.MonkeyPatch.context() as patch, threadpool_limits(1):
        patch.setattr(gon_edge.training.subspaces, "QuantizedLinear", KeptFloat)
        for name in datasets.DEVELOPMENT:
            data = datasets.load(name)
            KeptFloat.weights.clear()
            detector = GONDetector().fit(data.train)
            scores = trivial_scores(data.train, data.test)
            scores["gon"] = detector.decision_function(data.test)
            detector.model_ = unrounded(detector.model_, KeptFloat.weights)
            scores["float"] = detector.decision_function(data.test)
            table[name] = {key: metrics.average_precision(data.labels, score) for key, score in scores.items()}
    return table


def unrounded(model, weights):
    """The model with the last fit's layers in place of their int8 ones."""
    net = model.discriminator
    *scales, prediction = [
        replace(term, weight=Exact(weight)) for term, weight in zip(net.terms, weights[-len(net.terms) :], strict=True)
    ]
    return replace(model, discriminator=Discriminator(scales, net.features, net.bias, prediction))


def mean(table, score):
    return np.mean([row[score] for row in table.values()])


@pytest.mark.parametrize("trivial", ["random", "distance from train mean", "largest z", "last difference"])
def test_the_mean_average_precision_is_far_above_a_score_that_knows_nothing(precision, trivial):
    assert mean(precision, "gon") > mean(precision, trivial) + 0.15


def test_the_mean_average_precision_is_at_least_what_it_was(precision):
    assert mean(precision, "gon") >= 0.60


@pytest.mark.parametrize("name", datasets.DEVELOPMENT)
def test_int8_costs_less_than_half_a_percent_of_precision(precision, name):
    assert abs(precision[name]["gon"] - precision[name]["float"]) < 0.005


@pytest.mark.parametrize("name", datasets.DEVELOPMENT)
def test_no_set_is_scored_worse_than_at_random(precision, name):
    assert precision[name]["gon"] > precision[name]["random"]
