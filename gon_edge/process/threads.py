"""Threads that the process cannot do without: when one of them ends, so does the process, and says why.

A thread of Python dies alone: the rest goes on as if nothing had happened, deaf or mute.  Whoever watches over the
process can start it again, and cannot see its threads.
"""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Self

from gon_edge.errors import GonEdgeError

log = logging.getLogger(__name__)


class ThreadEnded(GonEdgeError):
    """A thread has ended that should not have."""


class Watch:
    """While it is entered, an exception that ends a thread is logged, and :meth:`look` raises it.

    Examples
    --------
    >>> with Watch() as watch:
    ...     watch.look()
    """

    def __init__(self) -> None:
        self._ended = ""

    def __enter__(self) -> Self:
        self._before = threading.excepthook
        threading.excepthook = self._take
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        threading.excepthook = self._before

    def look(self, *needed: threading.Thread) -> None:
        """Return while all is well.

        Parameters
        ----------
        *needed : threading.Thread
            Those that must be running; they have been started.

        Raises
        ------
        ThreadEnded
            One of them is not, or an exception has ended any thread.
        """
        gone = self._ended or next((f"{thread.name!r}" for thread in needed if not thread.is_alive()), "")
        if gone:
            raise ThreadEnded(f"the thread {gone} has ended; the log says why, and a restart begins anew")

    def _take(self, ended: threading.ExceptHookArgs) -> None:
        name = ended.thread.name if ended.thread is not None else "unknown"
        self._ended = self._ended or f"{name!r} ({ended.exc_type.__name__}: {ended.exc_value})"
        trace = (ended.exc_type, ended.exc_value or ended.exc_type(), ended.exc_traceback)
        log.critical("the thread %r has ended, and with it gon-edge", name, exc_info=trace)
