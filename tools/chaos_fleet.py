"""What survives when a fleet breaks: each kind of failure for real, and what became of every row and alert.

Each scenario is a fleet of its own on loopback; its devices publish throughout, and one in a hundred of them wears out,
so that there are alerts to lose or to tell twice:

- ``kill``: a worker is killed with -9 in the middle of its windows.
- ``freeze``: a worker stands still for a while, loses its partitions, wakes, and must not write what it had in mind.
- ``nats``: the only NATS server is killed and comes back.
- ``one-of-three``: of three servers that keep everything three times, the one that leads the telemetry is killed.
- ``bridge``: the way from mosquitto's bridge to NATS is cut with what is on it; mosquitto hands on later.
- ``stall``: NATS stands still, for mosquitto's bridge and for workers.
- ``disk``: the disk of the NATS server is full for a while (root only: a small file system of its own).

A scenario fails when an acknowledged row is lost, late or has two verdicts, when an event is told twice, when alerts
are not those of a single daemon that reads the same messages, when the windows and averages behind the next verdict are
not the daemon's to the last bit, or when a partition goes without a verdict for more than two windows beyond the outage
itself.
The exit status is the number of failures.

    python tools/chaos_fleet.py [--scenarios kill,freeze] [--devices 100] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import re
import subprocess
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleet_rig import Run, running, sync
from prometheus_client import CollectorRegistry

from gon_edge.config.file import parse_config
from gon_edge.daemon.orders import Machine
from gon_edge.daemon.scoring import Scoring
from gon_edge.fleet import frozen
from gon_edge.fleet.judging import TICK_S
from gon_edge.fleet.look import entries
from gon_edge.fleet.names import topic_of
from gon_edge.fleet.site import WINDOW, SiteSettings
from gon_edge.links.prometheus import Telemetry
from gon_edge.process.clock import Clock

_LAST_S = 2.0  # after the last message, so that its row is over
_STILL_S = 2 * WINDOW  # two windows at a row a second; seen from outside, by what workers say once a second
FULL_DISK = "24M"


@dataclass(frozen=True, slots=True)
class Pace:
    """How long what is done takes.

    Attributes
    ----------
    before_s : float
        Windows are full, devices have worn out, their alerts are open.
    after_s : float
        All is well again.
    outage_s, frozen_s : float
        Of a server, and of a worker.
    settings : SiteSettings
    """

    before_s: float
    after_s: float
    outage_s: float
    frozen_s: float
    settings: SiteSettings


PACE = Pace(45.0, 35.0, 12.0, 20.0, SiteSettings(takeover_s=3.0, save_every_s=5.0))
_FASTER = SiteSettings(
    takeover_s=1.0, save_every_s=2.0, interval_s=0.4, partitions=4, streams={"max_gap": "30s"}
)  # an outage is as long for these devices as for others
QUICK = Pace(15.0, 5.0, 4.0, 4.0, _FASTER)


async def kill(run: Run, pace: Pace) -> float:
    """A worker dies."""
    run.site.workers[await busiest(run)].kill()
    return 0.0


async def freeze(run: Run, pace: Pace) -> float:
    """A worker stands still, and goes on later."""
    name = await busiest(run)
    run.site.workers[name].freeze()
    await run.watch(pace.frozen_s)
    run.site.workers[name].wake()
    return 0.0


async def nats(run: Run, pace: Pace) -> float:
    """The only server dies, and is started again."""
    run.site.nats[0].kill()
    await run.watch(pace.outage_s)
    await asyncio.to_thread(run.site.nats[0].start)
    return pace.outage_s


async def one_of_three(run: Run, pace: Pace) -> float:
    """The leader of the telemetry dies, and comes back when another one leads."""
    info = await run.fleet.request(f"STREAM.INFO.{run.fleet.names.telemetry}")
    leader = next(server for server in run.site.nats if server.name == info["cluster"]["leader"])
    leader.kill()
    await run.watch(pace.outage_s)
    await asyncio.to_thread(leader.start)
    return pace.outage_s


async def bridge(run: Run, pace: Pace) -> float:
    """Mosquitto cannot hand on: there is no way."""
    run.relay.cut()
    await run.watch(pace.outage_s)
    await run.relay.start()
    return pace.outage_s


async def stall(run: Run, pace: Pace) -> float:
    """Mosquitto cannot hand on, nor can workers take: the other end does not answer."""
    run.site.nats[0].freeze()
    await run.watch(pace.outage_s)
    run.site.nats[0].wake()
    return pace.outage_s


async def disk(run: Run, pace: Pace) -> float:
    """The disk of the server fills up with something else, and is cleared."""
    filler = run.site.settings.store_dir.parent / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 65536)
            file.flush()
    await run.watch(pace.outage_s)
    filler.unlink()
    # JetStream turns itself off when it cannot write; a start is what its documentation asks for.
    await asyncio.to_thread(run.site.nats[0].stop)
    await asyncio.to_thread(run.site.nats[0].start)
    return pace.outage_s


SCENARIOS: dict[str, Callable[[Run, Pace], Awaitable[float]]] = {
    "kill": kill,
    "freeze": freeze,
    "nats": nats,
    "one-of-three": one_of_three,
    "bridge": bridge,
    "stall": stall,
    "disk": disk,
}


async def busiest(run: Run) -> str:
    """Name of the worker that owns most."""
    look = await run.until(lambda look: bool(look.workers), 30.0, "a worker")
    return max(look.workers, key=lambda worker: len(worker.partitions)).name


async def scenario(name: str, folder: Path, devices: int, pace: Pace) -> dict[str, Any]:
    """Run one; return what came of it, with the reasons why it failed."""
    settings = replace(pace.settings, servers=3 if name == "one-of-three" else 1)
    with contextlib.ExitStack() as stack:
        if name == "disk":
            small = stack.enter_context(small_disk(folder.with_name("small")))
            settings = replace(settings, store_dir=small / "store")
        async with running(folder, settings, by_relay=name == "bridge") as run:
            await run.workers(2)
            sending = run.site.add_devices(devices)
            await run.watch(2.0 * pace.before_s / 3.0)
            sending.break_some()
            await run.watch(pace.before_s / 3.0)
            run.unscored.longest_s = 0.0
            began = time.monotonic()
            outage_s = await SCENARIOS[name](run, pace)
            await run.watch(pace.after_s)
            found = await run.account(sending)
            single = await of_a_single_daemon(run, folder / "single")
            events = [(event["stream"], event["kind"]) for event in run.eye.told.events if event["type"] == "new"]
            states = await entries(run.fleet, run.fleet.names.states)
            kept = {each["stream"]: bits(each["frozen"]) for each in states.values()}
            refused = run.series("gon_edge_fleet_writes_refused_total")
    reasons = []
    if found["lost"] or found["waiting"]:
        reasons.append(f"{found['lost']} acknowledged rows have no verdict, and {found['waiting']} wait for one")
    if found["late"]:
        reasons.append(f"{found['late']} rows came behind later ones of their device")
    if found["doubled"]:
        reasons.append(f"{found['doubled']} verdicts too many")
    if found["alerts_repeated"]:
        reasons.append(f"{found['alerts_repeated']} events were told twice")
    if not events or sorted(events) != sorted(single.alerts):
        reasons.append(f"alerts {sorted(events)}, of a single daemon {sorted(single.alerts)}")
    if wrong := sorted(name for name, text in single.streams.items() if kept.get(name) != text):
        reasons.append(f"windows and averages are not those of a single daemon: {', '.join(wrong)}")
    if found["longest_unscored_s"] > outage_s + _STILL_S:
        reasons.append(f"a partition stood still for {found['longest_unscored_s']} s")
    return {**found, "writes_refused": refused, "seconds": round(time.monotonic() - began), "failed": reasons}


def bits(text: str) -> bytes:
    """What `frozen` has written of a stream, without the rows since somebody has asked for causes."""
    return re.sub(rb'"_asked":\d+', b"", zlib.decompress(base64.b64decode(text)).partition(b"\n")[2])


async def of_a_single_daemon(run: Run, folder: Path) -> Single:
    """What one daemon makes of all messages in the telemetry stream."""
    config = run.site.config()
    alone = {key: config[key] for key in ("mqtt", "subscriptions", "limits", "streams")}
    settings = parse_config({**alone, "state_dir": str(folder), "node": "single", "http": {"listen": "off"}})
    heard, now = Single(), [0.0]
    clock = Clock(monotonic=lambda: now[0], wall=lambda: now[0])
    scoring = Scoring(settings, Telemetry(CollectorRegistry(), version="0"), heard, Machine(clock))
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
        for stream in scoring.pipeline.streams.values():
            heard.streams[stream.name] = bits(frozen.freeze(stream))
    finally:
        scoring.store.close()
    return heard


class Single:
    """A broker that remembers what is published.

    Attributes
    ----------
    alerts : list of tuple
        Stream and kind of each that began.
    streams : dict of str to bytes
        Everything the next verdict of each depends on, to the last bit.
    """

    client_id = "single"
    confirms = False

    def __init__(self) -> None:
        self.alerts: list[tuple[str, str]] = []
        self.streams: dict[str, bytes] = {}

    def topic(self, *levels: str) -> str:
        """As a broker's."""
        return "/".join(levels)

    def publish(self, topic: str, payload: str, *, retain: bool = False, shorter: str = "") -> None:
        """Remember an alert that begins."""
        if not retain and (event := json.loads(payload))["type"] == "new":
            self.alerts.append((event["stream"], event["kind"]))


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
    parser.add_argument("--quick", action="store_true", help="half a minute each: faster devices, shorter outages")
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
            results[name] = sync(scenario(name, Path(folder) / name, options.devices, QUICK if options.quick else PACE))
            if not options.json:
                print(f"{name}: {'FAILED, ' + '; '.join(results[name]['failed']) if results[name]['failed'] else 'ok'}")
                print("  " + ", ".join(f"{key} {value}" for key, value in results[name].items() if key != "failed"))
    if options.json:
        print(json.dumps(results))
    return sum(bool(each["failed"]) for each in results.values())


if __name__ == "__main__":
    raise SystemExit(main())
