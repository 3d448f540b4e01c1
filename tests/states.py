"""A small state directory as a version of gon-edge leaves it, for tests of what later versions make of it.

``python tests/states.py`` writes golden/state-VERSION.tar.gz, of the version that is checked out.  Do it once for each
release; what is there stays as it was, because no later version could write it.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

import gon_edge
from gon_edge.config.file import parse_config
from gon_edge.daemon.orders import Machine
from gon_edge.daemon.scoring import Scoring
from gon_edge.links.control import SOCKET
from gon_edge.links.prometheus import Telemetry
from gon_edge.model.file import load_model
from gon_edge.process.clock import Clock
from gon_edge.state.database import LOCK
from gon_edge.state.folder import ModelFolder
from gon_edge.state.history import RetrainRecord
from gon_edge.training.operations import carry_out

GOLDEN = Path(__file__).parent / "golden"
NOW = 1.77e9  # when it was left, Unix seconds
ROWS = 60


class Sent:
    """A broker that keeps what is retained, and every event."""

    client_id = "gon-edge-test"
    confirms = False

    def __init__(self) -> None:
        self.retained: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []

    def topic(self, *levels: str) -> str:
        return "/".join(levels)

    def publish(self, topic: str, payload: str, *, retain: bool = False, shorter: str = "") -> None:
        if retain:
            self.retained[topic] = payload
        else:
            self.events.append(json.loads(payload))


class Caller:
    """Who asks, and keeps the answer."""

    gone = False
    answered: Mapping[str, Any] | None = None
    refused: object = None

    def tell(self, **progress: Any) -> None:
        """Nothing is waited for."""

    def answer(self, **result: Any) -> None:
        self.answered = result

    def refuse(self, error: object) -> None:
        self.refused = error


def begun(state_dir: Path, **options: Any) -> tuple[Scoring, Sent]:
    """A daemon without its links, begun with a state directory at `NOW`; close its store."""
    subscription = {"topic": "telemetry/{stream}", "timestamp": "at"}
    smallest = {"mqtt": {"url": "mqtt://localhost"}, "subscriptions": [subscription]}
    sent = Sent()
    scoring = Scoring(
        parse_config({**smallest, "state_dir": str(state_dir), **options}),
        Telemetry(CollectorRegistry(), version="0"),
        sent,
        Machine(Clock(monotonic=lambda: 1.0, wall=lambda: NOW)),
    )
    scoring.resume()
    return scoring, sent


def leave(state_dir: Path) -> None:
    """Leave a state with something of everything: rows, models, an open alert, a silence, an answer, trainings."""
    model = load_model(GOLDEN / "pump.npz")
    for version in ("1", "2"):
        ModelFolder(state_dir).install("pump", model.with_lineage(version=version, trained_at=NOW - 3600.0))
    scoring, _ = begun(state_dir)
    try:
        for i in range(ROWS):
            values = {"flow": 20.0 + i % 3, "pressure": 3.0 + 0.5 * (i % 2), "current": 4.0}
            for name, sensors in (("pump", values), ("fan", {"flow": float(i)})):
                payload = json.dumps({**sensors, "at": NOW - ROWS + i})
                scoring.take(f"telemetry/{name}", payload.encode(), 1.0 + i)
        deadline = 1.0 + ROWS + 600.0
        for _ in scoring.pass_time(deadline):
            pass  # the pump has stopped, which is an alert
        asked = [
            {"do": "silence", "stream": "fan", "feature": "flow", "for_s": 300 * 86400.0, "reason": "new bearing"},
            {"do": "missed", "stream": "pump", "at": {"at": NOW - 30.0}, "note": "a knock", "by": "anna"},
        ]
        for request in asked:
            caller = Caller()
            carry_out(scoring.orders, request, caller)
            assert caller.refused is None, caller.refused
        scoring.store.add_retrain(RetrainRecord("pump", "2", NOW - 3600.0, 9.0, "promoted", 60 << 20, 900, ""))
        scoring.stop()
    finally:
        scoring.store.close()


def pack(state_dir: Path, file: Path) -> None:
    """Put a state directory into one file, without what belongs to a running daemon or to a training."""

    def wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return None if Path(member.name).name in (LOCK, SOCKET) else member

    with tarfile.open(file, "w:gz") as archive:
        archive.add(state_dir, ".", filter=wanted)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        leave(Path(directory))
        pack(Path(directory), GOLDEN / f"state-{gon_edge.__version__}.tar.gz")
