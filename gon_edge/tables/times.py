"""Columns of times: which they are by their names, and how they are written, which all cells of a column decide.

``05/01/2026`` is the fifth of January or the first of May.  A column in which one of them cannot be settles it;
where both can be, the one whose rows follow each other more evenly does.  Times without a zone are UTC.
"""

from __future__ import annotations

import contextlib
import math
import re
from array import array
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
from numpy.typing import NDArray

from gon_edge.stream.times import unix_seconds

_NAMES = (
    "timestamp timestamputc timeutc datetime datetimeutc time ts ds date datetimeraw epoch unixtime "
    "unixtimestamp lastchanged lastupdated localtime utc utctime recordedat createdat measuredat zeit "
    "zeitstempel datumzeit datumuhrzeit datum horodatage dateheure fecha fechahora tijd tijdstip tidspunkt 时间 "
    "时间戳 日期时间 日期"
)
"""Names of columns of times, letters and digits only, in lower case; the first that is there."""

_DATES = {"date", "datum", "day", "fecha", "日期", "jour"}
_CLOCKS = {"time", "zeit", "uhrzeit", "heure", "hour", "hora", "tijd", "时间"}
"""A date and its time of the day may stand in two columns."""

_MONTHS = {
    name: number
    for number, names in enumerate(
        ("jan", "feb", "mar mär mrz", "apr", "may mai", "jun", "jul", "aug", "sep", "oct okt", "nov", "dec dez"), 1
    )
    for name in names.split()
}
"""Months by their first three letters, in English and German."""

_CLOCK = re.compile(
    r"(\d{1,2})[:.h](\d{2})(?:[:.](\d{2})(?:[.,:](\d{1,9}))?)?\s*([ap])?\.?(?:m\.?)?\s*"
    r"(?:(Z|UTC|GMT)|([-+])(\d{2}):?(\d{2})?(?:\s*UTC|\s*GMT)?)?",
    re.IGNORECASE,
)
_NUMERIC = re.compile(r"(\d{1,4})([-/.])(\d{1,2})\2(\d{1,4})\.?(?:[T,]?\s*(?:um\s)?(.+))?", re.IGNORECASE)
_NAMED = re.compile(r"(\d{1,2})\.?[-/ ]?([^\W\d_]{3,9})\.?[-/, ]+(\d{2,4})(?:,?\s*(.+))?")
_NAMED_FIRST = re.compile(r"([^\W\d_]{3,9})\.? (\d{1,2}),? (\d{4})(?:,?\s*(.+))?")
_MONTHLY = re.compile(r"(\d{4})[-/ ]([^\W\d_]{3,9}|\d{1,2})|([^\W\d_]{3,9})[-/ ](\d{4})")
_COMPACT = re.compile(r"(?:19|20)\d{6}(?:T?\d{4}(?:\d{2})?)?")

_FOOTER, _FOOTED = 4, 5  # most rows of sums at the end, and the least of the others for each.  Not critical

ORDERS = {"dmy": "day first", "mdy": "month first", "ymd": "year first"}
Kind = str
"""How a time is written: ``iso``, ``unix``, ``compact``, ``named``, or a key of `ORDERS`."""


def plain(name: str) -> str:
    """The letters and digits of a name, in lower case, without what stands in brackets.

    Examples
    --------
    >>> plain("DATE_TIME"), plain("# Time [s]"), plain("Zeitstempel (UTC)")
    ('datetime', 'time', 'zeitstempel')
    """
    bare = re.sub(r"[(\[].*?[)\]]", "", name)
    return re.sub(r"[\W_]", "", bare.split(",")[0]).lower()


