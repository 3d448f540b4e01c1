"""What the store knows of a stream's newest rows."""

from __future__ import annotations

from pathlib import Path

from jobs import two_streams

from gon_edge.state.store import Store
from gon_edge.training.site import newest_row


def test_the_newest_row_and_the_usual_step_are_those_of_the_store(tmp_path: Path) -> None:
    with Store.open(two_streams(tmp_path).state_dir, read_only=True) as store:
        assert newest_row(store, "pump") == (1399.0, 1.0)
        assert newest_row(store, "nobody") == (None, None)
