"""OMASGAN: the border, and that the four networks are four."""

import copy
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from gon_edge.research.divergences import DIVERGENCES  # noqa: E402
from gon_edge.research.metrics import roc_auc  # noqa: E402
from gon_edge.research.omasgan import Omasgan, OmasganSettings, anomalies, two_modes  # noqa: E402
from gon_edge.research.omasgan_networks import (  # noqa: E402
    PictureGenerator,
    PointGenerator,
    perceptron,
    picture_discriminator,
)

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import omasgan  # noqa: E402

SETTINGS = OmasganSettings(steps=60, penalty=1.0, batch=32)


def a_model(**changes):
    torch.manual_seed(0)
    samples = torch.from_numpy(two_modes(1000, np.random.default_rng(0)))
    return Omasgan(PointGenerator(32), perceptron(2, 32, 32, 1), samples, replace(SETTINGS, **changes))


@pytest.fixture(scope="module")
def fitted():
    return a_model(steps=150).fit()


def test_the_well_is_least_at_the_border():
    model = a_model()
    distance = torch.linspace(0.01, 4 * model.reach, 2000)
    best = distance[model._well(distance).argmin()]
    assert float(best) == pytest.approx(model.reach, rel=0.01)


@pytest.mark.parametrize("border", ["well", "climbed"])
def test_border_samples_lie_near_the_border_and_round_both_modes(border):
    model = a_model(steps=150, border=border)
    model.task_1()
    model.task_2()
    assert omasgan.on_border(model, torch.rand(1000, 2)) > 0.3
    made = model.border_samples(300)
    distance = model.distance(made)
    assert bool(((distance >= 0.5 * model.reach) & (distance <= 2 * model.reach)).all())
    first = np.linalg.norm(made.numpy() - (1.5, 1.5), axis=1) < np.linalg.norm(made.numpy() - (4, 4), axis=1)
    assert 0.1 < first.mean() < 0.9


def test_negatives_help_where_they_were_made(fitted):
    rng = np.random.default_rng(1)
    points = np.concatenate([two_modes(500, rng), anomalies("ring", 500, rng)])
    truth = np.arange(1000) >= 500
    auroc = {task: roc_auc(truth, fitted.score(torch.from_numpy(points), task)) for task in ("task 1", "task 3")}
    assert auroc["task 3"] > 0.85
    assert auroc["task 3"] > auroc["task 1"]


def test_every_task_trains_a_network_of_its_own(fitted):
    nets = [fitted.generator, fitted.border, fitted.generator_3]
    nets += [fitted.discriminator, fitted.discriminator_3, fitted.detector]
    first = {id(net): torch.cat([p.detach().flatten() for p in net.parameters()]) for net in nets}
    assert len(first) == 6
    for one, other in ((0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)):
        assert not torch.equal(first[id(nets[one])], first[id(nets[other])])


def test_the_published_border_has_no_end(fitted):
    away = a_model(steps=150, border="published").fit()
    assert float(away.distance(away.border_samples(100)).median()) > 5 * fitted.reach


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_a_border_in_features_is_measured_by_the_first_discriminator():
    model = a_model(border="features")
    in_the_plane = model.reach
    assert model.reservoir.shape[1] == 2
    model.fit()
    assert model.reservoir.shape[1] == 32
    assert model.reach != in_the_plane
    known = model._samples[model._chosen]
    np.testing.assert_allclose(model.distance(known).numpy(), 0.0, atol=1e-3)
    trunk = copy.deepcopy(model.discriminator)[:-1].eval()
    far = torch.tensor([[9.0, 9.0]])
    expected = torch.cdist(trunk(far), trunk(known)).min() / np.sqrt(32)
    assert float(model.distance(far)) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_a_border_by_an_encoder_is_measured_in_its_features_and_task_1_is_as_without():
    samples = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    trained = []
    for border in ("well", "encoder"):
        torch.manual_seed(0)
        nets = PictureGenerator(1, 8, 4), picture_discriminator(1, 8, 4)
        trained.append(Omasgan(*nets, samples, replace(SETTINGS, steps=3, batch=8, border=border)).fit())
    assert torch.equal(*(weights(model.discriminator) for model in trained))
    assert [model.reservoir.shape[1] for model in trained] == [64, 64]
    assert not torch.equal(trained[0].reservoir, trained[1].reservoir)
    known = samples[trained[1]._chosen]
    np.testing.assert_allclose(trained[1].distance(known).numpy(), 0.0, atol=1e-3)