def time_columns(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """Which columns hold the time: one, or a date and its time of the day; none where there is none.

    Parameters
    ----------
    columns : sequence of str
    rows : sequence of sequence of str
        Some of the first.
    """
    names = [plain(name) for name in columns]
    dates = [i for i, name in enumerate(names) if name in _DATES and _all(rows, i, lambda cell: ":" not in cell)]
    clocks = [i for i, name in enumerate(names) if name in _CLOCKS and _all(rows, i, _is_clock)]
    if dates and clocks and rows:
        return dates[0], clocks[0]
    for wanted in _NAMES.split():
        if wanted in names and not _all(rows, names.index(wanted), _is_clock):
            return (names.index(wanted),)
    for i in range(len(columns)):  # whatever its name, a column of dates is the time
        if rows and _all(rows, i, lambda cell: not _is_number(cell) and bool(readings(cell))):
            return (i,)
    for i, name in enumerate(names):  # without a header Unix times are known by their size
        if re.fullmatch(r"column\d+", name) and _all(rows, i, _is_unix):
            return (i,)
    return ()


def is_time_name(name: str) -> bool:
    """Whether a column is named as one of times."""
    return plain(name) in _NAMES.split()


def _all(rows: Sequence[Sequence[str]], i: int, test: object) -> bool:
    cells = [row[i].strip() for row in rows if row[i].strip()]
    return bool(cells) and all(test(cell) for cell in cells)  # type: ignore[operator]


def _is_clock(cell: str) -> bool:
    return _CLOCK.fullmatch(cell) is not None and not _is_number(cell)


def _is_unix(cell: str) -> bool:
    return _is_number(cell) and any(low <= float(cell.replace(",", ".")) < 2.2 * low for low in (1e9, 1e12))


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[-+]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][-+]?\d+)?", cell) is not None


def readings(cell: str) -> dict[Kind, float]:
    """What a time may mean, Unix seconds by how it would be written; empty for no time.

    Examples
    --------
    >>> readings("1970-01-02"), readings("02.01.1970 00:00:01")
    ({'iso': 86400.0}, {'dmy': 86401.0, 'mdy': 2678401.0})
    """
    cell = cell.strip()
    found: dict[Kind, float] = {}
    if _COMPACT.fullmatch(cell):
        _add(found, "compact", cell[:4], cell[4:6], cell[6:8], _clock_of(cell[8:].lstrip("T")))
    if _is_number(cell):
        with contextlib.suppress(ValueError):
            found["unix"] = unix_seconds(cell)
        return found
    with contextlib.suppress(ValueError):
        datetime.fromisoformat(cell)
        return {"iso": unix_seconds(cell)}
    if (match := _NUMERIC.fullmatch(cell)) is not None:
        first, _, second, third, clock = match.groups()
        if len(first) == 4:
            _add(found, "ymd", first, second, third, clock)
        elif len(third) in (2, 4):
            _add(found, "dmy", third, second, first, clock)
            _add(found, "mdy", third, first, second, clock)
            if len(third) == 2 == len(first):
                _add(found, "ymd", first, second, third, clock)
    elif (match := _NAMED.fullmatch(cell)) is not None:
        day, month, year, clock = match.groups()
        _add(found, "named", year, str(_MONTHS.get(month[:3].lower(), 0)), day, clock)
    elif (match := _NAMED_FIRST.fullmatch(cell)) is not None:
        month, day, year, clock = match.groups()
        _add(found, "named", year, str(_MONTHS.get(month[:3].lower(), 0)), day, clock)
    elif (match := _MONTHLY.fullmatch(cell)) is not None:
        year, month = match[1] or match[4], match[2] or match[3]
        _add(found, "named", year, month if month.isdecimal() else str(_MONTHS.get(month[:3].lower(), 0)), "1", None)
    else:  # a meter's, such as 260105100000W
        with contextlib.suppress(ValueError):
            found["iso"] = unix_seconds(cell)
    return found


def _clock_of(digits: str) -> str | None:
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2)) or None


def _add(found: dict[Kind, float], kind: Kind, year: str, month: str, day: str, clock: str | None) -> None:
    """Add a reading, if there is such a day and time."""
    offset, span = UTC, timedelta()
    if clock is not None:
        match = _CLOCK.fullmatch(clock.strip())
        if match is None:
            return
        hour, minute, second, fraction, half, _, sign, hours, minutes = match.groups()
        whole = int(hour)
        if half:
            if not 1 <= whole <= 12:
                return
            whole = whole % 12 + (12 if half.lower() == "p" else 0)
        if whole > 24 or int(minute) > 59 or int(second or 0) > 60:
            return
        span = timedelta(hours=whole, minutes=int(minute), seconds=int(second or 0) + float(f"0.{fraction or 0}"))
        if sign:
            east = timedelta(hours=int(hours), minutes=int(minutes or 0))
            offset = timezone(east if sign == "+" else -east)
    number = int(year) + (0 if len(year) == 4 else 2000 if int(year) < 70 else 1900)
    try:
        at = (datetime(number, int(month), int(day), tzinfo=offset) + span).timestamp()
    except (ValueError, OverflowError):
        return
    if at >= 0.0:
        found[kind] = at


