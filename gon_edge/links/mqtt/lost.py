"""Why a connection ended, or an attempt failed: in one word for a series, in a line for people.

A new reason in :data:`gon_edge.events.RECONNECT_REASONS` is a new label value in ``prometheus``.
"""

from __future__ import annotations

from typing import Literal

from gon_edge.events import ReconnectReason

UNSUPPORTED_VERSION = 132
"""Reason code of MQTT 5."""

_REASON_OF_CODE: dict[int, ReconnectReason] = {  # MQTT 5, table 2-6
    129: "protocol",  # malformed packet
    130: "protocol",
    UNSUPPORTED_VERSION: "protocol",
    134: "auth",  # bad user name or password
    135: "auth",  # not authorized
    138: "auth",  # banned
    140: "auth",  # bad authentication method
    141: "timeout",  # keep alive
    142: "taken_over",
}

Concern = Literal["address", "certificate", "tls", "login"]
"""What a person should look at when there is no connection: host and port, the authority that signed the broker's
certificate, anything else of TLS, or user name and password."""


class Lost(Exception):
    """The connection, or the attempt at one, has ended.

    Attributes
    ----------
    reason : str
        One of :data:`gon_edge.events.RECONNECT_REASONS`.
    detail : str
        For people; without the address of the broker.
    concerns : str
        What to look at.
    wrong_version : bool
        Another version of MQTT may fare better.
    is_said : bool
        The broker says so; otherwise it gave no answer.
    """

    def __init__(
        self,
        reason: ReconnectReason,
        detail: str,
        *,
        concerns: Concern = "address",
        wrong_version: bool = False,
        is_said: bool = False,
    ) -> None:
        super().__init__(detail)
        self.reason: ReconnectReason = reason
        self.detail = detail
        self.concerns: Concern = concerns
        self.wrong_version = wrong_version
        self.is_said = is_said


def reason_of(code: int, *, otherwise: ReconnectReason) -> ReconnectReason:
    """Return the word for a reason code of MQTT 5."""
    return _REASON_OF_CODE.get(code, otherwise)


def words(error: Exception) -> str:
    """What an error of the system says, without its number."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
