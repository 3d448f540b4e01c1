"""Which version of MQTT to speak to a broker, as it turns out from one connection to the next."""

from __future__ import annotations

from collections.abc import Sequence

from gon_edge.links.mqtt.lost import Lost

_UNWELL = 5
"""Attempts in a row at which a broker that has spoken MQTT 5 gives no answer, before the other version is tried: most
likely it hangs or starts, and by 3.1.1 it could not say what it refuses.  Not critical: one that was replaced by an old
one takes a minute longer."""


class Version:
    """The version to speak now.

    Parameters
    ----------
    allowed : sequence of bool
        In the order to try; true is MQTT 5, false 3.1.1.

    Attributes
    ----------
    is_5 : bool
    spoke_5 : bool
        The broker has accepted MQTT 5, in an earlier run or in this.
    """

    def __init__(self, allowed: Sequence[bool]) -> None:
        self.is_5 = allowed[0]
        self.spoke_5 = False
        self._has_choice = len(allowed) > 1

    def __str__(self) -> str:
        return "5" if self.is_5 else "3.1.1"

    def accepted(self) -> None:
        """The broker has accepted a connection."""
        self.spoke_5 |= self.is_5

    def failed(self, failure: Lost, failures: int) -> bool:
        """Choose for the next attempt after so many failures in a row; whether it is 3.1.1 in the place of 5."""
        if not self._has_choice:
            return False
        if not failure.wrong_version:
            self.is_5 |= self.spoke_5
            return False
        self.spoke_5 &= not failure.is_said
        is_unwell = self.is_5 and self.spoke_5 and failures % _UNWELL != 0
        self.is_5 = is_unwell or not self.is_5
        return not self.is_5
