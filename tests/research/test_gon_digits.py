"""The picture GON: what a climb is, that training and resuming do what they say, and its rivals."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from gon_edge.errors import InputError  # noqa: E402
from gon_edge.research.gon_digits import ACTIVATIONS, DigitGon, DigitSettings, climb  # noqa: E402
from gon_edge.research.images import load_images  # noqa: E402
from gon_edge.research.rivals import DigitGan, DigitVae  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import digits  # noqa: E402

SMALL = DigitSettings(hidden=(48, 24), climb_steps=8)
IMAGES = load_images("digits8")


def a_gon(**settings):
    from dataclasses import replace

    return DigitGon(IMAGES.shape, IMAGES.classes, replace(SMALL, **settings))


def probability(gon, pictures, labels):
    with torch.no_grad():
        return gon.net(torch.from_numpy(pictures)).softmax(dim=1).numpy()[np.arange(len(labels)), labels]


def test_climbing_raises_the_probability_of_the_class_and_stays_in_the_box():
    gon = a_gon()
    gon.train(IMAGES, 30)
    labels = np.arange(10)
    start = np.random.default_rng(0).uniform(-1, 1, (10, 1, 8, 8)).astype(np.float32)
    before = start.copy()
    made = climb(gon.net, torch.from_numpy(start), torch.from_numpy(labels), steps=20, rate=0.2, smoothness=0.0).numpy()
    assert (probability(gon, made, labels) > probability(gon, start, labels)).all()
    assert np.abs(made).max() <= 1.0
    np.testing.assert_array_equal(start, before)


def test_a_batch_is_climbed_as_each_picture_alone():
    gon = a_gon()
    gon.train(IMAGES, 10)
    start, labels = torch.rand(5, 1, 8, 8) * 2 - 1, torch.tensor([0, 1, 2, 3, 4])
    settings = {"steps": 10, "rate": 0.2, "smoothness": 2e-3}
    together = climb(gon.net, start, labels, **settings)
    alone = torch.cat([climb(gon.net, start[i : i + 1], labels[i : i + 1], **settings) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)


def test_generation_does_not_depend_on_how_many_are_climbed_at_once():
    gon = a_gon()
    labels = np.arange(10)
    np.testing.assert_allclose(gon.generate(labels, at_once=3), gon.generate(labels), rtol=1e-3, atol=1e-4)


def test_a_longer_climb_comes_higher():
    gon = a_gon()
    gon.train(IMAGES, 30)
    labels = np.arange(100) % 10
    short, long = (probability(gon, gon.generate(labels, longer=longer), labels).mean() for longer in (1, 3))
    assert long > short + 0.02


def test_training_lets_the_network_tell_real_pictures_from_its_own():
    gon = a_gon()
    gon.train(IMAGES, 150)
    labels = np.arange(100) % 10
    real = IMAGES.test[:100].astype(np.float32) / 127.5 - 1
    p_real = torch.from_numpy(real)
    with torch.no_grad():
        says_real = gon.net(p_real).softmax(dim=1)[:, :10].sum(dim=1).mean().item()
        says_noise = gon.net(torch.rand(100, 1, 8, 8) * 2 - 1).softmax(dim=1)[:, :10].sum(dim=1).mean().item()
    assert says_real > says_noise + 0.2
    assert gon.history[-1]["accuracy"] > 0.4
    assert gon.generate(labels).shape == (100, 1, 8, 8)


def test_an_interrupted_training_ends_as_an_uninterrupted_one(tmp_path):
    whole = a_gon()
    whole.train(IMAGES, 12, log_every=5)
    first = a_gon()
    first.train(IMAGES, 7, log_every=5)
    first.save(tmp_path / "c.pt")
    second = DigitGon.load(tmp_path / "c.pt")
    second.train(IMAGES, 5, log_every=5)
    for one, other in zip(whole.net.parameters(), second.net.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert second.history == whole.history
    np.testing.assert_array_equal(second.generate(np.array([1])), whole.generate(np.array([1])))


def test_seeds_differ_and_the_same_seed_repeats():
    made = []
    for seed in (1, 1, 2):
        gon = a_gon(seed=seed)
        gon.train(IMAGES, 3)
        made.append(gon.generate(np.array([5])))
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_a_leaky_network_is_not_affine_and_identity_is():
    x = torch.rand(20, 1, 8, 8)
    direction = torch.rand(20, 1, 8, 8)
    bends = {}
    for activation in ACTIVATIONS:
        net = a_gon(activation=activation).net
        with torch.no_grad():
            bends[activation] = (net(x + direction) - 2 * net(x) + net(x - direction)).abs().max().item()
    assert bends.pop("identity") < 1e-4
    assert min(bends.values()) > 1e-3


def test_few_shots_of_one_class_are_enough_to_train_on():
    gon = a_gon()
    gon.train(IMAGES.of_classes((0,)).shots(10), 5)
    assert gon.step == 5


def test_pictures_of_another_size_are_refused():
    with pytest.raises(InputError, match="pictures are"):
        DigitGon((1, 9, 9), 10, SMALL).train(IMAGES, 1)


def test_what_is_no_checkpoint_is_said(tmp_path):
    (tmp_path / "c.pt").write_bytes(b"no")
    with pytest.raises(InputError, match="no checkpoint"):
        DigitGon.load(tmp_path / "c.pt")


@pytest.mark.parametrize("rival", [DigitGan, DigitVae])
def test_rivals_have_the_same_face_and_learn_something(rival):
    model = rival(IMAGES.shape, IMAGES.classes, hidden=(32,))
    labels = np.arange(60) % 10
    mean = IMAGES.train.astype(np.float64).mean(axis=0) / 127.5 - 1
    before = np.abs(model.generate(labels).mean(axis=0) - mean).mean()
    model.train(IMAGES, 150)
    made = model.generate(labels, seed=3)
    assert made.shape == (60, 1, 8, 8)
    assert np.abs(made).max() <= 1.0
    assert np.abs(made.mean(axis=0) - mean).mean() < before
    np.testing.assert_array_equal(made, model.generate(labels, seed=3))


def tool(*arguments):
    """The exit status of a command, run in this process: importing torch anew takes longer than the command."""
    return digits.main([str(argument) for argument in arguments])


@pytest.mark.slow  # two trainings by torch
def test_the_tool_trains_resumes_and_shows(tmp_path):
    pytest.importorskip("matplotlib")
    common = ("--quick", "--hidden", "32", "--out", tmp_path, "--classes", "0,1")
    assert tool("train", *common, "--steps", "10") == 0
    assert tool("train", *common, "--steps", "20", "--resume") == 0
    figures = json.loads((tmp_path / "train.json").read_text())
    assert figures["steps"] == 20
    assert {"accuracy", "frechet", "pairwise"} == figures["merit"].keys() == figures["merit_of_twice_the_climb"].keys()
    sheet = ("sheet", tmp_path / "checkpoint.pt", "--count", "2", "--longer", "2", "-o")
    assert tool(*sheet, tmp_path / "nearest.png") == 0
    assert tool(*sheet, tmp_path / "one.png", "--class", "1") == 0
    assert tool(*sheet, tmp_path / "none.png", "--class", "10") == 66
    for name in ("sheet.png", "curve.png", "nearest.png", "one.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    # A class has two rows of 8x8 pictures, four dots a pixel, with a line round each.
    from PIL import Image

    assert [Image.open(tmp_path / name).height for name in ("nearest.png", "one.png")] == [4 * 181, 4 * 19]


def test_the_tool_says_what_it_lacks(tmp_path, capsys):
    for arguments, says in (
        (("train", "--out", tmp_path), "--data is needed"),
        (("generate", tmp_path / "none.pt", "-o", tmp_path / "x.png"), "no checkpoint"),
    ):
        assert tool(*arguments) == 66
        complaint = capsys.readouterr().err
        assert says in complaint
        assert complaint.count("\n") == 1


ABLATE = ("ablate", "--quick", "--steps", "2", "--seeds", "1", "--out")


@pytest.fixture(scope="module")
def ablated(tmp_path_factory):
    """A folder with the experiments on every claim."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("ablated")
    assert tool(*ABLATE, folder) == 0
    return folder


