"""One static page about a stream's last hours, for the morning after: no network, no script, fit to be mailed.

Scores are computed again from the stored rows with the model in use, a chunk of rows at a time; alerts, trainings and
versions are as they were stored.  This module gathers them; ``templates/report.html`` lays them out with the style in
``report.css``, and ``plot`` draws the picture.  Names and reasons are foreign text and reach the page escaped; the page
forbids itself everything but its own style.

jinja2 is not a dependency of gon-edge: importing this module without it raises `MissingLibrary`.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gon_edge import __version__
from gon_edge.commands import figure, plot
from gon_edge.commands.text import LATEST, cause_text, duration_text, number_text, visible
from gon_edge.commands.thinned import Thinned
from gon_edge.errors import InputError, MissingLibrary
from gon_edge.events import Row
from gon_edge.model.daily import DAY_S, DAYS, DayMemory
from gon_edge.model.detector import Detector
from gon_edge.model.file import Model
from gon_edge.state.catalog import find
from gon_edge.state.days import earlier_days
from gon_edge.state.folder import ModelFolder
from gon_edge.state.history import RetrainRecord
from gon_edge.state.store import Store
from gon_edge.training.job import moment
from gon_edge.training.site import newest_row

try:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
except ImportError as error:
    raise MissingLibrary("jinja2", "a report", error) from None

_TEMPLATES = Path(__file__).with_name("templates")

# Not critical: what somebody reads of a page, newest first.
_MOST_ALERTS = 200
_MOST_ROUNDS = 50
_MOST_MISSING = 30
_MOST_DRAWN = 12  # alerts with a picture: each asks the model for some 300 accounts
_DRAWN_CAUSES = 3
_UNDRAWN = {"drift", "missing"}  # hours of a sensor that is not there, or that drifts over days, show nothing

_BEFORE_S = 3600.0  # of readings before an alert, as the status page shows
_DURING_S = 7200.0  # and during it at most: what came next, the picture above shows
_DAY_POINTS = 180  # a minute each


@dataclass(frozen=True, slots=True)
class _Episode:
    """An alert with what was read before and during it.

    Attributes
    ----------
    alert : mapping
    begin, end : float
        Of what is shown, Unix seconds.
    names : list of str
        Its causes that the model knows.
    thinned : Thinned
    days : dict
        How it was at this time on other days, as `earlier_days` gives it.
    """

    alert: Mapping[str, Any]
    begin: float
    end: float
    names: list[str]
    thinned: Thinned
    days: Mapping[int, NDArray[np.float32]]


def stream_report(
    state_dir: Path,
    stream: str,
    since: Mapping[str, float],
    *,
    progress: Callable[[int, float | None], None] = lambda rows, fraction: None,
) -> str:
    """Return the page.

    Parameters
    ----------
    state_dir : Path
        The daemon may run.
    stream : str
    since : mapping
        ``{"ago_s": seconds before the newest row}`` or ``{"at": Unix seconds}``.
    progress : callable
        Called with rows judged and the fraction of all.

    Raises
    ------
    InputError
        The stream has no rows since then, or no model.
    StoreError, ModelFileError
        Nothing there that can be read.
    """
    folder = ModelFolder(state_dir)
    with Store.open(state_dir, read_only=True) as store:
        newest, interval_s = newest_row(store, stream)
        if newest is None:
            there = ", ".join(sorted(store.streams())) or "none yet"
            raise InputError(f"stream {stream!r} has no rows in {state_dir}; there are: {there}")
        begin = moment(since, newest)
        if begin > newest:
            raise InputError(f"stream {stream!r} has no rows since {_time(begin)}; its newest is of {_time(newest)}")
        if stream not in folder.streams():
            raise InputError(f"stream {stream!r} has no model yet: nothing can be said about its scores")
        model = find(f"stream:{stream}", state_dir).model
        alerts = [a for a in store.alerts(_MOST_ALERTS, stream) if a["timestamp"] >= begin or a["type"] != "end"]
        interval_s = interval_s or 1.0
        episodes = _episodes(store, stream, model, alerts, (begin, newest), interval_s)
        thinned = _judge(store, stream, model, begin, interval_s, episodes, progress)
        rounds = [r for r in store.retrains(_MOST_ROUNDS, stream) if r.started >= begin]
    stored: dict[str, Sequence[Any]] = {"alerts": alerts, "rounds": rounds, "versions": folder.versions(stream)}
    stored["episodes"] = [episode for episode in episodes if episode.thinned.rows]
    return _page(stream, model, (begin, newest), thinned, stored)


def _episodes(
    store: Store,
    stream: str,
    model: Model,
    alerts: Sequence[Mapping[str, Any]],
    span: tuple[float, float],
    interval_s: float,
) -> list[_Episode]:
    """The alerts that get a picture of their own, the newest first, still without rows."""
    found: list[_Episode] = []
    for alert in alerts:
        causes = [cause["feature"] for cause in alert["top_features"] if cause["feature"] in model.features]
        if alert["kind"] in _UNDRAWN or not causes or len(found) == _MOST_DRAWN:
            continue
        begin = max(span[0], alert["since"] - _BEFORE_S)
        until = span[1] if alert["type"] != "end" else alert["timestamp"]
        end = min(until, max(begin, alert["since"]) + _DURING_S)
        names = causes[:_DRAWN_CAUSES]
        # What a counter read on other days is another number; its rate is not stored.
        readings = [name for name in names if name not in model.rising]
        days = earlier_days(
            store, stream, readings, begin, bucket_s=(end - begin + 1.0) / _DAY_POINTS, buckets=_DAY_POINTS
        )
        thinned = Thinned(model.features, math.ceil((end - begin) / interval_s), model.rising, interval_s)
        found.append(_Episode(alert, begin, end, names, thinned, days))
    return found


def _judge(
    store: Store,
    stream: str,
    model: Model,
    begin: float,
    interval_s: float,
    episodes: Sequence[_Episode],
    progress: Callable[[int, float | None], None],
) -> Thinned:
    """Judge the rows since `begin`; the episodes take theirs as they pass."""
    expected = sum(int((chunk.timestamps >= begin).sum()) for chunk in store.outline(stream, since=begin))
    thinned = Thinned(model.features, expected, rising=model.rising)
    days = DayMemory()
    detector = Detector(model, days=days)
    done = 0
    # Two windows more: the first rows shown are judged by what came before them, as they were.
    before_s = 2 * model.discriminator.window * (model.interval_s or interval_s)
    # And the days before, where the model compares with them.
    reach_s = (DAYS + 1) * DAY_S if model.readings != model.features else 0.0
    for chunk in store.chunks(stream, since=begin - before_s - reach_s, include_quarantined=True):
        stale, early = np.isnan(chunk.values), chunk.timestamps < begin - before_s
        if early.any():
            days.add(chunk.timestamps[early], chunk.features, chunk.values[early])
        for t in np.flatnonzero(~early).tolist():
            at = float(chunk.timestamps[t])
            row = Row(stream, at, chunk.features, chunk.values[t], stale[t], bool(chunk.restart[t]))
            verdict = detector.score(row)
            days.add_row(at, chunk.features, chunk.values[t])
            if at >= begin:
                thinned.add(at, row, verdict, detector)
            for episode in episodes:
                if episode.begin <= at <= episode.end:
                    episode.thinned.add(at, row, verdict, detector)
        done += int(np.count_nonzero(~early))
        progress(done, min(1.0, done / max(expected, 1)))
    return thinned


# -- the page ----------------------------------------------------------------------------------------------------------


def _page(
    stream: str, model: Model, span: tuple[float, float], thinned: Thinned, stored: Mapping[str, Sequence[Any]]
) -> str:
    """Fill the template in; `stored` holds ``alerts``, ``rounds`` and ``versions`` as the template uses them."""
    begin, newest = max(span[0], thinned.columns[0].first_at), span[1]
    kinds = Counter(alert["kind"] for alert in stored["alerts"])
    anomalies = [alert for alert in stored["alerts"] if alert["kind"] == "anomaly"]
    spans = [(alert["since"], newest if alert["type"] != "end" else alert["timestamp"]) for alert in anomalies]
    facts = {
        "rows": str(thinned.rows),
        "above the threshold": f"{thinned.anomalies} ({100 * thinned.anomalies / max(1, thinned.rows):.2g} %)",
        "alerts": f"{len(anomalies)}, and {kinds['changed']} for another state, {kinds['drift']} for a drift, "
        f"{kinds['missing']} for missing sensors",
        "highest score": f"{number_text(thinned.highest)} at {_time(thinned.highest_at)}",
        "threshold": number_text(model.threshold),
        "model in use": f"version {model.version or '-'}, trained {_time(model.lineage.get('trained_at'))}",
    }
    title = f"{stream}, {_time(begin)} to {_time(newest)} UTC"
    page: str = (
        environment(newest)
        .get_template("report.html")
        .render(
            stream=stream,
            begin=begin,
            newest=newest,
            facts=facts,
            picture=svg_element(plot.element(thinned, title=title, alerts=spans)),
            missing=_missing(thinned),
            pictures=[(episode.alert, svg_element(_drawn(episode))) for episode in stored["episodes"]],
            **{name: rows for name, rows in stored.items() if name != "episodes"},
        )
    )
    return page


def _drawn(episode: _Episode) -> str:
    """The readings of an alert's causes as an SVG element."""
    alert = episode.alert
    readings = [name for name in episode.names if not episode.thinned.is_counter(name)]
    step = (episode.end - episode.begin + 1.0) / _DAY_POINTS
    times = episode.begin + step * (np.arange(_DAY_POINTS) + 0.5)
    days: dict[str, list[plot.Line]] = {
        name: [
            (times[known], values[known, f])
            for values in episode.days.values()
            if (known := np.isfinite(values[:, f])).any()
        ]
        for f, name in enumerate(readings)
    }
    until = episode.end if alert["type"] != "end" else min(episode.end, alert["timestamp"])
    title = f"{', '.join(episode.names)} before and during the alert of {_time(alert['since'])} UTC"
    return plot.causes_element(episode.thinned, episode.names, title=title, alert=(alert["since"], until), days=days)


