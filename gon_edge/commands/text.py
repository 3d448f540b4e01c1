"""What ``gon-edge models`` prints about models, for a person; ``--json`` prints what `catalog` gives as it is."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gon_edge.commands.terminal import duration_text, table
from gon_edge.state.catalog import Check

_RECENT = 1e9
"""Unix seconds; a smaller number is no time."""

_MOST = 20
_COLUMN = 40
_WORTH_A_LINE = 0.1
"""Deviations that a feature's mean has moved."""


def listing_text(models: Mapping[str, Any]) -> str:
    """`listing` for a person."""
    lines = ["no shipped models were found"]
    if models["shipped"]:
        rows = [["SHIPPED", "STARTER", "BYTES", "WATCHES"]]
        rows += [[m["name"], "yes" if m["starter"] else "no", str(m["bytes"]), m["title"]] for m in models["shipped"]]
        lines = table(rows)
    if models["state_dir"] is None:
        return "\n".join([*lines, "", "streams: name their daemon with --config FILE or --state-dir DIR"]) + "\n"
    rows = [["STREAM", "VERSION", "", "BYTES", "TRAINED (UTC)", "ROWS"]]
    for stream, versions in models["streams"].items():
        for version in versions:
            lineage, in_use = version["lineage"], "in use" if version["current"] else ""
            trained = _time_text(lineage.get("trained_at"))
            learned = str(lineage.get("rows", "-"))
            rows.append([stream, version["version"] or "-", in_use, str(version["bytes"]), trained, learned])
    lines += ["", *(table(rows) if len(rows) > 1 else [f"no stream has a model in {models['state_dir']}"])]
    return "\n".join(lines) + "\n"


def description_text(model: Mapping[str, Any]) -> str:
    """`describe` for a person: facts first, then the lineage, an entry a line."""
    facts = {
        "model": model["model"],
        "file": f"{model['path']}, {model['bytes']} bytes",
        "card": model.get("card"),
        "sha256": model.get("sha256"),
        "features": f"{len(model['features'])}: {_few(model['features'])}",
        "relative": _few(model["relative_features"]),
        "window": f"{model['window']} rows, scales {', '.join(map(str, model['scales']))}",
        "parameters": f"{model['parameters']}, {model['memory_bytes'] / 1024:.0f} KiB in memory",
        "threshold": number_text(model["threshold"]),
        "interval": f"{model['interval_s']:g} s" if model["interval_s"] else "any",
    }
    rows = [[name, str(value)] for name, value in facts.items() if value]
    shown = {"relative"}  # stands above
    if training := model.get("training"):
        peak = f"{training['peak_bytes'] / (1 << 20):.0f} MiB"
        rows.append(["training", f"{training['outcome']}, took {training['duration_s']:.1f} s and {peak} at most"])
    rows += [[name, text] for name, text in _flat(model["lineage"]) if name not in shown]
    width = max(len(name) for name, _ in rows)
    return "".join(f"{name:<{width}}  {text}\n" for name, text in rows)


def differences_text(a: str, b: str, found: Mapping[str, Any]) -> str:
    """`differences` for a person."""
    if found["equal"]:
        return f"{a} and {b} are equal\n"
    rows = [["", a, b]]
    for name in ("threshold", "window", "parameters"):
        rows.append([name, *(number_text(value) for value in found[name])])
    for name, pair in found["lineage"].items():
        rows.append([name, *(textwrap.shorten(_short_text(value), _COLUMN, placeholder=" ...") for value in pair)])
    lines = table(rows)
    for what in ("added", "removed"):
        if names := found[f"features_{what}"]:
            lines.append(f"features {what}: {_few(names)}")
    moved = [move for move in found["features"] if abs(move["moved_deviations"]) >= _WORTH_A_LINE]
    if moved:
        rows = [["FEATURE", "MEAN", "", "MOVED BY", "DEVIATION"]]
        for move in moved[:_MOST]:
            rows.append(
                [move["feature"], number_text(move["mean"][0]), number_text(move["mean"][1]),
                 f"{move['moved_deviations']:+.2f} deviations", f"x {move['deviation_ratio']:.2f}"]
            )  # fmt: skip
        lines += ["", *table(rows)]
    return "\n".join(lines) + "\n"


