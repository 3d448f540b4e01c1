"""A training that another worker carries out, on a real server with the real child."""

from __future__ import annotations

import asyncio
import json

import numpy as np
from fleet.fleets import BEGAN, Owner, config, fleet_of, publish, run, sequence_of

from gon_edge.fleet.training import Workshop, model_bytes


def payloads(count):
    rng = np.random.default_rng(0)
    for i in range(count):
        yield json.dumps({"at": BEGAN + i, "flow": rng.normal(20.0, 1.0), "pressure": rng.normal(3.0, 0.2)}).encode()


def test_a_first_model_is_trained_by_whoever_has_room_and_goes_along_with_its_stream(nats_server, tmp_path):
    async def work() -> None:
        settings = config(
            tmp_path, nats_server.url, streams={"defaults": {"warmup_rows": 120, "window": 10}}, retrain={"nice": 0}
        )
        async with fleet_of(settings) as fleet:
            await publish(fleet, "fan", payloads(130))
            owner = Owner(fleet, settings, tmp_path)
            answers = await fleet.client.subscribe("answers")
            owner.inbox = "answers"
            await owner.begin()
            await owner.work_to(await sequence_of(fleet))
            await owner.work(lambda: owner.partition.training.names)
            workshop = asyncio.create_task(Workshop(fleet, settings, owner.series, tmp_path / "training").run())
            answered = asyncio.create_task(answers.next_msg(timeout=60))
            await owner.work(answered.done)
            answer = json.loads(answered.result().data)
            assert (answer["record"]["outcome"], answer["record"]["rows"]) == ("promoted", 120)
            model = await model_bytes(fleet, answer["object"])
            owner.partition.training.hear(answer["id"], answer["record"], answer["object"], model)
            stream = owner.partition._streams["fan"]
            await owner.work(lambda: stream.state == "scoring" and not stream.behind)
            await owner.partition.leave()
            await owner.pulls.give_back()
            workshop.cancel()

            await publish(fleet, "fan", [json.dumps({"at": BEGAN + 130, "flow": 20.0, "pressure": 3.0}).encode()])
            other = await Owner(fleet, settings, tmp_path).begin()
            await other.work_to(await sequence_of(fleet))
            assert other.partition._streams["fan"].model.version == stream.model.version == "1"
            assert (len(other.heard.verdicts), other.sample("states_saved_total")) == (1, 0.0)

    run(work())
