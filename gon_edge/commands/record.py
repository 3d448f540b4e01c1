"""Raw messages of a broker kept in a file, sent again, or judged again: the same messages give the same alerts.

A capture is JSON lines, gzip or not.  The first one says what it is, where and when it began; each further one is a
message: ``topic``, ``payload`` (``payload_base64`` where it is no UTF-8), ``received_at`` (seconds of CLOCK_BOOTTIME),
``wall`` (Unix seconds), ``retained``, ``qos``; the last one says when it ended, and is missing after a power cut.

`alerts` runs the daemon's own path from message to alert (``stream.pipeline``).  What an operator did meanwhile
(silences, new models) is in no capture.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import gzip
import json
import logging
import math
import os
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self, cast

from gon_edge import __version__
from gon_edge.commands.replay import ReplayReport
from gon_edge.config.schema import Config
from gon_edge.errors import InputError
from gon_edge.events import Alert
from gon_edge.links.publisher import Publisher
from gon_edge.model.file import Model
from gon_edge.process.clock import monotonic
from gon_edge.process.files import open_regular
from gon_edge.state.catalog import find, starters
from gon_edge.state.folder import ModelFolder
from gon_edge.stream.heard import Step
from gon_edge.stream.held import alert_json
from gon_edge.stream.pipeline import TICK_S, Pipeline
from gon_edge.stream.stream import Stream

if TYPE_CHECKING:
    from gon_edge.links.mqtt.queue import Message

log = logging.getLogger(__name__)

FORMAT = 1
_KEY = "gon-edge capture"
_WRITE_EVERY_S = 0.5  # seconds of messages that a power cut costs; not critical


class Captured(NamedTuple):
    """One message of a capture.

    Attributes
    ----------
    topic : str
    payload : bytes
    received_at : float
        Seconds of ``CLOCK_BOOTTIME`` of the machine that recorded.
    wall : float
        Unix seconds.
    retained : bool
        It lay in the broker before the recording began.
    qos : int
    """

    topic: str
    payload: bytes
    received_at: float
    wall: float
    retained: bool
    qos: int


@dataclasses.dataclass(frozen=True, slots=True)
class RecordReport:
    """What a recording holds: messages, of them retained ones, bytes of payload, and how long it took."""

    messages: int
    retained: int
    payload_bytes: int
    duration_s: float


# -- recording ---------------------------------------------------------------------------------------------------------


def record(
    publisher: Publisher,
    topics: tuple[str, ...],
    out: IO[bytes],
    *,
    for_s: float | None,
    progress: Callable[[int, float | None], None] = lambda messages, fraction: None,
) -> RecordReport:
    """Write the messages of some topic filters to a file, twice a second, until the time is over or Ctrl-C.

    Parameters
    ----------
    publisher : Publisher
        The connection.
    topics : tuple of str
    out : binary file
        Written through gzip when its name ends in ``.gz``.
    for_s : float or None
        Seconds; ``None`` is until SIGINT or SIGTERM raises KeyboardInterrupt, which ends the recording well.
    progress : callable
        Called with messages so far.

    Raises
    ------
    UnreachableError
        The broker refuses a topic, or went away for longer than the connection's patience.
    OSError
        The file cannot be written any more; what was written is a capture.
    """
    began, wall = _now()
    taken: list[Captured] = []
    counts = [0, 0, 0]

    def take(message: Message) -> None:
        taken.append(Captured(message.topic, message.payload, *_now(), message.retained, message.qos))

    def write(*lines: dict[str, Any]) -> None:
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        if text:
            file.write(text.encode())
            file.flush()  # gzip too: what a power cut leaves can be read

    def write_taken() -> None:
        count = len(taken)
        with _uninterrupted():
            write(*(_line(message) for message in taken[:count]))
            counts[0] += count
            counts[1] += sum(message.retained for message in taken[:count])
            counts[2] += sum(len(message.payload) for message in taken[:count])
            del taken[:count]
        progress(counts[0], None if for_s is None else min(1.0, (_now()[0] - began) / for_s))

    zipped = str(getattr(out, "name", "")).endswith(".gz")
    file = gzip.GzipFile(fileobj=out, mode="wb", mtime=0) if zipped else out
    head = {_KEY: FORMAT, "version": __version__, "broker": publisher.url, "topics": topics}
    with _uninterrupted():
        write({**head, "received_at": began, "wall": wall})
    try:
        with contextlib.suppress(KeyboardInterrupt):
            publisher.subscribe(topics, take)
            until = None if for_s is None else time.monotonic() + for_s
            while until is None or time.monotonic() < until:
                slice_end = time.monotonic() + _WRITE_EVERY_S
                publisher.wait_until(slice_end if until is None else min(until, slice_end))
                write_taken()
    finally:
        write_taken()
        with _uninterrupted():
            ended, wall = _now()
            write({"ended_at": ended, "wall": wall})
            if zipped:
                file.close()
    return RecordReport(counts[0], counts[1], counts[2], ended - began)


def _now() -> tuple[float, float]:
    return monotonic(), time.time()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM: half a line, or half a block of gzip, would spoil all that follows it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _line(message: Captured) -> dict[str, Any]:
    try:
        payload = {"payload": message.payload.decode()}
    except UnicodeDecodeError:
        payload = {"payload_base64": base64.b64encode(message.payload).decode()}
    return {
        "topic": message.topic,
        **payload,
        "received_at": message.received_at,
        "wall": message.wall,
        "retained": message.retained,
        "qos": message.qos,
    }


# -- reading -----------------------------------------------------------------------------------------------------------


class Capture:
    """An open capture; iterate for its messages.

    Parameters
    ----------
    path : str

    Attributes
    ----------
    name : str
        For messages.
    topics : tuple of str
        What was recorded.
    began_at, began_wall : float
        Monotonic and Unix seconds.
    ended_at : float or None
        Monotonic seconds; ``None`` until all messages were read, or where the end is missing.
    cut_off : bool
        After reading: the end is missing, as after a power cut; all before it was read.
    retained : int
        Messages read so far that lay in the broker before.

    Raises
    ------
    InputError
        Missing, unreadable, or no capture of this version; while reading also for a line that is no message.
    """

    def __init__(self, path: str) -> None:
        self.name = path
        self.ended_at: float | None = None
        self.cut_off = False
        self.retained = 0
        try:
            self._raw = open_regular(path)
            self._size = os.fstat(self._raw.fileno()).st_size
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
        self._file = cast(IO[bytes], gzip.GzipFile(fileobj=self._raw) if _is_zipped(self._raw) else self._raw)
        head = _json(self._read_line())
        version = head.get(_KEY)
        if version is None:
            raise InputError(f"{path}: is not a capture; gon-edge record makes one")
        if version != FORMAT:
            raise InputError(f"{path}: is a capture of format {version}; this gon-edge reads {FORMAT}: upgrade it")
        try:
            self.topics = tuple(str(topic) for topic in head["topics"])
            self.began_at, self.began_wall = _seconds(head["received_at"]), _seconds(head["wall"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise InputError(f"{path}:1: is not the first line of a capture") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raw.close()

    def __iter__(self) -> Iterator[Captured]:
        number = 1
        while line := self._read_line():
            number += 1
            if not line.endswith(b"\n"):
                break
            entry = _json(line)
            try:
                if "ended_at" in entry:
                    self.ended_at = _seconds(entry["ended_at"])
                    return
                message = _message(entry)
            except (KeyError, TypeError, ValueError, OverflowError, binascii.Error):
                raise InputError(f"{self.name}:{number}: is not a message of a capture") from None
            self.retained += message.retained
            yield message
        self.cut_off = True

    @property
    def fraction(self) -> float:
        """How much of the file has been read, 0 to 1."""
        return min(1.0, self._raw.tell() / max(self._size, 1))

    def _read_line(self) -> bytes:
        try:
            return self._file.readline()
        except (EOFError, gzip.BadGzipFile, zlib.error):
            return b""
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error.strerror or error}") from None


def is_capture(path: str) -> bool:
    """Whether a file begins as a capture does; False also for one that is not there."""
    try:
        with open_regular(path) as raw:
            start = gzip.GzipFile(fileobj=raw).read(64) if _is_zipped(raw) else raw.read(64)
    except (OSError, EOFError, zlib.error):
        return False
    return start.startswith(f'{{"{_KEY}":'.encode())


def _is_zipped(raw: IO[bytes]) -> bool:
    magic = raw.read(2)
    raw.seek(0)
    return magic == b"\x1f\x8b"


def _json(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _seconds(raw: Any) -> float:
    seconds = float(raw)
    if not math.isfinite(seconds):
        raise ValueError(f"no time: {raw!r:.40}")
    return seconds


def _message(entry: dict[str, Any]) -> Captured:
    encoded = entry.get("payload_base64")
    payload = str(entry["payload"]).encode() if encoded is None else base64.b64decode(encoded, validate=True)
    times = _seconds(entry["received_at"]), _seconds(entry["wall"])
    topic = str(entry["topic"])
    topic.encode()  # JSON can hold half of a surrogate pair, no topic can
    return Captured(topic, payload, *times, bool(entry["retained"]), int(entry["qos"]))


# -- sending again -----------------------------------------------------------------------------------------------------


def send(
    capture: Capture,
    publisher: Publisher,
    *,
    speed: float | None,
    limit: int | None = None,
    progress: Callable[[int, float | None], None] = lambda messages, fraction: None,
) -> ReplayReport:
    """Send the messages of a capture to a broker, each to its own topic.

    Retained ones are left out: nobody knows when they were fresh, and sent now they would look it.

    Parameters
    ----------
    capture : Capture
    publisher : Publisher
    speed : float or None
        How many times faster than recorded; ``None`` is as fast as the broker acknowledges.
    limit : int, optional
        Messages at most.
    progress : callable
        Called with messages sent and the fraction of the file read.

    Raises
    ------
    InputError
        The file is damaged.
    UnreachableError
        The broker went away and did not come back.
    """
    began = time.monotonic()
    first: float | None = None
    sent = 0
    for message in capture:
        if sent == limit:
            break
        if message.retained:
            continue
        first = message.received_at if first is None else first
        if speed is not None:
            publisher.wait_until(began + (message.received_at - first) / speed)
        publisher.send(message.topic, message.payload)
        sent += 1
        progress(sent, capture.fraction if sent % 100 == 0 else None)
    publisher.drain()
    return ReplayReport(sent, publisher.acknowledged, publisher.refused, publisher.refusal, time.monotonic() - began)


# -- judging again -----------------------------------------------------------------------------------------------------


def alerts(
    capture: Capture,
    config: Config,
    model: Model | None = None,
    *,
    progress: Callable[[int, float | None], None] = lambda messages, fraction: None,
) -> Iterator[Alert]:
    """Yield the alerts a daemon makes of a capture, in the order in which it publishes them.

    They are those a daemon published while it was recorded, where the models are the same, messages carry their own
    time, nothing was silenced, and its streams had seen nothing before or several windows since.  A stream stamped
    with the time of receipt has that of the recorder.

    Parameters
    ----------
    capture : Capture
    config : Config
        Subscriptions, limits and the settings of streams; models are those in use in its state directory.
    model : Model, optional
        Scores every stream in place of theirs.
    progress : callable
        Called with messages read and the fraction of the file.

    Raises
    ------
    ConfigError, InputError, ModelFileError
    """
    pipeline = Pipeline(config, _opener(config, model), offset_s=capture.began_wall - capture.began_at)
    now = capture.began_at

    def pass_time(until: float) -> Iterator[Step]:
        nonlocal now
        while (at := max(pipeline.due_at(), now) + TICK_S) <= until:
            now = at
            yield from pipeline.pass_time(now)
        now = max(now, until)
        yield from pipeline.stopped(until)  # rows may wait for a message that comes now, this does not

    for count, message in enumerate(capture, 1):
        for step in pass_time(message.received_at):
            yield from step.alerts
        pipeline.set_clock(message.wall - message.received_at)
        heard = pipeline.take(message.topic, message.payload, message.received_at, retained=message.retained)
        for step in heard.steps:
            yield from step.alerts
        progress(count, capture.fraction if count % 100 == 0 else None)
    if capture.ended_at is not None:
        for step in pass_time(capture.ended_at):
            yield from step.alerts


def alert_line(alert: Alert) -> str:
    """Return an alert as the daemon publishes it."""
    return json.dumps(alert_json(alert))


def _opener(config: Config, model: Model | None) -> Callable[[str, float], Stream]:
    """What makes the streams of a capture: with ``model``, or else with those in use in the state directory."""
    state_dir = Path(config.state_dir)
    with_model = set(ModelFolder(state_dir).streams())

    def open_stream(name: str, now: float) -> Stream:
        settings = config.stream(name)
        own = model
        if own is None and name in with_model:
            own = find(f"stream:{name}", state_dir).model
        usable = starters(settings.model) if own is None else ()
        if own is None and not usable:
            log.warning("stream %r has no model in %s: its rows give no alerts", name, config.state_dir)
        if own is not None and own.relative:  # it knows a level only once it has seen a first row, as a starter does
            usable, own = (own,), None
        return Stream(name, settings, max_features=config.limits.features, model=own, starters=usable, opened_at=now)

    return open_stream
