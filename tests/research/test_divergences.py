"""Divergences that a pair of networks is trained by, against their formulas."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gon_edge.research.divergences import DIVERGENCES  # noqa: E402


@pytest.mark.parametrize("name", ["pearson", "kl", "js"])
def test_a_divergence_is_zero_for_equal_and_positive_for_unequal_distributions(name):
    # Its value is the largest of E_p T(v) - E_q f*(T(v)) over functions v; here p and q are two points each.
    divergence = DIVERGENCES[name]

    def value(p, q):
        v = torch.zeros(2, requires_grad=True)
        steps = torch.optim.Adam([v], lr=0.05)
        for _ in range(400):
            loss = sum(
                q[i] * divergence.generated(v[i : i + 1]) + p[i] * divergence.real(v[i : i + 1]) for i in range(2)
            )
            steps.zero_grad()
            loss.backward()
            steps.step()
        return -loss.item()

    assert value((0.5, 0.5), (0.5, 0.5)) == pytest.approx(0.0, abs=1e-3)
    assert value((0.8, 0.2), (0.3, 0.7)) > 0.1


def test_pearsons_divergence_of_two_points_is_the_formulas():
    # sum (p - q)² / q for p = (.8, .2), q = (.3, .7); at its best v = 2 (p/q - 1).
    p, q = np.array([0.8, 0.2]), np.array([0.3, 0.7])
    v = torch.tensor(2.0 * (p / q - 1.0))
    divergence = DIVERGENCES["pearson"]
    value = -sum(q[i] * divergence.generated(v[i : i + 1]) + p[i] * divergence.real(v[i : i + 1]) for i in range(2))
    assert float(value) == pytest.approx(float(((p - q) ** 2 / q).sum()))


def test_kl_goes_on_as_a_line_where_the_exponential_would_explode():
    generated = DIVERGENCES["kl"].generated
    values = [float(generated(torch.tensor([v]))) for v in (4.999, 5.0, 5.001, 50.0)]
    assert values == sorted(values)
    assert values[2] - values[1] == pytest.approx(values[1] - values[0], rel=0.01)
    assert math.isfinite(values[-1])
