"""One static page about a rehearsal: scores and thresholds over time, alerts, trainings; laid out as a `report` is.

``templates/rehearsal.html`` lays it out.  Names and reasons are foreign text and reach the page escaped.  Importing
this module without jinja2 or matplotlib raises `MissingLibrary`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gon_edge.commands import figure as fig
from gon_edge.commands.rehearsed import (
    Rehearsed,
    answer_text,
    faults_text,
    in_columns,
    reason_text,
    share_text,
)
from gon_edge.commands.report import environment, svg_element
from gon_edge.commands.text import duration_text, number_text
from gon_edge.daemon.rehearsal import Course, Rehearsal

# Dots; not critical: what looked well at 960 dots across.
_LEFT, _RIGHT, _TOP, _HEIGHT, _FOOT = 64, 16, 34, 200, 40
_ACROSS = fig.WIDTH - _LEFT - _RIGHT
_COLUMNS = _ACROSS // 2  # two dots each

_HIGHEST = 5.0
"""Times the largest threshold up to which the scale of scores goes, as in `plot`."""

_FAULT_BAR = 0.96  # of the height: from here on up a known fault is a bar
_MOST_ALERTS = 500  # not critical: what somebody reads of a page


def rehearsal_page(file: str, rehearsal: Rehearsal, result: Rehearsed) -> str:
    """Return the page of a rehearsal of ``file``."""
    courses = {name: course for name, course in rehearsal.courses.items() if len(course.timestamps)}
    newest = max((course.timestamps[-1] for course in courses.values()), default=0.0)
    streams = result.summary(rehearsal)["streams"]
    shown = [
        {
            "name": name,
            "facts": _facts(streams[name]),
            "picture": svg_element(_picture(name, course, newest, result)),
        }
        for name, course in courses.items()
    ]
    faults = result.faults or ()
    alerts = []
    for alert in list(result.alerts.values())[:_MOST_ALERTS]:
        lasted = duration_text(max(0.0, (newest if alert.ended_at is None else alert.ended_at) - alert.since))
        text = f"{lasted}, still open" if alert.ended_at is None else lasted
        alerts.append((alert, text, any(alert.touches(fault) for fault in faults)))
    return (
        environment(newest)
        .get_template("rehearsal.html")
        .render(
            file=file,
            streams=shown,
            alerts=alerts,
            more=len(result.alerts) - len(alerts),
            trainings=[(one, reason_text(one)) for one in result.trainings],
            answers=[(one.at, answer_text(one)) for one in result.answers],
            has_faults=result.faults is not None,
        )
    )


def _facts(found: dict[str, Any]) -> dict[str, str]:
    week = found["alerts_a_week"]
    thresholds = [threshold for _, threshold in found["thresholds"]]
    facts = {
        "rows": f"{found['rows']}, {found['judged']} of them judged",
        "alerts": str(sum(found["alerts"].values())),
        "alerts a week": "-" if week is None else f"{week:.2g}",
        "in alarm": f"{share_text(found['in_alarm'])} of the judged rows",
        "trainings": f"{sum(found['trainings'].values())}, {found['trainings'].get('promoted', 0)} of them a new model",
        "threshold": f"{number_text(min(thresholds))} to {number_text(max(thresholds))}" if thresholds else "-",
    }
    return facts if found["faults"] is None else {**facts, "known faults": faults_text(found["faults"])}


def _picture(name: str, course: Course, newest: float, result: Rehearsed) -> str:
    """Score and threshold of a stream over time, as an SVG element."""
    times, scores, thresholds = in_columns(course, _COLUMNS)
    place = np.array([fig.place(at, is_time=True) for at in times])
    begin = place[0]
    end = max(fig.place(newest, is_time=True), begin + fig.place(1.0, is_time=True))
    dot = (end - begin) / _ACROSS
    highest = float(scores.max())
    limit = float(thresholds.max())
    colours = fig.LIGHT
    with fig.canvas(colours) as figure:
        fig.resize(figure, fig.WIDTH, _TOP + _HEIGHT + _FOOT)
        axes = fig.panel(figure, _LEFT, _TOP, _ACROSS, _HEIGHT)
        fig.across(axes, begin, end, is_time=True)
        axes.set_ylim(0.0, max(1.5 * limit, min(1.1 * highest, _HIGHEST * limit), 1e-12))
        for alert in result.alerts.values():
            if alert.stream == name:
                left = fig.place(alert.since, is_time=True)
                right = fig.place(newest if alert.ended_at is None else alert.ended_at, is_time=True)
                axes.axvspan(left, max(right, left + 2.0 * dot), color=colours["alert"], linewidth=0, zorder=0)
        for fault in result.faults or ():
            if fault.stream in ("", name):
                left, right = (fig.place(at, is_time=True) for at in fault[:2])
                axes.axvspan(left, max(right, left + 2.0 * dot), _FAULT_BAR, 1.0, color=colours["part0"], linewidth=0)
        for trained in result.trainings:
            if trained.record.stream == name and trained.threshold is not None:
                at = fig.place(trained.at, is_time=True)
                axes.axvline(at, color=colours["soft"], linewidth=0.8, linestyle=(0, (1, 3)))
        (line,) = axes.plot(place, scores, color=colours["score"])
        (dashes,) = axes.plot(
            place, thresholds, color=colours["threshold"], linestyle=(0, (5, 3)), drawstyle="steps-post"
        )
        beyond = ", beyond the scale" if highest > axes.get_ylim()[1] else ""
        axes.set_title(f"highest score of {fig.short(name)}: {highest:.4g}{beyond}", pad=7)
        axes.legend(
            [line, dashes],
            ["score", "threshold"],
            ncols=2,
            loc="lower right",
            bbox_to_anchor=(0.0, 1.0 + 5.0 / axes.bbox.height, 1.0, 0.0),
        )
        return fig.svg(figure, f"scores and thresholds of {name}", css=None)
