"""What a site runs a fleet with: accepted by the real programs, and nobody may do more than he needs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
import yaml
from e2e.servers import free_port, require, wait_until
from nats.errors import TimeoutError as NoAnswer
from nats.js.errors import Error as JetStreamError
from prometheus_client import CollectorRegistry
from test_deploy_prometheus import series_of_the_program

from gon_edge.config.file import load_config, parse_config
from gon_edge.errors import UnreachableError
from gon_edge.fleet.ingest import MQTT_STREAM, consumer, gateway_stream
from gon_edge.fleet.series import Series
from gon_edge.fleet.servers import find_nats_server
from gon_edge.links.publisher import Publisher
from gon_edge.process.child import python

ROOT = Path(__file__).resolve().parents[1]
FLEET = ROOT / "deploy" / "fleet"
RULES = [
    rule
    for group in yaml.safe_load((FLEET / "gon-edge-fleet.rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
CASES = yaml.safe_load((FLEET / "gon-edge-fleet.rules.test.yml").read_text())["tests"]


def series_of_a_worker() -> set[str]:
    registry = CollectorRegistry()
    Series(registry, 1)
    return series_of_the_program() | {sample.name for family in registry.collect() for sample in family.samples}


@pytest.mark.parametrize("what", ["check", "test"])
def test_promtool_accepts_the_rules_and_their_cases(what: str) -> None:
    name = "gon-edge-fleet.rules.yml" if what == "check" else "gon-edge-fleet.rules.test.yml"
    command = [require("promtool"), what, "rules", name]
    done = subprocess.run(command, cwd=FLEET, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    for file in (FLEET / "prometheus.yml", FLEET / "gon-edge-fleet.rules.yml"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "gon-edge.rules.yml").write_text((ROOT / "deploy" / "prometheus" / "gon-edge.rules.yml").read_text())
    command = [require("promtool"), "check", "config", "prometheus.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_has_a_case_that_fires_and_one_that_does_not(rule: dict) -> None:
    cases = [case for test in CASES for case in test["alert_rule_test"] if case["alertname"] == rule["alert"]]
    assert any(case.get("exp_alerts") for case in cases)
    several = any(len(test["input_series"]) > 1 for test in CASES for case in test["alert_rule_test"] if case in cases)
    assert several or any(not case.get("exp_alerts") for case in cases)


def test_rules_use_series_that_a_worker_has() -> None:
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    text = " ".join(rule["expr"] for rule in RULES)
    named = set(re.findall(r"\bgon_edge_\w+", text))
    assert named
    assert named <= series_of_a_worker()
    assert all(re.fullmatch(r"fleet:gon_edge_\w+:\w+", name) for name in recorded)


def test_the_document_says_what_to_do_about_every_alert() -> None:
    listed = re.findall(r"^\| `(GonEdgeFleet\w+)` \|", (ROOT / "docs" / "fleet.md").read_text(), re.MULTILINE)
    assert listed == [rule["alert"] for rule in ALERTS]


# -- servers -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script makes, for servers on this machine."""
    require("openssl")
    require("mosquitto_passwd")
    folder = tmp_path_factory.mktemp("deploy")
    script = ["sh", str(FLEET / "secrets.sh"), str(folder)]
    environ = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    for _ in range(2):  # what is there is kept
        done = subprocess.run(script, capture_output=True, text=True, timeout=60, env=environ)
        assert done.returncode == 0, done.stderr
        words = (folder / "secrets" / "nats.env").read_text()
    assert words == (folder / "secrets" / "nats.env").read_text()
    return folder / "secrets"


def passwords(secrets: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (secrets / "nats.env").read_text().splitlines())


