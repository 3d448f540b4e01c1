"""Where connections wait, on one thread, until they have asked for something and there is a thread to answer them.

Whoever connects and sends nothing, half of a TLS handshake or half of a question costs a place here and no thread: a
thread answers only what has arrived, up to the empty line that ends it.  This module knows sockets and TLS, and of HTTP
that line.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

PLACES = 128  # not critical: far more than a fleet of browsers opens; the oldest goes when there are more
QUESTION_BYTES = 128 << 10
"""Request line (64 KiB at most) and headers.  A longer one is let through as far as it has come, to be told so;
http.server alone admits 6.5 MB."""

_READ_BYTES = 16 << 10  # at once.  Not critical: what browsers send has less than 2 KiB
_HELD_BYTES = 1 << 20
"""Of all questions here; the longest goes when there is more.  Not critical: hundreds of those that browsers ask."""
_END = re.compile(rb"\n\r?\n")
_LOOK_S = 0.5  # not critical: as often as connections are cut off that took too long
_FULL_S = 0.05  # not critical: until the next try where the process has no descriptor left


@dataclass(slots=True, eq=False)
class _Guest:
    """A connection that waits.

    Attributes
    ----------
    until : float
        Monotonic seconds: after that it is closed.
    shakes : bool
        Whether its TLS handshake is not over.
    asked_at : float
        When its question was complete; 0 before.
    question : bytearray
        What has come of it.
    """

    connection: socket.socket
    address: Any
    until: float
    shakes: bool
    asked_at: float = 0.0
    question: bytearray = field(default_factory=bytearray)


class Lobby:
    """Takes connections in, and lets each through when it has asked for something.

    Parameters
    ----------
    listener : socket
    wrap : callable or None
        Puts TLS around a connection; None without TLS.
    admit : callable
        Gets connection, address and question, and returns whether it has taken them; must not block.
    refuse : callable
        Gets a connection that was not taken within ``patience_s``; must close it.
    look : callable
        Called twice a second.
    limit_s, patience_s : float
        Seconds from the connection until it has asked; from then until it is taken.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        wrap: Callable[[socket.socket], ssl.SSLSocket] | None,
        admit: Callable[[socket.socket, Any, bytes], bool],
        refuse: Callable[[socket.socket], None],
        look: Callable[[], None],
        limit_s: float,
        patience_s: float,
    ) -> None:
        self._listener = listener
        self._wrap, self._admit, self._refuse, self._look = wrap, admit, refuse, look
        self._limit_s, self._patience_s = limit_s, patience_s
        self._guests: dict[_Guest, None] = {}  # the oldest first
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._woken, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def wake(self) -> None:
        """Look again whether somebody can be admitted; from any thread."""
        with contextlib.suppress(OSError):  # a full pipe wakes as well
            os.write(self._bell, b"x")

    def stop(self) -> None:
        """End `serve`; from any thread."""
        self._stopping = True
        self.wake()

    def serve(self) -> None:
        """Take connections in until `stop`."""
        looked_at = time.monotonic()
        while not self._stopping:
            for key, _ in self._selector.select(_LOOK_S):
                if key.fileobj is self._listener:
                    self._take_in()
                elif key.fileobj == self._woken:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._woken, 4096)
                elif key.data in self._guests:
                    self._hear(key.data)
            now = time.monotonic()
            self._let_through(now)
            if now - looked_at >= _LOOK_S:
                looked_at = now
                self._look()

    def close(self) -> None:
        """Close every connection that waits; when `serve` has ended, or never began."""
        for guest in list(self._guests):
            self._turn_out(guest)
        self._selector.close()
        os.close(self._woken)
        os.close(self._bell)

    def _take_in(self) -> None:
        try:
            connection, address = self._listener.accept()
        except OSError:  # gone again, or no file descriptor left, and then the next try comes at once
            time.sleep(_FULL_S)
            return
        connection.setblocking(False)
        if self._wrap is not None:
            try:
                connection = self._wrap(connection)
            except (OSError, ValueError):  # gone again
                connection.close()
                return
        guest = _Guest(connection, address, time.monotonic() + self._limit_s, self._wrap is not None)
        self._guests[guest] = None
        self._selector.register(connection, selectors.EVENT_READ, guest)
        if len(self._guests) > PLACES:
            self._turn_out(next(iter(self._guests)))

    def _hear(self, guest: _Guest) -> None:
        """Go on with a handshake, or with a question."""
        try:
            if guest.shakes and not self._shaken(guest):
                return
            is_over = self._read(guest)
        except (OSError, ValueError):
            is_over, guest.question = True, bytearray()
        if is_over and guest.question:
            guest.asked_at = time.monotonic()
            self._selector.unregister(guest.connection)
        elif is_over:  # gone again, with nothing to be answered
            self._turn_out(guest)
        if sum(len(each.question) for each in self._guests) > _HELD_BYTES:
            self._turn_out(max(self._guests, key=lambda each: len(each.question)))

    def _shaken(self, guest: _Guest) -> bool:
        """Go on with a handshake; whether it is over."""
        import ssl  # where it is used, and loaded then

        secure: Any = guest.connection
        try:
            secure.do_handshake()
        except ssl.SSLWantReadError:
            self._selector.modify(secure, selectors.EVENT_READ, guest)
            return False
        except ssl.SSLWantWriteError:
            self._selector.modify(secure, selectors.EVENT_WRITE, guest)
            return False
        guest.shakes = False
        self._selector.modify(secure, selectors.EVENT_READ, guest)
        return True

    def _read(self, guest: _Guest) -> bool:
        """Take what has come of a question; whether no more of it is to come, or none is wanted."""
        question = guest.question
        while len(question) <= QUESTION_BYTES:
            try:
                more = guest.connection.recv(_READ_BYTES)
            except BlockingIOError:
                return False
            except OSError as error:
                if _is_want(error):
                    return False
                raise
            known = max(0, len(question) - 2)
            question += more
            if not more or _END.search(question, known) is not None:
                return True
        return True

    def _let_through(self, now: float) -> None:
        for guest in list(self._guests):
            if guest.asked_at:
                if self._admit(guest.connection, guest.address, bytes(guest.question)):
                    del self._guests[guest]
                elif now - guest.asked_at > self._patience_s:
                    del self._guests[guest]
                    self._refuse(guest.connection)
            elif now > guest.until:
                self._turn_out(guest)

    def _turn_out(self, guest: _Guest) -> None:
        self._leave(guest)
        guest.connection.close()

    def _leave(self, guest: _Guest) -> None:
        if not guest.asked_at:
            self._selector.unregister(guest.connection)
        del self._guests[guest]


def _is_want(error: OSError) -> bool:
    """Whether TLS has to read or write more before it can tell; its errors are errors of the system, too."""
    return type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")
