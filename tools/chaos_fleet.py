"""What survives when a fleet breaks: each kind of failure for real, and what became of every row and alert.

Each scenario is a fleet of its own on loopback; its devices publish throughout, and one in a hundred of them wears out,
so that there are alerts to lose or to tell twice:

- ``kill``: a worker is killed with -9 in the middle of its windows.
- ``freeze``: a worker stands still for a while, loses its partitions, wakes, and must not write what it had in mind.
- ``nats``: the only NATS server is killed and comes back.
- ``one-of-three``: of three servers that keep everything three times, the one that leads the telemetry is killed.
- ``bridge``: NATS stands still for mosquitto's bridge, which keeps what devices say and hands it on later.
- ``disk``: the disk of the NATS server is full for a while (root only: a small file system of its own).

A scenario fails when an acknowledged row is lost or has two verdicts, when an event is told twice, when alerts are not
those of a single daemon that reads the same messages, or when a partition goes without a verdict for more than two
windows beyond the outage itself.  The exit status is the number of failures.

    python tools/chaos_fleet.py [--scenarios kill,freeze] [--devices 100] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from fleet_rig import Run, running, sync
from prometheus_client import CollectorRegistry

from gon_edge.config.file import parse_config
from gon_edge.daemon.orders import Machine
from gon_edge.daemon.scoring import Scoring
from gon_edge.fleet.judging import TICK_S
from gon_edge.fleet.names import topic_of
from gon_edge.fleet.site import WINDOW, SiteSettings
from gon_edge.links.prometheus import Telemetry
from gon_edge.process.clock import Clock

BEFORE_S, AFTER_S = 45.0, 35.0
"""Before the failure: windows are full, devices have worn out, their alerts are open.  After it: all is well again."""

_LAST_S = 2.0  # after the last message, so that its row is over
OUTAGE_S = 12.0
FROZEN_S = 20.0
FULL_DISK = "24M"


async def kill(run: Run) -> float:
    """A worker dies."""
    run.site.workers[await busiest(run)].kill()
    return 0.0


async def freeze(run: Run) -> float:
    """A worker stands still, and goes on later."""
    name = await busiest(run)
    run.site.workers[name].freeze()
    await run.watch(FROZEN_S)
    run.site.workers[name].wake()
    return 0.0


async def nats(run: Run) -> float:
    """The only server dies, and is started again."""
    run.site.nats[0].kill()
    await run.watch(OUTAGE_S)
    await asyncio.to_thread(run.site.nats[0].start)
    return OUTAGE_S


async def one_of_three(run: Run) -> float:
    """The leader of the telemetry dies, and comes back when another one leads."""
    info = await run.fleet.request(f"STREAM.INFO.{run.fleet.names.telemetry}")
    leader = next(server for server in run.site.nats if server.name == info["cluster"]["leader"])
    leader.kill()
    await run.watch(OUTAGE_S)
    await asyncio.to_thread(leader.start)
    return OUTAGE_S


async def bridge(run: Run) -> float:
    """Mosquitto cannot hand on: the other end does not answer."""
    run.site.nats[0].freeze()
    await run.watch(OUTAGE_S)
    run.site.nats[0].wake()
    return OUTAGE_S


async def disk(run: Run) -> float:
    """The disk of the server fills up with something else, and is cleared."""
    filler = run.site.settings.store_dir.parent / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 65536)
            file.flush()
    await run.watch(OUTAGE_S)
    filler.unlink()
    # JetStream turns itself off when it cannot write; a start is what its documentation asks for.
    await asyncio.to_thread(run.site.nats[0].stop)
    await asyncio.to_thread(run.site.nats[0].start)
    return OUTAGE_S


SCENARIOS: dict[str, Callable[[Run], Awaitable[float]]] = {
    "kill": kill,
    "freeze": freeze,
    "nats": nats,
    "one-of-three": one_of_three,
    "bridge": bridge,
    "disk": disk,
}


async def busiest(run: Run) -> str:
    """Name of the worker that owns most."""
    look = await run.until(lambda look: bool(look.workers), 30.0, "a worker")
    return max(look.workers, key=lambda worker: len(worker.partitions)).name


async def scenario(name: str, folder: Path, devices: int) -> dict[str, Any]:
    """Run one; return what came of it, with the reasons why it failed."""
    settings = SiteSettings(servers=3 if name == "one-of-three" else 1, takeover_s=3.0, save_every_s=5.0)
    with contextlib.ExitStack() as stack:
        if name == "disk":
            small = stack.enter_context(small_disk(folder.with_name("small")))
            settings = SiteSettings(takeover_s=3.0, save_every_s=5.0, store_dir=small / "store")
        async with running(folder, settings) as run:
            await run.workers(2)
            sending = run.site.add_devices(devices)
            await run.watch(BEFORE_S / 2)
            sending.break_some()
            await run.watch(BEFORE_S / 2)
            run.unscored.longest_s = 0.0
            began = time.monotonic()
            outage_s = await SCENARIOS[name](run)
            await run.watch(AFTER_S)
            found = await run.account(sending)
            expected = await of_a_single_daemon(run, folder / "single")
            told = {(event["stream"], event["kind"]) for event in run.eye.told.events if event["type"] == "new"}
            refused = run.series("gon_edge_fleet_writes_refused_total")
    reasons = []
    if found["lost"]:
        reasons.append(f"{found['lost']} acknowledged rows have no verdict")
    if found["doubled"]:
        reasons.append(f"{found['doubled']} verdicts too many")
    if found["alerts_repeated"]:
        reasons.append(f"{found['alerts_repeated']} events were told twice")
    if told != expected:
        reasons.append(f"alerts {sorted(told)}, of a single daemon {sorted(expected)}")
    if found["longest_unscored_s"] > outage_s + 2 * WINDOW:
        reasons.append(f"a partition stood still for {found['longest_unscored_s']} s")
    return {**found, "writes_refused": refused, "seconds": round(time.monotonic() - began), "failed": reasons}


async def of_a_single_daemon(run: Run, folder: Path) -> set[tuple[str, str]]:
    """Alerts that one daemon raises of all messages in the telemetry stream: stream and kind of each."""
    config = run.site.config()
    alone = {key: config[key] for key in ("mqtt", "subscriptions", "limits", "streams")}
    settings = parse_config({**alone, "state_dir": str(folder), "node": "single", "http": {"listen": "off"}})
    events: list[dict[str, Any]] = []
    now = [0.0]
    clock = Clock(monotonic=lambda: now[0], wall=lambda: now[0])
    scoring = Scoring(settings, Telemetry(CollectorRegistry(), version="0"), _Sent(events), Machine(clock))
    names = run.fleet.names
    info = await run.fleet.request(f"STREAM.INFO.{names.telemetry}")
    try:
        async for message in run.fleet.read(
            names.telemetry, f"{names.prefix}.*.telemetry.>", 1, info["state"]["last_seq"]
        ):
            if not now[0]:
                now[0] = message.at
                scoring.pipeline.offset_s = 0.0
                scoring.resume()
            while now[0] + TICK_S < message.at:
                now[0] += TICK_S
                deque(scoring.pass_time(now[0]), 0)
            now[0] = message.at
            scoring.take(topic_of(message.subject.split(".", 2)[2]), message.data, message.at)
        now[0] += _LAST_S
        deque(scoring.pass_time(now[0]), 0)
    finally:
        scoring.store.close()
    return {(event["stream"], event["kind"]) for event in events if event["type"] == "new"}


class _Sent:
    """A broker that remembers what is published."""

    client_id = "single"

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self._events = events

    def topic(self, *levels: str) -> str:
        """As a broker's."""
        return "/".join(levels)

    def publish(self, topic: str, payload: str, *, retain: bool = False, shorter: str = "") -> None:
        """Remember an event."""
        if not retain and topic == "alert":
            self._events.append(json.loads(payload))


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A small file system; the only thing here that takes root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={FULL_DISK}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def main() -> int:
    """Run the scenarios and print what came of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="which, with commas (default: all)")
    parser.add_argument("--devices", type=int, default=100, help="devices (default: 100)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    chosen = options.scenarios.split(",")
    if unknown := set(chosen) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; there are: {', '.join(SCENARIOS)}")
    if os.geteuid() != 0 and "disk" in chosen:
        print("disk is left out: it takes root, for a small file system")
        chosen.remove("disk")
    results = {}
    with tempfile.TemporaryDirectory(prefix="gon-edge-chaos-fleet-") as folder:
        for name in chosen:
            results[name] = sync(scenario(name, Path(folder) / name, options.devices))
            if not options.json:
                print(f"{name}: {'FAILED, ' + '; '.join(results[name]['failed']) if results[name]['failed'] else 'ok'}")
                print("  " + ", ".join(f"{key} {value}" for key, value in results[name].items() if key != "failed"))
    if options.json:
        print(json.dumps(results))
    return sum(bool(each["failed"]) for each in results.values())


if __name__ == "__main__":
    raise SystemExit(main())
