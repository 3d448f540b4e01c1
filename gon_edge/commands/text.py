"""What commands print for people: models, trainings, silences, the status of a daemon, numbers and durations in words.

Everything here is plain text, so that ``gon-edge status`` and ``gon-edge models`` start without a library that draws.
Colour, progress and whole screens are in ``terminal``.  Scripts get JSON instead, which no function here touches.

Names of streams, features and files, and what others report as errors, are foreign text.  Whatever is printed goes
through `visible`, or through `table`, which does it for each cell.
"""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gon_edge.process.visible import visible as visible  # commands take it from here

if TYPE_CHECKING:
    from gon_edge.state.inspection import Check
    from gon_edge.training.plan import Plan

_MIB = 1 << 20
_RECENT = 1e9
"""Unix seconds, in 2001; a smaller number in a model's lineage is no time."""

LATEST = 253402300799.0
"""Unix seconds of the last second of the year 9999; no calendar shows a later one."""

_MOST = 20
"""Names in a list, and features in a comparison.  Not critical: what fits on a screen."""

_KINDS = ("offset up", "offset down", "spike", "drift", "frozen", "decoupled")
"""Columns of the table of faults; the file of a model keeps no order."""

_KEYS_NAMED = 3
"""Keys of a stream that are not used, in a line.  Not critical: JSON and the page have all."""

_COLUMN = 40
"""Characters of an entry of the lineage when two models stand side by side in 100 columns."""

_WORTH_A_LINE = 0.1
"""Deviations that a feature's mean has moved.  Not critical: less is the noise of another sample of rows."""


def listing_text(models: Mapping[str, Any]) -> str:
    """`listing` for a person."""
    lines = ["no shipped models were found"]
    if models["shipped"]:
        rows = [["SHIPPED", "STARTER", "BYTES", "WATCHES"]]
        rows += [[m["name"], "yes" if m["starter"] else "no", str(m["bytes"]), m["title"]] for m in models["shipped"]]
        lines = table(rows)
    if models["state_dir"] is None:
        return _page([*lines, "", "streams: name their daemon with --config FILE or --state-dir DIR"])
    rows = [["STREAM", "VERSION", "", "BYTES", "TRAINED (UTC)", "ROWS"]]
    for stream, versions in models["streams"].items():
        for version in versions:
            lineage, in_use = version["lineage"], "in use" if version["current"] else ""
            trained = time_text(lineage.get("trained_at"))
            learned = str(lineage.get("rows", "-"))
            rows.append([stream, version["version"] or "-", in_use, str(version["bytes"]), trained, learned])
    lines += ["", *(table(rows) if len(rows) > 1 else [f"no stream has a model in {models['state_dir']}"])]
    return _page(lines)


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
    shown = {"relative", "detects", "visits"}  # stand above and below; the last is for the next training
    if training := model.get("training"):
        peak = f"{training['peak_bytes'] / _MIB:.0f} MiB"
        rows.append(["training", f"{training['outcome']}, took {training['duration_s']:.1f} s and {peak} at most"])
    lineage = {name: value for name, value in model["lineage"].items() if name not in shown}
    rows += [[name, text] for name, text in _flat(lineage)]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {text}" for name, text in rows]
    return _page([*lines, *_detects_lines(model["lineage"].get("detects"), model["features"])])


def _detects_lines(detects: object, features: Sequence[str]) -> list[str]:
    """The smallest fault of each kind on each feature that raises an alert, a feature a line."""
    if not isinstance(detects, Mapping) or not all(isinstance(told, Mapping) for told in detects.values()):
        return []  # a model from elsewhere may say anything of itself
    kinds = [*filter(detects.__contains__, _KINDS), *(kind for kind in detects if kind not in _KINDS)]
    named = {name for told in detects.values() for name in told}
    if not named:
        return []
    table_rows = [["FEATURE", *(kind.upper() for kind in kinds)]]
    for name in filter(named.__contains__, features):
        table_rows.append([name, *(_told_text(kind, detects[kind].get(name)) for kind in kinds)])
    return ["", "smallest fault that raises an alert, and the rows until then:", *table(table_rows)]


