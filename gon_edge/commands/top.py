"""A running daemon in a terminal: streams, alerts with their causes, readings, memory, latency, broker, kept current.

`picture` is pure: what the daemon said goes in, something that rich draws comes out.  `watch` owns the terminal
meanwhile and gives it back as it was.  What the daemon says is foreign text: names of streams and features may hold
anything, and reach the terminal escaped.
"""

from __future__ import annotations

import contextlib
import shutil
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gon_edge.commands.draw import line, range_line, sparkline
from gon_edge.commands.terminal import Keyboard, console, ends_on_signals
from gon_edge.commands.text import cause_text, duration_text, number_text, visible
from gon_edge.errors import UnreachableError
from gon_edge.links.client import DaemonApi, histogram_buckets, histogram_quantile

_LATENCY = "gon_edge_ingest_to_verdict_seconds"
_LOOK_S = 0.2
"""Between two looks at the keyboard and the size of the terminal.  Not critical: a key is answered at once anyway."""

_NARROW, _WIDE = 40, 100
"""Columns of a page: at least, and where it goes to no terminal.  Not critical."""

_ALERT_LINES = 2
"""Enough for four causes in 80 columns."""

_READ = 3
"""Streams whose readings are asked for, the first ones of the list: each is a request a look, and a screen has no room
for more."""

_LEAST_READINGS = 4
"""Lines below which no readings are begun: a heading and two of them, and the line between."""

_READING_LINES = 20
"""Of readings on a page that goes to no terminal."""

_COLOURS = {"scoring": "green", "warming-up": "cyan", "training": "cyan", "stale": "yellow"}
_SEVERITIES = {"critical": "bold red", "warning": "yellow"}


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of a daemon.

    Attributes
    ----------
    status : mapping
        As `DaemonApi.status` says it.
    latency_s : float or None
        95 % of the rows since the look before had their verdict within it.
    error : str
        Why the daemon does not answer now; the rest is what it said last.
    readings : mapping of str to mapping
        By stream, as `DaemonApi.readings` says them, of some of the streams.
    """

    status: Mapping[str, Any]
    latency_s: float | None = None
    error: str = ""
    readings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def picture(look: Look, *, width: int, height: int | None, first: int = 0) -> RenderableType:
    """Return the daemon as a picture.

    Parameters
    ----------
    look : Look
    width : int
        Characters.
    height : int or None
        Lines it fills; ``None`` is as many as it takes.
    first : int
        Streams to leave out at the top of the list.
    """
    head = _head(look)
    alerts = _alerts(look.status, width)
    foot = line((look.error, "red")) if look.error else line(("q ends it, j and k move the list", "dim"))
    streams = _ordered(look.status)
    if height is None:
        below: list[RenderableType] = [*([""] if alerts else []), *alerts]
        below += _readings(look, streams, width, _READING_LINES)
        below += [foot] if look.error else []
        return Group(*head, "", _streams(streams, width), *below)
    room = max(2, height - len(head) - 2)
    # Alerts come first, but the streams keep a third of the room.
    for_streams = min(len(streams) + 1, max(min(3, room), room // 3, room - len(alerts) - 1))
    shown = streams[first : first + max(1, for_streams) - 1]
    left = max(0, room - max(1, len(shown) + 1) - 1)
    if len(alerts) > left:
        alerts = [*alerts[: max(0, left - 1)], line(("more alerts below", "dim"))][:left]
    out_of_sight = ((first, "above"), (len(streams) - first - len(shown), "below"))
    if hidden := ", ".join(f"{count} streams {where}" for count, where in out_of_sight if count > 0):
        foot = line((f"{hidden}; ", "dim")) + foot
    empty = height - len(head) - 1 - (1 + len(shown)) - (1 + len(alerts)) - 1
    readings = _readings(look, shown, width, empty)
    blank = [""] * max(0, empty - len(readings))
    return Group(*head, "", _streams(shown, width), "", *alerts, *readings, *blank, foot)


def _head(look: Look) -> list[Text]:
    status, broker = look.status, look.status["mqtt"]
    latency = "" if look.latency_s is None else f", 95 % of verdicts within {_milliseconds(look.latency_s)}"
    connected = ("connected", "green") if broker["connected"] else (broker["error"] or "not connected", "red")
    waiting = f", {status['queue_length']} messages wait" if status["queue_length"] else ""
    lasts = f"up {duration_text(status['uptime_s'])}, {status['rss_bytes'] / (1 << 20):.1f} MiB"
    return [
        line((status["node"], "bold"), (f"  gon-edge {status['version']}, {lasts}{latency}", "")),
        line((f"broker {broker['url']}: ", ""), connected, (waiting, "")),
        *(line((f"broker: {trouble}", "red")) for trouble in broker.get("troubles", ())[:_TROUBLES]),
        *(line((trouble, "red")) for trouble in status.get("troubles", ())[:_TROUBLES]),
    ]


_TROUBLES = 3  # not critical: a screen has few lines; `gon-edge status` has all


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1.0 else f"{seconds:.3g} s"


def _open_alerts(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = [alert for alert in status["alerts"] if alert["type"] != "end"]
    return sorted(found, key=lambda alert: (alert["severity"] != "critical", -alert["since"]))


def _ordered(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Streams in trouble first, then by name; each with the severity of its worst alert, or an empty text."""
    worst: dict[str, str] = {}
    for alert in _open_alerts(status):
        worst.setdefault(alert["stream"], alert["severity"])
    streams = [{**stream, "severity": worst.get(stream["stream"], "")} for stream in status["streams"]]
    ranks = {"critical": 0, "warning": 1}
    return sorted(streams, key=lambda s: (ranks.get(s["severity"], 2), s["state"] != "stale", s["stream"]))


