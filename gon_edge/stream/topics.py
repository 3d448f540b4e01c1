"""What the levels of a topic mean: which one names the stream, which one the feature; and what may be a name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Self
from urllib.parse import quote

from gon_edge.config.schema import Config

MAX_NAME = 128  # characters of a stream or a feature; a label of this size is still readable on the status page
_MAX_FOLDER = 240  # of the 255 bytes that file systems allow
_REST = "{feature...}"
_SPREAD = "{stream...}"


class TopicTemplate:
    """A subscription that names the levels of a topic: ``telemetry/{stream}/{feature}``.

    Build with `parse`.  A placeholder, like ``+``, is one whole level; ``#`` may stand last, and so may
    ``{feature...}``, which is that level and all below it, joined by dots.  ``{stream...}`` is one or more levels, at
    any place, joined as `joined` does.

    Attributes
    ----------
    text : str
        As written.
    filter : str
        The MQTT topic filter.
    subscription : str
        What is subscribed to: the filter, in a shared subscription with its group before it.
    has_stream, has_feature : bool

    Examples
    --------
    >>> template = TopicTemplate.parse("telemetry/{stream}/{feature}")
    >>> template.subscription
    'telemetry/+/+'
    >>> template.match("telemetry/pump/flow")
    ('pump', 'flow')
    >>> TopicTemplate.parse("N/{stream}/{feature...}").match("N/c0619ab/battery/256/Soc")
    ('c0619ab', 'battery.256.Soc')
    >>> TopicTemplate.parse("home/{stream...}/{feature}").match("home/attic/bath/humidity")
    ('attic.bath', 'humidity')
    """

    __slots__ = (
        "_feature",
        "_fixed",
        "_levels",
        "_open_ended",
        "_rest",
        "_spread",
        "_stream",
        "filter",
        "has_feature",
        "has_stream",
        "subscription",
        "text",
    )

    def __init__(self, text: str, levels: list[str], group: str = "") -> None:
        self.text = text
        self._rest = levels[-1] == _REST
        self._open_ended = self._rest or levels[-1] == "#"
        self._levels = len(levels) - self._open_ended
        self._spread = levels.index(_SPREAD) if _SPREAD in levels else None
        self._stream = levels.index("{stream}") if "{stream}" in levels else None
        self._feature = levels.index("{feature}") if "{feature}" in levels else None
        self._fixed = [(i, level) for i, level in enumerate(levels) if level[:1] not in ("+", "#", "{")]
        self.has_stream = self._stream is not None or self._spread is not None
        self.has_feature = self._rest or self._feature is not None
        # MQTT has no wildcard for several levels but the last one.
        asked = levels if self._spread is None else [*levels[: self._spread], "#"]
        self.filter = "/".join("#" if level == _REST else "+" if level[:1] == "{" else level for level in asked)
        self.subscription = f"$share/{group}/{self.filter}" if group else self.filter

    @classmethod
    def parse(cls, text: str) -> Self:
        """Check and take apart a template.

        Raises
        ------
        ValueError
            The text says which level is wrong and what is allowed.
        """
        group, levels = _without_group(text.split("/"))
        if not text or "\0" in text:
            raise ValueError("a topic must not be empty and must not contain NUL")
        for i, level in enumerate(levels):
            if level in ("+", "{stream}", _SPREAD, "{feature}"):
                if level != "+" and levels.index(level) != i:
                    raise ValueError(f"{text!r}: {level} stands twice; each placeholder may stand once")
            elif level in ("#", _REST):
                if i != len(levels) - 1:
                    raise ValueError(f"{text!r}: {level} is only allowed as the last level")
                if level == _REST and "{feature}" in levels:
                    raise ValueError(f"{text!r}: the feature stands twice; write {{feature}} or {_REST}")
            elif any(character in level for character in "+#{}"):
                raise ValueError(
                    f"{text!r}: level {level!r}: {{stream}}, {{feature}}, + and # must be a whole level between "
                    "slashes, and there are no other placeholders"
                )
        if _SPREAD in levels and ("{stream}" in levels or levels[-1] in ("#", _REST)):
            raise ValueError(f"{text!r}: where {_SPREAD} ends cannot be told beside {{stream}}, # or {_REST}")
        return cls(text, levels, group)

    def match(self, topic: str) -> tuple[str | None, str | None] | None:
        """Names of the stream and the feature in a topic; ``None`` when the topic is another's.

        A name is ``None`` where the template has no such placeholder.
        """
        levels = topic.split("/")
        stream = None
        if self._spread is not None:
            end = len(levels) - (self._levels - 1 - self._spread)
            if end <= self._spread:
                return None
            stream = joined(levels[self._spread : end])
            levels[self._spread : end] = [stream]  # from here on as if it were one level
        if len(levels) != self._levels and not (self._open_ended and len(levels) > self._levels):
            return None
        for i, level in self._fixed:
            if levels[i] != level:
                return None
        if topic[:1] == "$" and self.filter[:1] in ("+", "#"):  # wildcards leave out the broker's own $SYS topics
            return None
        if self._stream is not None:
            stream = levels[self._stream]
        if self._rest:
            return (stream, ".".join(levels[self._levels :])) if len(levels) > self._levels else None
        return stream, None if self._feature is None else levels[self._feature]


def _without_group(levels: list[str]) -> tuple[str, list[str]]:
    """The group of a shared subscription (MQTT 5, 4.8.2), empty for none, and the levels that topics match.

    Raises
    ------
    ValueError
        A shared subscription without a group, or without a topic.
    """
    if levels[0] != "$share":
        return "", levels
    if len(levels) < len(("$share", "group", "topic")) or not levels[1] or any(c in levels[1] for c in "+#{}"):
        raise ValueError(f"{'/'.join(levels)!r}: write $share/GROUP/TOPIC, the group a plain name")
    return levels[1], levels[2:]


def outermost(filters: Iterable[str]) -> tuple[str, ...]:
    """The filters without those that another one takes in: a broker may send a message once for each that matches.

    Examples
    --------
    >>> outermost(["telemetry/+", "telemetry/#", "a/b", "a/b", "$share/edge/telemetry/+"])
    ('telemetry/#', 'a/b', '$share/edge/telemetry/+')
    """
    once = dict.fromkeys(filters)
    return tuple(one for one in once if not any(one != other and _takes_in(other, one) for other in once))


def _takes_in(outer: str, inner: str) -> bool:
    """Whether every topic of ``inner`` is one of ``outer``; a shared subscription stands for itself."""
    if outer[:1] == "$" or inner[:1] == "$":
        return False
    outers, inners = outer.split("/"), inner.split("/")
    for i, level in enumerate(outers):
        if level == "#":
            return True
        if i >= len(inners) or inners[i] == "#" or level not in ("+", inners[i]):
            return False
    return len(outers) == len(inners)


def joined(levels: list[str]) -> str:
    """One name of several levels, joined by dots; no other levels give the same.

    Examples
    --------
    >>> joined(["ground", "bath"]), joined(["ground.bath"])
    ('ground.bath', 'ground%2Ebath')
    """
    return ".".join([level.replace("%", "%25").replace(".", "%2E") for level in levels])


def is_name(text: str) -> bool:
    """Whether text can name a feature."""
    return 0 < len(text) <= MAX_NAME and text.isprintable()


@lru_cache(maxsize=1000)  # each message asks; not critical, as another one is looked at in 1 us
def is_stream(text: str) -> bool:
    """Whether text can name a stream."""
    # A stream's name becomes a level of the topics gon-edge publishes, where these three mean something else, and,
    # percent-encoded, a folder: 128 quotation marks are 384 characters there, more than any file system takes.
    if not is_name(text) or "+" in text or "#" in text or "/" in text:
        return False
    size = len(text) if text.isascii() else len(text.encode())
    return 3 * size <= _MAX_FOLDER or len(quote(text)) <= _MAX_FOLDER


class Foreign:
    """Topics that hold no readings, though a wildcard may take them in: gon-edge's own, and Home Assistant's discovery.

    What gon-edge publishes of a stream must never become a stream.

    Parameters
    ----------
    config : Config
    """

    __slots__ = ("_base", "_discovery", "_own")

    def __init__(self, config: Config) -> None:
        self._base = f"{config.mqtt.base_topic}/"
        self._own = f"{self._base}{config.node.replace('%', '%25')}/"  # as `links.mqtt.client.own_topic` writes it
        self._discovery = f"{config.homeassistant.discovery_prefix}/"

    def reason(self, topic: str, subscription: str) -> str:
        """``own``, ``discovery``, or empty; topics of another gon-edge are read where the subscription names them."""
        if topic.startswith(self._base):
            return "own" if topic.startswith(self._own) or not subscription.startswith(self._base) else ""
        is_discovery = topic.startswith(self._discovery) and (
            topic.endswith("/config") or topic == f"{self._discovery}status"
        )
        return "discovery" if is_discovery else ""