def test_a_border_of_moved_noise_draws_with_the_first_generator_as_it_is():
    model = a_model(border="latent").fit()
    assert torch.equal(weights(model.border.generator), weights(model.generator))
    z = torch.rand(20, 2)
    assert torch.equal(model.border(z), model.generator(z + model.border.move(z)))
    assert not torch.allclose(model.border(z), model.generator(z))


def test_averaged_weights_are_those_of_all_steps_and_not_of_the_last():
    last = a_model().fit()
    nothing_stays = a_model(average=1e-9).fit()
    averaged = a_model(average=0.9).fit()
    torch.testing.assert_close(weights(nothing_stays.discriminator), weights(last.discriminator))
    torch.testing.assert_close(weights(nothing_stays.detector), weights(last.detector), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(weights(averaged.discriminator), weights(last.discriminator))


def test_to_score_in_the_middle_of_a_training_does_not_change_it():
    draw = torch.Generator().manual_seed(0)
    samples = torch.rand(60, 1, 16, 16, generator=draw) * 2 - 1
    trained = []
    for looks in (False, True):
        torch.manual_seed(0)
        nets = PictureGenerator(1, 16, 4), picture_discriminator(1, 16, 4)
        model = Omasgan(*nets, samples, replace(SETTINGS, steps=3, batch=4))

        def look(task, step, model=model, looks=looks):
            if looks and task != "task 2":
                model.score(samples[:5], task)

        trained.append(weights(model.fit(progress=look).detector))
    assert torch.equal(*trained)


@pytest.mark.parametrize("divergence", sorted(DIVERGENCES))
def test_pictures_of_any_channels_go_through_all_tasks(divergence):
    draw = torch.Generator().manual_seed(0)
    samples = torch.rand(60, 3, 16, 16, generator=draw) * 2 - 1
    settings = replace(SETTINGS, steps=2, batch=4, divergence=divergence)
    torch.manual_seed(0)
    model = Omasgan(PictureGenerator(3, 16, 4), picture_discriminator(3, 16, 4), samples, settings).fit()
    for task in ("task 1", "task 3", "task 3 J"):
        scores = model.score(samples[:5], task)
        assert np.isfinite(scores).all()
        np.testing.assert_allclose(model.score(samples[2:3], task), scores[2:3], rtol=1e-3, atol=1e-5)


def test_anomalies_are_where_they_are_said_to_be():
    rng = np.random.default_rng(0)
    centres = np.array([[1.5, 1.5], [4.0, 4.0]])

    def nearest(kind):
        return np.linalg.norm(anomalies(kind, 300, rng)[:, None] - centres, axis=2).min(axis=1)

    assert nearest("far").min() > 1.5
    assert len(nearest("far")) == 300
    assert nearest("between").min() > 1.0
    assert np.median(nearest("ring")) > 0.9


def test_the_distance_to_normal_samples_is_a_score_too():
    model = a_model()
    scores = model.nearest(torch.tensor([[1.5, 1.5], [4.0, 4.0], [2.75, 2.75], [9.0, 9.0]]))
    assert scores[:2].max() < 0.1
    assert 0.5 < scores[2] < scores[3]


def test_the_tool_runs_both_ways(tmp_path):
    pytest.importorskip("matplotlib")
    for arguments in (["toy", "--steps", "5"], ["mnist", "--steps", "3", "--classes", "0"]):
        assert omasgan.main([*arguments, "--quick", "--out", str(tmp_path)]) == 0
    assert len((tmp_path / "toy.jsonl").read_text().splitlines()) == 1
    (cell,) = map(json.loads, (tmp_path / "omasgan.jsonl").read_text().splitlines())
    assert set(cell["auroc"]) == {"task 1", "task 3", "task 3 J", "distance"} | {
        f"{task}, snapshots" for task in omasgan.TASKS
    }
    assert cell["curve"]["steps"] == [1, 2, 3]
    beyond = cell["beyond"]
    assert 0.0 <= beyond[0] < beyond[1] <= 1.0  # more of the left-out zeros than of the others lie past the border
    # At its last step a task is what it ends as, unless weights are averaged.
    assert [cell["curve"][task][-1] for task in omasgan.TASKS] == [cell["auroc"][task] for task in omasgan.TASKS]
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {"toy.png", "curves.png", "digits8-pearson-pixels-0.png", "digits8-pearson-pixels-0-scores.png"}


@pytest.mark.slow  # twelve variants are trained and drawn
def test_variants_are_measured_side_by_side_and_unknown_ones_named(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    command = ["pictures", "--quick", "--steps", "2", "--classes", "1", "--out", str(tmp_path), "--variants"]
    assert omasgan.main([*command, "all"]) == 0
    cells = [json.loads(line) for line in (tmp_path / "omasgan.jsonl").read_text().splitlines()]
    assert [cell["variant"] for cell in cells] == list(omasgan.VARIANTS)
    # The same pictures are judged, and Task 1 is the same where a variant changes a later one.
    first = {cell["variant"]: cell["auroc"]["task 1"] for cell in cells}
    assert first["pixels"] == first["published"] == first["features"] == first["latent"] != first["spectral"]
    with pytest.raises(SystemExit):
        omasgan.main([*command, "pixel"])
    assert "no variant ['pixel']" in capsys.readouterr().err


def test_the_mean_of_snapshots_is_of_the_later_half_each_at_its_own_scale():
    model = a_model(steps=40)
    parts = [model._samples[:50], torch.from_numpy(anomalies("ring", 50, np.random.default_rng(0)))]
    curve = omasgan.Curve(model, parts, model._samples[:100])
    taken = []

    def look(task, step):
        curve(task, step)
        if task == "task 1" and step in (24, 28, 32, 36, 40):
            taken.append([model.score(part, task) / model.score(model._samples[:100], task).std() for part in parts])

    model.task_1(progress=look)
    assert curve.moments == [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]
    for found, expected in zip(curve.averaged("task 1"), zip(*taken, strict=True), strict=True):
        np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-6)


def test_a_second_run_goes_on_after_the_last_whole_line(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    command = ["pictures", "--data", "digits8", "--steps", "2", "--classes", "0,1", "--out", str(tmp_path)]
    learn = Omasgan.task_3_j
    trained = []

    def interrupted(model, *, progress):
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(model)
        learn(model, progress=progress)

    monkeypatch.setattr(Omasgan, "task_3_j", interrupted)
    assert omasgan.main(command) == 130
    file = tmp_path / "omasgan.jsonl"
    first = file.read_text()
    file.write_text(first + '{"class": 1, "se')  # killed while writing
    monkeypatch.setattr(Omasgan, "task_3_j", learn)
    assert omasgan.main(command) == 0
    lines = file.read_text().splitlines()
    assert lines[0] + "\n" == first
    assert [json.loads(line)["class"] for line in (lines[0], lines[2])] == [0, 1]
    assert "mean" in (tmp_path / "omasgan.txt").read_text()
    assert omasgan.main(command) == 0
    assert file.read_text().splitlines() == lines  # nothing was left to do


def test_toy_runs_are_not_done_twice(tmp_path):
    pytest.importorskip("matplotlib")
    command = ["toy", "--steps", "2", "--out", str(tmp_path), "--seeds"]
    assert omasgan.main([*command, "1"]) == 0
    first = (tmp_path / "toy.jsonl").read_text()
    assert len(first.splitlines()) == 4
    assert omasgan.main([*command, "2"]) == 0
    assert (tmp_path / "toy.jsonl").read_text().startswith(first)
    assert len((tmp_path / "toy.jsonl").read_text().splitlines()) == 8
    assert "±" in (tmp_path / "toy.txt").read_text()
