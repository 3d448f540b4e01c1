"""What a broker has, and what is understood of it: ``gon-edge listen``.

Every message takes the daemon's own path to a reading (`stream.pipeline`), on streams that know nothing yet; topics
that nothing reads are kept by families, each with the subscription that would read it (`stream.families`).  All of it
is bounded: a broker may have more topics than fit into a terminal.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from gon_edge.commands.text import columns, duration_text, number_text, table, visible
from gon_edge.commands.trial import entry_text, fresh_pipeline, suggested_config
from gon_edge.config.schema import Config
from gon_edge.errors import UnreachableError
from gon_edge.links.publisher import Publisher
from gon_edge.stream.families import Family, family, suggestion
from gon_edge.stream.ledger import HELP, IN_WORDS
from gon_edge.stream.topics import Foreign, TopicTemplate, outermost

if TYPE_CHECKING:
    from gon_edge.links.mqtt.queue import Message

_DRAW_EVERY_S = 1.0  # not critical
_MOST_FAMILIES = 200  # not critical, like the next: a terminal shows a few
_MOST_TOPICS = 200  # of a family, of which the payload is kept
_SHOWN = 8  # features of a stream, keys, families: in the table; JSON has all
_EXAMPLE = 40  # characters of a payload

_NOTHING = {"text": "text, nothing to measure", "binary": "bytes that are no text", "empty": "no bytes"}


@dataclass(slots=True)
class _Unread:
    """A family of topics that nothing reads."""

    messages: int = 0
    newest: dict[str, bytes] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)


class Listening:
    """What was heard so far.

    Parameters
    ----------
    config : Config or None
        ``None`` reads nothing: then every family is one that nothing reads.
    offset_s : float
        Unix seconds less monotonic seconds.

    Attributes
    ----------
    messages : int
    """

    def __init__(self, config: Config | None, *, offset_s: float) -> None:
        self.messages = 0
        self._config = config
        self._pipeline = None if config is None else fresh_pipeline(config, offset_s)
        self._foreign = Foreign(config or suggested_config({"topic": "{stream}"}))
        self._began = time.monotonic()
        self._readings: Counter[str] = Counter()  # by stream
        self._left_out: Counter[str] = Counter()  # messages by reason
        self._unread: dict[Family, _Unread] = {}

    @property
    def filters(self) -> tuple[str, ...]:
        """What the configuration's subscriptions match; a shared one is not joined, it would take messages away."""
        if self._config is None:
            return ("#",)
        return outermost(TopicTemplate.parse(subscription.topic).filter for subscription in self._config.subscriptions)

    def take(self, message: Message) -> None:
        """Take one message."""
        self.messages += 1
        if self._pipeline is None:
            self._keep(message, "no_subscription")
            return
        heard = self._pipeline.take(message.topic, message.payload, message.received_at, retained=message.retained)
        self._readings.update(reading.stream for reading in heard.readings)
        if heard.refused is not None:
            self._keep(message, heard.refused.reason)
        for reason, count in heard.ignored.items():
            if reason == "no_subscription":
                self._keep(message, reason)
            else:
                self._left_out[reason] += count

    def _keep(self, message: Message, reason: str) -> None:
        if foreign := self._foreign.reason(message.topic, ""):
            self._left_out[foreign] += 1
            return
        found = family(message.topic, message.payload)
        unread = self._unread.get(found)
        if unread is None:
            if len(self._unread) >= _MOST_FAMILIES:
                self._left_out["more families of topics than are kept"] += 1
                return
            unread = self._unread[found] = _Unread()
        unread.messages += 1
        unread.reasons[reason] += 1
        if message.topic in unread.newest or len(unread.newest) < _MOST_TOPICS:
            unread.newest[message.topic] = message.payload

    # What is shown

    def told(self) -> dict[str, Any]:
        """Everything, for JSON: ``messages``, ``duration_s``, ``streams``, ``families``, ``left_out``."""
        passed_s = max(time.monotonic() - self._began, 1e-3)
        streams = [] if self._pipeline is None else sorted(self._pipeline.streams.items())
        return {
            "messages": self.messages,
            "duration_s": round(passed_s, 3),
            "streams": [
                {
                    "stream": name,
                    "readings": self._readings[name],
                    "rate": round(self._readings[name] / passed_s, 3),
                    "waits": stream.aligner.waits_for,
                    "features": [
                        {"name": feature, "value": held.value if held.value == held.value else None,
                         "cadence_s": held.cadence_s}
                        for feature, held in stream.aligner.held.items()
                    ],
                    "dropped": [
                        {"key": entry.key, "reason": entry.reason, "count": entry.count, "example": entry.example,
                         "why": IN_WORDS.get(entry.reason, entry.reason), "help": HELP.get(entry.reason, "")}
                        for entry in stream.ledger.entries
                    ],
                }
                for name, stream in streams
            ],
            "families": [
                {
                    "family": f"{found.first}/…" if any("/" in topic for topic in unread.newest) else found.first,
                    "payload": found.kind,
                    "topics": len(unread.newest),
                    "messages": unread.messages,
                    "example": {"topic": topic, "payload": _short(payload)},
                    "why": [IN_WORDS.get(reason, reason) for reason in unread.reasons],
                    "suggestion": suggestion(found.kind, unread.newest),
                }
                for found, unread in sorted(self._unread.items(), key=lambda item: -item[1].messages)
                for topic, payload in [next(iter(unread.newest.items()))]
            ],
            "left_out": {IN_WORDS.get(reason, reason): count for reason, count in self._left_out.items()},
        }  # fmt: skip

    def text(self) -> str:
        """All of it for a person."""
        told = self.told()
        lines = [f"{told['messages']} messages in {duration_text(told['duration_s'])}"]
        if not told["messages"]:
            lines.append("nothing arrives: is this the broker that the devices publish to, and may this user read it?")
        if told["streams"]:
            lines += ["", *table(_stream_rows(told["streams"]))]
        lines += [f"{stream['stream']}: {stream['waits']}" for stream in told["streams"] if stream["waits"]]
        lines += _dropped_lines(told["streams"])
        if told["families"]:
            rows = [["NOT READ", "TOPICS", "MESSAGES", "EXAMPLE", ""]]
            for one in told["families"]:
                example = one["example"]
                why = _NOTHING.get(one["payload"], "; ".join(one["why"]))
                rows.append(
                    [one["family"], str(one["topics"]), str(one["messages"]),
                     f"{example['topic']} {example['payload']}", why]
                )  # fmt: skip
            lines += ["", *table(rows)]
            entries = [entry_text(one["suggestion"]) for one in told["families"] if one["suggestion"] is not None]
            if entries:
                lines += ["", "subscriptions that would read them; gon-edge try shows what comes of a message:"]
                lines += [f"  {entry}" for entry in dict.fromkeys(entries)]
        lines += [f"left out: {count} messages: {why}" for why, count in told["left_out"].items()]
        return "".join(f"{visible(line)}\n" for line in lines)


