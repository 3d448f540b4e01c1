"""How many false alerts a stream may raise: its own budget, and its share of the one for all streams together.

The share follows what the models detect.  To notice faults of half the size, a stream whose scores spread widely has to
pay with more false alerts than one whose scores lie close together.  The sum of what all streams miss is smallest when
each gets a part in proportion to that spread, and the smallest fault that raises an alert shows it: where scores are
logarithms of energies, the spread is the logarithm of that size.  So the part grows by one with each doubling.

Pure, and light enough for the daemon: the figures are those that the gate has written into the models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gon_edge.training.site import Site

SMALLEST, NEVER = 0.5, 128.0
"""The smallest size that is tried, in standard deviations, and what a size counts as that is never told: the next one
after the largest (`sensitivity`)."""

_KINDS = ("offset up", "offset down")


def budget_of(stream: str, site: Site) -> float:
    """False alerts a day that a stream may raise."""
    own, total = site.config.stream(stream).alerts.budget, site.config.alerts.total_budget
    if total is None:
        return own
    sizes: dict[str, float | None] = {}
    for name in {*site.streams(), stream}:
        model = site.model(name)
        sizes[name] = None if model is None else typical_size(model.lineage.get("detects"))
    return min(own, total * share_of(stream, sizes))


def share_of(stream: str, sizes: Mapping[str, float | None]) -> float:
    """The part of a total that falls to one of the streams.

    Parameters
    ----------
    stream : str
    sizes : mapping of str to float or None
        Of every stream, this one too, the typical size of a fault that raises an alert.  A stream of which it is not
        known counts as the mean of the others.

    Examples
    --------
    >>> share_of("pump", {"pump": 2.0, "fan": 0.5}), share_of("pump", {"pump": None, "fan": 4.0})
    (0.75, 0.5)
    """
    parts = {name: 2.0 + math.log2(size / (2.0 * SMALLEST)) for name, size in sizes.items() if size is not None}
    usual = sum(parts.values()) / len(parts) if parts else 1.0
    return parts.get(stream, usual) / sum(parts.get(name, usual) for name in sizes)


def typical_size(detects: Any) -> float | None:
    """Geometric mean of the smallest offsets that raise an alert, in standard deviations; None where none are known.

    Parameters
    ----------
    detects : mapping
        As `gate.GateReport.detects`, from the lineage of a model, which may say anything.
    """
    logarithms = []
    for kind in _KINDS if isinstance(detects, Mapping) else ():
        told = detects.get(kind)
        for entry in told.values() if isinstance(told, Mapping) else ():
            size = NEVER if entry is None else entry[0] if isinstance(entry, list | tuple) and entry else None
            if isinstance(size, int | float) and SMALLEST <= size <= NEVER:
                logarithms.append(math.log2(size))
    return float(2.0 ** (sum(logarithms) / len(logarithms))) if logarithms else None
