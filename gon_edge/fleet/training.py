"""Trainings of a fleet: the owner of a stream asks for one, and whichever worker has free memory carries it out.

The owner decides when and from what, as a daemon does (`training.rounds`), and its `Training` is `Elsewhere`: the job
goes to a work queue, after the rows it learns from.  A `Workshop` takes one job at a time
out of it and runs the training child of every gon-edge in a folder of its own, within the budget; the gate is in the
child.  The model goes to the object store.  A workshop that dies gives its job back by its silence.
"""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from nats.js.errors import NotFoundError
from nats.js.object_store import ObjectStore

from gon_edge.config.schema import Config
from gon_edge.errors import GonEdgeError, ModelFileError, RetrainBusy
from gon_edge.fleet.connection import Errors
from gon_edge.fleet.jetstream import ACK_S, TRAINING_S, Delivered, Fleet, Pulls
from gon_edge.fleet.names import key_of
from gon_edge.fleet.rows import fetch
from gon_edge.fleet.series import Series
from gon_edge.model.file import Model, load_model
from gon_edge.state.folder import ModelFolder
from gon_edge.state.history import RetrainRecord
from gon_edge.state.store import Store
from gon_edge.training.capacity import capacity
from gon_edge.training.job import Job
from gon_edge.training.trainer import Trainer

log = logging.getLogger(__name__)

_FREE_PARTS = 2.0  # budgets that must be free.  Not critical: one is for the child, one for what else grows meanwhile
_POLL_S = 0.05  # as `training.rounds`


@dataclass(slots=True)
class _Asked:
    """A job that somebody carries out, or shall."""

    job: Job
    began: float
    name: str = ""  # empty until somebody was asked
    result: tuple[dict[str, Any], str, bytes] | None = None


class Elsewhere:
    """Trainings that some worker carries out: a `training.rounds.Training`.

    Parameters
    ----------
    models : ModelFolder
        Where a new model is put in use.
    installed : callable
        Hears of a model that is in use now: its stream, and its name in the object store.
    """

    def __init__(self, models: ModelFolder, installed: Callable[[str, str], None]) -> None:
        self._models, self._installed = models, installed
        self._asked: dict[str, _Asked] = {}  # by stream

    def pid(self, stream: str) -> None:
        """No process of this machine is to be slowed down."""

    def progress(self, stream: str) -> dict[str, Any] | None:
        """As `Trainer.progress`; how far it is only its workshop knows."""
        if (asked := self._asked.get(stream)) is None:
            return None
        return {
            "phase": "starting",
            "share": 0.0,
            "loss": None,
            "rss_bytes": 0,
            "budget_bytes": asked.job.budget_bytes,
            "elapsed_s": round(time.monotonic() - asked.began, 3),
        }

    def start(self, job: Job) -> None:
        """Have a job asked for."""
        if job.stream in self._asked:
            raise RetrainBusy(job.stream, f"stream {job.stream!r} is being trained; try again later")
        self._asked[job.stream] = _Asked(job, time.monotonic())

    @property
    def wanted(self) -> list[Job]:
        """Jobs that nobody was asked for yet."""
        return [asked.job for asked in self._asked.values() if not asked.name]

    @property
    def names(self) -> dict[str, str]:
        """By the names of the jobs that somebody was asked for, their streams."""
        return {asked.name: stream for stream, asked in self._asked.items() if asked.name}

    def asked_for(self, stream: str, name: str) -> None:
        """Take the name under which somebody was asked for the job of a stream."""
        self._asked[stream].name = name

    def hear(self, name: str, record: dict[str, Any], model: str, content: bytes) -> None:
        """Take what came of a job: its record, and the new model with its name in the object store."""
        if (stream := self.names.get(name)) is not None:
            self._asked[stream].result = record, model, content

    def poll(self) -> tuple[RetrainRecord, Model | None] | None:
        """What came of a job; ``None`` while nobody has said anything."""
        for asked in self._asked.values():
            if asked.result is not None:
                return self._settle(asked.job, *asked.result)
            if time.monotonic() - asked.began > TRAINING_S:
                self.stop(asked.job.stream)
                return _failed(asked.job, "no worker has carried it out; is there memory for it?"), None
        return None

    def _settle(
        self, job: Job, record: dict[str, Any], name: str, content: bytes
    ) -> tuple[RetrainRecord, Model | None]:
        self.stop(job.stream)
        if not name:
            return RetrainRecord(**record), None
        file = Path(job.candidate)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            model = load_model(file)
            self._models.install(job.stream, model)
        except (ModelFileError, OSError) as error:
            return _failed(job, str(error)), None
        finally:
            file.unlink(missing_ok=True)
        self._installed(job.stream, name)
        return RetrainRecord(**record), model

    def rest(self) -> None:
        """Nothing is kept for jobs that do not come."""

    def stop(self, stream: str | None = None) -> None:
        """Wait for the training of a stream no more, by default of all."""
        for name in [*self._asked] if stream is None else [stream]:
            self._asked.pop(name, None)


