"""What a fleet on this machine sustains: servers, bridge, workers and simulated devices, all of them on its cores.

Parts, each a fleet of its own, by real servers on loopback:

- ``bridge`` and ``direct``: ``--devices`` devices at one row a second through mosquitto's bridge, and through NATS' own
  MQTT: what became of every row, order, and how late verdicts are.
- ``limit``: by both ways, the most devices whose verdicts come within a second (99 of 100, after the start).
- ``workers``: the same backlog worked off by 1, 2 and 4 workers, and their ratio.
- ``memory``: a worker with 1,000 streams; what it writes to JetStream of each device and day.
- ``takeover``: a worker killed among two, and how long its partitions stand still.

    python tools/bench_fleet.py [--devices 5000] [--seconds 60] [--parts limit,bridge,direct,workers] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from fleet_rig import Run, in_order, quantiles, running, since, sync

from gon_edge.config.fleet import FleetConfig
from gon_edge.fleet.site import SiteSettings

PARTS = ("limit", "bridge", "direct", "workers", "memory", "takeover")
START_S = 10.0
"""Streams are opened, and windows fill, in the first seconds: what comes after is told apart.  Not critical."""

WITHIN_S = 1.0  # what is asked for
TRIALS, TRIAL_S, FIRST_DEVICES = 6, 20.0, 3000
SAVE_EVERY_S = FleetConfig().save_every_s  # as a site has it
BACKLOG_DEVICES, BACKLOG_ROWS = 500, 60
MEMORY_STREAMS, MEMORY_S = 1000, 90.0
TAKEOVER_DEVICES = 500


def main() -> int:
    """Run the parts and print what they come to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=5000, help="of bridge and direct (default: 5000)")
    parser.add_argument("--workers", type=int, default=2, help="of bridge and direct (default: 2)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of bridge and direct (default: 60)")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, with commas (default: all)")
    parser.add_argument("--quick", action="store_true", help="a tenth of devices; of limit, fewer and shorter trials")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    chosen = options.parts.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    found: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory(prefix="gon-edge-bench-fleet-") as folder:
        for part in chosen:
            found[part] = sync(run(part, Path(folder) / part, options))
            if not options.json:
                print(f"{part}\n{text(found[part])}", flush=True)
    if options.json:
        print(json.dumps(found))
    return 0


