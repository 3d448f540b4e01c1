"""Every check on every peer.  A new peer is tested by being in PEERS."""

import functools

import numpy as np
import pytest

from gon_edge.research.peers import PEERS, make
from gon_edge.research.peers.peer import HELD_OUT, Peer, Scaler, causal_windows, minibatches, subsample

# Settings that make a check short; the default ones are the table's.
FAST = {
    "usad": {"epochs": 3},
    "mad-gan": {"epochs": 1, "inversion_steps": 3},
    "slimgan": {"epochs": 2},
    "ganomaly": {"epochs": 3},
    "tranad": {"epochs": 1},
    "paano": {"steps": 8, "batch": 32},
    "paano-level": {"steps": 8, "batch": 32},
    "iforest": {"trees": 20},
    "iforest-row": {"trees": 20},
}


def quick(name, seed=0):
    peer = make(name, seed)
    for setting, value in FAST.get(name, {}).items():
        assert hasattr(peer, setting)
        setattr(peer, setting, value)
    return peer


def a_stream(rows, features=3, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(rows)[:, None] + seed
    return np.sin(t / (5 + np.arange(features))) + 0.1 * rng.normal(size=(rows, features))


TRAIN, TEST = a_stream(160), a_stream(70, seed=1)


@functools.cache
def fitted(name):
    """A peer that all checks may ask, and none may change."""
    return quick(name).fit(TRAIN)


def scores_are_causal(name):
    peer = fitted(name)
    other = TEST.copy()
    other[45:] += 7
    before, after = peer.decision_function(TEST)[:45], peer.decision_function(other)[:45]
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-6)


def the_same_seed_gives_the_same_scores(name):
    np.testing.assert_array_equal(quick(name).fit(TRAIN).decision_function(TEST), fitted(name).decision_function(TEST))


def scoring_twice_gives_the_same(name):
    peer = fitted(name)
    np.testing.assert_allclose(peer.decision_function(TEST), peer.decision_function(TEST), rtol=1e-6)


def a_constant_column_that_moves_in_test_stays_finite(name):
    train = np.column_stack([TRAIN, np.full(len(TRAIN), 0.1)])
    test = np.column_stack([TEST, np.full(len(TEST), 0.1)])
    test[40, 3] = 1e4
    assert np.isfinite(quick(name).fit(train).decision_function(test)).all()


def a_train_part_that_never_moves_stays_finite(name):
    peer = quick(name).fit(np.full((80, 2), 5.0))
    assert np.isfinite(peer.decision_function(np.full((20, 2), 5.0))).all()


def one_feature_and_one_row_are_enough(name):
    scores = quick(name).fit(TRAIN[:, :1]).decision_function(TEST[:1, :1])
    assert scores.shape == (1,)
    assert np.isfinite(scores).all()


def missing_values_are_survived(name):
    train, test = TRAIN.copy(), TEST.copy()
    train[3, 1] = test[4, 2] = np.nan
    test[:, 0] = np.nan
    assert np.isfinite(quick(name).fit(train).decision_function(test)).all()


def the_threshold_and_the_size_are_numbers(name):
    peer = fitted(name)
    assert np.isfinite(peer.threshold_)
    assert isinstance(peer.n_parameters, int)
    assert peer.n_parameters >= 0
    assert isinstance(peer, Peer)


def the_threshold_knows_nothing_of_test(name):
    peer = fitted(name)
    before = peer.threshold_
    peer.decision_function(TEST + 100)
    assert peer.threshold_ == before


def a_gross_fault_is_seen(name):
    if name == "random":
        return  # it is there to see nothing
    rng = np.random.default_rng(5)
    train, test = rng.normal(size=(400, 3)), rng.normal(size=(120, 3))
    test[80:86] += 15 * np.array([1.0, -1.0, 1.0]) * np.where(np.arange(6) % 2, 1.0, -1.0)[:, None]
    scores = quick(name).fit(train).decision_function(test)
    # Windows go on holding the fault after its end, so only rows before it are a fair comparison.
    assert scores[80:90].max() > np.quantile(scores[45:80], 0.99)


CHECKS = [
    scores_are_causal,
    the_same_seed_gives_the_same_scores,
    scoring_twice_gives_the_same,
    a_constant_column_that_moves_in_test_stays_finite,
    a_train_part_that_never_moves_stays_finite,
    one_feature_and_one_row_are_enough,
    missing_values_are_survived,
    the_threshold_and_the_size_are_numbers,
    the_threshold_knows_nothing_of_test,
    a_gross_fault_is_seen,
]


def marked(name):
    """Of the peers, those are slow that are compiled first (shapes of subsequences) or run in plain Python (trees)."""
    return pytest.param(name, marks=pytest.mark.slow) if name == "matrix-profile-z" or "hstrees" in name else name


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", [*map(marked, PEERS)])
def test_peer(name, check):
    pytest.importorskip("river" if "hstrees" in name else "stumpy" if name == "matrix-profile-z" else "sklearn")
    check(name)


