"""How a value is written: durations, sizes, rates, hours, globs, topics and URLs, each with its parser.

A parser takes what stands in the file and its place, and returns a Python value or says in one line what to write
instead.  `optional(parse)` and `or_off(parse)` make parsers of parsers.  This module knows neither the options nor the
file: `schema` says which option has which parser, `file` reads the text.  Whoever adds a form of writing adds the way
back too, so that `gon-edge config show` prints what can be read again.
"""

from __future__ import annotations

import fnmatch
import math
import os
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from gon_edge.errors import ConfigError

AUTO = "auto"
"""What a file writes for "choose it yourself": `None` in the dataclasses."""

DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
"""By scheme of the URL, as registered with IANA."""

_DURATION_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SIZE_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_PER_DAY = {"hour": 24.0, "day": 1.0, "week": 1 / 7, "month": 1 / 30}  # not critical: a month is 30 days
_WHOLE_LEVELS = ("+", "#", "{stream}", "{stream...}", "{feature}", "{feature...}")
_LAST_PORT = 65535  # 16 bits in TCP
# What is surely a slip.  Beyond it lie numbers that a timer, a thread's wait or an allocation cannot take.
_MOST_S = 366 * 86400.0
_MOST_BYTES = 1 << 40
_MOST_COUNT = 10**9
_SHOWN_CHARACTERS = 60  # not critical: an error stays a line that a terminal shows
_NEAR = 0.6  # the default of difflib: "warn" finds "warning", "zzz" nothing


