"""The payload of Sparkplug B: bytes to metrics, by the numbers of its fields.

Source: Eclipse Sparkplug specification 3.0, section 6.4, and its schema, sparkplug_b.proto.  Its few fields are read
here; what a metric without a name means is `births`' business.
"""

from __future__ import annotations

from dataclasses import dataclass

from gon_edge.stream import wire
from gon_edge.stream.encoding import inflated, is_compressed
from gon_edge.stream.topics import MAX_NAME

_COMPRESSED = b"SPBV1.0_COMPRESSED"  # uuid of a payload whose body is the real one, compressed; as Tahu writes it
_GOOD, _STALE = 192, 500  # and 0 is bad; Ignition's codes for what is bad begin at 512
_TEMPLATES = 4  # templates within templates; not critical


@dataclass(slots=True)
class Metric:
    """One metric of a payload, before a birth says what an alias means.

    Attributes
    ----------
    name : str or None
    alias : int or None
    at : float or None
        Unix seconds.
    datatype : int
        0 where the payload does not say.
    value : object
        Unsigned ``int`` or ``float``, ``bool``, ``str``, a list of `Metric` for a template; ``None`` for none.
    is_good : bool
        False where its property ``Quality`` calls the value bad or stale.
    """

    name: str | None = None
    alias: int | None = None
    at: float | None = None
    datatype: int = 0
    value: object = None
    is_good: bool = True


def read_payload(message: bytes, limit: int, depth: int = 0) -> tuple[float | None, list[Metric]]:
    """Time and metrics of a payload.

    Parameters
    ----------
    message : bytes
    limit : int
        Most bytes of the content of a compressed one.
    depth : int
        Of the compression around it; one layer is allowed.

    Returns
    -------
    at : float or None
        Unix seconds.
    metrics : list of Metric

    Raises
    ------
    ValueError
        The bytes are no payload of Sparkplug.
    OverflowError
        Its compressed content is larger than ``limit``.
    """
    # Fields: timestamp 1, metrics 2, uuid 4, body 5.
    at, metrics, uuid, body = None, [], b"", b""
    for number, _, value in wire.fields(message):
        if number == 1 and isinstance(value, int):
            at = value / 1e3
        elif number == 2 and isinstance(value, bytes):
            metrics.append(_metric(value))
        elif number == 4 and isinstance(value, bytes):
            uuid = value
        elif number == 5 and isinstance(value, bytes):
            body = value
    if uuid != _COMPRESSED:
        return at, metrics
    if depth or not is_compressed(body):
        raise ValueError("a compressed payload whose body is neither gzip nor zlib")
    return read_payload(inflated(body, limit), limit, depth + 1)


def _metric(message: bytes, depth: int = 0) -> Metric:
    """A metric: name 1, alias 2, timestamp 3, datatype 4, is_null 7, properties 9, its value in one of 10 to 18."""
    metric, is_null = Metric(), False
    for number, kind, value in wire.fields(message):
        if isinstance(value, int):
            if number == 2:
                metric.alias = value
            elif number == 3:
                metric.at = value / 1e3
            elif number == 4:
                metric.datatype = value
            elif number == 7:
                is_null = bool(value)
            elif number in (10, 11):
                metric.value = value
            elif number == 14:
                metric.value = bool(value)
        elif kind != wire.BYTES:
            if number in (12, 13):
                metric.value = wire.double(value)
        elif number == 1:
            # One that is too long to name a feature is refused as such, and must not fill the memory until then.
            metric.name = value.decode(errors="replace")[: MAX_NAME + 1]
        elif number == 9:
            metric.is_good = _is_good(value)
        elif number == 15:
            metric.value = value.decode(errors="replace")
        elif number in (16, 17):
            metric.value = f"{len(value)} bytes"
        elif number == 18:
            metric.value = _template(value, depth + 1)
    if is_null:
        metric.value = None
    return metric


def _is_good(properties: bytes) -> bool:
    """Whether the property ``Quality`` leaves a value standing: keys 1 and values 2 are in the same order."""
    keys: list[bytes] = []
    values: list[bytes] = []
    for number, _, value in wire.fields(properties):
        if number in (1, 2) and isinstance(value, bytes):
            (keys if number == 1 else values).append(value)
    for key, described in zip(keys, values, strict=False):
        if key == b"Quality":  # its int_value is 3
            quality = next((value for number, _, value in wire.fields(described) if number == 3), _GOOD)
            return isinstance(quality, int) and quality != 0 and quality < _STALE
    return True


def _template(message: bytes, depth: int) -> list[Metric]:
    """Members of a template: metrics 2; a definition (5) has no values."""
    if depth > _TEMPLATES:
        raise ValueError(f"templates nested deeper than {_TEMPLATES}")
    members, is_definition = [], False
    for number, _, value in wire.fields(message):
        if number == 2 and isinstance(value, bytes):
            members.append(_metric(value, depth))
        elif number == 5:
            is_definition = bool(value)
    return [] if is_definition else members
