"""What one moment of the demonstration looks like: a picture for a terminal, a line for anything else."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table

from gon_edge.commands.draw import chart, line
from gon_edge.commands.text import duration_text, number_text
from gon_edge.demo.story import Story

_CHART_LINES = 5
"""Lines of the chart.  With them everything fits 80 by 23."""

_CHART_COLUMNS = 120
"""The daemon keeps so many recent scores of a stream."""

_CAUSES = 4
"""Features of an alert.  Not critical: more do not fit beside the chart in 23 lines."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the daemon.

    Attributes
    ----------
    status : mapping
        Of :meth:`gon_edge.links.client.DaemonApi.status`.
    latency_s : tuple of float or None
        Median and 99th percentile from the newest reading of a row to its verdict, over the last half minute.
    url : str
        Of the status page, without a slash at its end.
    running_s : float
        Since the demonstration began.
    """

    status: Mapping[str, Any]
    latency_s: tuple[float | None, float | None]
    url: str
    running_s: float

    def stream(self, name: str) -> Mapping[str, Any] | None:
        """Return the stream of that name, or ``None`` before its first reading."""
        streams: Sequence[Mapping[str, Any]] = self.status["streams"]
        return next((stream for stream in streams if stream["stream"] == name), None)


def picture(story: Story, seen: Seen, name: str, *, width: int, height: int) -> RenderableType:
    """Draw one moment.

    Parameters
    ----------
    story : Story
    seen : Seen
    name : str
        The stream to show.
    width, height : int
        Characters there are; 80 by 23 is enough for everything.
    """
    now_text, next_text = story.now_and_next()
    running = int(seen.running_s)
    title = Table.grid(expand=True)
    title.add_column(ratio=1)
    title.add_row(
        line(("gon-edge demo", "bold"), ("  this machine's telemetry, twice a second", "")),
        line((f"{running // 60:02d}:{running % 60:02d}", "dim")),
    )
    p50, p99 = seen.latency_s
    memory = f"{seen.status['rss_bytes'] / (1 << 20):.1f} MiB"
    latency = f"reading to verdict: median {_milliseconds(p50)}, 99 % within {_milliseconds(p99)}"
    above: list[RenderableType] = [
        title,
        "",
        line(("now   ", "dim"), (now_text, "bold yellow" if story.phase == "fault" else "bold")),
        line(("next  ", "dim"), (next_text, "")),
        "",
    ]
    alert, alert_lines = _alert(story)
    below: list[RenderableType] = [
        "",
        alert,
        "",
        line(("daemon  ", "dim"), (f"{memory}   {latency}", "")),
        line(("page    ", "dim"), (f"{seen.url}/   ", ""), ("metrics ", "dim"), (f"{seen.url}/metrics", "")),
    ]
    # Above the chart stands the stream, below it the score.
    room = height - len(above) - len(below) - alert_lines - 1
    stream = _stream(seen.stream(name), name, width=width, chart_lines=max(1, min(_CHART_LINES, room)))
    return Group(*above, *stream, *below)


def _stream(stream: Mapping[str, Any] | None, name: str, *, width: int, chart_lines: int) -> list[RenderableType]:
    if stream is None:
        return [line((name, "bold"), ("  no reading yet", "")), "", ""]
    about = f"  {stream['state']}, {len(stream['features'])} features, row {stream['rows']}"
    if stream["model_version"] is not None:
        head = line((name, "bold cyan"), (f"{about}, model {stream['model_version']}", ""))
        return [head, *_scores(stream, width=width, chart_lines=chart_lines)]
    needed = stream["rows_needed"]
    left = f", {duration_text(stream['eta_s'])} left" if stream["eta_s"] else ""
    progress = Table.grid(padding=(0, 2, 0, 0), expand=True)
    progress.add_column(ratio=1)
    progress.add_row(
        ProgressBar(total=needed, completed=stream["rows"]),
        line((f"{min(stream['rows'], needed)} of {needed} rows{left}", "")),
    )
    if stream["starter"] is None or stream["score"] is None:
        return [line((name, "bold cyan"), (about, "")), "", progress]
    head = line((name, "bold cyan"), (f"{about}, meanwhile {stream['starter']}", ""))
    return [head, *_scores(stream, width=width, chart_lines=max(1, chart_lines - 1)), progress]


def _scores(stream: Mapping[str, Any], *, width: int, chart_lines: int) -> list[RenderableType]:
    over = stream["score"] is not None and stream["score"] > stream["threshold"]
    return [
        chart(stream["scores"], stream["threshold"], width=min(width, _CHART_COLUMNS), height=chart_lines),
        line(
            (f"score {number_text(stream['score'])}", "bold red" if over else "bold green"),
            ("   ┄┄", "yellow"),
            (f" threshold {number_text(stream['threshold'])}", ""),
        ),
    ]


def _alert(story: Story) -> tuple[RenderableType, int]:
    """The alert with its causes, and how many lines it takes."""
    alert = story.alert
    if alert is None:
        return line(("alert", "dim"), ("  none", "")), 1
    ended = alert["type"] == "end"
    began = time.strftime("%H:%M:%S", time.localtime(alert["since"]))
    after = "" if story.detected_after_s is None else f", {story.detected_after_s:.1f} s after the fault began"
    until = f" to {time.strftime('%H:%M:%S', time.localtime(alert['timestamp']))}, ended" if ended else ""
    title = f"ALERT  {alert['severity']} {alert['kind']} since {began}{until}{after}"
    causes = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("FEATURE", "VALUE", "EXPECTED", "SHARE"):
        causes.add_column(heading, justify="left" if heading == "FEATURE" else "right")
    for cause in alert["top_features"][:_CAUSES]:
        texts = (cause["feature"], number_text(cause["value"]), number_text(cause["expected"]))
        causes.add_row(*(line((text, "")) for text in (*texts, f"{100 * (cause['contribution'] or 0.0):.0f} %")))
    title_line = line((title, "bold dim" if ended else "bold red"))
    return Group(title_line, Padding(causes, (0, 0, 0, 2))), 2 + causes.row_count


def status_line(seen: Seen, name: str) -> str:
    """Return one moment as one line, for output that is not a terminal."""
    stream = seen.stream(name)
    memory = f"{seen.status['rss_bytes'] / (1 << 20):.1f} MiB"
    if stream is None:
        return f"{name}: no reading yet, {memory}"
    if stream["model_version"] is None:
        left = f", {duration_text(stream['eta_s'])} left" if stream["eta_s"] else ""
        rows = f"{min(stream['rows'], stream['rows_needed'])} of {stream['rows_needed']} rows"
        score = ""
        if stream["score"] is not None:
            level = f"{number_text(stream['score'])} of {number_text(stream['threshold'])}"
            score = f", score {level} by {stream['starter']}"
        return f"{name}: {stream['state']}, {rows}{left}{score}, {memory}"
    p50, p99 = seen.latency_s
    return (
        f"{name}: {stream['state']}, row {stream['rows']}, score {number_text(stream['score'])} of "
        f"{number_text(stream['threshold'])}, {memory}, reading to verdict {_milliseconds(p50)} "
        f"(99 % within {_milliseconds(p99)})"
    )


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.2g} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"
