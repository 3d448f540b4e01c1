"""What many streams cost one daemon: processor and memory, with 100, 300 and 1,000 of them, each of 8 features at 1 Hz.

Starts a real mosquitto and a real daemon with a model for each stream, sends for ``--seconds`` and reads the daemon's
resident memory, and the processor time that the second half of the rows took.  Publisher, broker and daemon share the
machine.

    python tools/bench_streams.py [--streams 100 300 1000] [--seconds 40] [--json]
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_daemon import Feed, configured, machine, metrics, noise, wait_for

from gon_edge.config.file import load_config
from gon_edge.links.publisher import Publisher
from gon_edge.state.folder import ModelFolder
from gon_edge.training.fit import fit_model

FEATURES = 8


def main() -> int:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[100, 300, 1000], help="default: 100 300 1000")
    parser.add_argument("--seconds", type=int, default=40, help="of rows a second (default: 40)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    results = []
    for streams in options.streams:
        with tempfile.TemporaryDirectory(prefix="gon-edge-bench-") as folder:
            results.append(run(Path(folder), streams, options.seconds))
    if options.json:
        print(json.dumps({"machine": machine(), "fleets": results}))
    else:
        report(results)
    return 0


def run(folder: Path, streams: int, seconds: int) -> dict:
    """Measure with everything in ``folder``."""
    more = {"limits": {"streams": streams}, "streams": {"defaults": {"interval": "1s"}}}
    port, web = configured(folder, more)
    broker = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    children = [subprocess.Popen([broker, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL)]
    try:
        wait_for(lambda: listens(port), 10.0, "the broker")
        learn(folder / "state", streams)
        began = time.monotonic()
        command = [sys.executable, "-m", "gon_edge", "run", "--config", str(folder / "config.yaml")]
        with (folder / "log").open("wb") as log:
            children.append(subprocess.Popen(command, stderr=log))
        wait_for(lambda: metrics(web).get("gon_edge_mqtt_connected") == 1.0, 300.0, "the daemon's connection")
        ready_s = time.monotonic() - began
        with Publisher(load_config(folder / "config.yaml").mqtt) as publisher:
            feed = Feed(publisher, streams, FEATURES, np.random.default_rng(0))
            at_start = page(web)
            feed.send(streams * (seconds - seconds // 2), streams)
            before = settled(web, feed)
            feed.send(streams * (seconds // 2), streams)
            after = settled(web, feed)
        cpu = "process_cpu_seconds_total"
        return {
            "streams": streams,
            "ready_s": ready_s,
            "cpu": (after[cpu] - before[cpu]) / (seconds // 2),
            "rss_start_bytes": at_start["process_resident_memory_bytes"],
            "rss_bytes": after["process_resident_memory_bytes"],
            "accounted": counted(after),
            "sent": feed.sent,
        }
    finally:
        for child in reversed(children):
            child.send_signal(signal.SIGTERM)
        for child in children:
            child.wait(30)


def settled(web: int, feed: Feed) -> dict[str, float]:
    """The metrics once every message is accounted for; asked seldom, as a page of a thousand streams has its price."""
    while counted(found := page(web)) < feed.sent:
        feed.rest(3.0)
    return found


def counted(found: dict[str, float]) -> float:
    """Messages of a page, whatever became of them."""
    return sum(count for name, count in found.items() if name.startswith("gon_edge_messages_total"))


def page(web: int) -> dict[str, float]:
    """The daemon's metrics, which it may take a while to write on a busy machine."""
    while not (found := metrics(web)):
        time.sleep(0.1)
    return found


def listens(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def learn(state: Path, streams: int) -> None:
    """Put a model of what is sent in use for each stream."""
    names = [f"sensor{f}" for f in range(FEATURES)]
    rng = np.random.default_rng(0)
    model = fit_model(noise(FEATURES, rng), features=names, rng=rng)
    folder = ModelFolder(state)
    for stream in range(streams):
        folder.install(f"s{stream}", model.with_lineage(version="1", trained_at=time.time()))


def report(results: list[dict]) -> None:
    """Print for a person."""
    print(f"streams of {FEATURES} features, a row a second each")
    print(machine())
    print("streams   of a core   resident: at start   at the end   a stream   ready after   accounted for")
    for r in results:
        start, end = (r[key] / (1 << 20) for key in ("rss_start_bytes", "rss_bytes"))
        each = (r["rss_bytes"] - results[0]["rss_bytes"]) / max(r["streams"] - results[0]["streams"], 1) / 1024
        shown = f"{each:6.0f} KiB" if r is not results[0] else " " * 10
        print(
            f"{r['streams']:7d}   {100 * r['cpu']:7.1f} %      {start:7.1f} MiB   {end:7.1f} MiB {shown}"
            f"   {r['ready_s']:8.1f} s   {r['accounted']:.0f} of {r['sent']}"
        )
    if len(results) > 2:
        for what, key, unit, by in (("resident", "rss_bytes", "KiB", 1024), ("of a core", "cpu", "%", 0.01)):
            print(linear(what, [r["streams"] for r in results], [r[key] / by for r in results], unit))


def linear(what: str, streams: list[int], costs: list[float], unit: str) -> str:
    """Say whether a cost is linear in streams: by the line through all of them, and how far they are from it."""
    each, fixed = np.polyfit(streams, costs, 1)
    off = np.abs(np.array(costs) / (fixed + each * np.array(streams)) - 1.0).max()
    return f"{what}: {fixed:.3g} {unit} + {each:.3g} {unit} a stream; no measurement is more than {100 * off:.0f} % off"


if __name__ == "__main__":
    sys.exit(main())
