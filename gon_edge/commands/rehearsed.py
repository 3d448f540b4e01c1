"""What came of a rehearsal, added up: alerts a week, time in alarm, trainings, and known faults found or missed.

A fault is *found* by an alert that is told after the fault began and whose first row lies before the fault's end; an
alert that was open before tells nothing new of it.  An alert is *false* when it touches no known fault.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gon_edge.commands.text import cause_text, duration_text, number_text, visible
from gon_edge.daemon.rehearsal import Answered, Course, News, Rehearsal, Trained

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DAY_S = 86400.0
_CAUSES = 3  # of an alert, on its line.  Not critical: what fits a terminal


class Fault(NamedTuple):
    """A span in which something was wrong: Unix seconds, and the stream, empty for any."""

    start: float
    end: float
    stream: str


@dataclass(slots=True)
class Alerted:
    """One alert, from the first row to its end.

    Attributes
    ----------
    id, stream, kind, severity : str
    since, told_at : float
        Unix seconds of its first row, and of the row at which it was told.
    ended_at : float or None
        ``None`` while it is open.
    causes : list of mapping
        Of the event with the highest score; of a drift those of the newest.
    events : int
    back_at : list of float
        Unix seconds of the rows at which it was told again, having ended.
    """

    id: str
    stream: str
    kind: str
    severity: str
    since: float
    told_at: float
    ended_at: float | None
    causes: list[Mapping[str, Any]]
    events: int
    score: float = float("-inf")
    back_at: list[float] = field(default_factory=list)

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take a further event."""
        self.events += 1
        if event["severity"] == "critical":
            self.severity = "critical"
        if event["type"] == "end":
            self.ended_at = event["timestamp"]
        elif self.ended_at is not None:
            self.ended_at = None
            self.back_at.append(event["timestamp"])
        score = event["score"]
        if event["top_features"] and (score is None or score > self.score or self.kind == "drift"):
            self.causes, self.score = event["top_features"], score if score is not None else self.score

    def touches(self, fault: Fault) -> bool:
        """Whether it was open at any time of a fault."""
        is_its = fault.stream in ("", self.stream)
        return is_its and self.since <= fault.end and (self.ended_at is None or self.ended_at >= fault.start)

    def finds(self, fault: Fault) -> bool:
        """Whether it is news of a fault."""
        return self.told_of(fault) is not None

    def told_of(self, fault: Fault) -> float | None:
        """When it was first news of a fault; ``None`` where it was none."""
        told = [self.told_at, *(at for at in self.back_at if at <= fault.end)]
        return min((at for at in told if at >= fault.start), default=None) if self.touches(fault) else None


class Rehearsed:
    """Takes the news of a rehearsal, and adds them up.

    Parameters
    ----------
    faults : sequence of Fault, optional
        Known ones.

    Attributes
    ----------
    faults : sequence of Fault or None
    alerts : dict of str to Alerted
        By id, in the order in which they were told.
    trainings : list of Trained
    answers : list of Answered
    """

    def __init__(self, faults: Sequence[Fault] | None = None) -> None:
        self.faults = faults
        self.alerts: dict[str, Alerted] = {}
        self.trainings: list[Trained] = []
        self.answers: list[Answered] = []

    def add(self, news: News) -> None:
        """Take one."""
        if isinstance(news, Trained):
            self.trainings.append(news)
        elif isinstance(news, Answered):
            self.answers.append(news)
        else:
            self._hear(news.event)

    def _hear(self, event: Mapping[str, Any]) -> None:
        alert = self.alerts.get(event["id"])
        if alert is None:
            names = event["id"], event["stream"], event["kind"], event["severity"]
            alert = self.alerts[event["id"]] = Alerted(*names, event["since"], event["timestamp"], None, [], 0)
        alert.hear(event)

    # -- added up ----------------------------------------------------------------------------------------------------

    def summary(self, rehearsal: Rehearsal) -> dict[str, Any]:
        """All of it as JSON values, times in Unix seconds."""
        return {
            "streams": {name: self._stream(name, course) for name, course in rehearsal.courses.items()},
            "unheard": dict(rehearsal.unheard),
            "alerts": [{key: v for key, v in asdict(a).items() if key != "score"} for a in self.alerts.values()],
            "trainings": [
                {"at": one.at, "model_threshold": one.threshold, **asdict(one.record)} for one in self.trainings
            ],
            "answers": [one._asdict() for one in self.answers],
        }

    def _stream(self, name: str, course: Course) -> dict[str, Any]:
        alerts = [alert for alert in self.alerts.values() if alert.stream == name]
        times = course.timestamps
        days = (times[-1] - times[0]) / _DAY_S if times else 0.0
        trainings = [one for one in self.trainings if one.record.stream == name]
        return {
            "rows": course.rows,
            "judged": len(times),
            "since": times[0] if times else None,
            "until": times[-1] if times else None,
            "alerts": dict(Counter(alert.kind for alert in alerts)),
            "alerts_a_week": 7.0 * len(alerts) / days if days >= 1.0 else None,  # of an hour it says nothing
            "in_alarm": sum(course.in_alarm) / len(times) if times else None,
            "trainings": dict(Counter(one.record.outcome for one in trainings)),
            "thresholds": [[one.at, one.threshold] for one in trainings if one.threshold is not None],
            "faults": self._faults(name, alerts, times[0]) if self.faults is not None and times else None,
        }

    def _faults(self, name: str, alerts: Sequence[Alerted], judged_from: float) -> dict[str, Any]:
        """Of the known faults since the warm-up: found ones, and how soon; and alerts that touch none."""
        assert self.faults is not None
        known = [fault for fault in self.faults if fault.stream in ("", name)]
        judged = [fault for fault in known if fault.end >= judged_from]
        delays = []
        for fault in judged:
            told = [at for at in (alert.told_of(fault) for alert in alerts) if at is not None]
            if told:
                delays.append(min(told) - fault.start)
        return {
            "known": len(judged),
            "in_warm_up": len(known) - len(judged),
            "found": len(delays),
            "false_alerts": sum(not any(alert.touches(fault) for fault in known) for alert in alerts),
            "delay_s": {"median": statistics.median(delays), "most": max(delays)} if delays else None,
        }

    # -- in words ----------------------------------------------------------------------------------------------------

    def text(self, summary: Mapping[str, Any]) -> str:
        """What happened, a line each in the order of time, then what it adds up to for each stream."""
        lines = [f"{time_text(at)}  {line}" for at, line in sorted(self._happened(), key=lambda one: one[0])]
        for name, found in summary["streams"].items():
            lines += ["", f"{name}: {found['rows']} rows, {found['judged']} of them judged", *_totals(found)]
        if not summary["streams"]:
            lines.append("no row was made of the recording")
        if summary["unheard"]:
            heard = ", ".join(f"{reason} {count}" for reason, count in summary["unheard"].items())
            lines += ["", f"without a reading: {heard}"]
        return "".join(f"{visible(line)}\n" for line in lines)

    def _happened(self) -> list[tuple[float, str]]:
        alerts = [(alert.told_at, f"{alert.stream}: {alert_text(alert)}") for alert in self.alerts.values()]
        trainings = [(one.at, f"{one.record.stream}: {training_text(one)}") for one in self.trainings]
        return alerts + trainings + [(one.at, answer_text(one)) for one in self.answers]


