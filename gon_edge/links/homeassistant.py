"""Shows streams as devices in Home Assistant, by its MQTT discovery.

Each stream is a device, and gon-edge itself is one.  What Home Assistant needs to know goes out as retained messages,
in the shape that its documentation calls "MQTT device discovery": ``<prefix>/device/<node_id>/<object_id>/config`` says
which entities there are, ``<base>/<node>/homeassistant/<object>`` holds their state.  That state has a topic of its
own: the one that other programs read changes once a second, and Home Assistant keeps every change in its database.

Knows topics and payloads.  Sockets, streams' insides and silences are the daemon's.  A new entity is a line in
``_ENTITIES`` and a key in :func:`_state`.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime

from gon_edge.config.schema import HomeAssistantConfig
from gon_edge.events import ALERT_ANSWERS, STREAM_STATES, Alert, AlertKind
from gon_edge.stream.drift import in_words
from gon_edge.stream.stream import Stream

RESEND_EVERY_S = 10.0
"""Not critical: at most one round of answers to birth messages in this time: anybody may send one."""

ORPHANS_AFTER_S = 600.0
"""Not critical: how long after the start a device of an earlier run may still come back before it is removed."""

_CAUSES = 3  # not critical: as many as a card of Home Assistant shows in one line each
_GATEWAY = "gon-edge"  # object id of gon-edge itself
_Message = dict[str, object]

_DIAGNOSTIC = {"entity_category": "diagnostic"}
_ENTITIES: tuple[tuple[str, str, str, dict[str, object]], ...] = (
    ("binary_sensor", "alert", "Anomaly", {"device_class": "problem"}),
    ("binary_sensor", "changed", "Another state than in training", {"icon": "mdi:swap-horizontal"}),
    ("binary_sensor", "drift", "Reading drifts", {"icon": "mdi:trending-up"}),
    ("binary_sensor", "overdue", "What comes every day is overdue", {"icon": "mdi:calendar-alert"}),
    ("binary_sensor", "missing", "Sensor missing", {"device_class": "problem", **_DIAGNOSTIC}),
    (
        "sensor",
        "level",
        "Anomaly level",
        {
            "unit_of_measurement": "%",
            "state_class": "measurement",
            "suggested_display_precision": 0,
            "icon": "mdi:pulse",
        },
    ),
    (
        "sensor",
        "score",
        "Score",
        {
            "state_class": "measurement",
            "suggested_display_precision": 2,
            "icon": "mdi:chart-bell-curve",
            **_DIAGNOSTIC,
        },
    ),
    (
        "sensor",
        "threshold",
        "Threshold",
        {
            "state_class": "measurement",
            "suggested_display_precision": 2,
            "icon": "mdi:tune-vertical",
            **_DIAGNOSTIC,
        },
    ),
    ("sensor", "state", "State", {"device_class": "enum", "options": list(STREAM_STATES), **_DIAGNOSTIC}),
    ("sensor", "model_trained_at", "Model trained", {"device_class": "timestamp", **_DIAGNOSTIC}),
)
"""Platform, key in the state, name for people, and what else Home Assistant is told."""

_BUTTONS = {
    "true": ("Alert was true", "mdi:check"),
    "expected": ("Alert was expected", "mdi:calendar-check"),
    "wrong": ("Alert was wrong", "mdi:close"),
}
"""Name and icon of the button for each answer to the newest alert."""

_ATTRIBUTES = {
    "alert": "{{ {'causes': value_json.causes, 'severity': value_json.severity, 'group': value_json.group} | tojson }}",
    "changed": "{{ {'moved': value_json.moved} | tojson }}",
    "drift": "{{ {'readings': value_json.drifting} | tojson }}",
    "overdue": "{{ {'causes': value_json.not_come} | tojson }}",
    "missing": "{{ {'sensors': value_json.missing_sensors} | tojson }}",
}
"""What hangs on an entity, by its key."""


class HomeAssistant:
    """Keeps Home Assistant's picture of the streams up to date.  Time is monotonic seconds, given by the caller.

    Parameters
    ----------
    settings : HomeAssistantConfig
    node : str
    version : str
        Of gon-edge.
    topic : callable
        Levels to a topic of ours, ``MqttClient.topic``.
    publish : callable
        Takes a topic and a payload to keep there; an empty payload removes it.
    act : callable
        Called with the name of a stream and what somebody wants of it: by the switch ``silence`` or ``unsilence``, by a
        button what its newest alert was, ``true``, ``expected`` or ``wrong``.
    now : float
        Monotonic seconds at the start.

    Attributes
    ----------
    subscriptions : tuple of str
        Topic filters whose messages belong to :meth:`take`.
    commands : tuple of str
        Those of them by which people want something.

    Examples
    --------
    >>> sent = {}
    >>> home = HomeAssistant(
    ...     HomeAssistantConfig(enabled=True), node="pi-1", version="0.1.0", topic=lambda *levels: "/".join(levels),
    ...     publish=sent.__setitem__, act=print, now=0.0)
    >>> home.start()
    >>> list(sent)
    ['homeassistant/device/gon-edge_pi-1/gon-edge/config']
    """

    def __init__(
        self,
        settings: HomeAssistantConfig,
        *,
        node: str,
        version: str,
        topic: Callable[..., str],
        publish: Callable[[str, str], None],
        act: Callable[[str, str], None],
        now: float,
    ) -> None:
        self._settings = settings
        self._node = node
        self._version = version
        self._topic = topic
        self._publish = publish
        self._act = act
        self._device = f"gon-edge_{_identifier(node)}"
        self._began = now
        self._configs: dict[str, str] = {}  # object id to discovery message
        self._names: dict[str, str] = {}  # object id to stream
        self._shown: dict[str, tuple[float, _Message]] = {}  # when the state was sent, and what decides on the next
        self._orphans: set[str] = set()
        self._born = False
        self._answered = now - RESEND_EVERY_S
        prefix = settings.discovery_prefix
        self._birth = f"{prefix}/status"
        self._commands = topic("homeassistant", "silence", "")
        self._answers = topic("homeassistant", "answer", "")
        self.commands = (
            *((f"{self._commands}+",) if settings.silence_s is not None else ()),
            *((f"{self._answers}+",) if settings.feedback else ()),
        )
        self.subscriptions = (self._birth, f"{prefix}/device/{self._device}/+/config", *self.commands)

    def start(self) -> None:
        """Announce gon-edge itself."""
        self._announce(_GATEWAY, self._gateway())

    def take(self, topic: str, payload: bytes, *, retained: bool) -> bool:
        """Heed a message; false when it is none of these."""
        if topic == self._birth:
            self._born |= payload == b"online"
            return True
        own = f"{self._settings.discovery_prefix}/device/{self._device}/"
        if topic.startswith(own) and topic.endswith("/config"):
            found = topic[len(own) : -len("/config")]
            if payload and found not in self._configs:
                self._orphans.add(found)
            return True
        if self._settings.silence_s is not None and topic.startswith(self._commands):
            name = self._names.get(topic[len(self._commands) :])
            # A command that lay in the broker was meant for another time.
            if name is not None and not retained and payload in (b"ON", b"OFF"):
                self._act(name, "silence" if payload == b"ON" else "unsilence")
            return True
        if self._settings.feedback and topic.startswith(self._answers):
            name = self._names.get(topic[len(self._answers) :])
            answer = payload.decode("ascii", "replace")
            if name is not None and not retained and answer in ALERT_ANSWERS:
                self._act(name, answer)
            return True
        return False

    def know(self, names: Iterable[str]) -> None:
        """Take streams that somebody else shows, so that what people want of them is understood here."""
        self._names = {_identifier(name): name for name in names}

    def step(self, now: float) -> None:
        """Do what is due: answer Home Assistant's birth, remove devices of streams there are no more."""
        if self._born and now - self._answered >= RESEND_EVERY_S:
            self._born = False
            self._answered = now
            for found, message in self._configs.items():
                self._publish(self._config_topic(found), message)
        if self._orphans and now - self._began >= ORPHANS_AFTER_S:
            for found in self._orphans - self._configs.keys():
                self._publish(self._config_topic(found), "")
                self._publish(self._state_topic(found), "")
            self._orphans.clear()

    def update(self, stream: Stream, now: float, *, silenced: bool) -> None:
        """Show a stream; its device appears with the first call.  Cheap while nothing has changed."""
        found = _identifier(stream.name)
        if found not in self._configs:
            self._names[found] = stream.name
            self._announce(found, self._stream_device(found, stream.name))
        state = _state(stream, silenced=silenced)
        deciding = {key: value for key, value in state.items() if key not in ("score", "level")}
        sent_at, before = self._shown.get(found, (0.0, None))
        if deciding != before or now - sent_at >= self._settings.update_every_s:
            self._shown[found] = now, deciding
            self._publish(self._state_topic(found), json.dumps(state, ensure_ascii=False))

    def keep(self, names: Collection[str]) -> None:
        """Remove the devices of streams that are not among these."""
        for found in [found for found, name in self._names.items() if name not in names]:
            del self._configs[found], self._names[found]
            self._shown.pop(found, None)
            self._publish(self._config_topic(found), "")
            self._publish(self._state_topic(found), "")

    def _announce(self, found: str, message: _Message) -> None:
        self._configs[found] = json.dumps(message, ensure_ascii=False)
        self._publish(self._config_topic(found), self._configs[found])

    def topics(self, name: str) -> tuple[str, str]:
        """The retained topics of a stream: its device, and its state."""
        found = _identifier(name)
        return self._config_topic(found), self._state_topic(found)

    def _config_topic(self, found: str) -> str:
        return f"{self._settings.discovery_prefix}/device/{self._device}/{found}/config"

    def _state_topic(self, found: str) -> str:
        return self._topic("homeassistant", found)

    def _gateway(self) -> _Message:
        """gon-edge itself: whether it is there."""
        status = {
            "platform": "binary_sensor",
            "unique_id": f"{self._device}.connected",
            "name": "Connected",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "state_topic": self._topic("status"),
            "payload_on": "online",
            "payload_off": "offline",
        }
        device = {"identifiers": [self._device], "name": f"gon-edge {self._node}", **self._maker("Gateway")}
        return {"device": device, "origin": self._origin(), "components": {"connected": status}, "qos": 1}

    def _stream_device(self, found: str, name: str) -> _Message:
        unique = f"{self._device}.{found}"
        command = self._commands + found if self._settings.silence_s is not None else None
        components = _components(unique, self._state_topic(found), command)
        if self._settings.feedback:
            components |= _buttons(unique, self._answers + found)
        return {
            "device": {
                "identifiers": [unique],
                "name": name,
                "via_device": self._device,
                **self._maker("Stream"),
            },
            "origin": self._origin(),
            "components": components,
            "availability": [{"topic": self._topic("status")}],
            "state_topic": self._state_topic(found),
            "qos": 1,
        }

    def _maker(self, model: str) -> _Message:
        return {"manufacturer": "gon-edge", "model": model, "sw_version": self._version}

    def _origin(self) -> _Message:
        return {"name": "gon-edge", "sw_version": self._version}