async def run(part: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one part."""
    share = 10 if options.quick else 1
    if part == "workers":
        return await workers(folder, BACKLOG_DEVICES // share)
    if part == "memory":
        return await memory(folder, MEMORY_STREAMS // share, MEMORY_S / share)
    if part == "takeover":
        return await takeover(folder, TAKEOVER_DEVICES // share)
    if part == "limit":
        return await limit(folder, options.workers, TRIALS // 2 if options.quick else TRIALS)
    settings = SiteSettings(direct=part == "direct", save_every_s=SAVE_EVERY_S)
    return await through(folder, settings, options.devices // share, options.workers, options.seconds)


async def limit(folder: Path, workers: int, trials: int) -> dict[str, Any]:
    """Halve the stretch between what was carried and what was not, by both ways."""
    found: dict[str, Any] = {}
    for way in ("bridge", "direct"):
        most, devices, too_many = 0, FIRST_DEVICES, 0
        for number in range(trials):
            seconds = TRIAL_S * trials / TRIALS
            trial = await carried(folder / f"{way}-{number}", way == "direct", devices, workers, seconds)
            found[f"{way}_{devices}"] = trial
            if trial["p99_s"] is not None and trial["p99_s"] < WITHIN_S and trial["behind"] < devices * WITHIN_S:
                most = max(most, devices)
            else:
                too_many = devices
            devices = 100 * round((most + too_many) / 200 if too_many else 1.5 * devices / 100)
        found[f"{way}_carries"] = most
    return found


async def carried(folder: Path, direct: bool, devices: int, workers: int, seconds: float) -> dict[str, Any]:
    """How verdicts of so many devices keep up, after their start."""
    async with running(folder, SiteSettings(direct=direct, save_every_s=SAVE_EVERY_S)) as run:
        await run.workers(workers)
        sending = run.site.add_devices(devices)
        await run.watch(START_S)
        before, busy, sent = run.latency(), cores(run), sending.said["sent"]
        await run.watch(seconds)
        used = sum(cores(run).values()) - sum(busy.values())
        return {
            **quantiles(since(run.latency(), before)),
            "rows_a_second": round((sending.said["sent"] - sent) / seconds),
            "behind": run.looks[-1].lag,
            "cores": round(used / seconds, 2),
        }


async def through(folder: Path, settings: SiteSettings, devices: int, workers: int, seconds: float) -> dict[str, Any]:
    """Devices in real time: every row, in order, and how late."""
    async with running(folder, settings) as run:
        await run.workers(workers)
        sending = run.site.add_devices(devices)
        await run.watch(START_S)
        run.started, began, busy = run.latency(), time.monotonic(), cores(run)
        await run.watch(seconds)
        passed = time.monotonic() - began
        shares = {name: round((now - busy[name]) / passed, 2) for name, now in cores(run).items()}
        lag = run.looks[-1].lag
        found = await run.account(sending)
        wrong, messages = await in_order(run.fleet, devices)
        return {
            "devices": devices,
            "workers": workers,
            "seconds": round(seconds),
            "sent_a_second": round(found["sent"] / (seconds + START_S)),
            "behind_at_the_end": lag,
            **found,
            "messages": messages,
            "out_of_order": wrong,
            "cores": shares,
        }


async def workers(folder: Path, devices: int) -> dict[str, Any]:
    """The same backlog for 1, 2 and 4 workers, in one run."""
    found: dict[str, Any] = {"devices": devices, "rows": devices * BACKLOG_ROWS}
    for count in (1, 2, 4):
        async with running(folder / str(count), SiteSettings(direct=True, save_every_s=SAVE_EVERY_S)) as run:
            await run.fleet.create()
            sending = run.site.add_devices(devices, rows=BACKLOG_ROWS, pace=1000.0)
            while not sending.done:
                await asyncio.sleep(0.1)
            await run.until(lambda look: look.lag >= found["rows"], 120.0, "the backlog")
            run.site.add_workers(count)
            await run.until(lambda look: look.lag < found["rows"] - 100, 120.0, "the first row")
            began, left = time.monotonic(), run.looks[-1].lag
            await run.until(lambda look: look.lag == 0, 600.0, "the last row")
            passed = time.monotonic() - began
            used = sum(each for name, each in cores(run).items() if name.startswith("worker"))
            found[f"rows_a_second_{count}"] = round(left / passed)
            found[f"cpu_ms_a_row_{count}"] = round(1000 * used / found["rows"], 3)
    for count in (2, 4):
        found[f"ratio_{count}"] = round(found[f"rows_a_second_{count}"] / found["rows_a_second_1"], 2)
    return found


async def memory(folder: Path, streams: int, seconds: float) -> dict[str, Any]:
    """One worker with many streams."""
    async with running(folder, SiteSettings(save_every_s=SAVE_EVERY_S)) as run:
        await run.workers(1)
        empty = run.looks[-1].workers[0].memory_bytes
        sending = run.site.add_devices(streams)
        await run.until(lambda look: look.streams == streams, 240.0, "the streams")
        await run.watch(seconds / 2)
        written, began = run.series("gon_edge_fleet_states_saved_bytes_total"), time.monotonic()
        await run.watch(seconds)
        passed = time.monotonic() - began
        written = run.series("gon_edge_fleet_states_saved_bytes_total") - written
        full = max(look.workers[0].memory_bytes for look in run.looks if look.workers)
        await run.account(sending)
        kept = {each.name: each.bytes for each in run.looks[-1].kept}
        return {
            "streams": streams,
            "mib_empty": round(empty / 2**20, 1),
            "mib": round(full / 2**20, 1),
            "kib_a_stream": round((full - empty) / streams / 1024, 1),
            "state_mib_a_device_and_day": round(86400 * written / passed / streams / 2**20, 2),
            "state_kib_kept_a_device": round(kept["KV_fleet-states"] / streams / 1024, 2),
            "telemetry_bytes_a_row": round(kept["fleet-telemetry"] / max(1, sending.said["sent"])),
        }


async def takeover(folder: Path, devices: int) -> dict[str, Any]:
    """A worker killed in full work."""
    async with running(folder, SiteSettings(takeover_s=3.0, save_every_s=SAVE_EVERY_S)) as run:
        await run.workers(2)
        sending = run.site.add_devices(devices)
        await run.watch(20.0)
        victim = max(run.looks[-1].workers, key=lambda worker: len(worker.partitions))
        run.unscored.longest_s = 0.0
        run.site.workers[victim.name].kill()
        await run.watch(25.0)
        seconds = run.series("gon_edge_fleet_takeover_seconds")
        again = run.series("gon_edge_fleet_redelivered_total")
        read = run.series("gon_edge_fleet_states_read_bytes_total")
        row = next(each.bytes / max(1, each.messages) for each in run.looks[-1].kept if each.name == "fleet-telemetry")
        found = await run.account(sending)
        return {
            "devices": devices,
            "takeover": "3s",
            "partitions_of_the_dead": len(victim.partitions),
            "newest_takeover_s": round(seconds, 2),
            "streams_taken_over": round(devices * len(victim.partitions) / run.site.settings.partitions),
            "messages_judged_again": round(again),
            "kib_read_of_states": round(read / 1024),
            "kib_read_of_messages": round(again * row / 1024),
            **found,
        }


def cores(run: Run) -> dict[str, float]:
    """Processor time of every process of a fleet, seconds."""
    site = run.site
    servers = [*site.nats, *([site.mosquitto] if site.mosquitto else []), *site.workers.values()]
    found = {each.name: process_seconds(each.process_id) for each in servers if each.process_id is not None}
    return {**found, "devices": process_seconds(site.devices.process_id if site.devices else None)}


def process_seconds(pid: int | None) -> float:
    """Processor time of a process, seconds."""
    if pid is None:
        return 0.0
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def machine() -> dict[str, Any]:
    """Where this ran, and how busy it was."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return {"processor": model, "cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 1)}


def text(found: dict[str, Any]) -> str:
    """Lines for a person."""
    width = max(map(len, found))
    return "".join(f"  {name:{width}}  {value}\n" for name, value in found.items())


if __name__ == "__main__":
    raise SystemExit(main())
