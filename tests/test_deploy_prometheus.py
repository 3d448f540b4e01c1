"""Rules for Prometheus, routing for Alertmanager: understood by the real tools, each alert with its cases."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from e2e.servers import require
from prometheus_client import CollectorRegistry

from gon_edge.events import Cause
from gon_edge.links.prometheus import Telemetry

ROOT = Path(__file__).resolve().parents[1]
PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTMANAGER = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"

RULES = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "gon-edge.rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
CASES = yaml.safe_load((PROMETHEUS / "gon-edge.rules.test.yml").read_text())["tests"]


def series_of_the_program() -> set[str]:
    """Names as they are stored: of a histogram its buckets, sum and count."""
    registry = CollectorRegistry()
    telemetry = Telemetry(registry, version="1")
    telemetry.row("s", 0.0)
    telemetry.certificate("http.cert_file", Path("there is none"))
    telemetry.causes("s", (Cause("f", 1.0, 2.0, 1.0),))
    telemetry.model("s", "1", 0.0)
    return {sample.name for family in registry.collect() for sample in family.samples}


@pytest.mark.parametrize(
    "command",
    [
        ("promtool", "check", "rules", "gon-edge.rules.yml"),
        # Slow: promtool evaluates hours of series for it.
        pytest.param(("promtool", "test", "rules", "gon-edge.rules.test.yml"), marks=pytest.mark.slow),
        ("promtool", "check", "config", "prometheus.yml"),
        ("amtool", "check-config", str(ALERTMANAGER)),
    ],
    ids=" ".join,
)
def test_the_tools_accept_what_is_shipped(command: tuple[str, ...]) -> None:
    program = require(command[0])
    done = subprocess.run([program, *command[1:]], cwd=PROMETHEUS, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_has_a_case_that_fires_and_one_that_does_not(rule: dict) -> None:
    cases = [case for test in CASES for case in test.get("alert_rule_test", ()) if case["alertname"] == rule["alert"]]
    assert any(case.get("exp_alerts") for case in cases)
    assert any(not case.get("exp_alerts") for case in cases)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_how_urgent_it_is_and_what_has_happened(rule: dict) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["labels"]["scope"] == ("stream" if "$labels.stream" in rule["annotations"]["summary"] else "process")
    assert set(rule["annotations"]) == {"summary", "description"}


def test_rules_use_series_that_exist() -> None:
    text = " ".join([rule["expr"] for rule in RULES] + [str(rule.get("annotations", "")) for rule in RULES])
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    text = re.sub(r"\w+:\w+:\w+", lambda found: "" if found[0] in recorded else found[0], text)
    named = set(re.findall(r"\b(?:gon_edge|process|python)_\w+", text))
    assert named
    assert named <= series_of_the_program()


def test_recorded_series_are_named_by_level_metric_and_operation() -> None:
    recorded = [rule["record"] for rule in RULES if "record" in rule]
    assert all(re.fullmatch(r"(stream|instance):gon_edge_\w+:\w+", name) for name in recorded)
    assert len(recorded) == len(set(recorded))


def test_inhibitions_name_alerts_that_exist() -> None:
    names = {rule["alert"] for rule in ALERTS}
    for inhibition in yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]:
        for matcher in inhibition["source_matchers"] + inhibition["target_matchers"]:
            for name in re.search(r'"(.*)"', matcher)[1].split("|"):
                assert name in names | {"GonEdge.*"}


def test_the_documents_say_what_to_do_about_every_alert() -> None:
    page = (ROOT / "docs" / "dashboards.md").read_text()
    listed = re.findall(r"^\| `(GonEdge\w+)` \|", page, re.MULTILINE)
    assert listed == [rule["alert"] for rule in ALERTS]
