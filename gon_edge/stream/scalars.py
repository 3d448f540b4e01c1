"""One value or timestamp as devices write it, to a number or to the reason why it is none.

=====================================  =====================================================
``21.5``, ``"21.5"``                   a number; what float32 cannot hold is masked ``infinite``
``true``, ``"ON"``, ``"false"``        1.0 or 0.0, letter case ignored (switches and relays send these)
``null``                               masked ``null``
``NaN``, ``"nan"``                     masked ``nan``
``Infinity``, ``1e999``                masked ``infinite``
any other text                         masked ``text``
=====================================  =====================================================
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from gon_edge.stream.topics import MAX_NAME

LARGEST = 3.4028234663852886e38  # the largest float32: rows are float32, beyond it a value would become infinite there

# A bare number is seconds, milliseconds, microseconds or nanoseconds by its size: each covers the years 1973 to 5138.
_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (math.inf, 1e9))
_YEAR_10000 = 253402300800.0
_SWITCH = {"true": 1.0, "on": 1.0, "false": 0.0, "off": 0.0}


def unix_seconds(raw: object) -> float:
    """Read a timestamp as devices write it.

    Parameters
    ----------
    raw : float or str
        A number, or text that is one: seconds below 1e11, milliseconds below 1e14, microseconds below 1e17, else
        nanoseconds.  Other text: ISO 8601, with ``T`` or a space; without a zone it is taken as UTC.

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
    >>> unix_seconds("2020-03-09 10:14:33")
    1583748873.0
    """
    if (
        isinstance(raw, bool)
        or not isinstance(raw, (int, float, str))
        or (isinstance(raw, str) and len(raw) > MAX_NAME)
    ):
        raise ValueError(f"neither a number nor a date: {raw!r:.60}")
    number = float_of(raw) if isinstance(raw, str) else float(raw)
    if number is None:
        moment = datetime.fromisoformat(raw.strip().upper())  # type: ignore[union-attr]  # only text is no number
        return in_range((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), raw)
    if math.isfinite(number):
        number /= next(divisor for limit, divisor in _UNITS if number < limit)
    return in_range(number, raw)


def number_of(raw: object) -> float | str:
    """Value of a scalar, or the reason of `MASK_REASONS` why it has none."""
    if raw is None:
        return "null"
    if isinstance(raw, bool):
        return float(raw)
    if isinstance(raw, str):
        if len(raw) > MAX_NAME:
            return "text"
        number = _SWITCH.get(raw.strip().lower())
        if number is None:
            number = float_of(raw)
        if number is None:
            return "text"
    else:
        assert isinstance(raw, float)
        number = raw
    if number != number:
        return "nan"
    return number if -LARGEST <= number <= LARGEST else "infinite"


def float_of(text: str) -> float | None:
    """Like ``float``, but ``1_000`` is no number: no device writes one so, and an identifier may look like it."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def in_range(seconds: float, raw: object) -> float:
    """``seconds`` if they are Unix seconds of the years 1970 to 9999, else ValueError that names ``raw``."""
    if not 0.0 <= seconds < _YEAR_10000:
        raise ValueError(f"not between the years 1970 and 9999: {raw!r:.60}")
    return seconds
