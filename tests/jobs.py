"""A training job of a small store, for tests of the child that does it and of the parent that orders it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from gon_edge.training.child import Job

MIB = 1 << 20


def plain_job(state_dir: Path, **changes: object) -> Job:
    """Return the first training of stream ``pump``, with other fields where named."""
    plain = Job(
        stream="pump",
        state_dir=str(state_dir),
        candidate=str(state_dir / "candidate.npz"),
        version="1",
        parent="",
        trained_at=5000.0,
        until=1e12,
        max_rows=20_000,
        interval_s=1.0,
        window=15,
        risk=1e-4,
        seed=0,
        budget_bytes=64 * MIB,
        nice=0,
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]