class Server:
    """The shipped configuration on loopback, with ports of this test."""

    def __init__(self, folder: Path, secrets: Path) -> None:
        self.port, self.mqtt, monitor = free_port(), free_port(), free_port()
        text = (FLEET / "nats.conf").read_text()
        for shipped, own in (
            ('"0.0.0.0:4222"', f'"127.0.0.1:{self.port}"'),
            ('"0.0.0.0:8883"', f'"127.0.0.1:{self.mqtt}"'),
            ('"127.0.0.1:8222"', f'"127.0.0.1:{monitor}"'),
            ('"/var/lib/nats"', f'"{folder}/js"'),
            ("./certs/", f"{secrets}/certs/"),
            ("max_file_store: 20G", "max_file_store: 4G"),
        ):
            assert shipped in text
            text = text.replace(shipped, own)
        (folder / "nats.conf").write_text(text)
        self.log = (folder / "nats.log").open("wb")
        environ = {**os.environ, **passwords(secrets), "NATS_NAME": "nats-1", "MQTT_REPLICAS": "1"}
        command = [find_nats_server(), "-c", str(folder / "nats.conf")]
        self.process = subprocess.Popen(command, env=environ, stdout=self.log, stderr=self.log)
        self.words = passwords(secrets)
        self.tls = ssl.create_default_context(cafile=str(secrets / "certs" / "ca.crt"))
        self.ca = secrets / "certs" / "ca.crt"

    async def client(self, user: str) -> nats.NATS:
        deadline = time.monotonic() + 30.0
        while True:
            try:
                return await nats.connect(
                    f"tls://127.0.0.1:{self.port}",
                    user=user,
                    password=self.words[f"{user.upper()}_PASSWORD"],
                    tls=self.tls,
                    allow_reconnect=False,
                )
            except OSError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    def publisher(self, folder: Path, user: str) -> Publisher:
        secret = folder / f"{user}.password"
        secret.write_text(self.words[f"{user.upper()}_PASSWORD"] + "\n")
        mqtt = {"url": f"mqtts://127.0.0.1:{self.mqtt}", "username": user, "password_file": str(secret)}
        mqtt |= {"ca_file": str(self.ca), "protocol": "3.1.1"}
        return Publisher(parse_config({"mqtt": mqtt, "subscriptions": [{"topic": "{stream}"}]}).mqtt, patience_s=0.0)


@pytest.fixture
def server(tmp_path: Path, secrets: Path) -> Iterator[Server]:
    running = Server(tmp_path, secrets)
    yield running
    running.process.terminate()
    running.process.wait(20)
    running.log.close()


def settings():
    return parse_config({"mqtt": {"url": "mqtt://x"}, "subscriptions": [{"topic": "telemetry/{stream}"}]})


async def ask(client: nats.NATS, what: str, body: dict, timeout_s: float = 10.0) -> dict:
    """Of JetStream's API; raises `NoAnswer` where the server does not let the question through."""
    answer = await client.request(f"$JS.API.{what}", json.dumps(body).encode(), timeout=timeout_s)
    return json.loads(answer.data)


@pytest.mark.e2e
def test_workers_set_a_fleet_up_devices_feed_it_and_onlookers_change_nothing(server: Server, tmp_path: Path) -> None:
    async def go() -> None:
        worker, look = await server.client("worker"), await server.client("look")
        reader = consumer(settings())
        made = [
            await ask(worker, f"STREAM.CREATE.{MQTT_STREAM}", gateway_stream(1)),
            await ask(
                worker,
                f"CONSUMER.DURABLE.CREATE.{MQTT_STREAM}.{reader['name']}",
                {"stream_name": MQTT_STREAM, "config": reader},
            ),
            await ask(worker, "STREAM.CREATE.fleet-telemetry", {"name": "fleet-telemetry", "subjects": ["fleet.0.>"]}),
        ]
        assert [each.get("error") for each in made] == [None] * 3
        await worker.jetstream().publish("fleet.0.telemetry.pump", b"{}")
        assert (await ask(look, "STREAM.INFO.fleet-telemetry", {}))["state"]["messages"] == 1
        for client, what in (
            (worker, "STREAM.DELETE.fleet-telemetry"),
            (worker, "STREAM.PURGE.fleet-telemetry"),
            (look, "STREAM.DELETE.fleet-telemetry"),
            (look, "STREAM.UPDATE.fleet-telemetry"),
            (look, "CONSUMER.CREATE.fleet-telemetry.x"),
        ):
            with pytest.raises(NoAnswer):
                await ask(client, what, {}, 0.2)
        with pytest.raises((NoAnswer, JetStreamError)):
            await look.jetstream(timeout=0.2).publish("fleet.0.telemetry.pump", b"{}")
        await asyncio.to_thread(bridge)
        kept = (await ask(worker, f"STREAM.INFO.{MQTT_STREAM}", {}))["state"]["messages"]
        assert kept == 1  # what the bridge may not publish is nowhere
        await worker.close()
        await look.close()

    def bridge() -> None:
        with server.publisher(tmp_path, "bridge") as publisher:
            publisher.send("telemetry/pump", b"{}")
            assert publisher.drain()
        # NATS ends the connection, or acknowledges and throws away.
        with contextlib.suppress(UnreachableError), server.publisher(tmp_path, "bridge") as publisher:
            publisher.send("fleet/0/telemetry/pump", b"{}")
            publisher.drain(0.5)

    asyncio.run(go())


