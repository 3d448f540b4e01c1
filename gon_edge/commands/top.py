"""A running daemon in a terminal: streams, alerts with their causes, memory, latency and broker, kept current.

`picture` is pure: what the daemon said in, lines out.  `watch` owns the terminal meanwhile and gives it back as it was.
What the daemon says is foreign text: names of streams and features may hold anything, and reach the terminal escaped.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, NoReturn

from gon_edge.commands.terminal import Keyboard, Paint, WholeScreen, fit, sparkline, wants_colour
from gon_edge.commands.text import cause_text, columns, duration_text, number_text, visible
from gon_edge.errors import UnreachableError
from gon_edge.links.client import DaemonApi, histogram_buckets, histogram_quantile

_LATENCY = "gon_edge_ingest_to_verdict_seconds"
_LOOK_S = 0.2
"""Between two looks at the keyboard and the size of the terminal."""
_NARROW, _WIDE = 40, 100
_COLOURS = {"scoring": "green", "warming-up": "cyan", "training": "cyan", "stale": "yellow"}
_ALERT_LINES = 2


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
    """

    status: Mapping[str, Any]
    latency_s: float | None = None
    error: str = ""


def picture(look: Look, *, width: int, height: int | None, first: int = 0, paint: Paint) -> list[str]:
    """Return the daemon as lines.

    Parameters
    ----------
    look : Look
    width : int
        Characters.
    height : int or None
        Lines at most; ``None`` is as many as it takes.
    first : int
        Streams to leave out at the top of the list.
    paint : Paint

    Returns
    -------
    list of str
        No longer than `width`, and `height` of them where it is given.
    """
    status = look.status
    head = _head(look, paint)
    alerts = _alerts(status, width, paint)
    foot = [paint(visible(look.error), "red")] if look.error else []
    streams = _ordered(status)
    if height is None:
        body = _streams(streams, width, paint)
        lines = [*head, "", *body, *([""] if alerts else []), *alerts, *foot]
    else:
        if not foot:
            foot = [paint("q ends it, j and k move the list", "dim")]
        room = max(2, height - len(head) - 1 - len(foot))
        # Alerts come first, but the streams keep a third of the room.
        for_streams = min(len(streams) + 1, max(min(3, room), room // 3, room - len(alerts) - 1))
        body = _streams(streams[first:], width, paint)[: max(1, for_streams)]
        below = len(streams) - first - (len(body) - 1)
        left = room - len(body) - 1
        shown = alerts if len(alerts) <= left else [*alerts[: max(0, left - 1)], paint("more alerts below", "dim")]
        hidden = [f"{count} streams {where}" for count, where in ((first, "above"), (below, "below")) if count > 0]
        if hidden:
            foot[0] = paint(f"{', '.join(hidden)}; ", "dim") + foot[0]
        lines = [*head, "", *body, *([""] if shown and left > 0 else []), *shown[: max(0, left)]]
        lines = [*lines[: height - len(foot)], *[""] * (height - len(foot) - len(lines)), *foot]
    return lines


def _head(look: Look, paint: Paint) -> list[str]:
    status, broker = look.status, look.status["mqtt"]
    latency = "" if look.latency_s is None else f", 95 % of verdicts within {_milliseconds(look.latency_s)}"
    connected = paint("connected", "green")
    if not broker["connected"]:
        connected = paint(visible(broker["error"] or "not connected"), "red")
    waiting = f", {status['queue_length']} messages wait" if status["queue_length"] else ""
    lasts = f"up {duration_text(status['uptime_s'])}, {status['rss_bytes'] / (1 << 20):.1f} MiB"
    return [
        f"{paint(visible(status['node']), 'bold')}  gon-edge {visible(status['version'])}, {lasts}{latency}",
        f"broker {visible(broker['url'])}: {connected}{waiting}",
    ]


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


def _streams(streams: list[Mapping[str, Any]], width: int, paint: Paint) -> list[str]:
    if not streams:
        return ["no stream yet: no message has arrived on a subscribed topic"]
    longest = max(columns(visible(stream["stream"])) for stream in streams)
    name_width = max(6, min(longest, width // 3))
    recent = max(0, width - name_width - 36)
    lines = [
        paint(f"{'STREAM':{name_width}}  {'STATE':10}  {'SCORE':>9}  {'THRESHOLD':>9}  RECENT"[:width], "dim"),
    ]
    for stream in streams:
        severity = stream["severity"]
        state = severity or stream["state"]
        colours = (
            ("bold", "red") if severity == "critical" else ("yellow",) if severity else (_COLOURS[stream["state"]],)
        )
        over = None not in (stream["score"], stream["threshold"]) and stream["score"] > stream["threshold"]
        line = [
            paint(fit(visible(stream["stream"]), name_width), *(colours if severity else ())),
            paint(f"{state:10}", *colours),
            paint(f"{number_text(stream['score']):>9}", *(("red",) if over else ())),
            f"{number_text(stream['threshold']):>9}",
        ]
        if stream["training"]:
            line.append(fit(f"training: {visible(stream['training'])}", recent))
        elif stream["score"] is None and stream["model_version"] is None:
            eta = f", {duration_text(stream['eta_s'])} left" if stream["eta_s"] else ""
            line.append(fit(f"{stream['rows']} of {stream['rows_needed']} rows{eta}", recent))
        else:
            line.append(sparkline(stream["scores"], stream["threshold"], width=recent, paint=paint))
        lines.append("  ".join(line).rstrip())
    return lines


def _alerts(status: Mapping[str, Any], width: int, paint: Paint) -> list[str]:
    lines = []
    newest = {stream["stream"]: stream["last_timestamp"] or 0.0 for stream in status["streams"]}
    for alert in _open_alerts(status):
        what = f"{alert['severity']} {alert['kind']}"
        # By the stream's own time, which in a replay is not the daemon's.
        until = max(alert["timestamp"], newest.get(alert["stream"], 0.0))
        lasts = duration_text(max(0.0, until - alert["since"]))
        causes = ", ".join(visible(cause_text(cause)) for cause in alert["top_features"][:4]) or "cause unknown"
        text = f"{what} on {visible(alert['stream'])} for {lasts}: {causes}"
        wrapped = textwrap.wrap(text, max(width, 20), subsequent_indent="  ", max_lines=_ALERT_LINES, placeholder=" …")
        colours = ("bold", "red") if alert["severity"] == "critical" else ("yellow",)
        lines += [paint(what, *colours) + wrapped[0].removeprefix(what), *wrapped[1:]]
    for silence in status["silences"]:
        left = duration_text(max(0.0, silence["until"] - status["now"]))
        name = visible(f"{silence['feature']} of {silence['stream']}" if silence["feature"] else silence["stream"])
        lines.append(paint(f"silenced for another {left}: {name}", "dim"))
    return lines


# -- looking -----------------------------------------------------------------------------------------------------------


class _Eye:
    """Asks the daemon, and remembers what the latency is counted from."""

    def __init__(self, api: DaemonApi) -> None:
        self._api = api
        self._before: Mapping[float, float] = {}
        self._latency_s: float | None = None

    def look(self) -> Look:
        status = self._api.status()
        buckets = histogram_buckets(self._api.metrics(), _LATENCY)
        since = {bound: count - self._before.get(bound, 0.0) for bound, count in buckets.items()}
        if any(count < 0.0 for count in since.values()):  # another daemon than before
            since = buckets
        self._before = buckets
        self._latency_s = histogram_quantile(since, 0.95) or self._latency_s  # none came: the one before
        return Look(status, self._latency_s)


def show_once(api: DaemonApi, out: IO[str]) -> str:
    """Return the daemon as a page for `out`, in colour where that is a terminal.

    Raises
    ------
    UnreachableError
        No daemon answers.
    """
    width = shutil.get_terminal_size().columns if out.isatty() else _WIDE
    lines = picture(_Eye(api).look(), width=max(width, _NARROW), height=None, paint=Paint(wants_colour(out)))
    return "".join(f"{line}\n" for line in lines)


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
    paint = Paint(wants_colour(out))
    with (
        contextlib.suppress(KeyboardInterrupt),
        _ends_on_signals(),
        Keyboard(keys) as keyboard,
        WholeScreen(out) as screen,
    ):
        due = time.monotonic() + every_s
        drawn: object = None
        while True:
            size = screen.size
            first = max(0, min(first, len(look.status["streams"]) - 1))
            if drawn != (look, size, first):
                screen.draw(picture(look, width=size.columns, height=size.lines, first=first, paint=paint))
                drawn = (look, size, first)
            key = keyboard.key(min(_LOOK_S, max(0.0, due - time.monotonic())))
            if key in ("q", "Q", "\x04"):
                return
            first += {"j": 1, "\x1b[B": 1, "k": -1, "\x1b[A": -1}.get(key, 0)
            if time.monotonic() >= due:
                due = time.monotonic() + every_s
                try:
                    look = eye.look()
                except UnreachableError as error:
                    look = Look(look.status, look.latency_s, str(error))


@contextlib.contextmanager
def _ends_on_signals() -> Iterator[None]:
    """Leave by an exception when the connection closes or somebody ends us, so that the terminal is given back."""

    def end(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
