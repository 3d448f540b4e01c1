"""Slow and obvious versions of the numerics, in float64, written for the reader and never for speed.

Each says in a loop, in torch or by brute force what a module of gon_edge says in a few lines of numpy.  Nothing here is
shared with the code under test except the parameters of the network.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from scipy.stats import genpareto

from gon_edge.model.gon import Discriminator, Scale
from gon_edge.model.prediction import Prediction
from gon_edge.model.quantize import QuantizedLinear

# -- windows, scores ---------------------------------------------------------------------------------------------------


def windows(rows, length, restart=None):
    """(T, W, F): the window that ends at each row; before a piece begins its first row is repeated."""
    out = []
    first = 0
    for t in range(len(rows)):
        if restart is not None and restart[t]:
            first = t
        out.append([rows[max(first, t - back)] for back in range(length - 1, -1, -1)])
    return np.array(out)


def forward_fill(rows):
    """(T, F): NaN becomes the last value above it, or 0."""
    out = np.array(rows, np.float64)
    for f in range(out.shape[1]):
        last = 0.0
        for t in range(len(out)):
            if math.isnan(out[t, f]):
                out[t, f] = last
            last = out[t, f]
    return out


def smooth(scores, restart, weight, window, threshold=-np.inf):
    """The larger of an exponential average and a slow one less 0.3 (T,).

    The slow one falls to the quick one where it alone is above the threshold and the quick one was not for five rows.
    """
    quick, slow = [], []
    begin = 0
    for t, score in enumerate(scores):
        if t == 0 or restart[t]:
            begin = t
        for out, w in ((quick, weight), (slow, min(weight, 0.5 / window))):
            out.append(score if t == begin else (1.0 - w) * out[-1] + w * score)
        calm = t - begin >= 4 and max(quick[t - 4 :]) <= threshold
        if calm and slow[t] - 0.3 > threshold:
            slow[t] = quick[t]
    return np.maximum(quick, np.array(slow) - 0.3)


def longest_runs(rows):
    """Most equal values in a row, for each column."""
    longest = []
    for column in np.asarray(rows).T:
        best = run = 1
        for previous, value in itertools.pairwise(column):
            run = run + 1 if value == previous else 1
            best = max(best, run)
        longest.append(best)
    return longest


def held_out(rows, window):
    """(held out, trained on): rows where windows end; the newest third is judged by what came before it."""
    later = rows // 3
    if later == 0 or rows - later < window:
        return list(range(rows)), list(range(rows))
    return list(range(rows - later, rows)), list(range(rows - later))


# -- threshold ---------------------------------------------------------------------------------------------------------


def pareto(excess, shapes):
    """Shape and width of the most likely generalised Pareto distribution, tried one by one."""
    best = (-math.inf, 0.0, 0.0)
    for shape in shapes:
        for width in np.geomspace(0.5, 2.0, 150) * np.mean(excess):
            likelihood = genpareto.logpdf(excess, shape, scale=width).sum()
            best = max(best, (likelihood, shape, width))
    return best[1], best[2]


# -- the network -------------------------------------------------------------------------------------------------------


def a_discriminator(rng, *, window, features, hidden=5, prototypes=3):
    """A network with random parameters.  gain² <= kappa, as ``fit`` makes it and ``generate`` relies on.

    It has a prediction where a window has a row before the last one.
    """
    scales = []
    for rows in sorted({1, max(1, window // 3), window}):
        length = rows * features
        units = min(hidden, length)
        kappa = rng.uniform(0.5, 2.0)
        scales.append(
            Scale(
                rows=rows,
                weight=QuantizedLinear.from_float(rng.normal(size=(units, length)).astype(np.float32)),
                gain=(rng.uniform(0.2, 1.0, units) * math.sqrt(kappa)).astype(np.float32),
                prototypes=rng.normal(size=(prototypes, units)).astype(np.float32),
                kappa=kappa,
                tau=rng.uniform(0.2, 1.0) * length,
                share=rng.uniform(0.5, 1.5),
            )
        )
    net = Discriminator(scales, features, bias=rng.normal())
    if window == 1:
        return net
    units = len(scales[0].gain)
    weight = QuantizedLinear.from_float(rng.normal(size=(features, units)).astype(np.float32))
    gain = rng.uniform(0.2, 1.0, features).astype(np.float32)
    return net.with_prediction(Prediction(weight, gain, tau=rng.uniform(0.2, 1.0) * features, share=0.5))


def first_layer(scale):
    """The orthonormal rows (H, rows * F) of a scale: Gram-Schmidt on the stored weights, one row after the other."""
    rows = []
    for values, step in zip(scale.weight.values, scale.weight.step, strict=True):
        row = values.astype(np.float64) * float(step)
        for _ in range(2):  # once more: the first pass leaves rounding
            for other in rows:
                row = row - (row @ other) * other
        rows.append(row / math.sqrt(row @ row))
    return np.array(rows)


def energies(net, x):
    """e_s of one window (W, F), and what was not foretold of its last row, sum by sum."""
    out = []
    for scale in net.scales:
        x_s = [float(value) for row in x[len(x) - scale.rows :] for value in row]
        p = [sum(w * v for w, v in zip(row, x_s, strict=True)) for row in first_layer(scale).tolist()]
        distances = []
        for prototype in scale.prototypes.tolist():
            distances.append(
                sum((g * p_h - c) ** 2 for g, p_h, c in zip(scale.gain.tolist(), p, prototype, strict=True))
            )
        unseen = sum(v * v for v in x_s) - sum(p_h * p_h for p_h in p)
        out.append(min(distances) + scale.kappa * max(unseen, 0.0))
    if net.prediction is not None:
        before, now = (np.asarray(row, np.float64) for row in x[-2:])
        ahead = net.prediction.weight.values.astype(np.float64) * net.prediction.weight.step[:, None]
        missed = now - ahead @ (first_layer(net.scales[0]) @ before)
        out.append(sum(g * m * m for g, m in zip(net.prediction.gain.tolist(), missed.tolist(), strict=True)))
    return out


def logit(net, x):
    """D of one window (W, F)."""
    terms = [
        scale.share * math.log(1.0 + energy / scale.tau)
        for scale, energy in zip(net.scales, energies(net, x), strict=False)
    ]
    return net.bias - sum(terms)


def abnormality_after_restart(net, energies, age, typical):
    """The score of one window, term by term; one that has not seen all its rows takes its share of typical."""
    shares = sum(scale.share for scale in net.scales)
    total = 0.0
    for term, energy in zip(net.terms, energies, strict=True):
        if age >= term.rows:
            total += term.share * math.log(1.0 + energy / term.tau)
        else:
            total += typical * term.share / shares
    return total


def torch_parameters(net):
    """The trained parameters as float64 leaves that record gradients."""
    return {
        key: torch.tensor(value, dtype=torch.float64, requires_grad=True) for key, value in net.parameters().items()
    }


def torch_logit(net, x, parameters=None):
    """D of windows (N, W, F) as a torch expression."""
    parameters = parameters or torch_parameters(net)
    logits = parameters["bias"].expand(len(x))
    for s, scale in enumerate(net.scales):
        x_s = x[:, net.window - scale.rows :].flatten(1)  # (N, rows*F)
        p = x_s @ torch.tensor(first_layer(scale)).T  # (N, H)
        gap = (p * torch.tensor(scale.gain))[:, None] - parameters[f"prototypes{s}"]  # (N, K, H)
        unseen = (x_s**2).sum(1) - (p**2).sum(1)
        energy = (gap**2).sum(2).min(1).values + scale.kappa * unseen.clamp(min=0.0)
        logits = logits - scale.share * torch.log1p(energy / scale.tau)
    return logits


def input_gradient(net, x):
    """dD/dx of windows (N, W, F), by autograd."""
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(torch_logit(net, x).sum(), x)
    return gradient.numpy()


def weight_gradient(net, x, d_logit):
    """Gradient of ``sum d_logit D(x)`` in each parameter, by autograd."""
    parameters = torch_parameters(net)
    objective = (torch.tensor(d_logit) * torch_logit(net, torch.tensor(x, dtype=torch.float64), parameters)).sum()
    gradients = torch.autograd.grad(objective, list(parameters.values()))
    return {key: gradient.numpy() for key, gradient in zip(parameters, gradients, strict=True)}


def slope(function, x, direction, step=1e-5):
    """Derivative of ``function`` at x along ``direction``, by a central difference."""
    return (function(x + step * direction) - function(x - step * direction)) / (2.0 * step)


def generate(net, x, steps, accept=math.inf):
    """Gradient ascent on D in the space of the window itself, one window after the other.

    The step of a window row is one over the sum of ``2 v κ / (τ + e)`` over the scales that see the row.
    """
    out = []
    for window in np.asarray(x, np.float64):
        at = window.copy()
        for _ in range(steps):
            if logit_of(net, at) >= accept:
                break
            gradient = input_gradient(net, at[None])[0]
            energy = energies_of(net, at)
            for t in range(net.window):
                seen_by = [s for s, scale in enumerate(net.scales) if t >= net.window - scale.rows]
                bound = sum(
                    2.0 * net.scales[s].share * net.scales[s].kappa / (net.scales[s].tau + energy[s]) for s in seen_by
                )
                at[t] = at[t] + gradient[t] / bound
        out.append(at)
    return np.array(out)


def energies_of(net, x):
    """:func:`energies` with vectors for sums: the same, in time for long climbs."""
    out = []
    for scale in net.scales:
        x_s = np.asarray(x, np.float64)[len(x) - scale.rows :].ravel()
        p = first_layer(scale) @ x_s
        nearest = min(float(((scale.gain * p - prototype) ** 2).sum()) for prototype in scale.prototypes)
        out.append(nearest + scale.kappa * max(float(x_s @ x_s - p @ p), 0.0))
    return out


def logit_of(net, x):
    """:func:`logit` from :func:`energies_of`."""
    return net.bias - sum(
        scale.share * math.log(1.0 + energy / scale.tau)
        for scale, energy in zip(net.scales, energies_of(net, x), strict=True)
    )
