"""One timestamp as devices write it, to Unix seconds.

=====================================================  ==========================================================
``1583748873``, ``1583748873000``, ``"1583748873.5"``  seconds, milliseconds, microseconds or nanoseconds, by size
``20200309101433``, as number or text                  year to second
``2020-03-09T10:14:33Z``, ``... 10:14:33 +0100``       ISO 8601, also with a space before the zone
``2020/03/09 10:14:33``, ``09.03.2020 10:14:33``       the year first; or, with points, the day
``03/09/2020 10:14 AM``, ``2020-03-09 10:14 pm``       twelve hours; with slashes the month comes first
``200309101433W``                                      DSMR: Central European time, ``S`` is summer
=====================================================  ==========================================================

What names no zone is in the zone of the subscription.  Local time has one hour twice when summer
time ends: it is taken for summer time both times.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo

from gon_edge.stream.scalars import float_of
from gon_edge.stream.topics import MAX_NAME

# A bare number is seconds, milliseconds, microseconds or nanoseconds by its size: each covers the years 1973 to 5138.
_SECONDS = 1e11
_UNITS = ((_SECONDS, 1.0), (1e14, 1e3), (1e17, 1e6), (math.inf, 1e9))
_YEAR_10000 = 253402300800.0
# YYYYMMDDhhmmss of the years 1970 to 2099.  As milliseconds these would be years after 2590.
_COMPACT = (19700101000000, 20991231235959)
_DSMR = re.compile(r"([0-9]{12})([SW])")
_DATE = re.compile(
    r"(?:(?P<y>\d{4})[-/.](?P<m>\d\d?)[-/.](?P<d>\d\d?)|(?P<d2>\d\d?)\.(?P<m2>\d\d?)\.(?P<y2>\d{4})"
    r"|(?P<m3>\d\d?)/(?P<d3>\d\d?)/(?P<y3>\d{4}))"
    r"(?:,? +|T)(?P<H>\d\d?):(?P<M>\d\d)(?::(?P<S>\d\d)(?:[.,](?P<f>\d{1,9}))?)?"
    r"(?: *(?P<half>[AP])\.?M\.?)?(?: *(?P<zone>Z|UTC|GMT|[+-]\d\d:?\d\d))?(?: UTC)?",
    re.ASCII,
)


def unix_seconds(raw: object, zone: tzinfo = UTC) -> float:
    """Read a timestamp as devices write it.

    Parameters
    ----------
    raw : float or str
    zone : tzinfo
        Of text that names none.

    Returns
    -------
    float
        Unix seconds, from 0 (1970) to the end of the year 9999.

    Raises
    ------
    ValueError
        Anything else.

    Examples
    --------
    >>> unix_seconds(1583748873000.0)
    1583748873.0
    >>> unix_seconds("2020-03-09 10:14:33"), unix_seconds("09.03.2020 10:14:33"), unix_seconds("200309111433W")
    (1583748873.0, 1583748873.0, 1583748873.0)
    """
    if type(raw) is float and 0.0 <= raw < _SECONDS:  # as nearly every device writes it
        return raw
    if (
        isinstance(raw, bool)
        or not isinstance(raw, (int, float, str))
        or (isinstance(raw, str) and len(raw) > MAX_NAME)
    ):
        raise ValueError(f"neither a number nor a date: {raw!r:.60}")
    number = float_of(raw) if isinstance(raw, str) else float(raw)
    if number is None:
        return in_range(_moment(raw.strip().upper(), zone).timestamp(), raw)  # type: ignore[union-attr]  # only text is none
    if _COMPACT[0] <= number <= _COMPACT[1] and number.is_integer():
        try:
            return datetime.strptime(str(int(number)), "%Y%m%d%H%M%S").replace(tzinfo=zone).timestamp()
        except ValueError:
            pass  # no month 13: milliseconds of a far future
    if math.isfinite(number):
        number /= next(divisor for limit, divisor in _UNITS if number < limit)
    return in_range(number, raw)


def _moment(text: str, zone: tzinfo) -> datetime:
    if dsmr := _DSMR.fullmatch(text):
        summer = timezone(timedelta(hours=2 if dsmr[2] == "S" else 1))
        return datetime.strptime(dsmr[1], "%y%m%d%H%M%S").replace(tzinfo=summer)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = _written(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def _written(text: str) -> datetime:
    found = _DATE.fullmatch(text)
    if found is None or (found["y3"] and not found["half"]):
        how = "; write the year first, or the day and points" if found else ""
        raise ValueError(f"not a date and time: {text!r:.60}{how}")
    year, month, day = (found[key] or found[key + "2"] or found[key + "3"] for key in "ymd")
    hour = int(found["H"])
    if found["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(f"no hour of twelve: {text!r:.60}")
        hour = hour % 12 + (12 if found["half"] == "P" else 0)
    microsecond = int((found["f"] or "0").ljust(6, "0")[:6])
    offset = found["zone"]
    zone = None if offset is None else UTC if offset[0] not in "+-" else datetime.strptime(offset, "%z").tzinfo
    return datetime(int(year), int(month), int(day), hour, int(found["M"]), int(found["S"] or 0), microsecond, zone)


def in_range(seconds: float, raw: object) -> float:
    """``seconds`` if they are Unix seconds of the years 1970 to 9999, else ValueError that names ``raw``."""
    if not 0.0 <= seconds < _YEAR_10000:
        raise ValueError(f"not between the years 1970 and 9999: {raw!r:.60}")
    return seconds
