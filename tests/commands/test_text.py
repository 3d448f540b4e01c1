"""What commands print for people, in plain text."""

from __future__ import annotations

from typing import Any

from gon_edge.commands.text import (
    alerts_text,
    plan_exit_code,
    plan_text,
    result_text,
    silences_text,
    status_text,
    table,
)
from gon_edge.training.plan import Plan

MIB = 1 << 20


def result(**changes: Any) -> dict[str, Any]:
    gate = {
        "held_out_rows": 900,
        "challenger": {"alarm_rate": 0.001, "separation": {"spike": 0.9, "drift": 0.8}},
        "champion": {"alarm_rate": 0.02, "separation": {"spike": 0.8, "drift": 0.8}},
    }
    plain = {
        "stream": "pump",
        "outcome": "promoted",
        "reason": "",
        "exit_code": 0,
        "version": "3",
        "rows": 20000,
        "duration_s": 12.3,
        "peak_bytes": 47 * MIB,
        "budget_bytes": 64 * MIB,
        "gate": gate,
    }
    return {**plain, **changes}


def test_a_result_says_what_was_compared() -> None:
    assert result_text(result()) == (
        "pump: model 3 is in use, from 20000 rows in 12 s, 47 of 64 MiB\n"
        "  on 900 rows it had not seen: 0.10 % above the threshold (the model before it 2.00 %), injected faults told "
        "apart with ROC-AUC 0.850 (0.800)\n"
    )
    rejected = result(outcome="rejected", reason="it alarms too often", gate=None)
    assert result_text(rejected) == "pump: rejected by the gate: it alarms too often\n"
    assert result_text(result(outcome="failed", reason="power", gate=None)) == "pump: failed: power\n"


def plan(**changes: Any) -> Plan:
    plain: dict[str, Any] = {
        "stored_rows": 90000,
        "quarantined_rows": 120,
        "usable_rows": 89880,
        "rows": 20000,
        "windows": 20000,
        "batch": 512,
        "features": 8,
        "predicted_peak_bytes": 50 * MIB,
        "budget_bytes": 64 * MIB,
        "shrunk": "",
        "refused": "",
    }
    return Plan(**{**plain, **changes})


def test_a_plan_says_what_would_be_learned_and_its_exit_code_what_would_come_of_it() -> None:
    text = plan_text("pump", plan(shrunk="20000 of 89880 rows"))
    assert "20000 of 89880 rows that may be learned, 8 features" in text
    assert "120 of them are left out" in text
    assert "predicted peak 50 MiB, budget 64 MiB" in text
    assert "made smaller: 20000 of 89880 rows" in text
    assert plan_exit_code(plan()) == 0
    assert plan_exit_code(plan(refused="too few")) == 4
    assert plan_exit_code(plan(refused="too much", predicted_peak_bytes=65 * MIB)) == 5
    assert "refused: too few" in plan_text("pump", plan(refused="too few"))


def test_silences_are_a_table() -> None:
    one = {"stream": "pump", "feature": "", "since": 0.0, "until": 1767607473.0, "reason": "new bearing"}
    assert silences_text([one]).splitlines() == [
        "STREAM  FEATURE  UNTIL                    REASON",
        "pump    (all)    2026-01-05 10:04:33 UTC  new bearing",
    ]


def test_foreign_names_in_tables_and_pages_cannot_steer_the_terminal() -> None:
    hostile = "\x1b[2J\u202epump\n"
    assert table([["STREAM", "ROWS"], [hostile, "7"]]) == ["STREAM               ROWS", "\\x1b[2J\\u202epump\\n  7"]
    stream = {"stream": hostile, "state": hostile, "rows": 1, "rows_needed": 2, "eta_s": None, "score": None}
    stream |= {"threshold": None, "model_version": None, "starter": None, "training": hostile}
    stream |= {"waits": hostile, "unusable": {"silenced": 3}}
    stream |= {"dropped": [{"key": hostile, "reason": "text", "count": 2, "example": hostile, "why": hostile}]}
    cause = {"feature": hostile, "value": 1.0, "expected": None, "contribution": None}
    alert = {"type": "new", "severity": "warning", "kind": "anomaly", "stream": hostile, "since": 0.0}
    silence = {"stream": hostile, "feature": hostile, "until": 5.0, "reason": hostile}
    text = status_text(
        {
            "version": hostile,
            "node": hostile,
            "uptime_s": 1.0,
            "rss_bytes": 0,
            "now": 0.0,
            "mqtt": {"url": hostile, "connected": False, "error": hostile, "troubles": [hostile]},
            "streams": [stream],
            "alerts": [{**alert, "top_features": [cause]}],
            "silences": [silence],
        }
    )
    assert all(
        c.isprintable() or c == "\n" for c in text + silences_text([silence]) + result_text(result(stream=hostile))
    )
    assert text.count("\n") == 13


def test_a_table_gives_wide_characters_two_columns() -> None:
    assert table([["泵", "7"], ["pump", "8"]]) == ["泵    7", "pump  8"]


def test_an_alert_that_comes_again_says_so_and_whether_it_is_learned() -> None:
    again = {"count": 3, "since": 0.0, "every": "day", "learned": True}
    alert = {"id": "a", "type": "end", "since": 0.0, "timestamp": 60.0, "severity": "warning", "top_features": []}
    assert "; seen on 3 days at this hour, taken as normal" in alerts_text([{**alert, "recurring": again}], [])
    assert "seen on" not in alerts_text([{**alert, "recurring": None}, alert], [])


def test_a_reading_that_drifts_is_said_with_its_rate_and_what_it_reaches() -> None:
    trend = {"per_day": 0.42, "reaches": 51.5, "in_days": 9.2}
    cause = {"feature": "temp", "value": 42.3, "expected": 39.8, "contribution": 1.0, "trend": trend}
    alert = {"id": "a", "type": "update", "since": 0.0, "timestamp": 60.0, "severity": "warning"}
    words = "temp 42.3 (expected 39.8), rises by 0.42 a day, reaches 51.5 in about 9 days"
    assert words in alerts_text([{**alert, "top_features": [cause]}], [])
