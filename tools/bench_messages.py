"""What one message costs the scoring thread, from its bytes to everything that is told of it, without a broker.

Processor time of this process alone, in blocks of 500 messages: medians and quartiles, for messages that come one by
one and for as many as are taken at once when they come thick and fast.

    python tools/bench_messages.py [--messages 20000] [--streams 10] [--features 8] [--json]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from bench_daemon import machine, noise
from prometheus_client import CollectorRegistry

from gon_edge.config.file import parse_config
from gon_edge.daemon.orders import Machine
from gon_edge.daemon.scoring import Scoring
from gon_edge.links.mqtt.queue import Message
from gon_edge.links.prometheus import Telemetry
from gon_edge.process.clock import monotonic
from gon_edge.state.folder import ModelFolder
from gon_edge.training.fit import fit_model

BLOCK = 500
AT_ONCE = (1, 256)


class Nobody:
    """A broker that nobody listens to."""

    client_id = "bench"
    confirms = False

    def topic(self, *levels: str) -> str:
        """As `reporting.Broker`."""
        return "/".join(levels)

    def publish(self, topic: str, payload: str, **options: Any) -> None:
        """As `reporting.Broker`."""


def main() -> int:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000, help="each way (default: 20000)")
    parser.add_argument("--streams", type=int, default=10, help="default: 10")
    parser.add_argument("--features", type=int, default=8, help="of each stream (default: 8)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    logging.disable()
    with tempfile.TemporaryDirectory(prefix="gon-edge-bench-") as folder:
        result = measure(Path(folder), options.streams, options.features, options.messages)
    if options.json:
        print(json.dumps({"machine": machine(), **result}))
        return 0
    print(
        f"{options.streams} streams of {options.features} features, processor time of the scoring thread\n{machine()}"
    )
    for way, (low, median, high) in result.items():
        print(f"taken {way:>4} at once: {median:6.1f} µs a message (quartiles {low:.1f} to {high:.1f})")
    return 0


def measure(folder: Path, streams: int, features: int, count: int) -> dict[str, list[float]]:
    """Quartiles of microseconds a message, by how many are taken at once."""
    config = parse_config(
        {
            "state_dir": str(folder),
            "mqtt": {"url": "mqtt://localhost"},
            "subscriptions": [{"topic": "telemetry/{stream}", "timestamp": "time"}],
            "streams": {"defaults": {"interval": "1s"}},
        }
    )
    rng = np.random.default_rng(0)
    rows = noise(features, rng)
    names = [f"sensor{f}" for f in range(features)]
    model = fit_model(rows[:1000], features=names, rng=rng).with_lineage(version="1")
    for stream in range(streams):
        ModelFolder(folder).install(f"s{stream}", model)
    scoring = Scoring(config, Telemetry(CollectorRegistry(), version="0"), Nobody(), Machine())
    scoring.resume()
    for _ in range(streams):
        scoring.remember()  # as the daemon does between its first messages
    bodies = [json.dumps(dict(zip(names, row.round(4).tolist(), strict=True)))[1:] for row in rows]
    took: dict[int, list[float]] = {way: [] for way in AT_ONCE}
    sent = 0
    for block in range(2 * count // BLOCK):  # the ways take turns, so that they meet the same noise of the machine
        way = AT_ONCE[block % 2]
        messages = []
        for _ in range(BLOCK):
            tick, stream = divmod(sent, streams)
            body = f'{{"time": {1_700_000_000 + tick}, {bodies[(tick + 7 * stream) % len(bodies)]}'
            messages.append(Message(f"telemetry/s{stream}", body.encode(), monotonic(), False))
            sent += 1
        began = time.process_time()
        for first in range(0, BLOCK, way):
            scoring.take_many(messages[first : first + way])
        took[way].append(1e6 * (time.process_time() - began) / BLOCK)
    scoring.store.close()
    return {str(way): np.quantile(blocks[2:], [0.25, 0.5, 0.75]).tolist() for way, blocks in took.items()}


if __name__ == "__main__":
    sys.exit(main())