def _stream_rows(streams: list[dict[str, Any]]) -> list[list[str]]:
    rows = [["STREAM", "RATE", "FEATURE", "VALUE", "EVERY"]]
    for stream in streams:
        features = stream["features"]
        head = [stream["stream"], f"{stream['rate']:.3g}/s"]
        for i, feature in enumerate(features[:_SHOWN]):
            every = "-" if feature["cadence_s"] is None else f"{feature['cadence_s']:.3g} s"
            rows.append([*(head if i == 0 else ["", ""]), feature["name"], number_text(feature["value"]), every])
        if not features:
            rows.append([*head, "(none)", "-", "-"])
        if len(features) > _SHOWN:
            rows.append(["", "", f"and {len(features) - _SHOWN} more", "", ""])
    return rows


def _dropped_lines(streams: list[dict[str, Any]]) -> list[str]:
    """Keys that are not used, each once for all streams that have it, and what helps."""
    rows: dict[tuple[str, str], list[str]] = {}
    helps: dict[str, None] = {}
    for stream in streams:
        for entry in stream["dropped"]:
            rows.setdefault(
                (entry["key"], entry["reason"]), [entry["key"], stream["stream"], entry["why"], entry["example"]]
            )
            if entry["help"]:
                helps[entry["help"]] = None
    if not rows:
        return []
    shown = list(rows.values())[: 2 * _SHOWN]
    lines = ["", *table([["NOT USED", "STREAM", "WHY", "EXAMPLE"], *shown])]
    if len(rows) > len(shown):
        lines.append(f"and {len(rows) - len(shown)} more; --json has all")
    return [*lines, *(f"what helps: {text}" for text in helps)]


def _short(payload: bytes) -> str:
    text = payload[: 4 * _EXAMPLE].decode(errors="replace")
    return text if len(text) <= _EXAMPLE else text[: _EXAMPLE - 1] + "…"


def listen(
    publisher: Publisher, found: Listening, topics: tuple[str, ...], *, for_s: float, out: IO[str] | None
) -> None:
    """Listen until the time is over or Ctrl-C.

    Parameters
    ----------
    publisher : Publisher
        The connection.
    found : Listening
        Takes the messages.
    topics : tuple of str
        Filters; empty for all there is, or what the configuration reads where the broker does not give all.
    for_s : float
        Seconds.
    out : text file or None
        A terminal on which it is kept current.

    Raises
    ------
    UnreachableError
        The broker refuses a topic, or went away.
    """
    until = time.monotonic() + for_s
    with contextlib.suppress(KeyboardInterrupt):
        try:
            publisher.subscribe(topics or ("#",), found.take)
        except UnreachableError:
            if topics or found.filters == ("#",):
                raise
            publisher.subscribe(found.filters, found.take)
        with _screen(out):
            while (left_s := until - time.monotonic()) > 0.0:
                publisher.wait_until(time.monotonic() + min(_DRAW_EVERY_S, left_s))
                if out is not None:
                    _draw(out, found.text())


@contextlib.contextmanager
def _screen(out: IO[str] | None) -> Iterator[None]:
    """The second screen of a terminal, so that what stood there stands there again."""
    if out is None:
        yield
        return
    out.write("\x1b[?1049h")
    try:
        yield
    finally:
        out.write("\x1b[?1049l")
        out.flush()


def _draw(out: IO[str], text: str) -> None:
    size = shutil.get_terminal_size()
    lines = [_cut(line, size.columns) for line in text.splitlines()]
    if len(lines) > size.lines:
        lines = [*lines[: size.lines - 1], "…"]
    out.write("\x1b[H" + "\n".join(line + "\x1b[K" for line in lines) + "\x1b[J")
    out.flush()


def _cut(line: str, width: int) -> str:
    while columns(line) > width:
        line = line[: len(line) - max(1, (columns(line) - width) // 2)]
    return line
