"""How long people wait: for a command, for a daemon that has been restarted, for the models of many streams at once.

Three parts, each with real processes:

- ``commands``: ``gon-edge version``, its help and the script for completion, and Python alone beside them.
- ``restart``: a daemon with ``--stored`` streams, each with a model and ``--rows`` rows, from its start to READY=1 on
  the service manager's socket, and to the first row that is scored.
- ``warm-up``: ``--streams`` streams that have their rows at the same time, from the last row to the last model.

    python tools/bench_start.py [commands] [restart] [warm-up] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from bench_daemon import Feed, machine, metrics, wait_for

from gon_edge.config.file import parse_config
from gon_edge.events import Row
from gon_edge.links.publisher import Publisher
from gon_edge.model.file import Model
from gon_edge.state.database import DATABASE
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store
from gon_edge.training.fit import fit_model

PARTS = ("commands", "restart", "warm-up")
RUNS = 20  # of each command
LONGEST_S = 600.0


def main() -> int:
    """Run the parts and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    # No choices: Python 3.11 checks the empty list by them, too.
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--stored", type=int, default=500, help="streams of the restart (default: 500)")
    parser.add_argument("--rows", type=int, default=2000, help="stored rows of each (default: 2000)")
    parser.add_argument("--streams", type=int, default=50, help="streams of the warm-up (default: 50)")
    parser.add_argument("--features", type=int, default=8, help="of each stream (default: 8)")
    parser.add_argument("--processes", default="auto", help="retrain.processes (default: auto)")
    parser.add_argument("--nice", type=int, default=19, help="retrain.nice; 0 beside other work (default: 19)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    parts = options.parts or PARTS
    result: dict = {"machine": machine()}
    retrain = {"nice": options.nice} | ({} if options.processes == "auto" else {"processes": int(options.processes)})
    with tempfile.TemporaryDirectory(prefix="gon-edge-bench-") as folder:
        if "commands" in parts:
            result["commands"] = commands()
        if "restart" in parts:
            result["restart"] = restart(Path(folder) / "restart", options.stored, options.features, options.rows)
        if "warm-up" in parts:
            result["warm-up"] = warm_up(Path(folder) / "warm-up", options.streams, options.features, retrain)
    if options.json:
        print(json.dumps(result))
    else:
        report(result)
    return 0


# -- commands ----------------------------------------------------------------------------------------------------------


def commands() -> dict[str, list[float]]:
    """Processor seconds of each command, the quickest run first."""
    words = {
        "python -c pass": ["-c", "pass"],
        "gon-edge version": ["-m", "gon_edge", "version"],
        "gon-edge --help": ["-m", "gon_edge", "--help"],
        "gon-edge completion bash": ["-m", "gon_edge", "completion", "bash"],
    }
    times: dict[str, list[float]] = {name: [] for name in words}
    for _ in range(RUNS):  # in turn, so that what else the machine does meets all of them
        for name, arguments in words.items():
            with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL) as process:
                _, _, used = os.wait4(process.pid, 0)
                process.returncode = 0
            times[name].append(used.ru_utime + used.ru_stime)
    return {name: sorted(taken) for name, taken in times.items()}


# -- a restart ---------------------------------------------------------------------------------------------------------


def restart(folder: Path, streams: int, features: int, rows: int) -> dict:
    """Seconds from the start of the daemon to READY=1, and to the first row that is scored."""
    folder.mkdir()
    config, _, web = configured(folder)
    fill(Path(config["state_dir"]), streams, features, rows)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, broker(folder):
        notified.bind(str(folder / "notify"))
        notified.settimeout(LONGEST_S)
        began = time.monotonic()
        with daemon(folder, NOTIFY_SOCKET=str(folder / "notify")) as process:
            while b"READY=1" not in notified.recv(4096):
                pass
            ready_s = time.monotonic() - began
            with Publisher(parse_config(config).mqtt) as publisher:
                values = {f"sensor{f}": 20.0 for f in range(features)}
                stamp = NEWEST + 1.0
                while metrics(web).get("gon_edge_scoring_duration_seconds_count", 0.0) == 0.0:
                    publisher.send("telemetry/s0", json.dumps({"time": stamp, **values}).encode())
                    publisher.drain()
                    stamp += 1.0
                    if time.monotonic() - began > LONGEST_S:
                        raise SystemExit("no row was scored")
                    time.sleep(0.05)
            scored_s = time.monotonic() - began
            cpu_s, _ = processor_s(process.pid)
            held = metrics(web)["process_resident_memory_bytes"]
    return {
        "streams": streams,
        "rows": rows,
        "ready_s": ready_s,
        "scored_s": scored_s,
        "cpu_s": cpu_s,
        "rss_bytes": held,
        "database_bytes": (Path(config["state_dir"]) / DATABASE).stat().st_size,
    }


NEWEST = float(round(time.time()))


