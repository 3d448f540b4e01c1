"""What a check has to say, in one line and with advice."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from gon_edge.errors import GonEdgeError

State = Literal["ok", "warning", "fault"]

MIB = 1 << 20  # bytes
DAY_S = 86_400.0  # seconds

_CERTIFICATE_SOON_S = 21 * DAY_S  # Let's Encrypt renews 30 days before the end: something is wrong then


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check : str
        What was looked at: ``configuration``, ``broker``, ...
    state : str
        ``ok``; ``warning``, it works but will not always; ``fault``, it does not work.
    text : str
        One line, what is the case.
    advice : str
        What to do; empty when nothing.
    """

    check: str
    state: State
    text: str
    advice: str = ""


def certificate(what: str, expiry: float) -> Finding:
    """What to say about a certificate that ends at `expiry`, Unix seconds."""
    left_s = expiry - time.time()
    when = datetime.fromtimestamp(expiry, UTC).date().isoformat()
    if left_s < 0:
        return Finding("certificate", "fault", f"{what} ended on {when}", "renew it")
    state: State = "warning" if left_s < _CERTIFICATE_SOON_S else "ok"
    return Finding("certificate", state, f"{what} is valid until {when}", "renew it" if state == "warning" else "")


def one_line(error: BaseException) -> str:
    """What an error says, in one line; one of ours needs no name before it."""
    text = " ".join(str(error).split())
    return text if isinstance(error, GonEdgeError | ValueError) and text else f"{type(error).__name__}: {text}"


def files_below(folder: Path) -> list[Path]:
    """Regular files below `folder`; what cannot be looked into is left out."""
    return [
        Path(where) / name for where, _, names in os.walk(folder) for name in names if (Path(where) / name).is_file()
    ]