@pytest.mark.e2e
@pytest.mark.slow
def test_a_real_worker_and_status_do_with_the_rights_they_have(server: Server, tmp_path: Path) -> None:
    def config(user: str) -> Path:
        secret = tmp_path / f"{user}.password"
        secret.write_text(server.words[f"{user.upper()}_PASSWORD"] + "\n")
        fleet = {"servers": [f"tls://127.0.0.1:{server.port}"], "username": user, "password_file": str(secret)}
        fleet |= {"ca_file": str(server.ca), "partitions": 4, "takeover": "2s", "save_every": "2s"}
        path = tmp_path / f"{user}.yaml"
        shown = {"state_dir": str(tmp_path / "state"), "mqtt": {"url": "mqtt://127.0.0.1:1"}, "http": {"listen": "off"}}
        topics = [{"topic": "telemetry/{stream}", "timestamp": "time"}]
        path.write_text(yaml.safe_dump({**shown, "subscriptions": topics, "fleet": fleet}))
        return path

    def status() -> dict:
        command = python("-m", "gon_edge", "fleet", "status", "--json", "--config", str(config("look")))
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return json.loads(done.stdout or "{}")

    log = (tmp_path / "worker.log").open("wb")
    command = python("-m", "gon_edge", "fleet", "worker", "--config", str(config("worker")))
    worker = subprocess.Popen(command, stderr=log)
    try:
        wait_until(lambda: len(status().get("workers", ())) == 1, 60, "the worker")
        with server.publisher(tmp_path, "bridge") as publisher:
            for row in range(10):
                for device in range(6):
                    publisher.send(f"telemetry/d{device}", json.dumps({"time": 1.7e9 + row, "flow": row}).encode())
            assert publisher.drain()
        wait_until(lambda: status()["streams"] == 6, 60, "every stream")
    finally:
        worker.terminate()
        worker.wait(30)
        log.close()
    assert b"iolation" not in (tmp_path / "nats.log").read_bytes()
    assert worker.returncode == 0, (tmp_path / "worker.log").read_text()


@pytest.mark.e2e
def test_nobody_gets_in_without_tls_or_with_a_wrong_password(server: Server, tmp_path: Path) -> None:
    async def go() -> None:
        await (await server.client("worker")).close()
        server.words["WORKER_PASSWORD"] = "wrong"
        with pytest.raises(nats.errors.Error):
            await server.client("worker")
        server.words["BRIDGE_PASSWORD"] = "wrong"
        with pytest.raises(UnreachableError):
            server.publisher(tmp_path, "bridge")
        with pytest.raises((nats.errors.Error, OSError, asyncio.TimeoutError)):
            await nats.connect(f"nats://127.0.0.1:{server.port}", allow_reconnect=False, connect_timeout=2)

    asyncio.run(go())


@pytest.mark.e2e
def test_mosquitto_hands_on_what_a_device_with_a_password_sends(server: Server, secrets: Path, tmp_path: Path) -> None:
    port, home = free_port(), tmp_path / "mosquitto"
    home.mkdir()
    config = secrets / "mosquitto"
    subprocess.run([require("mosquitto_passwd"), "-b", str(config / "passwd"), "pump-1", "secret"], check=True)
    text = (config / "mosquitto.conf").read_text()
    for shipped, own in (
        ("listener 8883", f"listener {port} 127.0.0.1" + ("\nuser root" if os.geteuid() == 0 else "")),
        ("/etc/mosquitto/certs/", f"{secrets}/certs/"),
        ("/mosquitto/config/", f"{config}/"),
        ("/mosquitto/data/", f"{home}/"),
        ("addresses nats-1:8883 nats-2:8883 nats-3:8883", f"addresses localhost:{server.mqtt}"),
    ):
        assert shipped in text
        text = text.replace(shipped, own)
    (tmp_path / "mosquitto.conf").write_text(text)
    log = (tmp_path / "mosquitto.log").open("wb")
    broker = subprocess.Popen([require("mosquitto"), "-c", str(tmp_path / "mosquitto.conf")], stdout=log, stderr=log)
    try:
        (tmp_path / "pump-1.password").write_text("secret\n")
        mqtt = {"url": f"mqtts://localhost:{port}", "username": "pump-1", "ca_file": str(server.ca)}
        mqtt["password_file"] = str(tmp_path / "pump-1.password")
        device = parse_config({"mqtt": mqtt, "subscriptions": [{"topic": "{stream}"}]}).mqtt
        asyncio.run(_through_the_bridge(server, device))
    finally:
        broker.terminate()
        broker.wait(20)
        log.close()


