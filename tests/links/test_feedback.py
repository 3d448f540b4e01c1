"""Answers that come by MQTT: what is one, what is refused and counted, and what is told of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from gon_edge.config.schema import MqttConfig
from gon_edge.errors import GonEdgeError, InputError
from gon_edge.links.feedback import MESSAGE_BYTES, Feedback, Sender, read_answer
from gon_edge.links.mqtt.client import own_topic


class Heard:
    """A `Feedback` whose requests are kept, and whose messages end in a list."""

    def __init__(self, error: GonEdgeError | None = None) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.sent: list[tuple[str, Any]] = []
        self.refused = 0
        self._error = error
        self.it = Feedback(
            topic=partial(own_topic, MqttConfig("mqtt://localhost"), "pi-1"),
            publish=lambda topic, payload: self.sent.append((topic, json.loads(payload))),
            ask=self._ask,
            refused=self._refuse,
        )

    def _refuse(self) -> None:
        self.refused += 1

    def _ask(self, asked: Mapping[str, Any], client: Sender) -> None:
        self.asked.append(asked)
        client.tell(rows=5)
        if self._error is not None:
            client.refuse(self._error)
            return
        threshold = {"before": 3.0, "after": 3.5, "why": "raised"}
        round_ = {"outcome": "promoted", "reason": "", "version": "4", "threshold": threshold, "peak_bytes": 7}
        client.answer(rounds=[round_] if asked.get("answer") != "true" else [])


def test_an_answer_becomes_a_request_and_what_came_of_it_is_told() -> None:
    heard = Heard()
    assert heard.it.topic == "gon-edge/pi-1/feedback"
    heard.it.take(b'{"alert": "pump-anomaly-1", "answer": "wrong", "note": "cleaned"}', retained=False)
    heard.it.take(b'{"alert": "pump", "answer": "true"}', retained=False)
    heard.it.take(b'{"missed": "pump", "at": "2026-01-05T10:04:33Z"}', retained=False)
    first = {"do": "feedback", "alert": "pump-anomaly-1", "answer": "wrong", "note": "cleaned", "by": "MQTT"}
    missed = {"do": "missed", "stream": "pump", "at": {"at": 1767607473.0}, "note": "", "by": "MQTT"}
    assert (heard.asked[0], heard.asked[2]) == (first, missed)
    assert {topic for topic, _ in heard.sent} == {"gon-edge/pi-1/feedback/result"}
    threshold = {"before": 3.0, "after": 3.5, "why": "raised"}
    training = {"outcome": "promoted", "reason": "", "version": "4", "threshold": threshold}
    assert [result for _, result in heard.sent] == [
        {"ok": True, "alert": "pump-anomaly-1", "answer": "wrong", "training": training},
        {"ok": True, "alert": "pump", "answer": "true", "training": None},
        {"ok": True, "stream": "pump", "at": {"at": 1767607473.0}, "training": training},
    ]
    assert heard.refused == 0


def test_an_answer_that_cannot_be_heeded_is_counted_and_told() -> None:
    heard = Heard(InputError("no alert 'x'"))
    heard.it.take(b'{"alert": "x", "answer": "wrong"}', retained=False)
    assert (heard.refused, heard.sent[0][1]["error"]) == (1, "no alert 'x'")


def test_an_answer_that_lay_in_the_broker_is_not_heeded() -> None:
    heard = Heard()
    heard.it.take(b'{"alert": "x", "answer": "wrong"}', retained=True)
    assert (heard.asked, heard.refused) == ([], 1)
    assert "retained" in heard.sent[0][1]["error"]


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"", "is a JSON object"),
        (b"\xff", "is a JSON object"),
        (b"[" * 4000, "is a JSON object"),
        (b"[]", "has alert and answer, or missed and at"),
        (b'{"answer": "wrong"}', "has alert and answer, or missed and at"),
        (b'{"alert": "x", "answer": "wrong", "at": 5}', "has alert and answer, or missed and at"),
        (b'{"alert": 7, "answer": "wrong"}', "are texts"),
        (b'{"alert": "x", "answer": ["wrong"]}', "are texts"),
        (b'{"alert": "x", "answer": "wrong", "note": {}}', "are texts"),
        (b'{"alert": "\\ud800", "answer": "wrong"}', "are texts"),
        (b'{"missed": "pump", "at": "yesterday"}', "at is no time"),
        (b'{"missed": "pump", "at": ' + b"9" * 4000 + b"}", "at is no time"),
        (b'{"missed": "pump", "at": NaN}', "at is no time"),
        (b'{"missed": "pump"}', "at is no time"),
        (b'{"missed": "pump", "at": true}', "at is no time"),
        (b'{"alert": "' + b"x" * MESSAGE_BYTES + b'", "answer": "wrong"}', "at most 4096 bytes"),
    ],
)
def test_what_is_no_answer_is_refused_in_one_line(payload: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        read_answer(payload)
    assert "\n" not in str(refused.value)
    heard = Heard()
    heard.it.take(payload, retained=False)
    assert (heard.asked, heard.refused, heard.sent[0][1]["ok"]) == ([], 1, False)
