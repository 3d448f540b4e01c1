"""A socket that paho reads and writes in blocks.

paho reads a packet by three small ``recv`` calls and acknowledges it by a ``send``.  Each gives up the interpreter
lock, and a busy scoring thread keeps it for a switch interval (5 ms) before it gives it back: 88 messages a second were
left of 19,000, and the broker dropped the rest.  From memory paho takes its small pieces without giving up the lock:
13,000 a second beside the same busy thread.

Knows nothing of MQTT.  The methods here are what paho asks of a socket and of a TLS context; another release of paho
may ask for more.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from gon_edge.process.clock import monotonic

if TYPE_CHECKING:
    import ssl

    from gon_edge.links.mqtt.cut import Feed

_BLOCK_BYTES = 64 << 10  # four TLS records of the largest size, 16 KiB
_MOST_UNSENT_BYTES = 4 * _BLOCK_BYTES  # not critical: what a broker may leave unread before paho has to keep it


class BlockSocket:
    """A socket that reads and writes in blocks of up to 64 KiB, with the face paho expects of one.

    Until ``setblocking(False)`` it is transparent, so that handshakes work; from then on :meth:`send` collects and
    :meth:`flush` sends, and what is read passes through `feed`.

    Parameters
    ----------
    sock : socket.socket
    tls : bool
    feed : callable, optional
        Returns what paho is to see of a block, as `cut.Packets.feed` does.

    Attributes
    ----------
    error : OSError or None
        What ended the connection: paho says only that it has ended.
    read_at : float
        Seconds of ``CLOCK_BOOTTIME`` when the newest block was read.
    """

    def __init__(self, sock: socket.socket, *, tls: bool, feed: Feed | None = None) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # acknowledgements leave in blocks of our own making
        self.error: OSError | None = None
        self.read_at = 0.0
        self._sock: Any = sock
        self._block = bytearray(_BLOCK_BYTES)
        self._view = self._passing = memoryview(self._block)
        self._feed = feed
        self._start = self._end = 0
        self._unsent = bytearray()
        self._collecting = False
        self._tls = tls
        self._not_now: tuple[type[OSError], ...] = (BlockingIOError,)
        if tls:
            import ssl

            self._not_now += (ssl.SSLWantReadError, ssl.SSLWantWriteError)

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes, empty when the other side has closed; BlockingIOError when there are none yet."""
        if self._start == self._end:
            try:
                read = self._sock.recv_into(self._view, _BLOCK_BYTES if self._collecting else 1)
            except self._not_now:
                raise BlockingIOError from None
            except OSError as error:
                self.error = error
                raise
            self.read_at = monotonic()
            self._passing, self._start, self._end = self._view, 0, read
            if read and self._collecting and self._feed is not None:
                self._passing = memoryview(self._feed(self._view[:read]))
                self._end = len(self._passing)
                if not self._end:
                    raise BlockingIOError
        start = self._start
        self._start = min(start + size, self._end)
        return bytes(self._passing[start : self._start])

    def send(self, data: bytes | bytearray) -> int:
        """Take all of `data`, for :meth:`flush`; BlockingIOError while too much waits."""
        if not self._collecting:
            return int(self._sock.send(data))
        if len(self._unsent) > _MOST_UNSENT_BYTES:
            raise BlockingIOError
        self._unsent += data
        return len(data)

    def flush(self) -> None:
        """Send what was collected, as far as the kernel takes it."""
        with contextlib.suppress(*self._not_now):
            while self._unsent:
                del self._unsent[: self._sock.send(self._unsent)]

    def pending(self) -> int:
        """Return the bytes that can be had without asking the kernel."""
        return self._end - self._start + int(self._sock.pending() if self._tls else 0)

    @property
    def unsent(self) -> bool:
        """Whether something waits for :meth:`flush`."""
        return bool(self._unsent)

    def peer_certificate(self) -> dict[str, Any] | None:
        """Return the certificate of the other side as ``ssl`` shows it; ``None`` without TLS."""
        return self._sock.getpeercert() if self._tls else None

    def do_handshake(self) -> None:
        """Shake hands by TLS, where there is TLS."""
        if self._tls:
            self._sock.do_handshake()

    def setblocking(self, flag: bool) -> None:
        """Begin to collect, and stop waiting, with ``False``."""
        self._collecting = not flag
        self._sock.setblocking(flag)

    def settimeout(self, timeout_s: float | None) -> None:
        """Wait so long in each call, seconds."""
        self._sock.settimeout(timeout_s)

    def fileno(self) -> int:
        """Return the descriptor, to wait for."""
        return int(self._sock.fileno())

    def close(self) -> None:
        """Send what was collected, as far as the kernel takes it, and close."""
        with contextlib.suppress(OSError):  # paho closes as soon as it has handed DISCONNECT to us
            self.flush()
        self._sock.close()


class InBlocks:
    """Stands in for the TLS context of a paho client and turns each new socket into a :class:`BlockSocket`.

    Wrapping a socket is what paho lets the owner of a client do in public, by ``tls_set_context``.  Without TLS it
    wraps as well, and paho believes that there is some.

    Parameters
    ----------
    context : ssl.SSLContext or None
        ``None`` for no TLS.
    feed : callable, optional
        Of the one socket that is wrapped; see :class:`BlockSocket`.
    server_name : str, optional
        The name the certificate of the other side must have, where that is not the name of the host.

    Attributes
    ----------
    newest : BlockSocket or None
        The socket wrapped last.
    check_hostname : bool
        Tells paho that the name of the host is none of its business: `context` has checked it.
    """

    check_hostname = True

    def __init__(
        self, context: ssl.SSLContext | None, feed: Feed | None = None, *, server_name: str | None = None
    ) -> None:
        self.newest: BlockSocket | None = None
        self._context = context
        self._feed = feed
        self._server_name = server_name

    def wrap_socket(
        self, sock: socket.socket, server_hostname: str | None = None, do_handshake_on_connect: bool = False
    ) -> BlockSocket:
        """Return `sock`, just connected, with blocks around it, and TLS where there is any."""
        if self._context is not None:
            sock = self._context.wrap_socket(
                sock,
                server_hostname=self._server_name or server_hostname,
                do_handshake_on_connect=do_handshake_on_connect,
            )
        self.newest = BlockSocket(sock, tls=self._context is not None, feed=self._feed)
        return self.newest