def _components(unique: str, state_topic: str, command_topic: str | None) -> _Message:
    """The entities of a stream; keys and values are those of Home Assistant's sensor, binary_sensor and switch."""

    def entity(platform: str, key: str, name: str, **more: object) -> _Message:
        template = f"{{{{ value_json.{key} }}}}"
        return {"platform": platform, "unique_id": f"{unique}.{key}", "name": name, "value_template": template, **more}

    components = {key: entity(platform, key, name, **more) for platform, key, name, more in _ENTITIES}
    for key, attributes in _ATTRIBUTES.items():
        components[key] |= {"json_attributes_topic": state_topic, "json_attributes_template": attributes}
    if command_topic is not None:
        more = {"icon": "mdi:bell-sleep", "command_topic": command_topic, "retain": False}
        components["silenced"] = entity("switch", "silenced", "Silence", **more)
    return dict(components)


def _buttons(unique: str, command_topic: str) -> _Message:
    """A button for each answer to the newest alert; keys are those of Home Assistant's button."""
    return {
        f"answer_{answer}": {
            "platform": "button",
            "unique_id": f"{unique}.answer_{answer}",
            "name": name,
            "icon": icon,
            "command_topic": command_topic,
            "payload_press": answer,
            "retain": False,
        }
        for answer, (name, icon) in _BUTTONS.items()
    }