def _failed(job: Job, reason: str) -> RetrainRecord:
    return RetrainRecord(job.stream, "", job.trained_at, 0.0, "failed", 0, 0, reason)


async def ask(fleet: Fleet, partition: int, wanted: Job, champion: str, name: str, inbox: str) -> None:
    """Put a job into the queue under a name unlike any other; what comes of it goes to ``inbox``.

    ``champion`` is the object of the model in use, empty for none.
    """
    job = {"id": name, "partition": partition, "reply": inbox, "job": asdict(replace(wanted, champion=champion))}
    await fleet.js.publish(fleet.names.training, json.dumps(job).encode(), headers={"Nats-Msg-Id": name})


async def model_bytes(fleet: Fleet, name: str) -> bytes:
    """A model out of the object store; empty where there is none of this name."""
    if not name:
        return b""
    store = await fleet.js.object_store(fleet.names.models)
    try:
        return (await store.get(name)).data or b""
    except NotFoundError:
        log.error("the model %s is not in the object store any more; its stream gets a new one", name)
        return b""


class Workshop:
    """Carries out trainings for the fleet, one at a time.

    Parameters
    ----------
    fleet : Fleet
    config : Config
    series : Series
    folder : Path
        Where it works.

    Attributes
    ----------
    stream : str
        What is being trained; empty while nothing is.
    """

    def __init__(self, fleet: Fleet, config: Config, series: Series, folder: Path) -> None:
        self.stream = ""
        self._fleet, self._config, self._series, self._folder = fleet, config, series, folder

    async def run(self) -> None:
        """Work for ever."""
        pulls = Pulls(self._fleet, self._fleet.names.trainings, "workers", batch=1)
        await pulls.start()
        while True:
            if not self._has_room():
                await asyncio.sleep(ACK_S / 10.0)
                continue
            try:
                await pulls.keep(ACK_S / 10.0)
                if await pulls.wait(ACK_S / 10.0):
                    await self._work(pulls.waiting.popleft())
            except Errors as error:
                log.warning("a training of the fleet was lost, and another worker gets it: %s", error)
                await asyncio.sleep(1.0)

    def _has_room(self) -> bool:
        return bool(psutil.virtual_memory().available > _FREE_PARTS * capacity(self._config.retrain).budget_bytes)

    async def _work(self, message: Delivered) -> None:
        asked = json.loads(message.data)
        job = Job.from_json(asked["job"])
        self.stream = job.stream
        alive = asyncio.create_task(self._say_alive(message.reply))
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(dir=self._folder) as folder:
                record, content = await self._train(job, asked["partition"], Path(folder))
            name = ""
            if content:
                name = f"{key_of(job.stream)}.{record.version}.{asked['id']}"
                store: ObjectStore = await self._fleet.js.object_store(self._fleet.names.models)
                await store.put(name, content)
            answer = {"id": asked["id"], "record": asdict(record), "object": name}
            await self._fleet.client.publish(asked["reply"], json.dumps(answer).encode())
            await self._fleet.client.publish(message.reply, b"+ACK")
            self._series.trained.inc()
        finally:
            alive.cancel()
            self.stream = ""

    async def _say_alive(self, reply: str) -> None:
        while True:
            await asyncio.sleep(ACK_S / 3.0)
            await self._fleet.client.publish(reply, b"+WPI")

    async def _train(self, job: Job, partition: int, folder: Path) -> tuple[RetrainRecord, bytes]:
        """Run the child on the fleet's rows; the new model's file is empty where there is none."""
        models = ModelFolder(folder)
        file = models.file(job.stream)
        file.parent.mkdir(parents=True)
        try:
            if job.champion:
                file.write_bytes(await model_bytes(self._fleet, job.champion))
            store = self._config.store
            with Store.open(folder, max_bytes=store.max_bytes, rows_per_stream=store.rows) as rows:
                await fetch(self._fleet, partition, job.stream, rows)
            trainer = Trainer(folder, models)
            trainer.start(
                replace(
                    job,
                    state_dir=str(folder.absolute()),
                    candidate=str(file.with_name("candidate.npz")),
                    champion=str(file) if job.champion else "",
                )
            )
        except (GonEdgeError, OSError) as error:
            return _failed(job, str(error)), b""
        try:
            while (ended := trainer.poll()) is None:
                await asyncio.sleep(_POLL_S)
        finally:
            trainer.stop()
        record, model = ended
        return record, file.read_bytes() if model is not None else b""
