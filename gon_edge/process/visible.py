"""Foreign text where people read it, in a terminal or a log: it must not steer what shows it."""

from __future__ import annotations


def visible(text: str) -> str:
    r"""Return `text` with control and invisible characters written as escapes, so that it cannot steer a terminal.

    Examples
    --------
    >>> visible("pump\x1b[2J \u202eü")
    'pump\\x1b[2J \\u202eü'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