def _state(stream: Stream, *, silenced: bool) -> _Message:
    verdict, model = stream.verdict, stream.scored_by
    open_alerts = {alert.kind: alert for alert in stream.policy.audible}
    kinds: tuple[AlertKind, ...] = ("anomaly", "changed", "drift", "overdue")
    anomaly, changed, drifts, overdue = (open_alerts.get(kind) for kind in kinds)
    level = 100.0 * verdict.score / verdict.threshold if verdict is not None and verdict.threshold > 0.0 else None
    trained_at = float(model.lineage.get("trained_at", 0.0)) if model is not None else 0.0
    return {
        "alert": "ON" if anomaly is not None else "OFF",
        "severity": anomaly.severity if anomaly is not None else None,
        "causes": _causes(anomaly) if anomaly is not None else [],
        "group": anomaly.group if anomaly is not None else None,
        "changed": "ON" if changed is not None else "OFF",
        "moved": _causes(changed) if changed is not None else [],
        "drift": "ON" if drifts is not None else "OFF",
        "drifting": _causes(drifts) if drifts is not None else [],
        "overdue": "ON" if overdue is not None else "OFF",
        "not_come": _causes(overdue) if overdue is not None else [],
        "missing": "ON" if "missing" in open_alerts else "OFF",
        "missing_sensors": list(verdict.missing) if verdict is not None else [],
        "state": stream.state,
        "score": round(verdict.score, 3) if verdict is not None else None,
        "threshold": round(verdict.threshold, 3) if verdict is not None else None,
        "level": round(level, 1) if level is not None else None,
        "model_trained_at": datetime.fromtimestamp(trained_at, UTC).isoformat("T", "seconds") if trained_at else None,
        "silenced": "ON" if silenced else "OFF",
    }


def _causes(alert: Alert) -> list[str]:
    """For people: ``flow 26.1 (expected 20.3), 72 %``, or how it drifts."""
    return [
        in_words(cause)
        if cause.trend is not None
        else f"{cause.feature} "
        + ("missing" if cause.value is None else f"{cause.value:.4g}")
        + (" a row" if cause.per_row else "")
        + ("" if cause.expected is None else f" (expected {cause.expected:.4g})")
        + f", {100.0 * cause.contribution:.0f} %"
        for cause in alert.top_features[:_CAUSES]
    ]


def _identifier(name: str) -> str:
    """A name as the identifiers of discovery topics allow it; different names stay different."""
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", name)
    return plain if plain == name != _GATEWAY else f"{plain[:60]}_{zlib.crc32(name.encode()):08x}"
