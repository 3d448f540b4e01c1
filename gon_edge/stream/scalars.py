"""One value as devices write it, to a number or to the reason why it is none.

=========================================  =====================================================
``21.5``, ``"21.5"``                       a number; what float32 cannot hold is masked ``infinite``
``"21,5"``, ``"21.5 °C"``, ``"1.234,5"``   a number; a unit that `UNITS` knows is left out
``"1,234"``                                masked ``ambiguous`` until the option ``decimal`` says what the comma is
``true``, ``"ON"``, ``"closed"``           1.0 or 0.0 (`STATES`), and the words of the option ``map``; case is ignored
``null``                                   masked ``null``
``NaN``, ``"nan"``                         masked ``nan``
``Infinity``, ``1e999``                    masked ``infinite``
any other text                             masked ``text``
=========================================  =====================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import translate
from typing import Literal

from gon_edge.stream.topics import MAX_NAME

Decimal = Literal["auto", "point", "comma"]

LARGEST = 3.4028234663852886e38  # the largest float32: rows are float32, beyond it a value would become infinite there

STATES: Mapping[str, float] = {
    **dict.fromkeys(("true", "on", "open", "opened", "yes"), 1.0),
    **dict.fromkeys(("false", "off", "closed", "close", "no"), 0.0),
}
"""What switches, relays and contacts send."""

UNITS = frozenset(
    """
    % ‰ ° °c °f ºc ºf ℃ ℉ c f k deg degc degf v mv kv a ma ka ah mah w mw kw kwp wh kwh mwh gwh va kva vah kvah
    var kvar varh kvarh hz khz mhz ghz rpm /min pa hpa kpa mpa mbar bar psi inhg mmhg torr m cm mm km m² m2 m³ m3
    ft in mi l ml hl gal l/s l/min l/h lpm gpm m³/h m3/h m³/s m3/s m/s km/h mph kn kt mm/h s sec ms min h hr g kg
    mg t lb lbs oz n nm kn j kj mj w/m² w/m2 lx lux lm cd ppm ppb µg/m³ μg/m³ ug/m3 µg/m3 mg/m³ mg/m3 g/m³ g/m3 db
    dbm dba db(a) ω ohm kω µs/cm μs/cm us/cm ph kb mb gb tb kib mib gib tib bit/s kbit/s mbit/s kb/s mb/s gb/s bpm
    µt
    """.split()  # noqa: SIM905 - a list of them would be longer than its page
)
"""Units that may follow a number, in small letters.  They are left out, not converted."""

_QUANTITY = re.compile(
    r"([+-]?[.,]?[0-9][0-9.,]*(?:[eE][+-]?[0-9]+)?)(?:[\s\u00a0\u202f]*\*?[\s\u00a0\u202f]*(\D.*))?", re.DOTALL
)
_GROUPED_BY_COMMA = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?")
_GROUPED_BY_POINT = re.compile(r"[+-]?[0-9]{1,3}(?:\.[0-9]{3})+(?:,[0-9]*)?")
_ONE_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?")
_EDGES = " \t\r\n\v\f\0\u00a0\ufeff"


class Scalars:
    """How a subscription writes its values.

    Parameters
    ----------
    decimal : {"auto", "point", "comma"}
        The decimal sign of numbers in text.  ``auto`` masks what may be read both ways.
    words : mapping of str to mapping of str to float, optional
        Words and their numbers, by shell pattern of the feature; they go before everything else.

    Examples
    --------
    >>> scalars = Scalars(words={"*.mode": {"heat": 1.0, "idle": 0.0}})
    >>> scalars.number("hall.mode", "HEAT"), scalars.number("hall.t", "21,5 °C"), scalars.number("hall.t", "soon")
    (1.0, 21.5, 'text')
    """

    __slots__ = ("_decimal", "_words")

    def __init__(self, decimal: Decimal = "auto", words: Mapping[str, Mapping[str, float]] | None = None) -> None:
        self._decimal = decimal
        self._words = [
            (re.compile(translate(glob)).match, {word.strip().lower(): float(n) for word, n in numbers.items()})
            for glob, numbers in (words or {}).items()
        ]

    def number(self, name: str, raw: object) -> float | str:
        """Value of a scalar, or the reason of `MASK_REASONS` why it has none.

        Parameters
        ----------
        name : str
            The feature it is of.
        raw : float, bool, str or None
        """
        if self._words and isinstance(raw, (str, bool)):
            word = str(raw)[: MAX_NAME + 1].strip(_EDGES + '"').lower()  # lines quote their text
            for matches, known in self._words:
                if word in known and matches(name):
                    return known[word]
        if raw is None:
            return "null"
        if isinstance(raw, bool):
            return float(raw)
        if isinstance(raw, str):
            number = self._number_in(raw)
            if isinstance(number, str):
                return number
        else:
            assert isinstance(raw, float)
            number = raw
        if number != number:
            return "nan"
        return number if -LARGEST <= number <= LARGEST else "infinite"

    def _number_in(self, raw: str) -> float | str:
        if len(raw) > MAX_NAME:
            return "text"
        text = raw.strip(_EDGES)
        state = STATES.get(text.lower())
        if state is not None:
            return state
        if self._decimal != "comma" or "." not in text:
            number = float_of(text)
            if number is not None:
                return number
        quantity = _QUANTITY.fullmatch(text)
        if quantity is None or (quantity[2] is not None and quantity[2].lower() not in UNITS):
            return "text"
        return self._number_of(quantity[1])

    def _number_of(self, digits: str) -> float | str:
        """A number whose signs may be those of any country."""
        if "," not in digits and (self._decimal != "comma" or _GROUPED_BY_POINT.fullmatch(digits) is None):
            number = float_of(digits)
            return "text" if number is None else number
        by_comma = _GROUPED_BY_COMMA.fullmatch(digits) is not None  # 1,234.5
        by_point = _GROUPED_BY_POINT.fullmatch(digits) is not None  # 1.234,5
        is_decimal = _ONE_COMMA.fullmatch(digits) is not None  # 21,5
        if self._decimal == "auto" and by_comma and is_decimal:
            return "ambiguous"
        if by_comma and not (self._decimal == "comma" and is_decimal):
            return float(digits.replace(",", ""))
        if (by_point or is_decimal) and self._decimal != "point":
            return float(digits.replace(".", "").replace(",", "."))
        return "text"


PLAIN = Scalars()
"""Values without options for them."""


def number_of(raw: object) -> float | str:
    """Value of a scalar that no subscription describes, or the reason why it has none."""
    return PLAIN.number("", raw)


def float_of(text: str) -> float | None:
    """Like ``float``, but ``1_000`` is no number: no device writes one so, and an identifier may look like it."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None
