"""Passwords and tokens, each the only line of a file.

A secret that cannot be meant is refused when it is read: a broker says of a wrong password only that it is wrong.
"""

from __future__ import annotations

from pathlib import Path

from gon_edge.errors import ConfigError
from gon_edge.process.files import read_regular

_LONGEST_BYTES = 65535
"""Of a password in MQTT (16 bits); tokens are shorter."""


def read_secret(path: Path, what: str, key: str = "") -> str:
    """Return the secret in a file, without the line break at its end.

    Parameters
    ----------
    path : Path
    what : str
        ``password`` or ``token``, for the error.
    key : str
        Of the configuration, for the error.

    Raises
    ------
    ConfigError
        It cannot be read, is empty, has several lines, or begins with a byte order mark.
    """
    try:
        secret = read_regular(path, _LONGEST_BYTES).decode("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"cannot read {str(path)!r} ({reason}); write the {what} there, one line, "
            "readable by the user gon-edge runs as",
            key=key,
        ) from None
    return check_secret(secret, f"{str(path)!r}", what, key)


def check_secret(secret: str, place: str, what: str, key: str = "") -> str:
    """Return `secret`, which stands in `place`; raises ConfigError where it cannot be meant."""
    wrong = ""
    if secret.startswith("\ufeff"):
        wrong = "begins with a byte order mark, which an editor has put before it"
    elif not secret.strip():
        wrong = "is empty"
    elif broken := next((c for c in secret if ord(c) < 0x20 or ord(c) == 0x7F), ""):
        wrong = "has more than one line" if broken in "\r\n" else f"holds the control character {broken!r}"
    if wrong:
        raise ConfigError(f"{place} {wrong}; write the {what} there, one line and nothing else", key=key)
    return secret
