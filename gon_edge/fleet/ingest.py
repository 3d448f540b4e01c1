"""How messages of devices come into the telemetry stream: read from the stream of NATS' MQTT gateway, and partitioned.

NATS acknowledges a message of QoS 1 when ``$MQTT_msgs`` has it.  A stream that takes the same message by its subject
hears of it beside that, unacknowledged: when the server that led such a stream died, a third of what the gateway had
acknowledged in the seconds until the next one led was in no stream (27,112 of 86,178 messages, three servers, three
deaths).  So the telemetry stream has ``$MQTT_msgs`` as its source, by a durable consumer that confirms what has been
stored (NATS 2.14): with it none of 68,816 was missing.

Whatever names the stream of readings in the topic also chooses the partition, so that a stream of readings lives in one
partition.  `names` says what subjects look like there.
"""

from __future__ import annotations

import zlib
from typing import Any

from gon_edge.config.fleet import FleetConfig
from gon_edge.config.schema import Config
from gon_edge.config.subscription import SubscriptionConfig
from gon_edge.fleet.names import levels_of
from gon_edge.stream.topics import TopicTemplate, outermost

MQTT_STREAM = "$MQTT_msgs"
"""Where NATS' gateway keeps messages of QoS 1 and 2 as long as somebody wants them.  The name is NATS' own."""

_MQTT_SUBJECTS = "$MQTT.msgs."
_ON_THE_WAY = 1000  # messages not yet confirmed.  Not critical: a fifth of a second of 5,000 devices
_HEARTBEAT_NS = 1_000_000_000  # not critical: how soon the stream sees that its source has gone


def transforms(config: Config) -> list[dict[str, str]]:
    """Return how subjects of the gateway's stream become those of the telemetry stream, one for each subscription.

    Examples
    --------
    >>> from gon_edge.config.file import parse_config
    >>> config = parse_config({"mqtt": {"url": "mqtt://x"}, "subscriptions": [{"topic": "plant/{stream}/#"}]})
    >>> transforms(config)
    [{'src': '$MQTT.msgs.plant.*.>', 'dest': 'fleet.{{partition(8,1)}}.plant.{{wildcard(1)}}.>'}]
    """
    by_filter: dict[str, SubscriptionConfig] = {}
    for subscription in config.subscriptions:
        by_filter.setdefault(TopicTemplate.parse(subscription.topic).filter, subscription)
    return [_transform(by_filter[each], config.fleet) for each in outermost(by_filter)]


def _transform(subscription: SubscriptionConfig, fleet: FleetConfig) -> dict[str, str]:
    template = TopicTemplate.parse(subscription.topic)
    written = template.text.split("/")
    if written[0] == "$share":
        written = written[2:]
    source, to, wildcards, naming = [], [], 0, []
    for i, level in enumerate(template.filter.split("/")):
        if level == "+":
            wildcards += 1
            naming += [wildcards] if written[i] == "{stream}" else []
            source.append("*")
            to.append(f"{{{{wildcard({wildcards})}}}}")
        else:
            source.append(">" if level == "#" else levels_of(level))
            to.append(source[-1])
    hashed = naming or range(1, wildcards + 1)
    if isinstance(subscription.stream, str):
        partition = _fixed(subscription.stream, fleet)
    elif "{stream...}" in written or not wildcards:  # NATS hashes single levels only
        partition = _fixed(template.filter, fleet)
    else:
        partition = f"{{{{partition({','.join(map(str, [fleet.partitions, *hashed]))})}}}}"
    dest = ".".join([fleet.prefix, partition, *to])
    return {"src": _MQTT_SUBJECTS + ".".join(source), "dest": dest}


def _fixed(name: str, fleet: FleetConfig) -> str:
    """The partition of everything that goes by one name."""
    return str(zlib.crc32(name.encode()) % fleet.partitions)


def gateway_stream(replicas: int) -> dict[str, Any]:
    """Return the gateway's own stream as JetStream's API takes it.

    The gateway makes it with the first device, and what is published before somebody wants it is gone; so whoever sets
    up a fleet makes it first, with the settings that the gateway would give it.

    Parameters
    ----------
    replicas : int
        Servers that keep each message.
    """
    return {
        "name": MQTT_STREAM,
        "subjects": [f"{_MQTT_SUBJECTS}>"],
        "storage": "file",
        "retention": "interest",
        "num_replicas": replicas,
    }


def consumer(config: Config) -> dict[str, Any]:
    """Return the consumer of the gateway's stream that keeps what devices publish until the telemetry stream has it."""
    name = f"{config.fleet.prefix}-ingest"
    return {
        "name": name,
        "durable_name": name,
        "deliver_subject": f"{config.fleet.prefix}.ingest",
        "deliver_policy": "all",
        "ack_policy": "flow_control",
        "flow_control": True,
        "idle_heartbeat": _HEARTBEAT_NS,
        "max_ack_pending": _ON_THE_WAY,
        "filter_subjects": [each["src"] for each in transforms(config)],
        "num_replicas": config.fleet.replicas,
    }


def source(config: Config) -> dict[str, Any]:
    """Return the source of the telemetry stream, for ``sources`` of its configuration."""
    reader = consumer(config)
    return {
        "name": MQTT_STREAM,
        "consumer": {"name": reader["name"], "deliver_subject": reader["deliver_subject"]},
        "subject_transforms": transforms(config),
    }
