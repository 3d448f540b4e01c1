"""One static page about a stream's last hours, for the morning after: no network, no script, fit to be mailed.

Scores are computed again from the stored rows with the model in use, a chunk of rows at a time; alerts, trainings and
versions are as they were stored.  Names and reasons are foreign text and reach the page escaped; the page forbids
itself everything but its own style.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from gon_edge import __version__
from gon_edge.commands.plot import STYLE, WIDTH, SvgCanvas, Thinned, draw, height
from gon_edge.commands.text import cause_text, duration_text, number_text, visible
from gon_edge.errors import InputError
from gon_edge.events import Row
from gon_edge.model.detector import Detector
from gon_edge.model.file import Model
from gon_edge.state.catalog import find
from gon_edge.state.folder import ModelFolder, ModelVersion
from gon_edge.state.history import RetrainRecord
from gon_edge.state.store import Store
from gon_edge.training.job import moment
from gon_edge.training.site import newest_row

_MOST_ALERTS = 200
_MOST_ROUNDS = 50

_CSS = (
    ":root{color-scheme:light dark;--ground:#f5f6f4;--card:#fff;--line:#e1e4e0;--ink:#1c2321;--soft:#5a6562;"
    "--warn:#8f5a00;--fault:#b3261e;--calm:#1f7a6d}"
    "@media(prefers-color-scheme:dark){:root{--ground:#121615;--card:#1a201e;--line:#2b3330;--ink:#e6ebe9;"
    "--soft:#9aa6a2;--warn:#f0bf6c;--fault:#ff9a91;--calm:#5cc2b0}}"
    "*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);"
    "font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif;font-variant-numeric:tabular-nums}"
    "main{max-width:1040px;margin:0 auto;padding:24px 16px 40px}h1{font-size:22px;line-height:1.25;margin:0 0 4px;"
    "overflow-wrap:anywhere}h2{font-size:15px;margin:28px 0 8px}p{margin:4px 0}.soft{color:var(--soft)}"
    ".warning{color:var(--warn);font-weight:600}.critical{color:var(--fault);font-weight:600}.calm{color:var(--calm)}"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:12px;overflow-x:auto}"
    ".card svg{display:block;width:100%;min-width:720px;height:auto}"
    "dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(170px,1fr));gap:10px 20px;margin:16px 0 0}"
    "dt{color:var(--soft);font-size:13px}dd{margin:0;font-weight:600;overflow-wrap:anywhere}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:6px 14px 6px 0;"
    "border-bottom:1px solid var(--line);overflow-wrap:break-word}li{overflow-wrap:anywhere}"
    "th{font-size:13px;color:var(--soft);font-weight:500}"
    "tr:last-child td{border-bottom:0}ul{margin:0;padding-left:18px}footer{margin-top:32px;font-size:13px}"
    "@media(max-width:600px){thead{display:none}tr,td{display:block;width:100%}td{border:0;padding:1px 0}"
    "tr{border-bottom:1px solid var(--line);padding:8px 0}tr:last-child{border-bottom:0}"
    "td[data-name]:before{content:attr(data-name) ': ';color:var(--soft);font-size:13px;font-weight:400}}"
    "@media print{.card{break-inside:avoid}}" + STYLE
)


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
        thinned = _judge(store, stream, model, begin, interval_s or 1.0, progress)
        alerts = [a for a in store.alerts(_MOST_ALERTS, stream) if a["timestamp"] >= begin or a["type"] != "end"]
        rounds = [r for r in store.retrains(_MOST_ROUNDS, stream) if r.started >= begin]
    return _page(stream, model, begin, newest, thinned, alerts, rounds, folder.versions(stream))


def _judge(
    store: Store,
    stream: str,
    model: Model,
    begin: float,
    interval_s: float,
    progress: Callable[[int, float | None], None],
) -> Thinned:
    expected = sum(int((chunk.timestamps >= begin).sum()) for chunk in store.outline(stream, since=begin))
    thinned = Thinned(model.features, expected)
    detector = Detector(model)
    done = 0
    # Two windows more: the first rows shown are judged by what came before them, as they were.
    before_s = 2 * model.discriminator.window * (model.interval_s or interval_s)
    for chunk in store.chunks(stream, since=begin - before_s, include_quarantined=True):
        stale = np.isnan(chunk.values)
        for t in range(len(chunk.timestamps)):
            at = float(chunk.timestamps[t])
            verdict = detector.score(Row(stream, at, chunk.features, chunk.values[t], stale[t], bool(chunk.restart[t])))
            if at >= begin:
                thinned.add(at, verdict, detector)
        done += len(chunk.timestamps)
        progress(done, min(1.0, done / max(expected, 1)))
    return thinned


# -- the page ----------------------------------------------------------------------------------------------------------


def _page(
    stream: str,
    model: Model,
    begin: float,
    newest: float,
    thinned: Thinned,
    alerts: Sequence[Mapping[str, Any]],
    rounds: Sequence[RetrainRecord],
    versions: Sequence[ModelVersion],
) -> str:
    begin = max(begin, thinned.columns[0].first_at)
    title = f"{stream}, {_time(begin)} to {_time(newest)} UTC"
    policy = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()
    anomalies = [alert for alert in alerts if alert["kind"] == "anomaly"]
    facts = {
        "rows": str(thinned.rows),
        "above the threshold": f"{thinned.anomalies} ({100 * thinned.anomalies / max(1, thinned.rows):.2g} %)",
        "alerts": f"{len(anomalies)}, and {len(alerts) - len(anomalies)} for missing sensors",
        "highest score": f"{number_text(thinned.highest)} at {_time(thinned.highest_at)}",
        "threshold": number_text(model.threshold),
        "model in use": f"version {model.version or '-'}, trained {_time(model.lineage.get('trained_at'))}",
    }
    entries = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts.items())
    canvas = SvgCanvas(WIDTH, height(thinned))
    spans = [(alert["since"], newest if alert["type"] != "end" else alert["timestamp"]) for alert in anomalies]
    draw(canvas, thinned, title=title, is_time=True, alerts=spans)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="'
        f"default-src 'none'; style-src 'sha256-{policy}'; base-uri 'none'; form-action 'none'\">\n"
        f"<title>{_text(stream)} - gon-edge report</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{_text(stream)}</h1>\n<p class="soft">{_time(begin)} to {_time(newest)} UTC</p>\n<dl>{entries}</dl>\n'
        "<h2>Score, what it is made of, expected against actual</h2>\n"
        f'<div class="card">{canvas.svg(title, whole=False)}</div>\n'
        '<p class="soft">Shaded red: an anomaly alert was open. Shaded grey: a sensor gave no value. Scores are '
        "computed again from the stored rows with the model in use, so they differ from those of the day where that "
        "was another one.</p>\n"
        f"<h2>Alerts</h2>\n{_alert_table(alerts, newest)}\n"
        f"<h2>Missing sensors</h2>\n{_missing_table(thinned)}\n"
        f"<h2>Trainings, and what the gate said</h2>\n{_round_table(rounds)}\n"
        f"<h2>Versions of the model</h2>\n{_version_table(versions)}\n"
        f'<footer class="soft">gon-edge {_text(__version__)}. Times are UTC.</footer>\n</main>\n</body>\n</html>\n'
    )


def _alert_table(alerts: Sequence[Mapping[str, Any]], newest: float) -> str:
    rows = []
    for alert in alerts:
        is_open = alert["type"] != "end"
        lasted = duration_text(max(0.0, (newest if is_open else alert["timestamp"]) - alert["since"]))
        causes = "".join(f"<li>{_text(cause_text(cause))}</li>" for cause in alert["top_features"][:5])
        severity = "critical" if alert["severity"] == "critical" else "warning"
        rows.append(
            [
                _time(alert["since"]),
                f'<span class="{severity}">{_text(alert["severity"])} {_text(alert["kind"])}</span>',
                f"{lasted}, still open" if is_open else lasted,
                number_text(alert["score"]),
                f"<ul>{causes}</ul>" if causes else "unknown",
                _text(alert["model_version"]),
            ]
        )
    heads = ("since", "what", "lasted", "last score", "causes: value, expected, share of the score", "model")
    return _table(heads, rows, "None.")


def _missing_table(thinned: Thinned) -> str:
    missing = thinned.missing
    rows = [
        [_text(thinned.features[f]), str(missing[f]), f"{100 * missing[f] / max(1, thinned.rows):.2g} %"]
        for f in np.argsort(-missing, kind="stable")[:30]
        if missing[f]
    ]
    return _table(("feature", "rows without a value", "of all rows"), rows, "Every feature had a value in every row.")


def _round_table(rounds: Sequence[RetrainRecord]) -> str:
    rows = [
        [
            _time(record.started),
            f'<span class="{"calm" if record.outcome == "promoted" else "warning"}">{_text(record.outcome)}</span>',
            _text(record.version or "-"),
            str(record.rows),
            f"{duration_text(record.duration_s)}, {record.peak_bytes / (1 << 20):.0f} MiB",
            _text(record.reason or "-"),
        ]
        for record in rounds
    ]
    return _table(("began", "outcome", "version", "rows", "took", "reason"), rows, "None in this time.")


def _version_table(versions: Sequence[ModelVersion]) -> str:
    rows = [
        [
            _text(version.version or "-"),
            '<span class="calm">in use</span>' if version.current else "",
            _time(version.lineage.get("trained_at")),
            _text(str(version.lineage.get("rows", "-"))),
        ]
        for version in versions
    ]
    return _table(("version", "state", "trained", "rows"), rows, "None.")


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], nothing: str) -> str:
    """Cells are HTML, heads are text."""
    body = "".join(
        "<tr>"
        + "".join(f'<td data-name="{_text(head)}">{cell or "-"}</td>' for head, cell in zip(heads, row, strict=True))
        + "</tr>"
        for row in rows
    )
    if not body:
        return f'<p class="soft">{nothing}</p>'
    head = "".join(f"<th>{_text(name)}</th>" for name in heads)
    return f'<div class="card"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _text(text: str) -> str:
    return escape(visible(text))


def _time(at: object) -> str:
    if not isinstance(at, int | float) or at <= 0.0:
        return "-"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