def _told_text(kind: str, told: object) -> str:
    """One cell: the size with its sign, and how fast; ``no`` where no size raises an alert.

    Examples
    --------
    >>> _told_text("offset down", [2.0, 2.13, 5]), _told_text("frozen", [None, None, 12]), _told_text("spike", None)
    ('-2.13 in 5', 'in 12', 'no')
    """
    if not isinstance(told, Sequence) or isinstance(told, str) or len(told) != len(("deviations", "size", "rows")):
        return "no"
    if not isinstance(told[1], int | float | None):
        return "no"
    _, size, rows = told
    sign = {"offset up": "+", "offset down": "-"}.get(kind, "")
    return f"in {rows}" if size is None else f"{sign}{number_text(size)} in {rows}"


def differences_text(a: str, b: str, found: Mapping[str, Any]) -> str:
    """`differences` for a person."""
    if found["equal"]:
        return _page([f"{a} and {b} are equal"])
    rows = [["", a, b]]
    for name in ("threshold", "window", "parameters"):
        rows.append([name, *(number_text(value) for value in found[name])])
    for name, pair in found["lineage"].items():
        if name in {"detects", "visits"}:  # models show has the first as a table, and the other is for nobody to read
            continue
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
    return _page(lines)


def _flat(lineage: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in lineage.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif name.endswith(("_at", "since", "until")) and isinstance(value, int | float) and _RECENT < value <= LATEST:
            yield prefix + name, f"{time_text(value)} UTC"
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


def time_text(seconds: object) -> str:
    """Unix seconds in UTC, to the minute."""
    if not isinstance(seconds, int | float) or not 0.0 < seconds <= LATEST:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _second_text(seconds: float) -> str:
    return datetime.fromtimestamp(min(max(seconds, 0.0), LATEST), UTC).strftime("%Y-%m-%d %H:%M:%S")


def checks_text(label: str, checks: Sequence[Check]) -> str:
    """One model's checks in a line, or a line for each that failed."""
    failed = [check for check in checks if not check.passed]
    if failed:
        return _page([f"BAD  {label}: {check.name}: {check.detail}" for check in failed])
    return _page([f"ok   {label}: {', '.join(check.name for check in checks)}"])


def status_text(status: Mapping[str, Any]) -> str:
    """Return the answer of :meth:`DaemonApi.status` as a page for a person."""
    broker = status["mqtt"]
    memory = f"{status['rss_bytes'] / _MIB:.1f} MiB"
    lines = [
        f"gon-edge {status['version']} on {status['node']}, up {duration_text(status['uptime_s'])}, {memory}",
        f"broker {broker['url']}: {'connected' if broker['connected'] else broker['error'] or 'not connected'}",
        *(f"broker: {trouble}" for trouble in broker.get("troubles", ())),
        *status.get("troubles", ()),
        "",
    ]
    if status["streams"]:
        rows = [["STREAM", "STATE", "ROWS", "SCORE", "THRESHOLD", "MODEL", ""]]
        notes: list[str] = []
        for stream in status["streams"]:
            warming = stream["model_version"] is None
            own = "model of its own" if stream["starter"] else "first model"
            eta_s = stream["eta_s"]
            notes += _learning_notes(stream)
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
        lines += [*table(rows), *notes]
    else:
        lines.append("no stream yet: no message has arrived on a subscribed topic")
    active = [alert for alert in status["alerts"] if alert["type"] != "end"]
    if active:
        lines.append("")
    for alert in active:
        since = _second_text(alert["since"])
        causes = ", ".join(cause_text(cause) for cause in alert["top_features"][:3])
        if alert["kind"] == "offline":
            lines.append(f"{alert['severity']} offline since {since} UTC: there is no broker")
            continue
        if together := alert.get("together"):
            causes = f"{together['count']} of {together['of']} streams fell silent together: " + ", ".join(
                visible(name) for name in together["streams"][:3]
            )
        lines.append(f"{alert['severity']} {alert['kind']} on {alert['stream']} since {since} UTC: {causes}")
    if status["silences"]:
        lines.append("")
    for silence in status["silences"]:
        left = duration_text(max(0.0, silence["until"] - status["now"]))
        what = f"{silence['feature']} of {silence['stream']}" if silence["feature"] else silence["stream"]
        reason = f": {silence['reason']}" if silence["reason"] else ""
        lines.append(f"silenced for another {left}: {what}{reason}")
    return _page(lines)


def _learning_notes(stream: Mapping[str, Any]) -> list[str]:
    """Why a stream has no model yet, where more is to be said than how many rows are missing, and what is not used."""
    notes = []
    if stream["unusable"]:
        reasons = ", ".join(f"{rows} {UNUSABLE.get(why, why)}" for why, rows in stream["unusable"].items())
        notes.append(f"{stream['stream']}: rows that are not learned: {reasons}")
    if stream["waits"]:
        notes.append(f"{stream['stream']}: {stream['waits']}")
    dropped = stream["dropped"]
    if dropped:
        keys = [
            f"{entry['key']} ({entry['why']}{f', as {e!r}' if (e := entry['example']) else ''})" for entry in dropped
        ]
        more = f" and {len(keys) - _KEYS_NAMED} more (--json names them)" if len(keys) > _KEYS_NAMED else ""
        notes.append(f"{stream['stream']}: not used: {'; '.join(keys[:_KEYS_NAMED])}{more}")
    return notes


UNUSABLE: Mapping[str, str] = {"alert": "while an alert was open", "silenced": "silenced", "stale": "without a value"}
"""In words, why rows of a warm-up cannot be learned."""


def cause_text(cause: Mapping[str, Any]) -> str:
    """Return one feature of an alert in words.

    Examples
    --------
    >>> cause_text({"feature": "flow", "value": 3.25, "expected": 31.8, "contribution": 0.71})
    'flow 3.25 (expected 31.8, 71 %)'
    """
    if cause["value"] is None:
        return f"{cause['feature']} is missing"
    if cause.get("trend"):
        from gon_edge.stream.drift import in_words  # numpy, which status does without mostly
        from gon_edge.stream.held import cause_of

        return in_words(cause_of(cause))
    expected = "" if cause["expected"] is None else f"expected {number_text(cause['expected'])}, "
    value = number_text(cause["value"]) + (" a row" if cause.get("per_row") else "")
    return f"{cause['feature']} {value} ({expected}{100 * (cause['contribution'] or 0.0):.0f} %)"


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


def result_text(result: Mapping[str, Any]) -> str:
    """What came of a round, in words, a line or two."""
    name, gate = result["stream"], result["gate"]
    if result["outcome"] == "promoted":
        text = (
            f"{name}: model {result['version']} is in use, from {result['rows']} rows in "
            f"{duration_text(result['duration_s'])}, {result['peak_bytes'] / _MIB:.0f} of "
            f"{result['budget_bytes'] / _MIB:.0f} MiB"
        )
    else:
        said = {
            "rejected": "rejected by the gate",
            "not_enough_data": "not enough data",
            "over_budget": "over the memory budget",
            "busy": "busy",
        }.get(result["outcome"], "failed")
        text = f"{name}: {said}: {result['reason']}"
    lines = [text]
    if (threshold := result.get("threshold")) is not None:
        before = "" if threshold["before"] is None else f" (before: {number_text(threshold['before'])})"
        why = f": {threshold['why']}" if threshold["why"] else ""
        lines.append(f"  threshold {number_text(threshold['after'])}{before}{why}")
    if gate is not None and gate["held_out_rows"]:
        lines.append(f"  on {gate['held_out_rows']} rows it had not seen: {_gate_text(gate)}")
    return _page(lines)


def _gate_text(gate: Mapping[str, Any]) -> str:
    def scores(side: Mapping[str, Any]) -> tuple[str, str]:
        separation = list(side["separation"].values())
        mean = f"{sum(separation) / len(separation):.3f}" if separation else "-"
        return f"{100 * side['alarm_rate']:.2f} %", mean

    rate, separation = scores(gate["challenger"])
    if gate["champion"] is None:
        return f"{rate} above the threshold, injected faults told apart with ROC-AUC {separation}"
    old_rate, old_separation = scores(gate["champion"])
    return (
        f"{rate} above the threshold (the model before it {old_rate}), injected faults told apart with ROC-AUC "
        f"{separation} ({old_separation})"
    )


def answered_text(answer: Mapping[str, Any], rows: int) -> str:
    """What an answer does at once, in a line."""
    normal = answer["answer"] in ("wrong", "expected", "accepted")
    does = f"{rows} rows that were left out are learned as normal" if normal else f"{rows} more rows are left out"
    return f"{answer['id']}: {answer['answer']}; {does}"


def answer_text(answered: Mapping[str, Any]) -> str:
    """What came of an answer that no training was needed for."""
    answer = answered["answer"]
    threshold = f"the threshold stays {number_text(answer['threshold'])}"
    if answered["again"]:
        return _page([f"{answer['stream']}: that was answered before; {threshold}; gon-edge retrain trains once more"])
    return _page([f"{answer['stream']}: its rows were never learned, and it was told: {threshold}"])


def alerts_text(alerts: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]) -> str:
    """Alerts as a table, the newest first, then what was answered about no alert of it."""
    from gon_edge.events import Recurring  # numpy, which status does without
    from gon_edge.stream.habits import in_words

    rows = [["ALERT", "SINCE (UTC)", "LASTED", "SEVERITY", "ANSWER", "CAUSES"]]
    for alert in alerts:
        lasted = duration_text(max(0.0, alert["timestamp"] - alert["since"]))
        causes = ", ".join(cause_text(cause) for cause in alert["top_features"][:2])
        if again := alert.get("recurring"):
            learned = ", taken as normal" if again["learned"] else ""
            causes = f"{causes}; {in_words(Recurring(**again))}{learned}"
        rows.append(
            [
                alert["id"],
                time_text(alert["since"]),
                lasted if alert["type"] == "end" else f"{lasted}, open",
                alert["severity"],
                _word(alert.get("answer", "-"), alert.get("note", "")),
                causes or "-",
            ]
        )
    lines = table(rows) if len(rows) > 1 else ["no alert yet"]
    shown = {alert["id"] for alert in alerts}
    rest = [one for one in answers if one["id"] not in shown]
    if rest:
        told = [["ANSWER ABOUT", "GIVEN (UTC)", "BY", "ROWS SINCE (UTC)", "UNTIL (UTC)", "ANSWER"]]
        for one in rest[-_MOST:]:
            times = [time_text(one[key]) for key in ("at", "since", "until")]
            told.append([one["id"], times[0], one["by"] or "-", *times[1:], _word(one["answer"], one["note"])])
        lines += ["", *table(told)]
    return _page(lines)