def fill(state_dir: Path, streams: int, features: int, rows: int) -> None:
    """A state directory as a daemon leaves it: rows of the newest time at 1 Hz, and one model under every name."""
    rng, names = np.random.default_rng(0), tuple(f"sensor{f}" for f in range(features))
    mix = rng.normal(size=(features, features))
    fresh = np.zeros(features, np.bool_)
    model: Model | None = None
    models = ModelFolder(state_dir)
    with Store.open(state_dir, max_bytes=2 << 30) as store:
        for number in range(streams):
            values = (rng.normal(size=(rows, features)) @ mix + 20.0).round(4).astype(np.float32)
            for at, row in enumerate(values):
                moment = NEWEST - rows + at + 1.0
                store.add_row(Row(f"s{number}", moment, names, row, fresh, at == 0), False, now=0.0)
            if model is None:
                model = fit_model(values[:600], features=names, rng=rng)
            lineage = {"version": "1", "stream": f"s{number}", "trained_at": NEWEST - rows, "rows": 600}
            models.install(f"s{number}", model.with_lineage(**lineage))
            store.flush(0.0, f"s{number}")


# -- the first models --------------------------------------------------------------------------------------------------


def warm_up(folder: Path, streams: int, features: int, retrain: dict[str, int]) -> dict:
    """Seconds from the last row of the warm-ups to the last model."""
    folder.mkdir()
    config, path, web = configured(folder)
    path.write_text(json.dumps({**config, "retrain": retrain}))
    with broker(folder), daemon(folder) as process, Publisher(parse_config(config).mqtt) as publisher:
        wait_for(lambda: metrics(web).get("gon_edge_mqtt_connected") == 1.0, 30.0, "the daemon's connection")
        feed = Feed(publisher, streams, features, np.random.default_rng(0))
        feed.send(600 * streams - streams, 3000.0)
        wait_for(lambda: metrics(web).get("gon_edge_mqtt_queue_length", 0.0) == 0.0, 60.0, "the warm-ups")
        feed.send(2 * streams, 3000.0)  # the last row of the warm-up, and the one that ends it
        began = time.monotonic()
        first_s = 0.0
        while (scoring := feed.scoring(web)) < streams:
            first_s = first_s or (time.monotonic() - began if scoring else 0.0)
            if time.monotonic() - began > LONGEST_S:
                raise SystemExit(f"{scoring} of {streams} streams had a model after {LONGEST_S:g} s")
            time.sleep(0.1)
        last_s = time.monotonic() - began
        time.sleep(1.0)  # for the last of its children to be waited for
        _, cpu_s = processor_s(process.pid)
    return {"streams": streams, "first_s": first_s, "last_s": last_s, "trainings_cpu_s": cpu_s, "retrain": retrain}


# -- processes ---------------------------------------------------------------------------------------------------------


def configured(folder: Path) -> tuple[dict, Path, int]:
    """A configuration of everything in ``folder``, its file, and the port of its page."""
    port, web = 18700 + os.getpid() % 200, 18900 + os.getpid() % 200
    (folder / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
    config = {
        "node": "bench",
        "state_dir": str(folder / "state"),
        "mqtt": {"url": f"mqtt://127.0.0.1:{port}"},
        "subscriptions": [{"topic": "telemetry/{stream}", "timestamp": "time"}],
        "limits": {"streams": 1000},
        "http": {"listen": f"127.0.0.1:{web}"},
        "streams": {"defaults": {"warmup_rows": 600, "interval": "1s"}},
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    return config, folder / "config.yaml", web


@contextmanager
def broker(folder: Path) -> Iterator[None]:
    """A mosquitto."""
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    with ended(subprocess.Popen([program, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL)):
        time.sleep(0.2)  # it listens
        yield


@contextmanager
def daemon(folder: Path, **environment: str) -> Iterator[subprocess.Popen]:
    """A gon-edge."""
    command = [sys.executable, "-m", "gon_edge", "run", "--config", str(folder / "config.yaml")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env={**os.environ, **environment})
    with ended(process):
        yield process


def processor_s(pid: int) -> tuple[float, float]:
    """Processor time of a process, and of those of its children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # proc(5), from the third on
    own_user, own_system, user, system = (int(field) / os.sysconf("SC_CLK_TCK") for field in fields[11:15])
    return own_user + own_system, user + system


@contextmanager
def ended(process: subprocess.Popen) -> Iterator[None]:
    """End it at the end."""
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def report(result: dict) -> None:
    """Print for a person."""
    print(result["machine"])
    for name, times in result.get("commands", {}).items():
        median = times[len(times) // 2]
        print(f"{name:>26}: {1e3 * median:.0f} ms of processor time, {1e3 * times[0]:.0f} at least, {len(times)} runs")
    if "restart" in result:
        found = result["restart"]
        print(
            f"restart with {found['streams']} streams of {found['rows']} rows ({found['database_bytes'] >> 20} MiB): "
            f"ready after {found['ready_s']:.1f} s, first row scored after {found['scored_s']:.1f} s, "
            f"{found['cpu_s']:.1f} s of processor time, {found['rss_bytes'] / (1 << 20):.0f} MiB"
        )
    if "warm-up" in result:
        found = result["warm-up"]
        print(
            f"{found['streams']} streams that warm up together, {found['retrain']}: first model after "
            f"{found['first_s']:.1f} s, last after {found['last_s']:.1f} s; a training takes "
            f"{found['trainings_cpu_s'] / found['streams']:.2f} s of processor time"
        )


if __name__ == "__main__":
    sys.exit(main())
