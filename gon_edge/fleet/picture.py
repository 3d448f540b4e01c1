"""What one moment of `gon-edge fleet up` looks like: a picture for a terminal, a line for anything else.

Pure: what was seen goes in, something that rich draws, or a line, comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gon_edge.commands.draw import line
from gon_edge.commands.text import cause_text, duration_text
from gon_edge.fleet.look import Look, Owned, ranges

_MIB = 1 << 20
_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")
"""Of workers, in the order of their names."""

_ALERTS = 5
"""Alerts shown.  Not critical: with them everything fits 80 by 24."""

_NEWS = 4
"""Lines of what has happened.  Not critical, as above."""

_FIRST = 16
"""Partitions shown one by one.  Not critical, as above."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What `up` knows at one moment.

    Attributes
    ----------
    look : Look or None
        ``None`` until the workers are there.
    way : str
        From devices to workers, in words.
    devices : int
    sent, acknowledged : int
        Rows, as the devices say.
    rows_s : float
        Rows with a verdict a second, over the last seconds.
    running_s : float
    left_s : float or None
        Until it ends by itself.
    news : sequence of str
        What has happened, the newest last.
    dead : sequence of str
        Workers that were killed.
    """

    look: Look | None
    way: str
    devices: int
    sent: int
    acknowledged: int
    rows_s: float
    running_s: float
    left_s: float | None
    news: Sequence[str]
    dead: Sequence[str]


def picture(moment: Moment) -> RenderableType:
    """Draw one moment."""
    running = int(moment.running_s)
    title = Table.grid(expand=True)
    title.add_column(ratio=1)
    left = "" if moment.left_s is None else f", {duration_text(max(0.0, moment.left_s))} left"
    title.add_row(
        line(("gon-edge fleet", "bold"), (f"  {moment.way}", "")),
        line((f"{running // 60:02d}:{running % 60:02d}{left}", "dim")),
    )
    if moment.look is None:
        return Group(title, "", line(("servers and workers start", "bold")))
    look = moment.look
    colours = colour_of(moment)
    latency = "" if look.latency_p99_s is None else f"   99 % of verdicts within {1000 * look.latency_p99_s:.0f} ms"
    counts = line(
        ("devices ", "dim"),
        (str(moment.devices), "bold"),
        ("   rows a second ", "dim"),
        (f"{moment.rows_s:.0f}", "bold"),
        ("   wait ", "dim"),
        (str(look.lag), "bold yellow" if look.lag > moment.devices else "bold"),
        ("   alerts ", "dim"),
        (str(len(look.alerts)), "bold red" if look.alerts else "bold"),
        (latency, "dim"),
    )
    news = [line(("· ", "dim"), (text, "")) for text in moment.news[-_NEWS:]]
    keys = line(("k kills a worker   f breaks devices   q ends it", "dim"))
    parts: list[RenderableType] = [title, "", counts, "", _workers(moment, colours), "", _partitions(look, colours), ""]
    return Group(*parts, *_alerts(look), *news, keys)


def colour_of(moment: Moment) -> Mapping[str, str]:
    """Return the colour of each worker; it stays the same when another one dies."""
    alive = [worker.name for worker in moment.look.workers] if moment.look is not None else []
    names = sorted({*alive, *moment.dead})
    return {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(names)}


def _workers(moment: Moment, colours: Mapping[str, str]) -> RenderableType:
    assert moment.look is not None
    table = _table("WORKER", "PARTITIONS", "STREAMS", "MEMORY")
    streams = {each.number: each.streams for each in moment.look.partitions}
    for worker in moment.look.workers:
        if worker.name in moment.dead:
            continue
        held = sum(streams.get(number, 0) for number in worker.partitions)
        memory = f"{worker.memory_bytes / _MIB:.0f} MiB"
        table.add_row(_cell(worker.name, colours[worker.name]), ranges(worker.partitions), str(held), memory)
    for name in moment.dead:
        table.add_row(_cell(name, f"{colours[name]} strike"), "killed", "", "")
    return table


def _partitions(look: Look, colours: Mapping[str, str]) -> RenderableType:
    table = _table("PARTITION", "OWNER", "STREAMS", "WAIT", "TAKEOVERS", "VERDICTS")
    for each in look.partitions[:_FIRST]:
        verdicts = "" if each.latency_p99_s is None else f"99 % in {1000 * each.latency_p99_s:.0f} ms"
        table.add_row(
            str(each.number), _owner(each, colours), str(each.streams), str(each.lag), str(each.epoch), verdicts
        )
    if (more := len(look.partitions) - _FIRST) > 0:
        table.add_row(f"and {more} more", "", "", "", "", "")
    return table


def _owner(partition: Owned, colours: Mapping[str, str]) -> Text:
    if partition.worker:
        return _cell(partition.worker, colours.get(partition.worker, ""))
    return _cell("nobody", "bold red") if partition.lag else _cell("-", "dim")


def _cell(text: str, style: str) -> Text:
    return line((text, style))


def _alerts(look: Look) -> list[RenderableType]:
    shown: list[RenderableType] = []
    for event in look.alerts[:_ALERTS]:
        style = "bold red" if event["severity"] == "critical" else "yellow"
        shown.append(line((f"{event['severity']} ", style), (event["stream"], "bold"), (f"  {_causes(event)}", "")))
    if (more := len(look.alerts) - _ALERTS) > 0:
        shown.append(line((f"and {more} more alerts", "dim")))
    return [*shown, ""] if shown else []


def _causes(event: Mapping[str, Any]) -> str:
    return ", ".join(cause_text(cause) for cause in event["top_features"][:2])


def _table(*headings: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("WORKER", "OWNER", "PARTITIONS") else "right")
    return table


def status_line(moment: Moment) -> str:
    """Return one moment as one line, for output that is not a terminal."""
    if moment.look is None:
        return "servers and workers start"
    look = moment.look
    owners = "; ".join(f"{worker.name} has {ranges(worker.partitions)}" for worker in look.workers)
    latency = "" if look.latency_p99_s is None else f", 99 % of verdicts within {1000 * look.latency_p99_s:.0f} ms"
    alerts = f"{len(look.alerts)} alerts open"
    return f"{moment.sent} rows sent, {moment.rows_s:.0f} a second scored, {look.lag} wait, {alerts}{latency}; {owners}"