async def _through_the_bridge(server: Server, device) -> None:
    worker = await server.client("worker")
    await ask(worker, f"STREAM.CREATE.{MQTT_STREAM}", gateway_stream(1))
    reader = await worker.jetstream().pull_subscribe("$MQTT.msgs.>", durable="test", stream=MQTT_STREAM)

    def send() -> None:
        def connected() -> Publisher | None:
            try:
                return Publisher(device, patience_s=0.0)
            except UnreachableError:
                return None

        with wait_until(connected, what="mosquitto") as publisher:
            publisher.send("telemetry/pump-1", b"mine")
            publisher.send("telemetry/pump-2", b"another's")
            publisher.drain()
            assert publisher.refused == 1

    await asyncio.to_thread(send)
    (message,) = await reader.fetch(1, timeout=30)
    assert (message.subject, message.data) == ("$MQTT.msgs.telemetry.pump-1", b"mine")
    await worker.close()


def test_a_cluster_is_one_server_and_how_three_find_each_other(secrets: Path, tmp_path: Path) -> None:
    for name in ("nats.conf", "nats-cluster.conf"):
        (tmp_path / name).write_text((FLEET / name).read_text().replace("./certs/", f"{secrets}/certs/"))
    environ = {**os.environ, **passwords(secrets), "NATS_NAME": "nats-2", "MQTT_REPLICAS": "3"}
    command = [find_nats_server(), "-t", "-c", str(tmp_path / "nats-cluster.conf")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30)
    assert (done.returncode, "is valid" in done.stderr) == (0, True), done.stderr


def test_the_configuration_of_a_worker_is_valid_and_fits_the_servers(secrets: Path) -> None:
    config = load_config(FLEET / "fleet.yaml")
    assert config.fleet.replicas == 3
    assert [url.partition("//")[2] for url in config.fleet.servers] == ["nats-1:4222", "nats-2:4222", "nats-3:4222"]
    topics = re.findall(r"^topic (\S+) out 1$", (FLEET / "mosquitto-bridge.conf").read_text(), re.MULTILINE)
    assert topics == ["telemetry/#"]
    assert [each.topic for each in config.subscriptions] == ["telemetry/{stream}"]
    assert load_config(secrets / "fleet.yaml").http.host == "0.0.0.0"


COMPOSE = yaml.safe_load((FLEET / "compose.yaml").read_text())
SERVICES: dict[str, dict] = COMPOSE["services"]

# Of the Compose specification: what a service may say, as far as anybody would here, and how values are written.
SPECIFIED = {
    "image": r"(gon-edge|docker\.io/[a-z-]+/[a-z-]+:v?[0-9][0-9.]*(-alpine)?)",
    "user": r"[0-9]+:[0-9]+",
    "restart": r"unless-stopped",
    "mem_limit": r"[0-9]+[mg]",
    "stop_grace_period": r"[0-9]+s",
    "env_file": r"secrets/[a-z.]+",
    "pids_limit": r"[0-9]+",
    "read_only": r"True",
    **dict.fromkeys(("command", "cap_drop", "security_opt", "ports", "volumes", "tmpfs", "depends_on"), list),
    **dict.fromkeys(("environment", "logging", "deploy"), dict),
}
WRITTEN_BY_ITS_USER = {
    "eclipse-mosquitto": "/mosquitto/data",
    "prometheus": "/prometheus",
    "grafana": "/var/lib/grafana",
}
"""Folders that an image has for its user; a volume elsewhere belongs to root."""


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_says_what_compose_understands_and_names_what_there_is(name: str) -> None:
    service = SERVICES[name]
    for key, value in service.items():
        rule = SPECIFIED[key]
        assert isinstance(value, rule) if isinstance(rule, type) else re.fullmatch(rule, str(value)), (key, value)
    assert {*service.get("depends_on", ())} <= SERVICES.keys()
    assert all(re.fullmatch(r"127\.0\.0\.1:([0-9]+):\1", port) for port in service.get("ports", ()))
    assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    image = service["image"].split("/")[-1].split(":")[0]
    for source, target, *_ in (mount.split(":") for mount in service.get("volumes", ())):
        if not source.startswith("."):
            assert source in COMPOSE["volumes"]
            assert target == WRITTEN_BY_ITS_USER.get(image) or service["user"] == "0:0", target