def _word(answer: str, note: str) -> str:
    return f"{answer}: {note}" if note else answer


def plan_text(stream: str, planned: Plan) -> str:
    """A plan in words."""
    used = f"{planned.rows} of {planned.usable_rows} rows that may be learned, {planned.features} features"
    why = "alarmed, silenced, stale, or before the clock was set"
    peak, budget = planned.predicted_peak_bytes / _MIB, planned.budget_bytes / _MIB
    lines = [
        f"{stream}: {used}, {planned.windows} windows in batches of {planned.batch}",
        f"  {planned.stored_rows} rows are stored, {planned.quarantined_rows} of them are left out: {why}",
        f"  predicted peak {peak:.0f} MiB, budget {budget:.0f} MiB",
    ]
    if planned.shrunk:
        lines.append(f"  made smaller: {planned.shrunk}")
    if planned.refused:
        lines.append(f"  refused: {planned.refused}")
    return _page(lines)


def plan_exit_code(planned: Plan) -> int:
    """0, or the exit code that training would end with: 5 over budget, 4 not enough data."""
    if not planned.refused:
        return 0
    return 5 if planned.over_budget else 4


def silences_text(found: list[dict[str, Any]]) -> str:
    """Silences as a table."""
    if not found:
        return "nothing is silenced\n"
    rows = [["STREAM", "FEATURE", "UNTIL", "REASON"]]
    for one in found:
        rows.append([one["stream"], one["feature"] or "(all)", f"{_second_text(one['until'])} UTC", one["reason"]])
    return _page(table(rows))


# -- plain text --------------------------------------------------------------------------------------------------------


def _page(lines: Iterable[str]) -> str:
    return "".join(f"{visible(line)}\n" for line in lines)


def duration_text(seconds: float) -> str:
    """Return `seconds` as people say it.

    Examples
    --------
    >>> duration_text(7.4), duration_text(200), duration_text(8000), duration_text(200000)
    ('7 s', '3 min 20 s', '2 h 13 min', '2 d 7 h')
    """
    whole = round(seconds)
    for (size_s, name), (small_s, small_name) in pairwise(((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))):
        if whole >= size_s:
            rest = whole % size_s // small_s
            return f"{whole // size_s} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def columns(text: str) -> int:
    """Return how many columns of a terminal `text` takes; most of East Asia's characters take two."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as aligned lines, each cell made `visible`; the first row is the heading.

    Examples
    --------
    >>> table([["STREAM", "ROWS"], ["pump", "7"]])
    ['STREAM  ROWS', 'pump    7']
    """
    shown = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(columns, column)) for column in zip(*shown, strict=True)]
    return [
        "  ".join(cell + " " * (width - columns(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]