class Place:
    """Where in the configuration a value stands: enough to say so in an error.

    Attributes
    ----------
    key : str
        Dotted path, such as ``streams.defaults.interval`` or ``subscriptions[0].topic``; empty for the whole file.
    path : Path or None
        The file.
    lines : mapping
        Line of each key, from 1; shared by all places of one file.
    environ : mapping
        Environment variables.
    """

    def __init__(
        self,
        key: str = "",
        path: Path | None = None,
        lines: Mapping[str, int] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.key = key
        self.path = path
        self.lines = {} if lines is None else lines
        self.environ = os.environ if environ is None else environ

    def below(self, key: str | int) -> Place:
        """The place of an option or entry in this one."""
        inner = f"{self.key}[{key}]" if isinstance(key, int) else f"{self.key}.{key}" if self.key else key
        return Place(inner, self.path, self.lines, self.environ)

    def fail(self, message: str) -> NoReturn:
        """Raise `ConfigError` with file, line and key."""
        raise ConfigError(message, path=self.path, key=self.key, line=self.lines.get(self.key))


Parser = Callable[[Any, Place], Any]


def shown(value: object) -> str:
    """Foreign text, quoted and short, for an error."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def text(value: Any, at: Place) -> str:
    """One piece of text, not empty."""
    if isinstance(value, (Mapping, list, tuple)) or value is None or str(value) == "":
        at.fail(f"write one piece of text, not {shown(value)}")
    if "\0" in str(value):
        at.fail("remove the NUL character")
    return str(value)


def optional(parse: Parser) -> Parser:
    """`None` for an empty value and for `auto`."""

    def parse_optional(value: Any, at: Place) -> Any:
        return None if value in (None, "", AUTO) else parse(value, at)

    return parse_optional


def _number(value: Any, at: Place, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        at.fail(f"write {what}, not {shown(value)}")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        at.fail(f"write {what}, not {shown(value)}")
    if not math.isfinite(number):
        at.fail(f"write {what}, not {shown(value)}")
    return number


def _between(low: float, high: float | None) -> str:
    return f"of at least {low:g}" if high is None else f"from {low:g} to {high:g}"


def integer(low: int, high: int = _MOST_COUNT) -> Parser:
    """A whole number from `low` to `high`, both included."""
    what = f"a whole number from {low} to {high}"

    def parse_integer(value: Any, at: Place) -> int:
        number = _number(value, at, what)
        if number != int(number) or number < low or number > high:
            at.fail(f"write {what}, not {shown(value)}")
        return int(number)

    return parse_integer


def real(low: float, high: float | None = None, *, above: bool = False) -> Parser:
    """A finite number from `low` to `high`, both included; with `above`, `low` is not."""
    what = f"a number above {low:g}" + (f", {high:g} at most" if high is not None else "")
    what = what if above else f"a number {_between(low, high)}"

    def parse_real(value: Any, at: Place) -> float:
        number = _number(value, at, what)
        if number < low or (above and number == low) or (high is not None and number > high):
            at.fail(f"write {what}, not {shown(value)}")
        return number

    return parse_real


def parse_duration(text: str | float) -> float:
    """Seconds from `"250ms"`, `"30s"`, `"1h30m"`, `"7d"` or a bare number of seconds.

    Raises
    ------
    ValueError
        If it is none of these, negative or not finite.

    Examples
    --------
    >>> parse_duration("1h30m"), parse_duration("250ms"), parse_duration(5)
    (5400.0, 0.25, 5.0)
    """
    try:
        seconds = float(text)
    except ValueError:
        parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*", str(text))
        rest = re.sub(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*", "", str(text))
        if not parts or rest.strip():
            raise ValueError(f"not a duration: {text!r}") from None
        seconds = sum(float(number) * _DURATION_S[unit] for number, unit in parts)
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"not a duration: {text!r}")
    return seconds


def parse_size(text: str | float) -> int:
    """Bytes from `"64MiB"`, `"10MB"`, `"256KiB"` or a bare number of bytes.

    Raises
    ------
    ValueError
        If it is none of these or negative.

    Examples
    --------
    >>> parse_size("64MiB"), parse_size("10MB"), parse_size(512)
    (67108864, 10000000, 512)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    if match is None or match[2] not in _SIZE_BYTES:
        raise ValueError(f"not a size: {text!r}")
    return int(float(match[1]) * _SIZE_BYTES[match[2]])


def duration(low_s: float, high_s: float = _MOST_S) -> Parser:
    """Seconds, as `parse_duration` reads them, from `low_s` to `high_s`; 366 days where nothing else is said."""
    limits = f"{low_s:g}s to {f'{high_s:g}s' if high_s < _DURATION_S['d'] else written_duration(float(high_s))}"

    def parse(value: Any, at: Place) -> float:
        try:
            if isinstance(value, bool) or not isinstance(value, (int, float, str)):
                raise ValueError
            seconds = parse_duration(value)
        except ValueError:
            at.fail(f"write a duration such as 30s, 5m, 24h or 250ms, not {shown(value)}")
        if not low_s <= seconds <= high_s:
            at.fail(f"write a duration of {limits}, not {shown(value)}")
        return seconds

    return parse


def size(low_bytes: int, high_bytes: int = _MOST_BYTES) -> Parser:
    """Bytes, as `parse_size` reads them, from `low_bytes` to `high_bytes`; 1 TiB where nothing else is said."""

    def parse(value: Any, at: Place) -> int:
        try:
            if isinstance(value, bool) or not isinstance(value, (int, float, str)):
                raise ValueError
            size_bytes = parse_size(value)
        except ValueError:
            at.fail(f"write a size such as 256KiB, 64MiB or 10MB, not {shown(value)}")
        if not low_bytes <= size_bytes <= high_bytes:
            limits = f"{written_size(low_bytes)} to {written_size(high_bytes)}"
            at.fail(f"write a size of {limits}, not {shown(value)}")
        return size_bytes

    return parse


def budget(value: Any, at: Place) -> float:
    """False alarms a day, from `1/day`, `1/week`, `3/hour`."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*([a-z]+)\s*", str(value))
    if match is None or match[2] not in _PER_DAY or float(match[1]) <= 0:
        at.fail(f"write a rate such as 1/day, 1/week or 3/hour, not {shown(value)}")
    return float(match[1]) * _PER_DAY[match[2]]


def one_of(*choices: str) -> Parser:
    """One of a few words."""

    def parse(value: Any, at: Place) -> str:
        if value not in choices:
            near = nearest(str(value), choices)
            at.fail(f"write one of {', '.join(choices)}, not {shown(value)}{near}")
        return str(value)

    return parse


def boolean(value: Any, at: Place) -> bool:
    """True or false, in the words YAML has for them."""
    truth = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}.get(str(value).lower())
    if truth is None:
        at.fail(f"write true or false, not {shown(value)}")
    return truth


def or_off(parse: Parser) -> Parser:
    """`None` for `off`."""

    def parse_or_off(value: Any, at: Place) -> Any:
        return None if value in (None, False, "off") else parse(value, at)

    return parse_or_off


def or_never(parse: Parser) -> Parser:
    """Infinity for `never`."""

    def parse_or_never(value: Any, at: Place) -> Any:
        return math.inf if value == "never" else parse(value, at)

    return parse_or_never


def hours(value: Any, at: Place) -> tuple[int, int]:
    """Minutes since midnight, from `22:00-06:00`."""
    match = re.fullmatch(r"\s*(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)\s*", str(value))
    numbers = [int(part) for part in match.groups()] if match else []
    if not numbers or max(numbers[0], numbers[2]) > 24 or max(numbers[1], numbers[3]) > 59:
        at.fail(f'write hours such as "22:00-06:00", or off; not {shown(value)}')
    begin, end = (60 * hour + minute for hour, minute in (numbers[:2], numbers[2:]))
    if begin == end or max(begin, end) > 24 * 60:
        at.fail(f'write two different times such as "22:00-06:00", not {shown(value)}')
    return begin, end


def globs(value: Any, at: Place) -> tuple[str, ...]:
    """Shell patterns: one, or a list of them."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return tuple(text(item, at.below(i)) for i, item in enumerate(items)) if value not in (None, "") else ()


def name_globs(value: Any, at: Place) -> tuple[str, ...]:
    """Shell patterns of features' names: one, or a list of them."""
    found = globs(value, at)
    for i, glob in enumerate(found):
        check_glob(glob, at.below(i) if isinstance(value, (list, tuple)) else at)
    return found


def check_glob(glob: str, at: Place) -> None:
    """Refuse a pattern whose brackets match nothing, or what nobody means: `temp[0]` is `temp0` and nothing else."""
    classes = re.findall(r"\[!?\]?[^\]]*\]", glob)
    if "(?!)" in fnmatch.translate(glob):
        at.fail(f"{shown(glob)} matches nothing: a range in its brackets runs backwards; write it as [0-9]")
    if classes == [glob] and len(glob) > len("[x]"):
        at.fail(
            f"{shown(glob)} matches names of one character; leave the quotes out for a list, and write "
            f"{shown('[[]' + glob[1:])} for a name with brackets"
        )
    for one in classes:
        if re.fullmatch(r"\[\w\]", one):
            alone, item, literal = (glob.replace(one, way.format(one[1]), 1) for way in ("{}", ".{}", "[[]{}]"))
            at.fail(
                f"{shown(glob)} matches {shown(alone)} alone; the items of an array are {shown(item)}, and a name with "
                f"brackets is {shown(literal)}"
            )


def path(value: Any, at: Place) -> Path:
    """A file or directory; `~` is the home directory."""
    return Path(text(value, at)).expanduser()


def credential(value: Any, at: Place) -> Path:
    """A file; a relative one stands in `$CREDENTIALS_DIRECTORY` (systemd `LoadCredential=`) where that is set."""
    file = path(value, at)
    directory = at.environ.get("CREDENTIALS_DIRECTORY")
    return Path(directory) / file if directory and not file.is_absolute() else file


def topic_level(value: Any, at: Place) -> str:
    """A name that stands as one level of an MQTT topic."""
    written = text(value, at)
    if re.search(r"[/+#\s]", written):
        at.fail(
            f"write a name without '/', '+', '#' and spaces, not {shown(written)}: it is one level of an MQTT topic"
        )
    return written


def hostname() -> str:
    """The name of this machine, fit for a level of a topic."""
    return re.sub(r"[/+#\s]", "-", socket.gethostname()) or "localhost"


def node(value: Any, at: Place) -> str:
    """A name as one level of a topic; `auto` is the host name."""
    return hostname() if value in (None, "", AUTO) else topic_level(value, at)


def base_topic(value: Any, at: Place) -> str:
    """The first levels of a topic, without wildcards."""
    written = text(value, at)
    if re.search(r"[+#\s]", written) or written.startswith("/") or written.endswith("/"):
        at.fail(f"write a topic without '+', '#' or spaces and without '/' at its ends, not {shown(written)}")
    return written


def mqtt_url(value: Any, at: Place) -> str:
    """The URL of a broker, without user and password."""
    written = text(value, at)
    example = "write mqtt://HOST, mqtts://HOST:8883, ws://HOST/mqtt or wss://HOST/mqtt"
    try:
        url = urlsplit(written)
        port = url.port
    except ValueError:
        at.fail(f"{example}, not {shown(_without_user(written))}")
    if url.username is not None or url.password is not None:
        # The text itself is not repeated: it holds a password and would end in a log.
        at.fail("take user and password out of the URL; write mqtt.username and mqtt.password_file instead")
    if url.scheme not in DEFAULT_PORTS or not url.hostname or port == 0 or url.query or url.fragment:
        at.fail(f"{example}, not {shown(_without_user(written))}")
    if url.scheme in ("mqtt", "mqtts") and url.path not in ("", "/"):
        at.fail(f"remove {shown(_without_user(url.path))} from the URL: only ws:// and wss:// have a path")
    return written


def _without_user(url: str) -> str:
    """A URL for an error: what stands before its last ``@`` may be a password, however the URL is misspelt."""
    _, at, after = url.rpartition("@")
    return f"***@{after}" if at else url


def variable(value: Any, at: Place) -> str:
    """The name of an environment variable.  A value that is none is not repeated: it may be the secret itself."""
    written = text(value, at)
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", written) is None:
        at.fail("write the name of an environment variable alone, such as MQTT_PASSWORD")
    return written


def listen(value: Any, at: Place) -> str:
    """An address and port to listen at, or `off`."""
    if value in (False, "off"):
        return "off"
    written = text(value, at)
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%a-z]+)\]|([^:\[\]\s/]*)):(\d{1,5})", written)
    if match is None or int(match[3]) > _LAST_PORT:
        at.fail(f"write HOST:PORT such as 127.0.0.1:9109 or [::1]:9109, :9109 for all, or off; not {shown(written)}")
    return written