class Times:
    """The times of a column, while it is not known how they are written.

    Attributes
    ----------
    empty : int
        Cells without a time.
    footer : int or None
        The line from which on rows have other text than times, at the end of the file.
    """

    def __init__(self) -> None:
        self.empty = 0
        self.footer: int | None = None
        self._rows = 0
        self._points = True  # whether days and months are cut by points
        self._halves = False  # whether clocks have twelve hours
        self._by_kind: dict[Kind, array[float]] = {}
        self._unread: list[tuple[int, int, str]] = []

    def add(self, cell: str, line: int) -> None:
        """Look at one more cell; an empty one is counted, and is a row, too."""
        found = readings(cell) if cell.strip() else {}
        if not cell.strip():
            self.empty += 1
        elif not found and len(self._unread) <= _FOOTER:
            self._unread.append((self._rows, line, cell))
        self._points &= "dmy" not in found or "." in cell[:3]
        self._halves |= "dmy" in found and cell.rstrip()[-1] in "mM."
        for kind, at in found.items():
            times = self._by_kind.setdefault(kind, array("d"))
            times.extend([math.nan] * (self._rows - len(times)))
            times.append(at)
        self._rows += 1

    def decide(self, order: Kind | None = None) -> tuple[Kind, NDArray[np.float64], str]:
        """How the times are written, what they are (N,), NaN where there is none, and a doubt worth saying.

        Raises
        ------
        ValueError
            Not all are times of one kind: ``(line, cell)`` or a text.
        """
        if self._unread:
            row, line, cell = self._unread[0]
            count = len(self._unread)
            if count > _FOOTER or row != self._rows - count or self._rows < _FOOTED * count:
                raise ValueError(line, cell)
            self.footer, self.empty = line, self.empty + count
        known = {kind: self._padded(times) for kind, times in self._by_kind.items()}
        wanted = self._rows - self.empty
        if not known:
            return "iso", np.full(self._rows, np.nan), ""
        if order is not None and order in known:
            return order, self._mixed(known, order, wanted), ""
        counts = {kind: int(np.isfinite(times).sum()) for kind, times in known.items()}
        whole = [kind for kind, count in counts.items() if count == wanted]
        if "compact" in whole:
            return "compact", known["compact"], ""
        days = [kind for kind in ORDERS if kind in whole]
        if "dmy" in days and self._points:  # with points the day comes first everywhere
            return "dmy", known["dmy"], ""
        if len(days) > 1:
            usual = "mdy" if self._halves else "dmy"
            best = min(days, key=lambda kind: (*_unevenness(known[kind]), kind != usual))
            even = sum(_unevenness(known[kind]) == _unevenness(known[best]) for kind in days)
            doubt = f"both {' and '.join(ORDERS[kind] for kind in days)} can be; write --date-order to be sure"
            return best, known[best], doubt if even > 1 or wanted < 3 else ""
        if whole:
            return whole[0], known[whole[0]], ""
        best = max(counts, key=lambda kind: counts[kind])
        return best, self._mixed(known, best, wanted), ""

    def _padded(self, times: array[float]) -> NDArray[np.float64]:
        return np.array([*times, *[math.nan] * (self._rows - len(times))])

    def _mixed(self, known: Mapping[Kind, NDArray[np.float64]], first: Kind, wanted: int) -> NDArray[np.float64]:
        """Times by one kind, and by others where it has none: ``2026-01-05`` beside ``2026-01-05 10:00 UTC``."""
        at = known[first].copy()
        for kind, times in known.items():
            if kind not in ("dmy", "mdy"):
                at = np.where(np.isnan(at), times, at)
        if np.isfinite(at).sum() < wanted:
            raise ValueError("days and months change places in it, or its times are written in several ways")
        return at


def read(cell: str, kind: Kind) -> float | None:
    """The time of a cell in a column that is written so; ``None`` for an empty one.

    Raises
    ------
    ValueError
        The cell is no time.
    """
    if not cell.strip():
        return None
    found = readings(cell)
    if kind in found:
        return found[kind]
    rest = {other: at for other, at in found.items() if other not in ("dmy", "mdy")}
    if not rest:
        raise ValueError(cell)
    return next(iter(rest.values()))


def _unevenness(times: NDArray[np.float64]) -> tuple[float, float]:
    """How oddly times follow each other: how often they turn, and how much wider than usual the widest step is."""
    steps = np.diff(times[np.isfinite(times)])
    steps = steps[steps != 0.0]
    if not len(steps):
        return 0.0, 0.0
    turns = min((steps > 0).mean(), (steps < 0).mean())
    return float(turns), float(np.abs(steps).max() / np.median(np.abs(steps)))
