"""Where connections wait, on one thread, until they have asked for something and there is a thread to answer them.

Whoever connects and sends nothing, or half of a TLS handshake, costs a place here and no thread: a thread answers only
what has begun to arrive.  This module knows sockets and TLS, and nothing of HTTP.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

PLACES = 128  # not critical: far more than a fleet of browsers opens; the oldest goes when there are more
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
        When it had asked for something; 0 before.
    """

    connection: socket.socket
    address: Any
    until: float
    shakes: bool
    asked_at: float = 0.0


class Lobby:
    """Takes connections in, and lets each through when it has asked for something.

    Parameters
    ----------
    listener : socket
    wrap : callable or None
        Puts TLS around a connection; None without TLS.
    admit : callable
        Gets connection and address, and returns whether it has taken them; must not block.
    refuse : callable
        Gets a connection that was not taken within ``patience_s``; must close it.
    look : callable
        Called twice a second.
    limit_s, patience_s : callable
        Seconds from the connection until it has asked; from then until it is taken.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        wrap: Callable[[socket.socket], ssl.SSLSocket] | None,
        admit: Callable[[socket.socket, Any], bool],
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
            self._leave(guest)
            guest.connection.close()
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
            oldest = next(iter(self._guests))
            self._leave(oldest)
            oldest.connection.close()

    def _hear(self, guest: _Guest) -> None:
        """Go on with a handshake; without one, what has come is a question."""
        if guest.shakes:
            import ssl  # where it is used, and loaded then

            secure: Any = guest.connection
            try:
                secure.do_handshake()
            except ssl.SSLWantReadError:
                self._selector.modify(secure, selectors.EVENT_READ, guest)
                return
            except ssl.SSLWantWriteError:
                self._selector.modify(secure, selectors.EVENT_WRITE, guest)
                return
            except (OSError, ValueError):
                self._leave(guest)
                secure.close()
                return
            guest.shakes = False
            self._selector.modify(secure, selectors.EVENT_READ, guest)
            if not secure.pending():
                return
        guest.asked_at = time.monotonic()
        self._selector.unregister(guest.connection)

    def _let_through(self, now: float) -> None:
        for guest in list(self._guests):
            if guest.asked_at:
                if self._admit(guest.connection, guest.address):
                    del self._guests[guest]
                elif now - guest.asked_at > self._patience_s:
                    del self._guests[guest]
                    self._refuse(guest.connection)
            elif now > guest.until:
                self._leave(guest)
                guest.connection.close()

    def _leave(self, guest: _Guest) -> None:
        if not guest.asked_at:
            self._selector.unregister(guest.connection)
        del self._guests[guest]