def test_a_window_ends_at_its_row_and_repeats_the_first_row_before_the_start():
    windows = causal_windows(np.arange(5.0)[:, None], 3)[:, :, 0]
    np.testing.assert_array_equal(windows, [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]])


def test_no_window_of_training_or_threshold_reaches_over_the_seam_of_two_recordings():
    # Two runs at different levels: windows over the seam hold a step that no run has.
    rows = np.concatenate([a_stream(120), a_stream(80) + 50.0, a_stream(80, seed=2), a_stream(80, seed=3) + 50.0])
    restart = np.isin(np.arange(len(rows)), [120, 200, 280])
    told, untold = make("knn").fit(rows, restart=restart), make("knn").fit(rows)
    steps = [np.abs(np.diff(peer.model_._fit_X.reshape(len(rows), 15, 3), axis=1)).max() for peer in (told, untold)]
    assert steps[0] < 0.1 < steps[1]
    assert told.threshold_ < untold.threshold_
    assert len(told.calibration_) == int(HELD_OUT * len(rows))


def test_the_scaler_leaves_constant_columns_and_clips_what_it_is_told_to():
    scaler = Scaler().fit(np.column_stack([np.array([0.0, 2.0]), np.array([0.1, 0.1])]))
    np.testing.assert_allclose(scaler(np.array([[3.0, 0.6]])), [[2.0, 0.5]])
    np.testing.assert_allclose(scaler(np.array([[1e9, -1e9]]), clip=20), [[20, -20]])


def test_a_unit_scaler_maps_the_train_range_to_0_and_1():
    train = np.array([[-3.0], [1.0], [5.0]])
    np.testing.assert_allclose(Scaler(unit=True).fit(train)(train), [[0], [0.5], [1]])


def test_the_threshold_comes_from_rows_the_calibrating_model_has_not_seen():
    # A neighbour method has distance 0 to the rows it holds; a threshold from them would alarm on everything.
    peer = make("knn").fit(TRAIN)
    fresh = peer.decision_function(a_stream(60, seed=2))
    assert peer.threshold_ > np.median(fresh)
    assert 0 < HELD_OUT < 1


def test_a_single_window_scores_as_its_row_does():
    peer = make("pca").fit(TRAIN)
    assert peer.score_window(TEST[10:25]) == pytest.approx(peer.decision_function(TEST)[24])


def test_samples_and_batches_leave_nothing_out():
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(subsample(5, 9, rng), np.arange(5))
    assert len(np.unique(subsample(100, 9, rng))) == 9
    np.testing.assert_array_equal(np.sort(np.concatenate(minibatches(11, 4, rng))), np.arange(11))


def test_a_matrix_profile_of_values_is_the_distance_to_the_nearest_subsequence_and_0_where_train_holds_it():
    peer = make("matrix-profile").fit(TRAIN)
    train, windows = peer.train_, causal_windows(peer.scaler_(TEST), 15)
    subsequences = np.stack([train[at : at + 15] for at in range(len(train) - 14)])
    nearest = [np.sqrt(((subsequences - window) ** 2).sum(axis=1).min(axis=0)).mean() for window in windows]
    np.testing.assert_allclose(peer.decision_function(TEST), nearest, rtol=1e-9)
    assert peer.decision_function(TRAIN)[14:].max() == 0


def test_pca_contributions_name_the_feature_that_broke():
    test = TEST.copy()
    test[50, 1] += 9
    peer = make("pca").fit(TRAIN)
    contributions = peer.feature_scores(test)
    assert contributions[50].argmax() == 1
    np.testing.assert_allclose(contributions.sum(axis=1), peer.decision_function(test), rtol=1e-9)


def test_dilof_scores_as_plain_lof_while_its_memory_is_not_full():
    from sklearn.neighbors import LocalOutlierFactor

    from gon_edge.research.peers.dilof import _Memory

    points = np.random.default_rng(0).normal(size=(120, 4))
    memory = _Memory(500, 10, outlier=np.inf)
    last = [memory.update(point) for point in points][-1]
    oracle = LocalOutlierFactor(10).fit(points)
    assert last == pytest.approx(-oracle.negative_outlier_factor_[-1])


def test_dilof_stays_within_its_memory_and_keeps_the_newest_rows():
    from gon_edge.research.peers.dilof import _Memory

    points = np.random.default_rng(0).normal(size=(300, 2))
    memory = _Memory(80, 5, outlier=np.inf)
    for point in points:
        memory.update(point)
        assert len(memory.points) <= 80
    np.testing.assert_array_equal(memory.points[-1], points[-1])


