"""GANomaly and the gradient constraint: what is compared, in what memory, and what the tool writes."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from gon_edge.research.ganomaly import COMBINED, GRADCON, Ganomaly, padded  # noqa: E402
from gon_edge.research.gradcon import Mahalanobis, Reference, Sketch, gradient_features  # noqa: E402
from gon_edge.research.images import load_images  # noqa: E402
from gon_edge.research.metrics import roc_auc  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import ganomaly_gradcon  # noqa: E402

IMAGES = load_images("digits8")


def a_loss(weights, sample):
    return ((weights["b"] @ torch.tanh(weights["a"] @ sample)) ** 2).sum()


def some_weights():
    draw = torch.Generator().manual_seed(0)
    return {"a": torch.randn(4, 3, generator=draw), "b": torch.randn(2, 4, generator=draw)}


def gradients_one_at_a_time(samples):
    weights = some_weights()
    for weight in weights.values():
        weight.requires_grad_(True)
    return [torch.autograd.grad(a_loss(weights, sample), list(weights.values())) for sample in samples]


def test_a_reference_is_the_mean_of_the_gradients_it_has_seen():
    gradients = gradients_one_at_a_time(torch.randn(7, 3))
    reference = Reference()
    for gradient in gradients:
        reference.update(gradient)
    for layer, mean in enumerate(reference.means):
        torch.testing.assert_close(mean, torch.stack([g[layer] for g in gradients]).mean(dim=0))
    assert reference.count == 7


def test_a_reference_takes_means_of_several_with_their_weight():
    gradients = gradients_one_at_a_time(torch.randn(6, 3))
    one_by_one, in_parts = Reference(), Reference()
    for gradient in gradients:
        one_by_one.update(gradient)
    for part in (gradients[:2], gradients[2:]):
        means = [torch.stack([g[layer] for g in part]).mean(dim=0) for layer in range(2)]
        in_parts.update(means, weight=len(part))
    for one, other in zip(one_by_one.means, in_parts.means, strict=True):
        torch.testing.assert_close(one, other)


def test_an_empty_reference_says_nothing():
    assert Reference().cosine(gradients_one_at_a_time(torch.randn(1, 3))[0]) == 0.0


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_cosines_and_norms_of_samples_are_those_of_autograd_however_many_at_once(at_once):
    samples = torch.randn(10, 3, generator=torch.Generator().manual_seed(1))
    gradients = gradients_one_at_a_time(samples)
    reference = Reference()
    for gradient in gradients[:5]:
        reference.update(gradient)
    found = gradient_features(a_loss, some_weights(), samples, reference, at_once=at_once)
    for i, gradient in enumerate(gradients):
        for layer, (g, mean) in enumerate(zip(gradient, reference.means, strict=True)):
            cosine = (g * mean).sum() / (g.norm() * mean.norm())
            assert found.cosine[i, layer] == pytest.approx(float(cosine), abs=1e-5)
            assert found.log_norm[i, layer] == pytest.approx(float(g.norm().log()), abs=1e-4)
    assert found.sketch.shape == (10, 0)


def test_a_sketch_keeps_inner_products_in_the_mean():
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 500, generator=draw)
    rows[1] += rows[0]
    products = [float(s[0] @ s[1]) for s in (Sketch(500, seed=seed)(rows) for seed in range(300))]
    assert np.mean(products) == pytest.approx(float(rows[0] @ rows[1]), rel=0.15)


def test_mahalanobis_knows_the_shape_of_the_normal_features():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(500, 2)) * (10.0, 0.1)
    distance = Mahalanobis(normal)
    assert distance(np.array([[10.0, 0.0]]))[0] < distance(np.array([[0.0, 1.0]]))[0]


@pytest.mark.parametrize(("side", "power"), [(8, 8), (28, 32), (32, 32)])
def test_pictures_get_a_black_border_up_to_a_power_of_two(side, power):
    x = padded(np.full((2, 1, side, side), 255, np.uint8))
    assert x.shape == (2, 1, power, power)
    assert float(x.mean()) == pytest.approx(2 * (side / power) ** 2 - 1, abs=1e-6)


@pytest.mark.parametrize("settings", [COMBINED, GRADCON])
def test_other_digits_are_more_abnormal_than_the_one_that_was_learned(settings):
    normal = IMAGES.train[IMAGES.train_labels == 0]
    model = Ganomaly(1, 8, replace(settings, steps=60, latent=8, validate_every=20)).fit(normal)
    scores = model.score(IMAGES.test)
    truth = IMAGES.test_labels != 0
    assert roc_auc(truth, scores["gradcon"]) > 0.9
    assert roc_auc(truth, scores["mahalanobis"]) > 0.9
    assert all(np.isfinite(values).all() and values.shape == truth.shape for values in scores.values())
    assert [entry["step"] for entry in model.history] == [20, 40, 60]


def test_a_score_does_not_depend_on_the_pictures_beside_it():
    model = Ganomaly(1, 8, replace(COMBINED, steps=5, latent=8)).fit(IMAGES.train[:200])
    together, alone = model.score(IMAGES.test[:9]), model.score(IMAGES.test[4:5])
    for name, values in together.items():
        assert alone[name][0] == pytest.approx(values[4], rel=1e-3, abs=1e-5)


def test_the_constraint_is_part_of_the_graph():
    # As a plain number it would be a constant of the loss: training with and without would be the same.
    losses = []
    for weight in (0.0, 5.0):
        model = Ganomaly(1, 8, replace(GRADCON, steps=20, gradient=weight, latent=8)).fit(IMAGES.train[:200])
        losses.append(model.history[-1]["validation"])
    assert losses[0] != losses[1]


@pytest.mark.slow  # six trainings
def test_the_tool_measures_draws_and_goes_on_where_it_stopped(tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["--quick", "--out", str(tmp_path), "--classes", "0", "--show", "0", "--steps", "8", "--latent", "8"]
    assert ganomaly_gradcon.main(arguments) == 0
    path = tmp_path / "ganomaly.jsonl"
    whole = path.read_text().splitlines()
    path.write_text("\n".join(whole[:4]) + "\n")  # as if interrupted after the fourth
    assert ganomaly_gradcon.main(arguments) == 0
    again = path.read_text().splitlines()
    assert again[:4] == whole[:4]
    cells = [json.loads(line) for line in again]
    assert [cell["auroc"] for cell in cells] == [json.loads(line)["auroc"] for line in whole]
    assert len(cells) == 6  # two protocols, three systems
    assert all(0 <= value <= 1 for cell in cells for value in cell["auroc"].values())
    shown = json.loads((tmp_path / "show.json").read_text())
    assert set(shown["clusters"]) == {"k-means", "HDBSCAN"}
    for name in ("latent", "terms", "encoding", "gradients", "curves", "reconstructions"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_gain_is_told_as_the_mean_over_pairs_of_which_both_were_measured():
    cells = {
        (seed, "one-class", label, system): {"auroc": {"encoder": score, "fused": score + gain}}
        for seed, label, system, score, gain in (
            (0, 0, "GANomaly", 0.5, 0.1),
            (0, 1, "GANomaly", 0.7, 0.3),
            (1, 0, "GANomaly", 0.6, -0.1),
            (0, 0, "both", 0.4, 0.0),  # its pairs are too few for an error
        )
    }
    lines = {line[0]: line[1:] for line in ganomaly_gradcon.gains(cells)[1:]}
    assert lines == {"gradients in the score": ["one-class", "+0.100", "0.115", "2 of 3"]}
