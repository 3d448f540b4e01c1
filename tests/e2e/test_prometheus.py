"""A real Prometheus and a real Alertmanager on a real daemon: an alert that fires and ends, and every dashboard's data.

One run for all of it: a stream warms up, a fault is replayed, the shipped rule fires at a webhook, and while it does
each query of each dashboard is asked.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.daemons import DaemonProcess, rows
from e2e.servers import Mosquitto, free_port, require, wait_until

pytestmark = pytest.mark.e2e

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
START = 1_700_000_000.0


class Webhook:
    """Collects what Alertmanager posts."""

    def __init__(self) -> None:
        received: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                received.append({"path": self.path, **body})
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.received = received
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def alerts(self, name: str, status: str) -> list[dict[str, Any]]:
        """Alerts of this name that were delivered in this state."""
        of_all = [alert for message in list(self.received) for alert in message["alerts"]]
        return [alert for alert in of_all if (alert["labels"]["alertname"], alert["status"]) == (name, status)]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Prometheus:
    """The shipped configuration with ports and times of this test, and what to ask it."""

    def __init__(self, folder: Path, *, target: int, alertmanager: int) -> None:
        folder.mkdir()
        self.port = free_port()
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{target}"]
        config["rule_files"] = [str(DEPLOY / "prometheus" / "gon-edge.rules.yml")]
        config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager}"]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.command = [
            require("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def ask(self, path: str, **arguments: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{arguments}: {error.read().decode()}")

    def value(self, expr: str) -> float | None:
        found = self.ask("query", query=expr)["result"]
        return float(found[0]["value"][1]) if found else None


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[None]:
    """A server for as long as the block lasts; it is ready when it says so."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_until(ready, 20, f"{command[0]} being ready")
        yield
    finally:
        process.kill()
        process.wait(60)