def _flat(lineage: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in lineage.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif name.endswith(("_at", "since", "until")) and isinstance(value, int | float) and value > _RECENT:
            yield prefix + name, f"{_time_text(value)} UTC"
        else:
            yield prefix + name, _short_text(value)


def _short_text(value: object) -> str:
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, list) and value:
        return _few([_short_text(item) for item in value])
    return "-" if value in (None, "", []) else str(value)


def _few(names: Sequence[str], most: int = _MOST) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _time_text(seconds: object) -> str:
    if not isinstance(seconds, int | float) or seconds <= 0.0:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def checks_text(label: str, checks: Sequence[Check]) -> str:
    """One model's checks in a line, or a line for each that failed."""
    failed = [check for check in checks if not check.passed]
    if failed:
        return "".join(f"BAD  {label}: {check.name}: {check.detail}\n" for check in failed)
    return f"ok   {label}: {', '.join(check.name for check in checks)}\n"


def status_text(status: Mapping[str, Any]) -> str:
    """Return the answer of :meth:`DaemonApi.status` as a page for a person."""
    broker = status["mqtt"]
    memory = f"{status['rss_bytes'] / (1 << 20):.1f} MiB"
    lines = [
        f"gon-edge {status['version']} on {status['node']}, up {duration_text(status['uptime_s'])}, {memory}",
        f"broker {broker['url']}: {'connected' if broker['connected'] else broker['error'] or 'not connected'}",
        "",
    ]
    if status["streams"]:
        rows = [["STREAM", "STATE", "ROWS", "SCORE", "THRESHOLD", "MODEL", ""]]
        for stream in status["streams"]:
            warming = stream["model_version"] is None
            own = "model of its own" if stream["starter"] else "first model"
            eta_s = stream["eta_s"]
            rows.append(
                [
                    stream["stream"],
                    stream["state"],
                    f"{stream['rows']} of {stream['rows_needed']}" if warming else str(stream["rows"]),
                    number_text(stream["score"]),
                    number_text(stream["threshold"]),
                    stream["model_version"] or stream["starter"] or "-",
                    f"training: {stream['training']}"
                    if stream["training"]
                    else f"{own} in {duration_text(eta_s)}"
                    if warming and eta_s
                    else "",
                ]
            )
        lines += table(rows)
    else:
        lines.append("no stream yet: no message has arrived on a subscribed topic")
    active = [alert for alert in status["alerts"] if alert["type"] != "end"]
    lines += [""] if active else []
    for alert in active:
        since = datetime.fromtimestamp(alert["since"], UTC).isoformat(" ", "seconds").removesuffix("+00:00")
        causes = ", ".join(cause_text(cause) for cause in alert["top_features"][:3])
        lines.append(f"{alert['severity']} {alert['kind']} on {alert['stream']} since {since} UTC: {causes}")
    lines += [""] if status["silences"] else []
    for silence in status["silences"]:
        left = duration_text(max(0.0, silence["until"] - status["now"]))
        what = f"{silence['feature']} of {silence['stream']}" if silence["feature"] else silence["stream"]
        reason = f": {silence['reason']}" if silence["reason"] else ""
        lines.append(f"silenced for another {left}: {what}{reason}")
    return "\n".join(lines) + "\n"


def cause_text(cause: Mapping[str, Any]) -> str:
    """Return one feature of an alert in words.

    Examples
    --------
    >>> cause_text({"feature": "flow", "value": 3.25, "expected": 31.8, "contribution": 0.71})
    'flow 3.25 (expected 31.8, 71 %)'
    """
    if cause["value"] is None:
        return f"{cause['feature']} is missing"
    expected = "" if cause["expected"] is None else f"expected {number_text(cause['expected'])}, "
    return f"{cause['feature']} {number_text(cause['value'])} ({expected}{100 * (cause['contribution'] or 0.0):.0f} %)"


def number_text(value: float | None) -> str:
    """Return a number with four digits, ``-`` for none.

    Examples
    --------
    >>> number_text(1234567.0), number_text(0.012345), number_text(99.96), number_text(None)
    ('1234567', '0.01235', '99.96', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