def test_onlads_recursion_is_the_ridge_solution():
    from gon_edge.research.peers.onlad import ONLAD

    peer = ONLAD(window=2, hidden=6)._fit(TRAIN)
    x = np.ascontiguousarray(causal_windows(peer.scaler_(TRAIN), 2)).reshape(len(TRAIN), -1)
    H = peer._hidden(x)
    ridge = np.linalg.solve(H.T @ H + peer._RIDGE * np.eye(6), H.T @ x)
    np.testing.assert_allclose(peer.beta_, ridge, rtol=1e-4, atol=1e-6)


def a_walk(rows, seed):
    """A row is .8 of the row before in the first column and minus half of the first in the second, and noise."""
    rng = np.random.default_rng(seed)
    walk = np.zeros((rows, 2))
    for t in range(1, rows):
        walk[t] = walk[t - 1, 0] * np.array([0.8, -0.5]) + rng.normal(size=2)
    return walk


def test_autoregression_finds_the_coefficients_that_made_the_rows():
    from gon_edge.research.peers.ols_ar import OLSAutoregression

    peer = OLSAutoregression(window=2, ridge=0.0)._fit(a_walk(20_000, 0))
    deviation = peer.scaler_.deviation_
    weights = peer.weights_[:2] * deviation / deviation[:, None]  # in the units of the rows
    np.testing.assert_allclose(weights, [[0.8, -0.5], [0.0, 0.0]], atol=0.03)
    np.testing.assert_allclose(peer.variance_ * deviation**2, [1.0, 1.0], rtol=0.05)
    assert peer.decision_function(a_walk(20_000, 1)).mean() == pytest.approx(1.0, rel=0.05)


def test_autoregression_tells_which_feature_left_its_prediction_behind():
    test = a_walk(300, 1)
    test[200, 1] += 9
    peer = make("ols-ar").fit(a_walk(600, 0))
    contributions = peer.feature_scores(test)
    assert contributions[200].argmax() == 1
    np.testing.assert_allclose(contributions.mean(axis=1), peer.decision_function(test), rtol=1e-9)


def test_a_patch_that_is_normalised_has_no_level_and_no_size_and_stillness_is_zero():
    from gon_edge.research.peers.paano import PaAno

    rows = np.column_stack([np.sin(np.arange(8.0)), np.full(8, 3.0)])
    as_they_are, alone = (PaAno(window=8, normalise=normalise) for normalise in (False, True))
    pair = np.stack([rows, 40 * rows + 7])
    plain = as_they_are._patches(pair, np.array([0, 1])).numpy()
    np.testing.assert_allclose(plain, pair.transpose(0, 2, 1), rtol=1e-6)
    first, second = alone._patches(pair, np.array([0, 1])).numpy()
    np.testing.assert_allclose(first, second, atol=1e-4)
    assert np.abs(first[1]).max() == 0.0


def test_training_the_patches_brings_neighbours_closer_than_strangers():
    from gon_edge.research.peers.paano import PaAno

    train = a_stream(600)
    windows = np.ascontiguousarray(causal_windows(Scaler().fit(train)(train), 32))[32:]

    def margin(steps):
        peer = PaAno(steps=steps, batch=32)
        peer._train_windows(windows)
        code = peer._embed(windows).detach().numpy()
        return (code[:-1] * code[1:]).sum(axis=1).mean() - (code @ code.T).mean()

    assert margin(60) > margin(1) + 0.1


def test_the_memory_of_patches_is_a_tenth_of_them_and_every_one_of_length_1():
    peer = quick("paano").fit(a_stream(400))
    assert peer.memory_.shape == (40, 64)
    np.testing.assert_allclose(np.linalg.norm(peer.memory_.numpy(), axis=1), 1.0, rtol=1e-5)


def test_windows_inverted_together_score_as_each_alone():
    peer = fitted("mad-gan")
    windows = np.ascontiguousarray(causal_windows(peer.scaler_(TEST), peer.window))[::7]
    alone = np.concatenate([peer._score_windows(window[None]) for window in windows])
    np.testing.assert_allclose(peer._score_windows(windows), alone, rtol=1e-5)


def test_a_training_starts_with_its_seed():
    import torch

    from gon_edge.research.peers.networks import start

    first, second = ((start(3).random(), torch.rand(()).item()) for _ in range(2))
    assert first == second


def test_numbers_too_small_to_be_normal_are_0_in_a_training_and_not_after_it():
    import torch

    from gon_edge.research.peers.networks import tiny_is_zero

    def product():
        return (torch.tensor(1e-30) * torch.tensor(1e-10)).item()

    with tiny_is_zero():
        assert product() == 0.0
    assert product() > 0.0
    quick("usad").fit(TRAIN)
    assert product() > 0.0
