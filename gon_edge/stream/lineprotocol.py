"""One line of InfluxDB's line protocol, as Telegraf writes it.

Source: "Line protocol reference" of InfluxDB 2.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gon_edge.stream.scalars import float_of

_ABSENT = object()

# A backslash escapes comma, equals sign and space outside
# quotes, and quote and backslash inside them.  The alternatives of each repetition start with different characters, so
# a match takes linear time whatever the input.
_LINE = re.compile(r'((?:[^ \\]|\\.)+) +((?:"(?:[^"\\]|\\.)*"|[^ "\\]|\\.)+)(?: +(-?[0-9]+))?', re.DOTALL)
_FIELD = re.compile(r'((?:[^,=\\]|\\.)+)=("(?:[^"\\]|\\.)*"|[^,"]+)(?:,(?=.)|$)', re.DOTALL)
_COMMA = re.compile(r"(?<!\\),")
_EQUALS = re.compile(r"(?<!\\)=")
_ESCAPE = re.compile(r"\\([,= ])")
_INTEGER = re.compile(r"[+-]?[0-9]+[iu]")
_BOOLEAN = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), 1.0),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), 0.0),
}


class Line(NamedTuple):
    """A line taken apart.

    Attributes
    ----------
    prefix : str
        ``<measurement>.<tag values, in order of their keys, without host>``.
    host : str or None
        The tag of that name.
    fields : dict of str to object
        Values for `Scalars.number`.
    clock : str or None
        Nanoseconds since 1970, as written.
    """

    prefix: str
    host: str | None
    fields: dict[str, object]
    clock: str | None


def parse_line(line: str) -> Line:
    """Take a line apart.

    Raises
    ------
    ValueError
        It is no line protocol; the text says where.
    """
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"not line protocol: {line!r:.60}")
    head, body, clock = match.groups()
    measurement, *pairs = _split(head, ",", _COMMA)
    tags = sorted([_unescape(part) for part in _split(pair, "=", _EQUALS)] for pair in pairs)
    if not measurement or any(len(tag) != 2 for tag in tags):
        raise ValueError(f"a tag is not key=value: {line!r:.60}")
    host = next((tag[1] for tag in tags if tag[0] == "host"), None)
    prefix = ".".join([_unescape(measurement), *(tag[1] for tag in tags if tag[0] != "host")])
    fields: dict[str, object] = {}
    at = 0
    while at < len(body):
        pair = _FIELD.match(body, at)
        raw = _field_value(pair[2]) if pair else _ABSENT
        if pair is None or raw is _ABSENT:
            raise ValueError(f"a field is not key=value: {line!r:.60}")
        fields[_unescape(pair[1])] = raw
        at = pair.end()
    return Line(prefix, host, fields, clock)


def _split(text: str, separator: str, unescaped: re.Pattern[str]) -> list[str]:
    return text.split(separator) if "\\" not in text else unescaped.split(text)


def _unescape(text: str) -> str:
    return _ESCAPE.sub(r"\1", text) if "\\" in text else text


def _field_value(raw: str) -> object:
    """A value for `Scalars.number`; ``_ABSENT`` when it is no field value of the protocol."""
    if raw[0] == '"':
        return raw  # stays quoted, so it is text even where it looks like a number
    boolean = _BOOLEAN.get(raw)
    if boolean is not None:
        return boolean
    number = float_of(raw[:-1] if _INTEGER.fullmatch(raw) else raw)
    return _ABSENT if number is None else number
