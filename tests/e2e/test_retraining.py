"""Training again, accepting, silencing and reloading: a real daemon and broker, and commands from another shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2e.daemons import DaemonProcess, Subscriber, rows
from e2e.servers import Mosquitto, wait_until

pytestmark = pytest.mark.e2e

START = 1_700_000_000.0
CALM = {"every": "off", "max_load": "off", "max_temperature": "off", "nice": 0}


def daemon_with(folder: Path, broker: Mosquitto, **retrain: Any) -> DaemonProcess:
    return DaemonProcess(folder, broker, retrain={**CALM, **retrain})


def command(daemon: DaemonProcess, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "gon_edge", *arguments, "--config", str(daemon.config)]


def gon_edge(daemon: DaemonProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(daemon, *arguments), capture_output=True, text=True, timeout=100)


def publish(
    broker: Mosquitto, daemon: DaemonProcess, count: int, begin: int, *, stream: str = "pump", **options: Any
) -> None:
    """Rows from ``begin`` on, and wait until the daemon has judged them."""
    before = daemon.metrics().get(f'gon_edge_rows_total{{stream="{stream}"}}', 0.0)
    broker.publish_lines(f"telemetry/{stream}", rows(count, start=START + begin, **options))
    name = f'gon_edge_rows_total{{stream="{stream}"}}'
    wait_until(lambda: daemon.metrics().get(name, 0.0) >= before + count, 30, "every row")


def warm_up(broker: Mosquitto, daemon: DaemonProcess, stream: str = "pump") -> None:
    broker.publish_lines(f"telemetry/{stream}", rows(320))
    daemon.wait_for_state(stream, "scoring")
    name = f'gon_edge_rows_total{{stream="{stream}"}}'
    wait_until(lambda: daemon.metrics().get(name) == 320, 20, "every row of the warm-up")


def version(daemon: DaemonProcess, stream: str = "pump") -> str:
    (found,) = [name for name in daemon.metrics() if name.startswith(f'gon_edge_model_info{{stream="{stream}"')]
    return found.partition('version="')[2].rstrip('"}')


def children(daemon: DaemonProcess) -> list[int]:
    """Training processes of this daemon."""
    assert daemon.process is not None
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            if parent == daemon.process.pid:
                found.append(int(status.parent.name))
        except (OSError, IndexError):
            continue
    return found


def hang_up(daemon: DaemonProcess, **changes: Any) -> None:
    """Change the configuration, and tell the daemon."""
    config = json.loads(daemon.config.read_text())
    daemon.config.write_text(json.dumps({**config, **changes}))
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)


def active(daemon: DaemonProcess, stream: str = "pump", kind: str = "anomaly") -> float | None:
    return daemon.metric(f'gon_edge_alert_active{{kind="{kind}",stream="{stream}"}}')


def test_retrain_swaps_the_model_and_rollback_brings_the_old_one_back(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with daemon_with(tmp_path, mosquitto).connected() as daemon:
        warm_up(mosquitto, daemon)
        publish(mosquitto, daemon, 900, 320, seed=1)
        planned = gon_edge(daemon, "retrain", "pump", "--dry-run", "--json")
        assert planned.returncode == 0, planned.stderr
        (plan,) = json.loads(planned.stdout)
        assert plan["stored_rows"] == 1220
        assert 0 < plan["predicted_peak_bytes"] <= plan["budget_bytes"]
        assert version(daemon) == "1"
        done = gon_edge(daemon, "retrain", "pump", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        (result,) = json.loads(done.stdout)
        assert (result["outcome"], result["version"]) == ("promoted", "2")
        assert result["gate"]["passed"]
        assert 0 < result["peak_bytes"] <= result["budget_bytes"]
        assert daemon.metric('gon_edge_model_info{stream="pump",version="2"}') == 1.0
        assert daemon.metric('gon_edge_retrain_rounds_total{outcome="promoted",stream="pump"}') == 2.0
        publish(mosquitto, daemon, 50, 1220, seed=2)
        assert daemon.messages("accepted") == 1270
        assert daemon.messages("dropped") == 0
        back = gon_edge(daemon, "models", "rollback", "pump")
        assert back.returncode == 0, back.stderr
        assert daemon.metric('gon_edge_model_info{stream="pump",version="1"}') == 1.0
        assert daemon.metric('gon_edge_model_info{stream="pump",version="2"}') is None
        daemon.kill()
        daemon.connected()
        assert version(daemon) == "1"


def test_what_cannot_be_done_is_said_with_the_exit_code_for_it(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with daemon_with(tmp_path, mosquitto).connected() as daemon:
        warm_up(mosquitto, daemon)
        unknown = gon_edge(daemon, "retrain", "boiler")
        assert (unknown.returncode, unknown.stderr) == (66, "gon-edge: no stream 'boiler'; there are: pump\n")
        little = gon_edge(daemon, "retrain", "pump", "--since", "30s")
        assert little.returncode == 4, little.stdout
        assert "wait for more" in little.stdout
        small = gon_edge(daemon, "retrain", "pump", "--memory-budget", "4MiB")
        assert small.returncode == 5, small.stdout
        assert "over the memory budget" in small.stdout
        assert version(daemon) == "1"
        assert daemon.get("/healthz")[0] == 200


@pytest.mark.slow  # three trainings, slowed down
def test_of_two_at_once_one_is_busy_or_waits_its_turn(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with daemon_with(tmp_path, mosquitto, cpu_share=0.6).connected() as daemon:
        warm_up(mosquitto, daemon)
        publish(mosquitto, daemon, 300, 320, seed=1)
        first = subprocess.Popen(command(daemon, "retrain", "pump", "--force"), stdout=subprocess.PIPE, text=True)
        wait_until(lambda: daemon.stream("pump").get("training"), 20, "the first round")
        waiting = subprocess.Popen(
            command(daemon, "retrain", "--all", "--wait", "--force"), stdout=subprocess.PIPE, text=True
        )
        second = gon_edge(daemon, "retrain", "pump")
        assert second.returncode == 75, second.stdout + second.stderr
        assert "add --wait" in second.stderr
        said = first.communicate(timeout=100)[0]
        assert first.returncode == 0, said
        said = waiting.communicate(timeout=100)[0]
        assert waiting.returncode == 0, said
        assert version(daemon) == "3"


@pytest.mark.slow  # three trainings and a restart
def test_what_is_killed_in_the_middle_costs_the_round_and_nothing_else(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with daemon_with(tmp_path, mosquitto).connected() as daemon:
        warm_up(mosquitto, daemon)
        hang_up(daemon, retrain={**CALM, "cpu_share": 0.05})
        wait_until(lambda: "was read again" in daemon.log, 10, "the new configuration")
        asked = subprocess.Popen(command(daemon, "retrain", "pump", "--json"), stdout=subprocess.PIPE, text=True)
        (child,) = wait_until(lambda: children(daemon), 20, "the training process")
        os.kill(child, signal.SIGKILL)
        (result,) = json.loads(asked.communicate(timeout=60)[0])
        assert (asked.returncode, result["outcome"]) == (1, "failed")
        assert "ended with status -9" in result["reason"]
        asked = subprocess.Popen(command(daemon, "retrain", "pump"), stderr=subprocess.PIPE, text=True)
        (child,) = wait_until(lambda: children(daemon), 20, "the training process")
        daemon.kill()
        assert "hung up" in asked.communicate(timeout=60)[1]
        assert asked.returncode == 69
        wait_until(lambda: not Path(f"/proc/{child}").exists(), 10, "the end of the training process")
        daemon.connected()
        assert version(daemon) == "1"
        asked = subprocess.Popen(command(daemon, "retrain", "pump"))
        (child,) = wait_until(lambda: children(daemon), 20, "the training process")
        asked.send_signal(signal.SIGINT)
        assert asked.wait(60) == 130
        wait_until(lambda: not Path(f"/proc/{child}").exists(), 10, "the end of the training process")
        publish(mosquitto, daemon, 20, 320, seed=1)
        assert version(daemon) == "1"
        assert daemon.stop() == 0
        assert not (daemon.state_dir / "control.sock").exists()


@pytest.mark.slow  # 4,000 rows and three trainings
def test_a_drift_that_a_person_accepts_is_learned_and_its_twin_keeps_its_alert(
    mosquitto: Mosquitto, subscriber: Subscriber, tmp_path: Path
) -> None:
    def news(stream: str, kind: str) -> list[dict[str, Any]]:
        return [e for e in subscriber.events() if e["stream"] == stream and e["type"] == kind]

    with daemon_with(tmp_path, mosquitto).connected() as daemon:
        for stream in ("pump", "twin"):
            warm_up(mosquitto, daemon, stream)
            publish(mosquitto, daemon, 300, 320, seed=1, stream=stream)
            publish(mosquitto, daemon, 600, 620, seed=2, fault=8.0, stream=stream)  # a new pump, for good
            wait_until(lambda stream=stream: news(stream, "new"), 20, "the alert")
            assert active(daemon, stream) == 1.0
        done = gon_edge(daemon, "accept", "pump", "--since", "10m", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert version(daemon) == "2"
        for stream in ("pump", "twin"):
            publish(mosquitto, daemon, 120, 1220, seed=3, fault=8.0, stream=stream)
        wait_until(lambda: active(daemon) == 0.0, 20, "the end of the accepted one's alert")
        assert active(daemon, "twin") == 1.0
        assert [e["id"] for e in news("pump", "end")][-1:] == [news("pump", "new")[-1]["id"]]
        raised = len(news("pump", "new"))
        publish(mosquitto, daemon, 400, 1340, seed=4, fault=8.0)  # the twin would be told as another state
        # Calm afterwards: a threshold from 1,200 rows promises no more than one alert in as many.
        wait_until(lambda: active(daemon) == 0.0, 20, "the end of what may have been raised")
        assert len(news("pump", "new")) <= raised + 1
        assert active(daemon, "twin") == 1.0
        assert news("twin", "end") == [e for e in news("twin", "end") if e["id"] != news("twin", "new")[-1]["id"]]
        publish(mosquitto, daemon, 60, 1740, seed=5, fault=20.0)
        wait_until(lambda: active(daemon) == 1.0, 20, "a fault of the new pump")
        short = gon_edge(daemon, "accept", "twin", "--since", "20s", "--json")
        assert short.returncode == 0, short.stdout + short.stderr
        assert version(daemon, "twin") == "2"


@pytest.mark.slow  # two trainings
def test_a_sensor_that_is_gone_for_good_is_accepted_as_gone(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with daemon_with(tmp_path, mosquitto).connected() as daemon:
        warm_up(mosquitto, daemon)
        left = [json.loads(line) for line in rows(600, start=START + 320, seed=1)]
        for row in left:
            del row["current"]
        mosquitto.publish_lines("telemetry/pump", (json.dumps(row) for row in left[:500]))
        wait_until(lambda: active(daemon, kind="missing") == 1.0, 20, "the alert")
        wait_until(lambda: daemon.metric('gon_edge_rows_total{stream="pump"}') == 820, 20, "the rows")
        done = gon_edge(daemon, "accept", "pump", "--since", "450s", "--only", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        mosquitto.publish_lines("telemetry/pump", (json.dumps(row) for row in left[500:]))
        wait_until(lambda: active(daemon, kind="missing") == 0.0, 20, "the end of the alert")
        assert daemon.metric('gon_edge_missing_features{stream="pump"}') == 0.0


def test_a_silence_is_heard_of_nowhere_and_ends(mosquitto: Mosquitto, subscriber: Subscriber, tmp_path: Path) -> None:
    with daemon_with(tmp_path, mosquitto).connected() as daemon:
        warm_up(mosquitto, daemon)
        added = gon_edge(daemon, "silence", "add", "pump", "--for", "1h", "--reason", "new bearing")
        assert added.returncode == 0, added.stderr
        publish(mosquitto, daemon, 60, 320, seed=1, fault=8.0)
        page = daemon.metrics()  # scores go on
        assert page['gon_edge_anomaly_score{stream="pump"}'] > page['gon_edge_anomaly_threshold{stream="pump"}']
        assert active(daemon) == 0.0
        daemon.kill()
        daemon.connected()  # and it survives that
        (listed,) = json.loads(gon_edge(daemon, "silence", "list", "--json").stdout)
        assert (listed["stream"], listed["feature"], listed["reason"]) == ("pump", "", "new bearing")
        (shown,) = json.loads(daemon.get("/api/v1/silences")[1])["silences"]
        assert shown == listed
        status = subprocess.run(
            [sys.executable, "-m", "gon_edge", "status", "--url", f"http://127.0.0.1:{daemon.port}"],
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout
        assert "new bearing" in status
        publish(mosquitto, daemon, 60, 380, seed=2, fault=8.0)
        assert [e for e in subscriber.events() if e["since"] >= START + 320] == []
        removed = gon_edge(daemon, "silence", "rm", "pump")
        assert removed.returncode == 0, removed.stderr
        assert gon_edge(daemon, "silence", "rm", "pump").returncode == 66
        publish(mosquitto, daemon, 20, 440, seed=3, fault=8.0)
        wait_until(lambda: active(daemon) == 1.0, 20, "the alert")
        short = gon_edge(daemon, "silence", "add", "pump", "--feature", "flow", "--for", "3s")
        assert short.returncode == 0
        wait_until(lambda: active(daemon) == 0.0, 2, "its silence")
        wait_until(lambda: active(daemon) == 1.0, 10, "the end of the silence")
        (plan,) = json.loads(gon_edge(daemon, "retrain", "pump", "--dry-run", "--json").stdout)
        assert plan["quarantined_rows"] >= 78  # silenced and alarmed ones, less the 60 that kill -9 took


@pytest.mark.slow  # two trainings, two starts
def test_without_a_daemon_the_same_commands_work_on_the_files(mosquitto: Mosquitto, tmp_path: Path) -> None:
    with DaemonProcess(tmp_path, mosquitto, retrain=CALM, store={"flush_every": "1s"}).connected() as daemon:
        warm_up(mosquitto, daemon)
        publish(mosquitto, daemon, 600, 320, seed=1)
        publish(mosquitto, daemon, 200, 920, seed=1, fault=8.0)
        assert daemon.stop() == 0
        (plan,) = json.loads(gon_edge(daemon, "retrain", "pump", "--dry-run", "--json").stdout)
        assert plan["stored_rows"] == 1120
        assert plan["quarantined_rows"] >= 190
        done = gon_edge(daemon, "retrain", "--all", "--force")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "pump: model 2 is in use" in done.stdout
        assert gon_edge(daemon, "silence", "add", "pump", "--for", "1h").returncode == 0
        assert gon_edge(daemon, "silence", "add", "boiler", "--for", "1h").returncode == 66
        daemon.connected()
        assert version(daemon) == "2"
        wait_until(lambda: daemon.metric("gon_edge_silences") == 1.0, 5, "the silence")


def test_the_configuration_is_read_again_on_sighup_and_a_wrong_one_changes_nothing(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    successful = "gon_edge_config_last_reload_successful"

    with daemon_with(tmp_path, mosquitto).connected() as daemon:
        warm_up(mosquitto, daemon)
        began = daemon.metric("gon_edge_config_last_reload_success_timestamp_seconds")
        good = json.loads(daemon.config.read_text())
        hang_up(daemon, retrain={"memory_budget": "many"})
        wait_until(lambda: daemon.metric(successful) == 0.0, 10, "the refusal")
        assert "the configuration stays as it was" in daemon.log
        assert "retrain.memory_budget: write a size" in daemon.log
        assert daemon.metric("gon_edge_memory_budget_bytes") == 64 << 20
        alerts = {"raise_rows": 50, "raise_of": 50}
        hang_up(
            daemon,
            node="pi-2",
            retrain={"memory_budget": "48MiB"},
            streams={"defaults": {"warmup_rows": 300, "alerts": alerts}},
        )
        wait_until(lambda: daemon.metric(successful) == 1.0, 10, "the new configuration")
        assert daemon.metric("gon_edge_config_last_reload_success_timestamp_seconds") > began
        assert daemon.metric("gon_edge_memory_budget_bytes") == 48 << 20
        assert "after a restart: node" in daemon.log
        publish(mosquitto, daemon, 40, 320, seed=1, fault=8.0)
        assert active(daemon) == 0.0  # 50 rows are wanted now
        hang_up(daemon, **good)
        wait_until(lambda: daemon.log.count("was read again") == 2, 10, "the old configuration")
        publish(mosquitto, daemon, 5, 360, seed=2, fault=8.0)
        wait_until(lambda: active(daemon) == 1.0, 10, "the alert")


def test_hostile_input_on_the_socket_is_counted_and_the_daemon_goes_on(mosquitto: Mosquitto, tmp_path: Path) -> None:
    import socket

    with daemon_with(tmp_path, mosquitto).connected() as daemon:
        warm_up(mosquitto, daemon)
        requests = [
            {"do": "fly"},
            {"do": "retrain", "streams": 7},
            {"do": "retrain", "streams": ["pump"], "since": "long ago"},
            {"do": "retrain", "streams": ["pump"], "budget_bytes": "x"},
            {"do": "silence", "stream": "pump", "for_s": 1e300, "reason": ""},
            {"do": "silence", "stream": ["pump"], "for_s": 1, "reason": ""},
            {"do": "silence"},
            {"do": "accept", "stream": "pump", "since": 5},
            {"do": "rollback", "stream": "../../etc"},
            {"do": "rollback", "stream": "pump", "version": "../../../etc/passwd"},
            {"do": "unsilence"},
        ]
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(20)
            channel.connect(str(daemon.state_dir / "control.sock"))
            with channel.makefile("rwb") as lines:
                for asked in requests:
                    lines.write(json.dumps(asked).encode() + b"\n")
                    lines.flush()
                    answer = json.loads(lines.readline())
                    assert answer["ok"] is False, (asked, answer)
                lines.write(b"nonsense\n")
                lines.flush()
                assert json.loads(lines.readline())["ok"] is False
        wait_until(lambda: daemon.metric("gon_edge_control_refused_total") == 1.0, 10, "the count")
        publish(mosquitto, daemon, 10, 320, seed=1)
        assert version(daemon) == "1"
        assert "Traceback" not in daemon.log


@pytest.mark.slow  # 2,000 rows, two trainings
def test_a_stream_is_trained_again_by_itself_but_not_while_an_alert_is_open(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The waiting times of minutes and hours are made short; everything else is as it is."""
    patch = tmp_path / "patch"
    patch.mkdir()
    short = "import gon_edge.training.schedule as s; s.AFTER_START_S = s.RETRY_S = 0.0; s.JITTER = 0.0\n"
    (patch / "sitecustomize.py").write_text(short)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(patch), str(Path(__file__).parents[2])]))
    settings = {"streams": {"defaults": {"warmup_rows": 1000}}}
    with DaemonProcess(tmp_path, mosquitto, retrain=CALM, **settings).connected() as daemon:
        publish(mosquitto, daemon, 1020, 0)
        daemon.wait_for_state("pump", "scoring")
        tried = 'gon_edge_retrain_rounds_total{{outcome="{}",stream="pump"}}'

        def rounds() -> float:
            page = daemon.metrics()
            return sum(page.get(tried.format(outcome), 0.0) for outcome in ("promoted", "rejected"))

        assert rounds() == 1.0
        publish(mosquitto, daemon, 60, 1020, seed=1, fault=8.0)
        wait_until(lambda: active(daemon) == 1.0, 20, "the alert")
        lines = (json.loads(line) for line in rows(1100, start=START + 1080, seed=2))
        more = [json.dumps({**row, "speed": 1000.0 + i % 7}) for i, row in enumerate(lines)]
        mosquitto.publish_lines("telemetry/pump", more[:10])  # a new feature, and the alert is still open
        wait_until(lambda: daemon.metric('gon_edge_rows_total{stream="pump"}') == 1090, 20, "the rows")
        assert rounds() == 1.0
        mosquitto.publish_lines("telemetry/pump", more[10:])
        wait_until(lambda: rounds() == 2.0, 60, "another training")
        assert "another training is due (new feature)" in daemon.log
