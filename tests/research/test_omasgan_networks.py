"""What the parts of OMASGAN's networks promise."""

import pytest

torch = pytest.importorskip("torch")

from gon_edge.research.omasgan_networks import MovedSamples, WhichTurn, picture_discriminator  # noqa: E402


def test_noise_says_which_samples_are_given_and_each_moves_alone():
    samples = torch.arange(8.0).reshape(4, 2)
    moved = MovedSamples(samples)
    z = torch.tensor([[0.0, 0.9], [0.3, 0.1], [0.99, 0.5], [1.0, 0.5]])
    assert torch.equal(moved(z), samples[[0, 1, 3, 3]])
    moved(z[:1]).sum().backward()
    assert bool((moved.move.grad[0] != 0).all())
    assert bool((moved.move.grad[1:] == 0).all())


def test_an_encoder_learns_which_way_up_pictures_are():
    torch.manual_seed(0)
    pictures = torch.rand(64, 1, 8, 8)
    pictures[:, :, :4] += 1.0  # light from above
    body = picture_discriminator(1, 8, 4)[:-1]
    before = body[0].weight.clone()
    learner = WhichTurn(body, 64)
    assert not torch.equal(body[0].weight, before)
    adam = torch.optim.Adam(learner.parameters(), lr=1e-2)
    first = learner.loss(pictures)
    for _ in range(30):
        adam.zero_grad()
        learner.loss(pictures).backward()
        adam.step()
    assert first.item() > 1.0
    assert learner.loss(pictures).item() < 0.3
    assert learner.body(pictures).shape == (64, 64)


def test_spectral_normalisation_holds_every_layer_to_a_slope_of_one():
    net = picture_discriminator(1, 16, 4, spectral=True)
    for _ in range(50):
        net(torch.rand(4, 1, 16, 16))
    layers = [layer.requires_grad_(False) for layer in net if hasattr(layer, "weight")]
    assert len(layers) == 4
    for layer in layers:
        assert float(torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)) == pytest.approx(1.0, abs=0.05)
