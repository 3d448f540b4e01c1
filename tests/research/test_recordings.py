"""Public recordings as `weeks` plays them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from gon_edge.research.recordings import PUBLIC, recorded


def test_rows_of_training_come_first_and_labels_become_faults(tmp_path: Path) -> None:
    name, public = next(iter(PUBLIC.items()))
    train, test = np.zeros((3, 1)), np.arange(6.0)[:, None]
    np.savez(tmp_path / f"{public.dataset}.npz", train=train, test=test, labels=np.array([0, 1, 1, 0, 0, 1]))
    (tmp_path / "index.json").write_text(json.dumps({"datasets": []}))
    made = recorded(name, tmp_path)
    assert made.values.ravel().tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5]
    assert (np.diff(made.timestamps) == public.interval_s).all()
    assert made.during(made.faults).tolist() == [False] * 4 + [True, True, False, False, True]
    assert made.timestamps[0] == public.begin