def test_each_program_finds_its_configuration_and_its_neighbours(secrets: Path) -> None:
    mounted = {name: [m.split(":")[1] for m in each.get("volumes", ())] for name, each in SERVICES.items()}

    def sees(service: str, path: str) -> bool:
        return any(path == target or path.startswith(f"{target}/") for target in mounted[service])

    assert all(sees(f"nats-{i}", SERVICES[f"nats-{i}"]["command"][1]) for i in (1, 2, 3))
    assert all(sees("nats-1", f"/etc/nats/{path}") for path in ("nats.conf", "certs/server.crt"))
    assert sees("prometheus", SERVICES["prometheus"]["command"][0].partition("=")[2])
    prometheus = yaml.safe_load((FLEET / "prometheus.yml").read_text())
    assert all(sees("prometheus", f"/etc/prometheus/{file}") for file in prometheus["rule_files"])
    (found,) = prometheus["scrape_configs"][0]["dns_sd_configs"]
    worker = load_config(secrets / "fleet.yaml")
    assert (found["names"], found["port"]) == (["worker"], worker.http.port)
    assert "http://127.0.0.1:9109/healthz" in (ROOT / "Dockerfile.arm64").read_text()
    command = SERVICES["worker"]["command"]
    assert sees("worker", command[command.index("--config") + 1])
    assert any(mount.startswith(f"{worker.state_dir}:") for mount in SERVICES["worker"]["tmpfs"])
    folder = SERVICES["worker"]["environment"]["CREDENTIALS_DIRECTORY"]
    secret = [worker.mqtt.password_file, worker.mqtt.ca_file, worker.fleet.password_file, worker.fleet.ca_file]
    assert all(sees("worker", f"{folder}/{Path(str(file)).name}") for file in secret)
    assert all((secrets / "worker" / Path(str(file)).name).exists() for file in secret)
    config = (secrets / "mosquitto" / "mosquitto.conf").read_text()
    files = re.findall(
        r"^(?:acl_file|password_file|persistence_location|\w*cafile|certfile|keyfile) (\S+)$", config, re.M
    )
    assert len(files) >= 6
    assert all(sees("mosquitto", file.rstrip("/")) for file in files), files
    hosts = {re.sub(r"^\w+://|:[0-9]+$", "", url) for url in (*worker.fleet.servers, worker.mqtt.url)}
    hosts |= {address.partition(":")[0] for address in re.findall(r"nats-[0-9]:8883", config)}
    sources = yaml.safe_load((FLEET / "grafana" / "fleet.yaml").read_text())["datasources"]
    hosts |= {each["url"].removeprefix("http://").partition(":")[0] for each in sources}
    assert hosts == {"nats-1", "nats-2", "nats-3", "mosquitto", "prometheus"} <= SERVICES.keys()
    names = re.search(r"\{NAMES:-([^}]+)\}", (FLEET / "secrets.sh").read_text())
    assert names is not None
    assert {host for host in hosts if host != "prometheus"} <= {*names[1].split()}


def test_every_variable_of_the_servers_has_a_value(secrets: Path) -> None:
    text = (FLEET / "nats.conf").read_text() + (FLEET / "nats-cluster.conf").read_text()
    wanted = {*re.findall(r": \$([A-Z_]+)", text)}
    assert len(wanted) >= 6
    for i in (1, 2, 3):
        assert wanted <= {*passwords(secrets), *SERVICES[f"nats-{i}"]["environment"]}


def test_containers_mount_files_that_are_there_or_that_the_script_makes(secrets: Path) -> None:
    services = yaml.safe_load((FLEET / "compose.yaml").read_text())["services"]
    mounts = [mount.split(":") for service in services.values() for mount in service.get("volumes", ())]
    files = [(source, mode) for source, _, *mode in mounts if source.startswith(".")]
    assert len(files) > 10
    for source, mode in files:
        made = source.startswith("./secrets/")
        assert (secrets / source.removeprefix("./secrets/") if made else FLEET / source).exists(), source
        assert mode == ["ro"], source