def _streams(streams: Sequence[Mapping[str, Any]], width: int) -> RenderableType:
    if not streams:
        return line(("no stream yet: no message has arrived on a subscribed topic", ""))
    name_width = max(6, min(max(cell_len(visible(stream["stream"])) for stream in streams), width // 3))
    recent = width - name_width - 36
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("STREAM", width=name_width)
    table.add_column("STATE", width=10)
    table.add_column("SCORE", width=9, justify="right")
    if recent >= 0:
        table.add_column("THRESHOLD", width=9, justify="right")
        table.add_column("RECENT", width=recent)
    for stream in streams:
        severity = stream["severity"]
        colour = _SEVERITIES.get(severity) or _COLOURS.get(stream["state"], "")
        over = None not in (stream["score"], stream["threshold"]) and stream["score"] > stream["threshold"]
        cells = [
            line((stream["stream"], colour if severity else "")),
            line((severity or stream["state"], colour)),
            line((number_text(stream["score"]), "red" if over else "")),
            line((number_text(stream["threshold"]), "")),
            _recent(stream, recent),
        ]
        table.add_row(*cells[: len(table.columns)])
    return table


def _recent(stream: Mapping[str, Any], width: int) -> Text:
    if stream["training"]:
        return line((f"training: {stream['training']}", ""))
    if stream["score"] is None and stream["model_version"] is None:
        eta = f", {duration_text(stream['eta_s'])} left" if stream["eta_s"] else ""
        return line((f"{stream['rows']} of {stream['rows_needed']} rows{eta}", ""))
    return sparkline(stream["scores"], stream["threshold"], width=width)


def _alerts(status: Mapping[str, Any], width: int) -> list[Text]:
    lines = []
    newest = {stream["stream"]: stream["last_timestamp"] or 0.0 for stream in status["streams"]}
    for alert in _open_alerts(status):
        what = visible(f"{alert['severity']} {alert['kind']}")
        # By the stream's own time, which in a replay is not the daemon's.
        until = max(alert["timestamp"], newest.get(alert["stream"], 0.0))
        lasts = duration_text(max(0.0, until - alert["since"]))
        causes = ", ".join(cause_text(cause) for cause in alert["top_features"][:4]) or "cause unknown"
        text = visible(f"{what} on {alert['stream']} for {lasts}: {causes}")
        wrapped = textwrap.wrap(text, max(width, 20), subsequent_indent="  ", max_lines=_ALERT_LINES, placeholder=" …")
        shown = [line((words, "")) for words in wrapped]
        shown[0].stylize(_SEVERITIES.get(alert["severity"], "yellow"), 0, len(what))
        lines += shown
    for silence in status["silences"]:
        left = duration_text(max(0.0, silence["until"] - status["now"]))
        name = f"{silence['feature']} of {silence['stream']}" if silence["feature"] else silence["stream"]
        lines.append(line((f"silenced for another {left}: {name}", "dim")))
    return lines


def _readings(look: Look, streams: Sequence[Mapping[str, Any]], width: int, room: int) -> list[Text]:
    """The last hour of the first streams, a line a feature, those to blame first; nothing where there is no room."""
    lines: list[Text] = []
    for stream in streams:
        said = look.readings.get(stream["stream"])
        if said is None or room - len(lines) < _LEAST_READINGS or not said["features"]:
            continue
        blamed = {
            cause["feature"]
            for alert in _open_alerts(look.status)
            if alert["stream"] == stream["stream"]
            for cause in alert["top_features"]
        }
        features = sorted(said["features"], key=lambda feature: feature["feature"] not in blamed)
        shown = features[: room - len(lines) - 2]
        lasts = duration_text(max(len(feature["low"]) for feature in shown) * said["bucket_s"])
        some = f", {len(shown)} of {len(stream['features'])}" if len(shown) < len(stream["features"]) else ""
        lines += [line(("", "")), line((f"readings of {stream['stream']}, the last {lasts}{some}", "dim"))]
        name_width = max(6, min(max(cell_len(visible(feature["feature"])) for feature in shown), width // 3))
        for feature in shown:
            middles = [
                None if low is None else (low + high) / 2
                for low, high in zip(feature["low"], feature["high"], strict=True)
            ]
            name = line((feature["feature"], "red" if feature["feature"] in blamed else ""))
            name.truncate(name_width, overflow="ellipsis", pad=True)
            value = line((f"{number_text(feature['value']):>9}", ""))
            lines.append(
                Text("  ").join([name, value, range_line(middles, width=min(len(middles), width - name_width - 13))])
            )
    return lines


# -- looking -----------------------------------------------------------------------------------------------------------


class _Eye:
    """Asks the daemon, and remembers what the latency is counted from."""

    def __init__(self, api: DaemonApi) -> None:
        self._api = api
        self._before: Mapping[float, float] = {}
        self._latency_s: float | None = None

    def look(self, first: int = 0) -> Look:
        """Ask for everything, and for the readings of the streams from the `first` of the list on."""
        status = self._api.status()
        buckets = histogram_buckets(self._api.metrics(), _LATENCY)
        since = {bound: count - self._before.get(bound, 0.0) for bound, count in buckets.items()}
        if any(count < 0.0 for count in since.values()):  # another daemon than before
            since = buckets
        self._before = buckets
        self._latency_s = histogram_quantile(since, 0.95) or self._latency_s  # none came: the one before
        return Look(status, self._latency_s, readings=self._readings(status, first))

    def _readings(self, status: Mapping[str, Any], first: int) -> Mapping[str, Mapping[str, Any]]:
        found = {}
        for stream in _ordered(status)[first : first + _READ]:
            if stream["last_timestamp"] is None:
                continue
            with contextlib.suppress(UnreachableError):  # forgotten since
                found[stream["stream"]] = self._api.readings(stream["stream"])
        return found


def show_once(api: DaemonApi, out: IO[str]) -> None:
    """Write the daemon to `out` as a page, in colour where that is a terminal.

    Raises
    ------
    UnreachableError
        No daemon answers.
    """
    width = max(_NARROW, shutil.get_terminal_size().columns if out.isatty() else _WIDE)
    terminal = console(out, width)
    with terminal.capture() as drawn:
        terminal.print(picture(_Eye(api).look(), width=width, height=None))
    out.writelines(f"{line.rstrip()}\n" for line in drawn.get().splitlines())  # a table fills its columns with spaces


def watch(api: DaemonApi, keys: IO[str], out: IO[str], *, every_s: float) -> None:
    """Show the daemon until q or Ctrl-C, and leave the terminal as it was.

    A daemon that goes away stays on the screen as it was last, with a line that says so, and is asked again.

    Parameters
    ----------
    api : DaemonApi
    keys, out : text file
        Terminals.
    every_s : float

    Raises
    ------
    UnreachableError
        No daemon answers at the start.
    """
    eye = _Eye(api)
    look = eye.look()
    first = 0
    terminal = console(out)
    with (
        contextlib.suppress(KeyboardInterrupt),
        ends_on_signals(),
        Keyboard(keys) as keyboard,
        Live(console=terminal, screen=True, auto_refresh=False) as screen,
    ):
        due = time.monotonic() + every_s
        drawn: object = None
        while True:
            size = terminal.size
            first = max(0, min(first, len(look.status["streams"]) - 1))
            if drawn != (look, size, first):
                screen.update(picture(look, width=size.width, height=size.height, first=first), refresh=True)
                drawn = (look, size, first)
            key = keyboard.key(min(_LOOK_S, max(0.0, due - time.monotonic())))
            if key in ("q", "Q", "\x04"):
                return
            first += {"j": 1, "\x1b[B": 1, "k": -1, "\x1b[A": -1}.get(key, 0)
            if time.monotonic() >= due:
                due = time.monotonic() + every_s
                try:
                    look = eye.look(first)
                except UnreachableError as error:
                    look = replace(look, error=str(error))
