"""Where log lines go and what they look like: stderr, one line an event.

Under systemd, which stores time and level itself, a line starts with the priority the journal reads (sd-daemon(3));
elsewhere it is the same line without.  ``json`` is for log shippers.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Literal

from gon_edge.process.visible import visible

_PRIORITIES = {
    logging.CRITICAL: 2,
    logging.ERROR: 3,
    logging.WARNING: 4,
    logging.INFO: 6,
    logging.DEBUG: 7,
}  # syslog(3)


def set_up_logging(
    level: str,
    form: Literal["text", "json"] = "text",
    *,
    stream: IO[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Send the log of the whole process to `stream`, in place of where it went before.

    Parameters
    ----------
    level : {"debug", "info", "warning", "error"}
    form : {"text", "json"}
        ``level logger: message``, or one JSON object a line with ``time``, ``level``, ``logger``, ``message`` and
        ``exception`` where there is one.
    stream : text file, optional
        Default: stderr.
    environ : mapping, optional
        For ``JOURNAL_STREAM``; the environment of the process by default.
    """
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    journal = _is_journal(stream, os.environ if environ is None else environ)
    handler.setFormatter(_JsonFormatter() if form == "json" else _TextFormatter(priorities=journal))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class Seldom:
    """Complaints that repeat: the 1st, 2nd, 4th, 8th ... of a kind is logged.  A broken device sends thousands.

    Parameters
    ----------
    log : logging.Logger
    """

    _KINDS = 1000  # counted at once; then all are forgotten, as names in a kind can be anything a device makes up

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: Counter[str] = Counter()

    def say(self, kind: str, level: int, text: str) -> None:
        """Log ``text`` if it is its turn, with how often its kind has come."""
        if len(self._said) > self._KINDS:
            self._said.clear()
        self._said[kind] += 1
        count = self._said[kind]
        if count & (count - 1) == 0:
            self._log.log(level, "%s%s", text, f" ({count} times)" if count > 1 else "")


class _TextFormatter(logging.Formatter):
    def __init__(self, *, priorities: bool) -> None:
        super().__init__()
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        text = f"{record.levelname.lower()} {record.name}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>" if self._priorities else ""
        return "\n".join(
            prefix + visible(line) for line in text.rstrip("\n").split("\n")
        )  # the journal makes an entry of each line


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        text = json.dumps(entry, ensure_ascii=False)
        return text if text.isprintable() else json.dumps(entry)


def _is_journal(stream: IO[str], environ: Mapping[str, str]) -> bool:
    """Whether `stream` itself leads to the journal: a redirected one must not get priorities (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