@pytest.mark.slow  # every claim is an experiment
def test_the_tool_tests_the_claims(ablated):
    runs = json.loads((ablated / "ablation.json").read_text())["runs"]
    assert len({run["name"] for run in runs}) == len(runs) == 9
    # The judge's accuracy was once overwritten by the training's, of the same name.
    assert all(run["accuracy"] * 1000 == pytest.approx(round(run["accuracy"] * 1000)) for run in runs)
    assert all("loss" in run["training"] for run in runs)
    assert (ablated / "ablation.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow  # a process for each of three
def test_the_tool_compares(tmp_path):
    pytest.importorskip("matplotlib")
    assert tool("compare", "--quick", "--steps", "2", "--seeds", "1", "--out", tmp_path) == 0
    compared = {run["name"]: run for run in json.loads((tmp_path / "compare.json").read_text())["runs"]}
    assert compared["GON"]["parameters"] == compared["GON"]["parameters_to_generate"]
    assert compared["GAN"]["parameters"] > 1.5 * compared["GAN"]["parameters_to_generate"]
    assert compared["VAE"]["steps"] == 5 * compared["GON"]["steps"]
    assert all(run["peak_mib"] > 0 for run in compared.values())
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow  # every variant is trained
def test_what_was_interrupted_goes_on_from_the_last_finished_run(ablated, tmp_path):
    shutil.copytree(ablated, tmp_path, dirs_exist_ok=True)
    lines = tmp_path / "ablation.jsonl"
    whole = lines.read_text().splitlines()
    figures = (tmp_path / "ablation.json").read_text()
    lines.write_text("\n".join(whole[:7]) + "\n" + whole[7][:40])  # killed while it wrote
    assert tool(*ABLATE, tmp_path) == 0
    assert lines.read_text().splitlines() == [*whole[:7], whole[7][:40], *whole[7:]]
    assert (tmp_path / "ablation.json").read_text() == figures


def test_runs_of_other_circumstances_are_not_taken_for_done(tmp_path):
    made = np.zeros((20, 1, 8, 8), np.float32)
    digits.Runs(tmp_path / "runs", {"steps": 2}).add({"name": "a", "seed": 0, "accuracy": 0.5}, made)
    again = digits.Runs(tmp_path / "runs", {"steps": 2})
    assert again.has("a", 0)
    assert again.of("a", 0)["accuracy"] == 0.5
    assert again.row("a").shape == (10, 1, 8, 8)
    assert not again.has("a", 1)
    assert not digits.Runs(tmp_path / "runs", {"steps": 3}).has("a", 0)