def alertmanager(folder: Path, port: int, webhook: Webhook) -> AbstractContextManager[None]:
    """The shipped routing, with its receivers at `webhook` and no waiting."""
    routing = yaml.safe_load((DEPLOY / "alertmanager" / "alertmanager.yml").read_text())
    for route in (routing["route"], *routing["route"]["routes"]):
        route |= {"group_wait": "0s", "group_interval": "1s"}
    for receiver in routing["receivers"]:
        hook = receiver["webhook_configs"][0]
        hook["url"] = hook["url"].replace("127.0.0.1:9595", f"127.0.0.1:{webhook.port}")
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(routing))
    command = [
        require("prometheus-alertmanager"),
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    return running(command, port, folder / "alertmanager.log")


def queries() -> Iterator[tuple[str, str, str]]:
    """Of every dashboard each query with its variables filled in: where it stands, the query, and its kind."""
    for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        if path.stem == "workers":  # of a fleet, which has no daemon: test_fleet.py
            continue
        dashboard = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                kind = target.get("format") or ("instant" if target["instant"] else "range")
                yield f"{path.stem}: {panel['title']} {target['refId']}", filled(target["expr"]), kind
        for each in dashboard["annotations"]["list"]:
            yield f"{path.stem}: annotation {each['name']}", filled(each["expr"]), "range"
        for each in dashboard["templating"]["list"]:
            if each["type"] == "query":
                series = re.fullmatch(r"label_values\((.*), (\w+)\)", each["query"]["query"])
                assert series
                yield (
                    f"{path.stem}: variable {each['name']}",
                    f"group by ({series[2]}) ({filled(series[1])})",
                    "instant",
                )


def filled(expr: str) -> str:
    for name, value in (("instance", ".+"), ("stream", "pump"), ("feature", ".*"), ("__rate_interval", "10s")):
        expr = expr.replace(f"${name}", value)
    assert "$" not in expr
    return expr


# What a healthy run has none of: the query must be understood, its result may be empty.
MAY_BE_EMPTY = {
    "operations: Refused messages and unusable values, by reason A",
    "operations: Refused messages and unusable values, by reason B",
}


def test_a_fault_fires_at_the_webhook_is_resolved_and_fills_the_dashboards(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    webhook = Webhook()
    daemon = DaemonProcess(tmp_path, mosquitto)
    port = free_port()
    prometheus = Prometheus(tmp_path / "prometheus", target=daemon.port, alertmanager=port)
    with (
        daemon.connected(),
        alertmanager(tmp_path, port, webhook),
        running(prometheus.command, prometheus.port, tmp_path / "prometheus.log"),
    ):
        mosquitto.publish_lines("telemetry/pump", rows(320))
        daemon.wait_for_state("pump", "scoring")
        wait_until(
            lambda: prometheus.value('gon_edge_stream_state{state="scoring",stream="pump"}') == 1.0, 20, "a scrape"
        )
        assert webhook.received == []

        mosquitto.publish_lines("telemetry/pump", rows(60, start=START + 320, seed=2, fault=6.0))
        fired = wait_until(lambda: webhook.alerts("GonEdgeAnomaly", "firing"), 30, "the alert at the webhook")[0]
        assert fired["labels"]["stream"] == "pump"
        assert fired["labels"]["severity"] == "warning"
        assert "flow" in fired["annotations"]["description"]
        assert webhook.received[0]["path"] == "/warning"

        now = time.time()
        empty = []
        for place, expr, kind in queries():
            if kind in ("instant", "table"):
                result = prometheus.ask("query", query=expr)["result"]
            else:
                result = prometheus.ask("query_range", query=expr, start=str(now - 60), end=str(now), step="1")[
                    "result"
                ]
            if kind == "table":  # a metric's name would be one more column, and keep rows apart
                assert not any("__name__" in row["metric"] for row in result), place
            if not result and place not in MAY_BE_EMPTY:
                empty.append(f"{place}: {expr}")
        assert empty == []
        wrong = [
            rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"] if rule["health"] == "err"
        ]
        assert wrong == []

        mosquitto.publish_lines("telemetry/pump", rows(120, start=START + 380, seed=3))
        wait_until(lambda: webhook.alerts("GonEdgeAnomaly", "resolved"), 40, "its end at the webhook")
    webhook.close()


def test_what_follows_from_a_larger_loss_is_not_sent(tmp_path: Path) -> None:
    webhook = Webhook()
    port = free_port()

    def post(*alerts: dict[str, str]) -> None:
        body = json.dumps([{"labels": labels} for labels in alerts]).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v2/alerts", body, method="POST")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def alert(name: str, instance: str, severity: str = "warning", **labels: str) -> dict[str, str]:
        scope = "stream" if "stream" in labels else "process"
        return {"alertname": name, "instance": instance, "severity": severity, "scope": scope, **labels}

    def sent() -> set[tuple[str, str, str]]:
        return {
            (each["labels"]["alertname"], each["labels"]["instance"], message["path"])
            for message in list(webhook.received)
            for each in message["alerts"]
        }

    with alertmanager(tmp_path, port, webhook):
        post(
            alert("GonEdgeDown", "dead", "critical"),
            alert("GonEdgeBrokerDown", "deaf", "critical"),
            alert("GonEdgeAnomalySustained", "pi", "critical", stream="pump"),
        )
        causes = {
            ("GonEdgeDown", "dead", "/critical"),
            ("GonEdgeBrokerDown", "deaf", "/critical"),
            ("GonEdgeAnomalySustained", "pi", "/critical"),
        }
        wait_until(lambda: sent() >= causes, 20, "what is larger")
        post(
            alert("GonEdgeAnomaly", "dead", stream="pump"),
            alert("GonEdgeNoTelemetry", "deaf", stream="pump"),
            alert("GonEdgeAnomaly", "pi", stream="pump"),
            alert("GonEdgeModelStale", "deaf", "info", stream="pump"),
            alert("GonEdgeMemoryHigh", "pi"),
        )
        heard = {("GonEdgeModelStale", "deaf", "/warning"), ("GonEdgeMemoryHigh", "pi", "/warning")}
        wait_until(lambda: sent() >= heard, 20, "what has nothing to do with it")
        post(alert("GonEdgeAnomaly", "pi", stream="valve"))  # its group holds the one of the pump as well
        wait_until(lambda: ("GonEdgeAnomaly", "pi", "/warning") in sent(), 20, "another stream's anomaly")
        streams = {each["labels"]["stream"] for each in webhook.alerts("GonEdgeAnomaly", "firing")}
        assert streams == {"valve"}
        assert sent() == causes | heard | {("GonEdgeAnomaly", "pi", "/warning")}
    webhook.close()