def svg_element(picture: str) -> Markup:
    """Return a picture as part of a page; matplotlib has escaped what is foreign in it."""
    return Markup(picture)  # noqa: S704


def environment(newest: float) -> Environment:
    """Return what fills a template in; `newest` is the moment of the last row, until which open alerts last."""
    found = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(str(value)),
    )

    def lasted(alert: Mapping[str, Any]) -> str:
        is_open = alert["type"] != "end"
        text = duration_text(max(0.0, (newest if is_open else alert["timestamp"]) - alert["since"]))
        return f"{text}, still open" if is_open else text

    def took(record: RetrainRecord) -> str:
        return f"{duration_text(record.duration_s)}, {record.peak_bytes / (1 << 20):.0f} MiB"

    style = (_TEMPLATES / "report.css").read_text("utf-8") + figure.DARK_STYLE
    found.filters |= {"cause": cause_text, "lasted": lasted, "number": number_text, "time": _time, "took": took}
    found.globals |= {
        "style": Markup(style),  # noqa: S704  our own file
        "style_hash": base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        "program": __version__,
    }
    return found


def _missing(thinned: Thinned) -> list[tuple[str, int, str]]:
    """Features that lacked a value, with the number of such rows and their share."""
    missing = thinned.missing
    return [
        (thinned.features[f], int(missing[f]), f"{100 * missing[f] / max(1, thinned.rows):.2g} %")
        for f in np.argsort(-missing, kind="stable")[:_MOST_MISSING]
        if missing[f]
    ]


def _time(at: object) -> str:
    if not isinstance(at, int | float) or not 0.0 < at <= LATEST:
        return "-"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