def _totals(found: Mapping[str, Any]) -> list[str]:
    if not found["judged"]:
        return ["  it never had a model: nothing was judged"]
    kinds, count = found["alerts"], sum(found["alerts"].values())
    week = "" if found["alerts_a_week"] is None else f", {found['alerts_a_week']:.2g} a week"
    lines = [
        f"  alerts     {count}{_parts(kinds)}{week}",
        f"  in alarm   {share_text(found['in_alarm'])} of the judged rows",
        f"  trainings  {sum(found['trainings'].values())}{_parts(found['trainings'])}",
    ]
    if thresholds := [threshold for _, threshold in found["thresholds"]]:
        span = f", {number_text(min(thresholds))} to {number_text(max(thresholds))}" if len(thresholds) > 1 else ""
        lines.append(f"  threshold  {number_text(thresholds[-1])} at the end{span}")
    if (faults := found["faults"]) is not None:
        lines.append(f"  faults     {faults_text(faults)}")
    return lines


def faults_text(faults: Mapping[str, Any]) -> str:
    """Known faults and false alerts in words."""
    delay = faults["delay_s"]
    soon = "" if delay is None else f", after {duration_text(delay['median'])} (at most {duration_text(delay['most'])})"
    early = f"; {faults['in_warm_up']} more in the warm-up" if faults["in_warm_up"] else ""
    one = faults["false_alerts"] == 1
    return (
        f"{faults['found']} of {faults['known']} found{soon}, "
        f"{faults['false_alerts']} false alert{'' if one else 's'}{early}"
    )


def alert_text(alert: Alerted) -> str:
    """One alert in words."""
    lasted = "open to the end" if alert.ended_at is None else duration_text(max(0.0, alert.ended_at - alert.since))
    causes = "; ".join(cause_text(cause) for cause in alert.causes[:_CAUSES]) or "cause unknown"
    return f"alert, {alert.severity} {alert.kind}, {lasted}: {causes}"


def training_text(trained: Trained) -> str:
    """One training in words."""
    record = trained.record
    if trained.threshold is None:
        return f"training, no new model ({record.outcome}): {record.reason}"
    reason = reason_text(trained)
    why = f" ({reason})" if reason else ""
    rows, threshold = record.rows, number_text(trained.threshold)
    return f"training, model {record.version} from {rows} rows, threshold {threshold}{why}"


def reason_text(trained: Trained) -> str:
    """Why a training ended as it did, and why its threshold is not the one its own scores gave; empty for neither."""
    record = trained.record
    moved = "" if record.threshold is None else str(record.threshold["why"])
    return "; ".join(filter(None, (record.reason, moved)))


def answer_text(answered: Answered) -> str:
    """One answer of a person in words."""
    asked = answered.asked
    words = (asked.get("do"), asked.get("stream") or asked.get("alert"), asked.get("answer"))
    what = " ".join(str(word) for word in words if word)
    if answered.refused:
        return f"asked, {what}: refused: {answered.refused}"
    rounds = (answered.answer or {}).get("rounds", [])
    reasons = "; ".join(f"{one['outcome']}{': ' if one['reason'] else ''}{one['reason']}" for one in rounds)
    return f"asked, {what}: {reasons or 'done'}"


def time_text(at: float) -> str:
    """Unix seconds as people write them, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def share_text(share: float) -> str:
    """A share of all, as per cent."""
    return f"{100.0 * share:.3g} %"


def _parts(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{count} {name}' for name, count in counts.items())})" if counts else ""


def in_columns(course: Course, columns: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Judged rows as few: times, the highest score and the last threshold of as many rows each, at most ``columns``.

    Returns
    -------
    times, scores, thresholds : ndarray of float64, shape (M,)
    """
    times = np.asarray(course.timestamps, np.float64)
    first = np.unique(np.linspace(0, len(times), min(columns, len(times)), endpoint=False).astype(np.intp))
    last = np.append(first[1:], len(times)) - 1
    scores = np.maximum.reduceat(np.asarray(course.scores, np.float64), first)
    return times[first], scores, np.asarray(course.thresholds, np.float64)[last]
