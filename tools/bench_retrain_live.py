"""What training costs the stream that is scored meanwhile: rows lost, and how late its verdicts are.

Starts a real mosquitto and a real daemon, sends ``--history`` rows of one stream for the model to learn from, then 50
rows a second: ``--seconds`` of them while nothing else happens, and as many while ``gon-edge retrain`` runs again and
again, at the priority and share of the processor that the configuration gives it.  Quantiles are estimated from the
daemon's own histogram, as Prometheus does.

    python tools/bench_retrain_live.py [--seconds 60] [--cpu-share 1] [--json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from bench_daemon import accounted, machine, metrics, wait_for

from gon_edge.config.file import parse_config
from gon_edge.links.client import histogram_quantile
from gon_edge.links.publisher import Publisher

RATE = 50.0
LIMIT = 4.0
"""The 99th percentile may be so many times the one without a training."""

_SERIES = "gon_edge_ingest_to_verdict_seconds"


def main() -> int:
    """Run the benchmark and print it; the exit status is 1 when a row was lost or verdicts came too late."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each part (default: 60)")
    parser.add_argument("--history", type=int, default=20_000, help="rows to learn from (default: 20000)")
    parser.add_argument("--features", type=int, default=8, help="features of the stream (default: 8)")
    parser.add_argument("--cpu-share", type=float, default=1.0, help="retrain.cpu_share (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gon-edge-bench-") as folder:
        result = run(Path(folder), options)
    if options.json:
        print(json.dumps(result))
    else:
        report(result)
    return int(result["lost"] > 0 or result["ratio"] > LIMIT)


def run(folder: Path, options: argparse.Namespace) -> dict:
    """Measure with everything in ``folder``."""
    port, web = 19100, 19101
    (folder / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
    config = {
        "node": "bench",
        "state_dir": str(folder / "state"),
        "mqtt": {"url": f"mqtt://127.0.0.1:{port}"},
        "subscriptions": [{"topic": "telemetry/{stream}", "timestamp": "time"}],
        "http": {"listen": f"127.0.0.1:{web}"},
        "retrain": {"every": "off", "cpu_share": options.cpu_share, "max_temperature": "off"},
        "streams": {"defaults": {"warmup_rows": 600, "interval": "20ms"}},
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    broker = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(options.features, options.features))
    values = (rng.normal(size=(5000, options.features)) @ mix + 20.0).round(4).tolist()
    bodies = [json.dumps({f"sensor{f}": v for f, v in enumerate(row)})[1:] for row in values]
    children = [subprocess.Popen([broker, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL)]
    sent = 0

    def send(publisher: Publisher, count: int, rate: float) -> None:
        nonlocal sent
        began = time.monotonic()
        for i in range(count):
            stamp = 1_700_000_000.0 + sent / RATE
            publisher.send("telemetry/live", f'{{"time": {stamp:.2f}, {bodies[sent % len(bodies)]}'.encode())
            sent += 1
            publisher.wait_until(began + i / rate)
        publisher.drain()

    rounds: list[dict] = []

    def train(until: float) -> None:
        command = [sys.executable, "-m", "gon_edge", "retrain", "live", "--force", "--json", "--config", str(path)]
        while time.monotonic() < until:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rounds.extend(json.loads(done.stdout))

    try:
        with (folder / "log").open("wb") as log:
            command = [sys.executable, "-m", "gon_edge", "run", "--config", str(path)]
            children.append(subprocess.Popen(command, stderr=log))
        wait_for(lambda: metrics(web).get("gon_edge_mqtt_connected") == 1.0, 30.0, "the daemon's connection")
        with Publisher(parse_config(config).mqtt) as publisher:
            send(publisher, options.history, 2000.0)
            scoring = 'gon_edge_stream_state{state="scoring",stream="live"}'
            wait_for(lambda: metrics(web).get(scoring) == 1.0, 300.0, "the first model")
            wait_for(lambda: judged(web) >= sent - 1, 60.0, "every row of the past")
            pages = [metrics(web)]
            for part in ("idle", "training"):
                trainer = None
                if part == "training":
                    until = time.monotonic() + options.seconds - 5.0
                    trainer = threading.Thread(target=train, args=(until,))
                    trainer.start()
                send(publisher, int(options.seconds * RATE), RATE)
                wait_for(lambda: judged(web) >= sent - 1, 60.0, "every row")
                pages.append(metrics(web))
                if trainer is not None:
                    trainer.join()
        idle, training = (times(before, after) for before, after in itertools.pairwise(pages))
        return {
            "rows": sent,
            "lost": sent - accounted(web) + metrics(web).get('gon_edge_messages_total{result="dropped"}', 0.0),
            "judged": judged(web),
            "idle": idle,
            "training": training,
            "ratio": training["p99_s"] / idle["p99_s"],
            "rounds": len(rounds),
            "round_s": [round(r["duration_s"], 1) for r in rounds],
            "peak_bytes": max(r["peak_bytes"] for r in rounds),
            "rss_bytes": metrics(web)["process_resident_memory_bytes"],
            "machine": machine(),
        }
    finally:
        for child in reversed(children):
            child.send_signal(signal.SIGTERM)
        for child in children:
            child.wait(10)


def judged(web: int) -> float:
    """Rows of the stream that have been made; the last one waits for the next to be due."""
    return metrics(web).get('gon_edge_rows_total{stream="live"}', 0.0)


def times(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Quantiles of the time from a message to its verdict, between two metrics pages."""
    prefix = f'{_SERIES}_bucket{{le="'
    counts = {float(k[len(prefix) : -2]): v - before.get(k, 0.0) for k, v in after.items() if k.startswith(prefix)}
    found = {f"p{100 * q:g}_s": histogram_quantile(counts, q) or float("nan") for q in (0.5, 0.99)}
    return {**found, "rows": counts[float("inf")]}


def report(result: dict) -> None:
    """Print for a person."""
    print(result["machine"])
    for part in ("idle", "training"):
        seen = result[part]
        print(
            f"{part:>9}: {seen['rows']:.0f} rows at {RATE:.0f} a second, message to verdict: median "
            f"{1e3 * seen['p50_s']:.2f} ms, p99 {1e3 * seen['p99_s']:.2f} ms"
        )
    print(f"p99 while training is {result['ratio']:.2f} times the one without; {LIMIT:.0f} is the limit")
    print(f"{result['lost']:.0f} of {result['rows']} messages lost, {result['judged']:.0f} rows judged")
    peak, own = (result[key] / (1 << 20) for key in ("peak_bytes", "rss_bytes"))
    print(
        f"{result['rounds']} trainings of {result['round_s']} s, {peak:.1f} MiB at most; the daemon holds {own:.1f} MiB"
    )


if __name__ == "__main__":
    sys.exit(main())