def host_names(value: Any, at: Place) -> tuple[str, ...]:
    """Names of a host as a browser shows them: one, or a list of them."""
    names = globs(value, at)
    for i, name in enumerate(names):
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            at.below(i).fail(
                "write a name as a browser shows it, such as pi.example.com, without http:// and port, not "
                f"{shown(name)}"
            )
    return names


def server_name(value: Any, at: Place) -> str:
    """A name or address as a certificate has it."""
    written = text(value, at)
    if re.fullmatch(r"[A-Za-z0-9_.:-]+", written) is None:
        at.fail(f"write a name or address as it stands in the certificate, such as broker.home, not {shown(written)}")
    return written


def topic_template(value: Any, at: Place) -> str:
    """Check what makes a topic template; `gon_edge.stream.payload.TopicTemplate` gives it its meaning."""
    if isinstance(value, Mapping):  # YAML reads braces as a mapping
        at.fail(f'put the topic in quotes: "{{{next(iter(value), "stream")}}}"')
    written = text(value, at)
    levels = written.split("/")
    if levels[0] == "$share":  # a shared subscription: what follows its group is the topic
        if len(levels) < len(("$share", "group", "topic")) or not levels[1] or re.search(r"[+#{}]", levels[1]):
            at.fail(f"write $share/GROUP/TOPIC, the group a plain name, not {shown(written)}")
        del levels[:2]
    for i, level in enumerate(levels):
        if level in ("{stream}", "{stream...}", "{feature}") and levels.index(level) != i:
            at.fail(f"write {level} once, not {shown(written)}")
        if level in ("#", "{feature...}") and i != len(levels) - 1:
            at.fail(f"'{level}' must be the last level, not {shown(written)}")
        if level == "{feature...}" and "{feature}" in levels:
            at.fail(f"write {{feature}} or {{feature...}}, not both, in {shown(written)}")
        if level == "{stream...}" and ("{stream}" in levels or levels[-1] in ("#", "{feature...}")):
            at.fail("write {stream...} without {stream}, # and {feature...}: nothing says where it would end")
        if level not in _WHOLE_LEVELS and re.search(r"[+#{}]", level):
            at.fail(
                f"level {shown(level)}: only {{stream}}, {{feature}}, + and # may stand between slashes for a name, "
                "each as the whole level"
            )
    return written


