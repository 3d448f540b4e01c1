"""Answers to alerts that come by MQTT: a message becomes a request, and what came of it goes out again.

``BASE/NODE/feedback`` takes one JSON object, ``{"alert": ..., "answer": "wrong", "note": ...}`` or
``{"missed": STREAM, "at": TIME, "note": ...}``; ``BASE/NODE/feedback/result`` tells what came of it.  The topic is off
unless the configuration wants it: whoever may write to it can have a fault learned as normal.  Knows payloads; what an
answer does is the daemon's to know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from gon_edge.errors import GonEdgeError, InputError
from gon_edge.stream.times import unix_seconds

MESSAGE_BYTES = 4 << 10
"""Longest answer.  Not critical: a note of 500 characters in any script, and a name."""

_KEYS = {"alert": {"alert", "answer", "note"}, "missed": {"missed", "at", "note"}}

Ask = Callable[[Mapping[str, Any], "Sender"], None]


def read_answer(payload: bytes) -> dict[str, Any]:
    """A message as a request.

    Raises
    ------
    InputError
        It is none; in one line, why.

    Examples
    --------
    >>> read_answer(b'{"alert": "pump", "answer": "wrong"}')
    {'do': 'feedback', 'alert': 'pump', 'answer': 'wrong', 'note': '', 'by': 'MQTT'}
    """
    if len(payload) > MESSAGE_BYTES:
        raise InputError(f"an answer has at most {MESSAGE_BYTES} bytes")
    try:
        told = json.loads(payload)
    except (ValueError, RecursionError):
        raise InputError("an answer is a JSON object") from None
    kind = next((key for key in _KEYS if isinstance(told, dict) and key in told), None)
    if kind is None or not told.keys() <= _KEYS[kind]:
        raise InputError("an answer has alert and answer, or missed and at, and may have a note")
    texts = [told.get(key, "") for key in ("alert", "answer", "missed", "note")]
    if not all(isinstance(text, str) and _is_text(text) for text in texts):
        raise InputError("alert, answer, missed and note are texts")
    common = {"note": told.get("note", ""), "by": "MQTT"}
    if kind == "alert":
        return {"do": "feedback", "alert": told["alert"], "answer": told.get("answer"), **common}
    try:
        return {"do": "missed", "stream": told["missed"], "at": {"at": unix_seconds(told.get("at"))}, **common}
    except (ValueError, OverflowError) as error:
        raise InputError(f"at is no time: {error}") from None


def _is_text(text: str) -> bool:
    r"""Whether it is Unicode: JSON can write half a character, ``\ud800``, that no UTF-8 holds."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


class Feedback:
    """Takes answers from the broker.

    Parameters
    ----------
    topic : callable
        Levels to a topic of ours, ``MqttClient.topic``.
    publish : callable
        Takes a topic and a payload to send.
    ask : callable
        Has a request carried out for a client, which hears what came of it.
    refused : callable
        Called for each answer that was none, or could not be heeded.

    Attributes
    ----------
    topic : str
        Whose messages belong to :meth:`take`.
    """

    def __init__(
        self,
        *,
        topic: Callable[..., str],
        publish: Callable[[str, str], None],
        ask: Ask,
        refused: Callable[[], None],
    ) -> None:
        self.topic = topic("feedback")
        self._results = topic("feedback", "result")
        self._publish, self._ask, self._refused = publish, ask, refused

    def take(self, payload: bytes, *, retained: bool) -> None:
        """Heed a message; one that lay in the broker was meant for another time."""
        sender = Sender({}, self._tell)
        try:
            if retained:
                raise InputError("a retained answer is not heeded: send it without")
            asked = read_answer(payload)
        except InputError as error:
            sender.refuse(error)
            return
        self._ask(asked, Sender(asked, self._tell))

    def _tell(self, result: Mapping[str, Any]) -> None:
        if not result["ok"]:
            self._refused()
        self._publish(self._results, json.dumps(result, ensure_ascii=False))


class Sender:
    """Whoever sent an answer, as the client of a request: hears by a message what came of it.

    Parameters
    ----------
    asked : mapping
        The request.
    tell : callable
        Sends the message.
    """

    gone = False

    def __init__(self, asked: Mapping[str, Any], tell: Callable[[Mapping[str, Any]], None]) -> None:
        self._about = {key: asked[key] for key in ("alert", "answer", "stream", "at") if key in asked}
        self._told = tell

    def tell(self, **progress: Any) -> None:
        """Nothing is sent on the way."""

    def answer(self, **result: Any) -> None:
        """Send what came of it: of a training its outcome, and the threshold before and after."""
        keys = ("outcome", "reason", "version", "threshold")
        training = next(({key: one[key] for key in keys} for one in result["rounds"]), None)
        self._told({"ok": True, **self._about, "training": training})

    def refuse(self, error: GonEdgeError | str) -> None:
        """Send why it is not heeded."""
        self._told({"ok": False, **self._about, "error": str(error)})
