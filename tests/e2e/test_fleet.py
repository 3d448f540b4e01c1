"""A fleet as a person starts it: servers, bridge, workers, devices; one worker killed, every row accounted for.

What partitions, takeovers and trainings do one by one is in ``tests/fleet``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from e2e.daemons import DaemonProcess, rows
from e2e.servers import Mosquitto, free_port, require, wait_until
from e2e.test_prometheus import filled, running
from gon_edge.errors import UnreachableError
from gon_edge.process.child import python

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "workers.json"


class Up:
    """``gon-edge fleet up`` as a process."""

    def __init__(self, tmp_path: Path, *options: str) -> None:
        require("mosquitto")
        environ = {**os.environ, "TMPDIR": str(tmp_path)}
        command = python("-m", "gon_edge", "fleet", "up", *options)
        self.folder = tmp_path
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)

    def configs(self) -> list[Path]:
        """Of the workers that were started so far."""
        return sorted(self.folder.glob("gon-edge-fleet-*/worker-*.yaml"))

    def status(self) -> dict[str, Any]:
        """What ``fleet status`` says; empty while there is no fleet yet."""
        assert self.process.poll() is None, "the fleet has ended"
        if not (configs := self.configs()):
            return {}
        command = python("-m", "gon_edge", "fleet", "status", "--json", "--config", str(configs[0]))
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return json.loads(done.stdout) if done.stdout else {}

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def left_nothing(self, family: list[psutil.Process]) -> bool:
        return not any(each.is_running() for each in family) and not [*self.folder.glob("gon-edge-fleet-*")]


@pytest.mark.e2e
def test_a_worker_is_killed_and_every_row_has_one_verdict(tmp_path: Path) -> None:
    # A look takes seconds on a busy machine, and must come before the end.
    up = Up(tmp_path, "--devices", "20", "--workers", "2", "--duration", "10", "--kill-worker", "--json")

    def working() -> dict[str, Any]:
        look = up.status()
        return look if look and look["streams"] >= 10 and any(each["rows"] for each in look["partitions"]) else {}

    seen = wait_until(working, 60, "streams with an owner that judges their rows")
    assert {each["name"] for each in seen["workers"]} <= {"worker-1", "worker-2"}
    kept = {each["name"] for each in seen["kept"]}
    assert {"fleet-telemetry", "fleet-events", "KV_fleet-states"} <= kept
    family = up.family()
    told, errors = up.process.communicate(timeout=120)
    account = json.loads(told)
    assert (account["lost"], account["doubled"], up.process.returncode) == (0, 0, 0), (account, errors)
    assert account["sent"] == account["acknowledged"] == account["scored"] + account["late"] > 100
    assert len(account["killed"]) == 1
    assert account["longest_unscored_s"] < 40.0
    wait_until(lambda: up.left_nothing(family), what="the end of everything that was started")


@pytest.mark.e2e
@pytest.mark.slow
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    up = Up(tmp_path, "--devices", "20", "--workers", "1", "--direct")
    wait_until(lambda: up.status().get("streams") == 20, 60, "every stream")
    assert up.process.stdout is not None
    assert any("rows sent" in line for line in up.process.stdout)  # reads until there is one: a line comes every 5 s
    family = up.family()
    up.process.send_signal(signal.SIGINT)
    _, errors = up.process.communicate(timeout=60)
    assert (up.process.returncode, errors) == (130, "")
    wait_until(lambda: up.left_nothing(family), what="the end of everything that was started")


@pytest.mark.e2e
@pytest.mark.slow
def test_the_dashboard_and_the_rules_find_their_series_in_a_real_prometheus(tmp_path: Path) -> None:
    up = Up(tmp_path, "--devices", "20", "--workers", "2")
    try:
        wait_until(lambda: len(up.configs()) == 2, 60, "the workers' configurations")
        targets = [yaml.safe_load(path.read_text())["http"]["listen"] for path in up.configs()]
        port, folder = free_port(), tmp_path / "prometheus"
        folder.mkdir()
        jobs = [{"job_name": "gon-edge", "static_configs": [{"targets": targets}]}]
        settings = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "scrape_configs": jobs}
        rules = ROOT / "deploy" / "fleet" / "gon-edge-fleet.rules.yml"
        (folder / "prometheus.yml").write_text(yaml.safe_dump({**settings, "rule_files": [str(rules)]}))
        command = [
            require("prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with running(command, port, folder / "log"):
            asked = {
                f"{panel['title']} {target['refId']}": filled(target["expr"])
                for panel in json.loads(DASHBOARD.read_text())["panels"]
                for target in panel.get("targets", ())
            }
            # What a healthy fleet has none of.
            empty = {name for name in asked if name.startswith(("Without NATS", "Nobody owns"))}
            for name, query in asked.items():
                wait_until(lambda: result(port, query) or name in empty, 60, name)  # noqa: B023
            wait_until(lambda: result(port, "fleet:gon_edge_fleet_messages:rate1m"), 60, "a recorded series")
            alerts = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/rules"))
            states = {rule["name"]: rule["health"] for g in alerts["data"]["groups"] for rule in g["rules"]}
            assert set(states.values()) == {"ok"}
    finally:
        up.process.send_signal(signal.SIGINT)
        up.process.communicate(timeout=60)


def result(port: int, query: str) -> list[Any]:
    url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url) as answer:
        found: list[Any] = json.load(answer)["data"]["result"]
    return found


def test_what_is_asked_of_up_must_make_sense() -> None:
    for options, words in (
        (("--json",), "--json needs --duration"),
        (("--kill-worker", "--workers", "1", "--duration", "9"), "--kill-worker needs two workers"),
    ):
        done = subprocess.run(python("-m", "gon_edge", "fleet", "up", *options), capture_output=True, text=True)
        assert done.returncode == 2
        assert re.search(words, done.stderr)


def test_status_without_a_server_says_so_and_ends(tmp_path: Path) -> None:
    config = tmp_path / "fleet.yaml"
    fleet = {"servers": [f"nats://127.0.0.1:{free_port()}"]}
    topics = [{"topic": "telemetry/{stream}"}]
    config.write_text(yaml.safe_dump({"mqtt": {"url": "mqtt://x"}, "subscriptions": topics, "fleet": fleet}))
    command = python("-m", "gon_edge", "fleet", "status", "--config", str(config))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == UnreachableError.exit_code
    assert done.stderr == f"gon-edge: no NATS at {fleet['servers'][0]}; see fleet.servers\n"


@pytest.mark.e2e
def test_a_daemon_at_a_site_is_seen_at_the_centre_by_what_it_says_anyway(mosquitto: Mosquitto, tmp_path: Path) -> None:
    bridge = f"connection centre\naddress 127.0.0.1:{mosquitto.port}\ntopic gon-edge/# out 1\nrestart_timeout 1 2\n"
    site = Mosquitto(tmp_path / "site", settings=bridge).start()

    def view(*options: str) -> tuple[int, dict[str, Any]]:
        command = python("-m", "gon_edge", "fleet", "view", "--json", "--broker", mosquitto.url, *options)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def standing() -> str:
        return next((each["standing"] for each in view()[1]["daemons"]), "")

    try:
        with DaemonProcess(tmp_path, site).connected() as daemon:
            site.publish_lines("telemetry/pump", rows(320))
            daemon.wait_for_state("pump", "scoring")
            wait_until(lambda: standing() == "ok", 30, "a daemon that is well")
            site.publish_lines("telemetry/pump", rows(60, start=1_700_000_320.0, seed=2, fault=8.0))
            wait_until(lambda: standing() == "alarm", 30, "its alert")
            code, found = view()
            (seen,) = found["daemons"]
            assert (code, seen["node"], seen["status"]) == (1, "pi-1", "online")
            assert [alarm["stream"] for alarm in seen["alarms"]] == ["pump"]
            assert found["unread"] == 0
        wait_until(lambda: standing() == "offline", 30, "what it says when it stops")
    finally:
        site.kill()
