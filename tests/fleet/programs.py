"""Workers as processes of their own, for tests of what happens to them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from gon_edge.config.file import effective
from gon_edge.fleet.connection import Errors
from gon_edge.fleet.jetstream import Fleet


class Program:
    """``gon-edge fleet worker`` in a process of its own."""

    def __init__(self, folder: Path, name: str, settings: Any) -> None:
        self.name, self._log = name, folder / f"{name}.log"
        self.file = folder / f"{name}.yaml"
        self.file.write_text(json.dumps(effective(settings)))
        command = [sys.executable, "-m", "gon_edge", "fleet", "worker", "--config", str(self.file), "--name", name]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> int:
        self.signal(signal.SIGTERM)
        return self.process.wait(30)


async def owners(fleet: Fleet, partitions: int) -> set[str]:
    """Who owns the first partitions."""
    bucket = await fleet.js.key_value(fleet.names.owners)
    found = set()
    for number in range(partitions):
        try:
            found.add(json.loads((await bucket.get(str(number))).value)["worker"])
        except Errors:
            found.add("")
    return found


async def until_owned(fleet: Fleet, partitions: int, *names: str) -> None:
    async with asyncio.timeout(40):
        while await owners(fleet, partitions) != {*names}:
            await asyncio.sleep(0.1)
