"""What people ask, by the commands of a daemon on a fleet of real workers, one of which is killed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from e2e.servers import Mosquitto, wait_until
from fleet.fleets import BEGAN, config, events_of, fleet_of, publish, rows, run, with_models
from fleet.programs import Program, until_owned

from gon_edge.commands.main import main
from gon_edge.fleet.connection import Errors
from gon_edge.fleet.jetstream import Fleet
from gon_edge.fleet.look import Eye, entries
from gon_edge.fleet.servers import NatsServer

pytestmark = pytest.mark.e2e

STREAMS = ["pump-0", "pump-1", "pump-2"]
FAULT = range(100, 130)


async def typed(program: Program, *words: str) -> subprocess.CompletedProcess[str]:
    """What comes of a command, in this process: a new one for each of fifteen takes longer than what they do."""
    line = [*words, "--config", str(program.file)]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as errors:
        status = await asyncio.wait_for(asyncio.to_thread(main, line), 100.0)
    return subprocess.CompletedProcess(line, status, out.getvalue(), errors.getvalue())


async def command(program: Program, *words: str) -> Any:
    """What a command prints as JSON."""
    done = await typed(program, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def refusal(program: Program, *words: str) -> str:
    done = await typed(program, *words)
    assert done.returncode != 0
    return done.stderr


async def until_saved(fleet: Fleet, count: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                found = await entries(fleet, fleet.names.states)
                if len(found) == len(STREAMS) and all(each["rows"] >= count for each in found.values()):
                    return
            except Errors:
                pass
            await asyncio.sleep(0.1)


@pytest.mark.slow  # fifteen commands and four trainings
def test_commands_of_a_daemon_reach_the_owner_of_a_stream_and_outlive_it(tmp_path: Path) -> None:
    async def work() -> None:
        server = NatsServer(tmp_path)
        server.start()
        running: list[Program] = []
        try:
            settings = config(tmp_path, server.url, fleet={"partitions": len(STREAMS)})
            async with fleet_of(settings) as fleet:
                for number, stream in enumerate(STREAMS):
                    await with_models(fleet, [stream], number)
                running.append(Program(tmp_path, "a", settings))
                for number, stream in enumerate(STREAMS):
                    await publish(fleet, stream, rows(number, range(200), FAULT if number == 0 else ()), number)
                await until_owned(fleet, len(STREAMS), "a")
                await until_saved(fleet, 200)
                event = (await events_of(fleet))[0]
                first = running[0]

                listed = await command(first, "streams", "list")
                assert [(one["stream"], one["rows"], one["scored"]) for one in listed] == [
                    (s, 200, True) for s in STREAMS
                ]
                silence = await command(first, "silence", "add", "pump-1", "--for", "1h", "--reason", "new bearing")
                assert (silence["stream"], silence["reason"]) == ("pump-1", "new bearing")
                assert "no stream 'fan'; there are: pump-0, pump-1, pump-2" in await refusal(
                    first, "silence", "add", "fan", "--for", "1h"
                )
                assert "a fleet cannot rename" in await refusal(first, "streams", "rename", "pump-1", "fan")
                assert "need a daemon" in await refusal(first, "retrain", "pump-1", "--dry-run")
                assert "gon-edge fleet status shows" in await refusal(first, "alerts")
                (trained,) = await command(first, "feedback", event["id"], "true")
                assert (trained["stream"], trained["outcome"]) == ("pump-0", "promoted"), trained

                first.signal(signal.SIGKILL)
                running.append(second := Program(tmp_path, "b", settings))
                await until_owned(fleet, len(STREAMS), "b")
                assert [one["reason"] for one in await command(second, "silence", "list")] == ["new bearing"]
                state = (await entries(fleet, fleet.names.states))[fleet.names.state(0, "pump-0")]
                assert [(one["id"], one["answer"]) for one in state["answers"]] == [(event["id"], "true")]
                (again,) = await command(second, "feedback", "pump-0", "wrong", "--note", "it was a test")
                assert again["outcome"] == "promoted", again
                state = (await entries(fleet, fleet.names.states))[fleet.names.state(0, "pump-0")]
                assert state["model_version"] == again["version"]
                back = await typed(second, "models", "rollback", "pump-0")
                assert f"is scored by version {trained['version']}, from the next row on" in back.stdout, back

                removed = await command(second, "streams", "remove", "pump-2")
                assert removed["rows"] == 200
                assert [one["stream"] for one in await command(second, "streams", "list")] == STREAMS[:2]
                trained = await command(second, "retrain", "--all")
                assert [(one["stream"], one["outcome"]) for one in trained] == [
                    (stream, "promoted") for stream in STREAMS[:2]
                ], trained
                assert second.end() == 0
                assert "none runs here" in await refusal(second, "streams", "list")
        finally:
            for program in running:
                program.process.kill()
            server.stop()

    run(work(), 300.0)  # many commands, and trainings


def test_what_was_asked_while_nobody_owned_the_stream_is_done_by_the_next_worker(nats_server, tmp_path: Path) -> None:
    async def work() -> None:
        settings = config(tmp_path, nats_server.url)
        async with fleet_of(settings) as fleet:
            await with_models(fleet, STREAMS[:1])
            await publish(fleet, STREAMS[0], rows(0, range(150)))
            replies = await fleet.client.subscribe("answer")
            at = {"at": BEGAN + 100.0}
            asked = {"do": "missed", "stream": STREAMS[0], "at": at, "note": "", "by": "me"}
            message = {"asked": asked, "stream": STREAMS[0], "reply": "answer"}
            await fleet.js.publish(fleet.names.ask(0), json.dumps(message).encode())
            worker = Program(tmp_path, "a", settings)
            try:
                while "ok" not in (told := json.loads((await replies.next_msg(timeout=60)).data)):
                    pass
                assert told["ok"], told
                assert told["rounds"][0]["outcome"] == "promoted"
            finally:
                worker.end()

    run(work(), 300.0)  # many commands, and trainings


def test_answers_by_mqtt_and_switches_of_home_assistant_reach_a_fleet_over_the_death_of_who_hears_them(
    tmp_path: Path, nats_server: NatsServer, mosquitto: Mosquitto
) -> None:
    async def work() -> None:
        home = {"enabled": True, "feedback": True, "silence": "1h"}
        mqtt = {"url": mosquitto.url, "feedback": True}
        settings = config(tmp_path, nats_server.url, mqtt=mqtt, homeassistant=home, fleet={"partitions": 2})
        base = f"gon-edge/{settings.fleet.prefix}"
        heard = tmp_path / "heard"
        topics = ["-t", f"{base}/feedback/result", "-t", f"{base}/alert"]
        command = ["mosquitto_sub", "-p", str(mosquitto.port), "-q", "1", "-v", *topics]
        listener = subprocess.Popen(command, stdout=heard.open("wb"))
        running: list[Program] = []

        def told(level: str) -> list[dict[str, Any]]:
            lines = [line.split(" ", 1) for line in heard.read_text().splitlines()]
            return [json.loads(payload) for topic, payload in lines if topic == f"{base}/{level}"]

        def say(topic: str, payload: str) -> None:
            line = ["mosquitto_pub", "-p", str(mosquitto.port), "-q", "1", "-t", f"{base}/{topic}", "-m", payload]
            subprocess.run(line, check=True, timeout=20)

        def shown(stream: str) -> dict[str, Any]:
            return json.loads(mosquitto.retained(f"{base}/homeassistant/{stream}") or b"{}")

        try:
            async with fleet_of(settings) as fleet:
                for number in range(2):
                    await with_models(fleet, [STREAMS[number]], number)
                    await publish(fleet, STREAMS[number], rows(number, range(150), FAULT), number)
                running += [Program(tmp_path, name, settings) for name in ("a", "b")]
                await until_owned(fleet, 2, "a", "b")
                await asyncio.to_thread(wait_until, lambda: len(told("alert")) == 4, 40, "two alerts, begun and ended")
                assert {event["group"] for event in told("alert")} == {told("alert")[0]["id"]}
                config_topic = f"homeassistant/device/gon-edge_{settings.fleet.prefix}/pump-1/config"
                await asyncio.to_thread(wait_until, lambda: mosquitto.retained(config_topic), 20, "a device")
                await asyncio.to_thread(
                    wait_until, lambda: mosquitto.retained(f"{base}/status") == b"online", 20, "who hears"
                )
                say("homeassistant/silence/pump-1", "ON")
                await asyncio.to_thread(wait_until, lambda: shown("pump-1")["silenced"] == "ON", 30, "a silence")
                say("feedback", json.dumps({"alert": "fan", "answer": "wrong"}))
                await asyncio.to_thread(wait_until, lambda: len(told("feedback/result")) == 1, 30, "a refusal")
                assert "no stream 'fan'" in told("feedback/result")[0]["error"]

                running[0].signal(signal.SIGKILL)  # it has heard all of this
                say("feedback", json.dumps({"alert": "pump-0", "answer": "true", "note": "bearing"}))
                await asyncio.to_thread(wait_until, lambda: len(told("feedback/result")) == 2, 60, "an answer")
                result = told("feedback/result")[1]
                assert (result["ok"], result["alert"]) == (True, "pump-0"), result
                await asyncio.to_thread(wait_until, lambda: shown("pump-1")["silenced"] == "ON", 30, "the silence")
                look = await Eye(fleet).look()
                assert [one["reason"] for one in look.silences] == ["Home Assistant"]
                assert [(one["answer"], one["by"], one["note"]) for one in look.answers] == [
                    ("true", "MQTT", "bearing")
                ]
        finally:
            listener.kill()
            for program in running:
                program.process.kill()

    run(work(), 300.0)  # many commands, and trainings
