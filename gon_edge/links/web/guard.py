"""Decides who may read what the HTTP port shows.

By TLS, by the name it was asked by, by token and password, and by how often somebody has guessed.

Certificate, key, token and password are read again when their files change.  Files that cannot be used leave what was
read before.  Nothing here answers: :meth:`Guard.refusal` says why a request gets no answer.  ``ssl`` and ``hmac`` are
loaded only where they are configured.
"""

from __future__ import annotations

import base64
import logging
import math
import re
import socket
import threading
import time
from collections.abc import Mapping
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gon_edge.config.schema import HttpConfig
from gon_edge.errors import ConfigError
from gon_edge.process.digest import sha256
from gon_edge.process.files import require_regular
from gon_edge.process.logs import Seldom

if TYPE_CHECKING:
    import ssl

log = logging.getLogger(__package__)

OPEN_TO_ALL = ("/healthz", "/readyz")  # probes carry no password, and learn a yes or no
GUESSES = 20  # not critical: different wrong passwords that one address may send at once
GUESS_S = 5.0  # not critical: and then one each so often, 6.3 million a year
# For guesses, however many addresses there are: those that fall on one place wait for each other.  Not critical.
PLACES = 256
# Names the public DNS does not have, and numbers.  Not .local, which every device of the network can give itself.
_NOT_PUBLIC = re.compile(r"\[[^\]]*\]|[^.]*|.*\.(?:[0-9]+|localhost|internal|lan|home|home\.arpa|localdomain)")


class Refusal(NamedTuple):
    """Why a request gets no answer: a status, headers of its own, and a line for people."""

    status: HTTPStatus
    headers: Mapping[str, str]
    text: str


class Guard:
    """Decides on each request, from its headers and its address alone.

    Parameters
    ----------
    settings : HttpConfig

    Raises
    ------
    ConfigError
        When token or password cannot be read.
    """

    def __init__(self, settings: HttpConfig) -> None:
        self._passwords = Passwords(settings) if settings.guarded else None
        # A browser that was led here under another name has neither our certificate nor our password.
        self._names = None if settings.tls or settings.guarded else _Names(settings)

    def refusal(self, path: str, headers: Message, address: str) -> Refusal | None:
        """Return why this request gets no answer; ``None`` when it gets one."""
        if path in OPEN_TO_ALL:
            return None
        if self._names is not None:
            hosts = headers.get_all("Host") or [""]
            if len(hosts) != 1 or not self._names.knows(hosts[0]):
                self._names.refused(hosts[-1])
                text = "gon-edge does not know this name; ask by address, or add the name to http.names\n"
                return Refusal(HTTPStatus.MISDIRECTED_REQUEST, {}, text)
        if self._passwords is None:
            return None
        shown = headers.get_all("Authorization") or []
        return self._passwords.refusal(shown[0] if len(shown) == 1 else "", address)


class _Files:
    """Files that are read again when one of them changes: found by a look at their status."""

    def __init__(self, *paths: Path | None) -> None:
        self._paths = [path for path in paths if path is not None]
        self._seen: object = None

    def changed(self) -> bool:
        """Whether anything is different from the last time this was asked."""
        seen: list[object] = []
        for path in self._paths:
            try:
                status = path.stat()
            except OSError as error:
                seen.append(error.errno)
            else:
                seen.append((status.st_ino, status.st_size, status.st_mtime_ns))
        known, self._seen = self._seen, seen
        return seen != known


class Tls:
    """The server's side of TLS: a context for each certificate there was, the newest for new connections."""

    def __init__(self, settings: HttpConfig) -> None:
        self._settings = settings
        self._files = _Files(settings.cert_file, settings.key_file)
        self._files.changed()
        self._context = self._load()

    def wrap(self, connection: socket.socket) -> ssl.SSLSocket:
        """Return the connection with TLS around it; the handshake is still to come."""
        if self._files.changed():
            try:
                self._context = self._load()
            except ConfigError as error:  # a key that is not there yet: it counts when it is
                log.error("HTTPS goes on with the certificate before: %s", error)
            else:
                log.info("HTTPS has read its certificate again")
        return self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)

    def _load(self) -> ssl.SSLContext:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        assert self._settings.cert_file is not None
        try:
            for pem in (self._settings.cert_file, self._settings.key_file or self._settings.cert_file):
                require_regular(pem)
            # The empty password keeps OpenSSL from asking a terminal for one.
            context.load_cert_chain(self._settings.cert_file, self._settings.key_file, password="")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cannot be used for TLS with its key: {error}; write certificate and key there, PEM, the key without "
                "a password",
                key="http.cert_file",
            ) from error
        return context