def nearest(name: str, choices: Iterable[str]) -> str:
    """A hint for an error, empty where nothing is near."""
    import difflib  # for mistakes only

    near = difflib.get_close_matches(name, list(choices), n=1, cutoff=_NEAR)
    return f"; did you mean {near[0]}?" if near else ""


# -- the way back ------------------------------------------------------------------------------------------------------


def written_duration(seconds: float) -> Any:
    """A duration as a file writes it, such as ``1h30m``; the number itself where it is not whole seconds."""
    if seconds == math.inf:
        return "never"
    if seconds <= 0 or not seconds.is_integer():
        return seconds
    left, written = int(seconds), ""
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, int(_DURATION_S[unit]))
        written += f"{count}{unit}" if count else ""
    return written


def written_size(size_bytes: int) -> Any:
    """A size as a file writes it, such as ``64MiB``; the number itself where no unit divides it."""
    unit = next(unit for unit in ("GiB", "MiB", "KiB", "") if size_bytes % _SIZE_BYTES[unit] == 0)
    return f"{size_bytes // _SIZE_BYTES[unit]}{unit}" if unit and size_bytes else size_bytes


def written_budget(per_day: float) -> str:
    """A rate as a file writes it, such as ``3/hour``."""
    whole = [(per_day / each, unit) for unit, each in _PER_DAY.items() if (per_day / each).is_integer()]
    return f"{whole[0][0]:.0f}/{whole[0][1]}" if whole else f"{per_day}/day"


def written_hours(minutes: tuple[int, int]) -> str:
    """Hours as a file writes them, such as ``22:00-06:00``."""
    return "{:02}:{:02}-{:02}:{:02}".format(*divmod(minutes[0], 60), *divmod(minutes[1], 60))
