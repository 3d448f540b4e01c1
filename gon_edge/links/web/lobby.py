"""Where connections wait, on one thread, until they have asked for something, and then until they have the answer.

Whoever connects and sends nothing, half of a TLS handshake or half of a question, or does not read what he asked for,
costs a place here and no thread: a thread gets only what has arrived, up to the empty line that ends it, and writes to
no connection.  This module knows sockets and TLS, and of HTTP that line.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl

PLACES = 128
"""For connections that ask, and as many for those that are answered.  Not critical: far more than a fleet of browsers
opens.  When there are more, the oldest that asks goes, or the longest answer."""
QUESTION_BYTES = 128 << 10
"""Request line (64 KiB at most) and headers.  A longer one is let through as far as it has come, to be told so;
http.server alone admits 6.5 MB."""

_READ_BYTES = 16 << 10  # at once.  Not critical: what browsers send has less than 2 KiB
_HELD_BYTES = 1 << 20
"""Of all questions here; the longest goes when there is more.  Not critical: hundreds of those that browsers ask."""
_ANSWERS_BYTES = 8 << 20
"""Of all answers that wait for their readers; of several the longest goes when there is more.  Not critical: whoever
reads has the metrics of a hundred streams, 200 kB, at once."""
_PIECE_BYTES = 64 << 10  # of an answer, before the others have their turn; not critical
_END = re.compile(rb"\n\r?\n")
_LOOK_S = 0.5  # not critical: as often as connections are closed that took too long
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


@dataclass(slots=True, eq=False)
class _Answer:
    """What a connection is still to get, and until when (monotonic seconds)."""

    connection: socket.socket
    left: memoryview
    until: float


class Lobby:
    """Takes connections in, lets each through when it has asked for something, and sends what is answered.

    Parameters
    ----------
    listener : socket
    wrap : callable or None
        Puts TLS around a connection; None without TLS.
    admit : callable
        Gets connection, address and question, and returns whether it will be answered; must not block.
    refusal : bytes
        Answer to who was not admitted within ``patience_s``.
    limit_s, patience_s : float
        Seconds from the connection until it has asked, and from its answer until it has read; from the question until
        it is admitted.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        wrap: Callable[[socket.socket], ssl.SSLSocket] | None,
        admit: Callable[[socket.socket, Any, bytes], bool],
        refusal: bytes,
        limit_s: float,
        patience_s: float,
    ) -> None:
        self._listener = listener
        self._wrap, self._admit, self._refusal = wrap, admit, refusal
        self._limit_s, self._patience_s = limit_s, patience_s
        self._guests: dict[_Guest, None] = {}  # the oldest first
        self._answers: dict[_Answer, None] = {}
        self._answered: deque[_Answer] = deque()  # by other threads, not begun with
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._woken, self._bell = socket.socketpair()  # objects: once closed, they are nobody else's descriptors
        for each in (listener, self._woken, self._bell):
            each.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def answer(self, connection: socket.socket, content: bytes) -> None:
        """Send an answer and close the connection, which is not the caller's any more; never waits, from any thread."""
        self._answered.append(_Answer(connection, memoryview(content), time.monotonic() + self._limit_s))
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # a full buffer wakes as well; closed, nobody is there to be woken
            self._bell.send(b"x")

    def stop(self) -> None:
        """End `serve`; from any thread."""
        self._stopping = True
        self._wake()

    def serve(self) -> None:
        """Take connections in until `stop`."""
        while not self._stopping:
            for key, _ in self._selector.select(_LOOK_S):
                if key.fileobj is self._listener:
                    self._take_in()
                elif key.fileobj is self._woken:
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(4096)
                elif key.data in self._guests:
                    self._hear(key.data)
                elif key.data in self._answers:
                    self._send(key.data)
            while self._answered:
                self._begin_to_send(self._answered.popleft())
            now = time.monotonic()
            self._let_through(now)
            for late in [each for each in self._answers if now > each.until]:
                self._let_go(late)

    def close(self) -> None:
        """Close every connection that is here; when `serve` has ended, or never began."""
        for guest in list(self._guests):
            self._turn_out(guest)
        for answer in (*self._answers, *self._answered):
            answer.connection.close()
        self._selector.close()
        self._woken.close()
        self._bell.close()

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
                    self.answer(guest.connection, self._refusal)
            elif now > guest.until:
                self._turn_out(guest)

    def _turn_out(self, guest: _Guest) -> None:
        self._leave(guest)
        guest.connection.close()

    def _leave(self, guest: _Guest) -> None:
        if not guest.asked_at:
            self._selector.unregister(guest.connection)
        del self._guests[guest]

    def _begin_to_send(self, answer: _Answer) -> None:
        self._answers[answer] = None
        self._selector.register(answer.connection, selectors.EVENT_WRITE, answer)
        self._send(answer)
        while len(self._answers) > 1 and (
            len(self._answers) > PLACES or sum(len(each.left) for each in self._answers) > _ANSWERS_BYTES
        ):
            self._let_go(max(self._answers, key=lambda each: len(each.left)))

    def _send(self, answer: _Answer) -> None:
        """Send what the connection takes now, and close it after the last of it."""
        wanted = selectors.EVENT_WRITE
        try:
            answer.left = answer.left[answer.connection.send(answer.left[:_PIECE_BYTES]) :]
        except BlockingIOError:
            pass
        except (OSError, ValueError) as error:
            if not _is_want(error):  # gone
                self._let_go(answer)
                return
            wanted = selectors.EVENT_READ if type(error).__name__ == "SSLWantReadError" else wanted
        if not answer.left:
            with contextlib.suppress(OSError):
                answer.connection.shutdown(socket.SHUT_WR)
            self._let_go(answer)
        else:
            self._selector.modify(answer.connection, wanted, answer)

    def _let_go(self, answer: _Answer) -> None:
        self._selector.unregister(answer.connection)
        del self._answers[answer]
        answer.connection.close()


def _is_want(error: Exception) -> bool:
    """Whether TLS has to read or write more before it can tell; its errors are errors of the system, too."""
    return type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")