class _Names:
    """By which names this machine may be asked: none that a web page from elsewhere can have (DNS rebinding)."""

    def __init__(self, settings: HttpConfig) -> None:
        self._known = {name.lower() for name in (*settings.names, settings.host)}
        self._lock = threading.Lock()
        self._seldom = Seldom(log)

    def knows(self, host: str) -> bool:
        """Whether a header ``Host`` is one of ours; a program that sends none is no browser."""
        name = re.sub(r"\.?(:\d*)?$", "", host.strip().lower())
        if _NOT_PUBLIC.fullmatch(name) or name in self._known:
            return True
        own = socket.gethostname().lower()  # now: it may come by DHCP
        return name in (own, own.partition(".")[0] + ".local")

    def refused(self, host: str) -> None:
        """Tell the log, seldom."""
        text = f"HTTP: refused a request for {host[:100]!r}; if that is this machine, add it to http.names"
        with self._lock:
            self._seldom.say("name", logging.WARNING, text)


class Passwords:
    """Who may read: whoever shows the token, or user and password, and has not guessed too often."""

    def __init__(self, settings: HttpConfig) -> None:
        from hmac import compare_digest  # where a password is asked for

        self._same = compare_digest
        self._settings = settings
        self._files = _Files(settings.token_file, settings.password_file)
        self._files.changed()
        self._admitted = self._load()
        self._lock = threading.Lock()
        self._seldom = Seldom(log)
        self._paid_at = [0.0] * PLACES  # monotonic seconds when all guesses of a place are forgotten
        self._newest = [b""] * PLACES
        self._challenge = 'Basic realm="gon-edge", charset="UTF-8"' if settings.username is not None else "Bearer"

    def refusal(self, authorization: str, address: str) -> Refusal | None:
        """Return why this header does not open the port for this address; ``None`` when it does."""
        unauthorized = Refusal(HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": self._challenge}, "unauthorized\n")
        if not authorization:  # a browser asks without one first
            return unauthorized
        wait_s = self.wait_s(address)
        if not wait_s and self.admits(authorization):
            return None
        with self._lock:
            self._seldom.say("password", logging.WARNING, f"HTTP: refused the token or password from {address}")
        if wait_s:
            text = "too many wrong passwords from this address\n"
            return Refusal(HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": str(math.ceil(wait_s))}, text)
        self.guessed(address, authorization)
        return unauthorized

    def admits(self, authorization: str) -> bool:
        """Whether this header opens the port; takes as long for any that does not."""
        given = _digest(authorization)
        with self._lock:
            if self._files.changed():
                try:
                    self._admitted = self._load()
                except ConfigError as error:
                    log.error("HTTP goes on with the token and password before: %s", error)
            return sum(self._same(given, admitted) for admitted in self._admitted) > 0  # all of them, always

    def wait_s(self, address: str) -> float:
        """For how long nothing is looked at that comes from this address; 0 while it may try."""
        return max(0.0, self._paid_at[place(address)] - time.monotonic() - (GUESSES - 1) * GUESS_S)

    def guessed(self, address: str, authorization: str) -> None:
        """Enter a wrong password; the same again is no guess, but a program that was not told of a new one."""
        at, given = place(address), _digest(authorization)
        with self._lock:
            if self._newest[at] != given:
                self._newest[at] = given
                self._paid_at[at] = max(self._paid_at[at], time.monotonic()) + GUESS_S

    def _load(self) -> list[bytes]:
        token, password = self._settings.secrets()
        headers = [] if token is None else [f"bearer {token}"]
        if password is not None:
            pair = base64.b64encode(f"{self._settings.username}:{password}".encode()).decode()
            headers.append(f"basic {pair}")
        return [sha256(header.encode()).digest() for header in headers]


def _digest(authorization: str) -> bytes:
    """Of one length, so that a comparison says nothing about that of the secret."""
    scheme, _, shown = authorization.strip().partition(" ")
    return sha256(f"{scheme.lower()} {shown.strip()}".encode("latin-1")).digest()  # as it came


def place(address: str) -> int:
    """Where guesses from this address are counted; of IPv6 from its network: one machine has a whole one."""
    network: str | bytes = address
    if ":" in address:
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
        network = packed[12:] if packed.startswith(bytes(10) + b"\xff\xff") else packed[:8]
    return hash(network) % PLACES  # in another way by each process: nobody can choose whose place to share
