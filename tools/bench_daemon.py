"""How many messages a second one daemon sustains, how late its verdicts are, and what memory it holds.

Starts a real mosquitto and a real daemon, warms up ``--streams`` streams, sends ``--messages`` messages at an easy rate
and reads the daemon's resident memory.  Then it sends blocks of messages at rising rates, several times each, until
verdicts come later than 250 ms at the 99th percentile or something is lost.  Publisher, broker and daemon share the
machine.

    python tools/bench_daemon.py [--messages 100000] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np

from gon_edge.config.file import load_config
from gon_edge.links.publisher import Publisher

RATES = (1000, 2000, 3000, 4000, 6000, 8000, 10000)
BLOCK_S = 4.0
MEMORY_RATE = 2000.0
REPEATS = 3
LIMIT_S = 0.25


def main() -> int:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--messages", type=int, default=100_000, help="messages before memory is read (default: 100000)"
    )
    parser.add_argument("--streams", type=int, default=10, help="streams (default: 10)")
    parser.add_argument("--features", type=int, default=8, help="features of each (default: 8)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gon-edge-bench-") as folder:
        result = run(Path(folder), options.streams, options.features, options.messages)
    if options.json:
        print(json.dumps(result))
    else:
        report(result, options)
    return 0


def configured(folder: Path, more: dict) -> tuple[int, int]:
    """Write what a broker and a daemon need, with more of the daemon's options; return the ports of both."""
    port, web = 18700 + os.getpid() % 200, 18900 + os.getpid() % 200
    (folder / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
    config = {
        "node": "bench",
        "state_dir": str(folder / "state"),
        "mqtt": {"url": f"mqtt://127.0.0.1:{port}"},
        "subscriptions": [{"topic": "telemetry/{stream}", "timestamp": "time"}],
        "http": {"listen": f"127.0.0.1:{web}"},
        **more,
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    return port, web


def run(folder: Path, streams: int, features: int, messages: int) -> dict:
    """Measure with everything in ``folder``."""
    _, web = configured(folder, {"streams": {"defaults": {"warmup_rows": 600, "interval": "1s"}}})
    broker = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    rng = np.random.default_rng(0)
    children = [subprocess.Popen([broker, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL)]
    try:
        command = [sys.executable, "-m", "gon_edge", "run", "--config", str(folder / "config.yaml")]
        with (folder / "log").open("wb") as log:
            children.append(subprocess.Popen(command, stderr=log))
        wait_for(lambda: metrics(web).get("gon_edge_mqtt_connected") == 1.0, 30.0, "the daemon's connection")
        with Publisher(load_config(folder / "config.yaml").mqtt) as publisher:
            feed = Feed(publisher, streams, features, rng)
            at_start = metrics(web)["process_resident_memory_bytes"]
            feed.send(620 * streams, 2000.0)
            wait_for(lambda: feed.scoring(web) == streams, 300.0, "the first models")
            feed.send(messages - feed.sent, MEMORY_RATE)
            wait_for(lambda: accounted(web) == feed.sent, 60.0, "every message")
            after = metrics(web)["process_resident_memory_bytes"]
            counted = feed.sent
            blocks = []
            for rate in RATES:
                runs = [block(feed, web, rate) for _ in range(REPEATS)]
                blocks.append({"rate": rate, "runs": runs})
                if sum(r["sustained"] for r in runs) < REPEATS / 2:
                    break
            wait_for(lambda: accounted(web) == feed.sent, 60.0, "every message")
            page = metrics(web)
        return {
            "blocks": blocks,
            "messages": counted,
            "rss_start_bytes": at_start,
            "rss_bytes": after,
            "messages_in_all": feed.sent,
            "accounted": accounted(web),
            "rss_in_all_bytes": page["process_resident_memory_bytes"],
            "machine": machine(),
        }
    finally:
        for child in reversed(children):
            child.send_signal(signal.SIGTERM)
        for child in children:
            child.wait(10)


def noise(features: int, rng: np.random.Generator) -> np.ndarray:
    """2,000 rows of noise whose columns follow each other."""
    mix = rng.normal(size=(features, features))
    return rng.normal(size=(2000, features)) @ mix + 20.0


class Feed:
    """Rows of correlated noise, one JSON object each, to each stream in turn."""

    def __init__(self, publisher: Publisher, streams: int, features: int, rng: np.random.Generator) -> None:
        self.sent = 0
        self._publisher = publisher
        self._streams = streams
        self._bodies = [
            json.dumps({f"sensor{f}": round(v, 4) for f, v in enumerate(row)})[1:]
            for row in noise(features, rng).tolist()
        ]

    def send(self, count: int, rate: float) -> float:
        """Send so many messages; returns the rate that was reached."""
        began = time.monotonic()
        for i in range(count):
            tick, stream = divmod(self.sent, self._streams)
            body = self._bodies[(tick + 7 * stream) % len(self._bodies)]
            self._publisher.send(f"telemetry/s{stream}", f'{{"time": {1_700_000_000 + tick}, {body}'.encode())
            self.sent += 1
            if i % 20 == 0:
                self._publisher.wait_until(began + i / rate)
        self._publisher.drain()
        return count / (time.monotonic() - began)

    def rest(self, seconds: float) -> None:
        """Send nothing for a while, and keep the connection."""
        self._publisher.wait_until(time.monotonic() + seconds)

    def scoring(self, web: int) -> int:
        """Streams that have a model: where training all of them took more than a minute, the first are stale by now."""
        return sum(name.startswith("gon_edge_model_info{") for name in metrics(web))


def block(feed: Feed, web: int, rate: int) -> dict:
    """Send at one rate for a while."""
    before = metrics(web)
    reached = feed.send(int(rate * BLOCK_S), rate)
    time.sleep(1.5)  # the snapshot of the queue is a second old at most
    after = metrics(web)
    name = "gon_edge_messages_total"
    lost = after[f'{name}{{result="dropped"}}'] - before[f'{name}{{result="dropped"}}']
    count = after["gon_edge_scoring_duration_seconds_count"] - before["gon_edge_scoring_duration_seconds_count"]
    scoring = after["gon_edge_scoring_duration_seconds_sum"] - before["gon_edge_scoring_duration_seconds_sum"]
    p99 = quantile(before, after, 0.99)
    return {
        "reached": reached,
        "p50_s": quantile(before, after, 0.5),
        "p99_s": p99,
        "scoring_s": scoring / max(count, 1.0),
        "lost": lost,
        "sustained": p99 < LIMIT_S and not lost and reached > 0.9 * rate,
    }


def quantile(before: dict, after: dict, q: float) -> float:
    """Upper edge of the histogram bucket in which the quantile of ingest-to-verdict lies, seconds."""
    prefix = 'gon_edge_ingest_to_verdict_seconds_bucket{le="'
    counts = {float(k[len(prefix) : -2]): v - before.get(k, 0.0) for k, v in after.items() if k.startswith(prefix)}
    total = counts.get(math.inf, 0.0)
    return min((edge for edge, count in counts.items() if count >= q * total), default=math.inf)


def accounted(web: int) -> float:
    """Messages the daemon has counted, whatever became of them."""
    return sum(count for name, count in metrics(web).items() if name.startswith("gon_edge_messages_total"))


def metrics(web: int) -> dict[str, float]:
    """The daemon's metrics page; empty while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{web}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return {}
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def wait_for(condition, timeout_s: float, what: str) -> None:
    """Poll until true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not come within {timeout_s:g} s")
        time.sleep(0.1)


def machine() -> str:
    """One line about where this ran."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown processor")
    versions = f"Python {sys.version.split()[0]}, numpy {np.__version__}"
    return f"{os.cpu_count()} x {model}, {versions}, load {os.getloadavg()[0]:.1f}"


def report(result: dict, options: argparse.Namespace) -> None:
    """Print for a person."""
    print(f"{options.streams} streams of {options.features} features, {REPEATS} blocks of {BLOCK_S:g} s a rate")
    print(result["machine"])
    print("messages/s asked   reached (min-max)    p50 <=     p99 <= (worst)   scoring a row   lost   sustained")
    best = 0
    for item in result["blocks"]:
        runs = item["runs"]
        reached = [r["reached"] for r in runs]
        good = sum(r["sustained"] for r in runs)
        best = item["rate"] if good > len(runs) / 2 else best
        p50, p99 = (1e3 * max(r[key] for r in runs) for key in ("p50_s", "p99_s"))
        scoring = 1e6 * float(np.median([r["scoring_s"] for r in runs]))
        lost = sum(r["lost"] for r in runs)
        print(
            f"{item['rate']:16d}   {min(reached):7.0f} - {max(reached):<7.0f}  {p50:6.1f} ms     {p99:6.1f} ms"
            f"     {scoring:6.0f} µs   {lost:6.0f}   {good} of {len(runs)}"
        )
    print(f"sustained with p99 below {1e3 * LIMIT_S:.0f} ms: {best} messages/s")
    print(f"accounted for: {result['accounted']:.0f} of {result['messages_in_all']} messages")
    start, end, at_last = (result[key] / (1 << 20) for key in ("rss_start_bytes", "rss_bytes", "rss_in_all_bytes"))
    print(
        f"resident memory of the daemon: {start:.1f} MiB at start, {end:.1f} MiB after {result['messages']} messages "
        f"at {MEMORY_RATE:.0f} a second, {at_last:.1f} MiB after the overload at the end"
    )


if __name__ == "__main__":
    sys.exit(main())
