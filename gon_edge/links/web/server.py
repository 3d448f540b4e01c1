"""The server behind the HTTP port: metrics, health, a read-only API and the status page.

Its threads see an immutable :class:`~gon_edge.links.snapshot.Snapshot`, a Prometheus registry, and what is stored of
earlier days; they never touch streams or models.  Everything is bounded: the number of threads, the time a connection
may take, the size of a request.  A thread only makes an answer, and `lobby` sends it: no client keeps a thread waiting.
No request has a body.  `guard` decides who may read, `api` what the API says.  The status page (``static/index.html``)
goes out with the policy that keeps it harmless.
"""

from __future__ import annotations

import base64
import http.client
import io
import logging
import re
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry

from gon_edge.config.schema import HttpConfig
from gon_edge.errors import GonEdgeError
from gon_edge.links.series import page
from gon_edge.links.snapshot import Snapshot
from gon_edge.links.web import api
from gon_edge.links.web.guard import Guard, Tls
from gon_edge.links.web.lobby import QUESTION_BYTES, Lobby
from gon_edge.process.digest import sha256

log = logging.getLogger(__package__)

MAX_THREADS = 8  # not critical: a browser opens six connections at most, a scraper one
_WAITING = 128  # not critical: connections the kernel keeps until they are taken in, which is at once
_SLOT_S = 1.0  # not critical: for so long a connection waits for a thread before it is told 503
_CONNECTION_S = 10.0  # not critical: from accept to the whole request, and from the answer to close
_BUSY = b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"
_PAGE = Path(__file__).with_name("static") / "index.html"

CONTENT_TYPES: Mapping[str, str] = {
    "/": "text/html; charset=utf-8",
    "/metrics": "text/plain; version=0.0.4; charset=utf-8",
    **dict.fromkeys((*api.ANSWERS, *api.QUESTIONS), "application/json"),
}
"""By path, for every path there is."""


class WebServer:
    """Serves until :meth:`stop`, on threads of its own.

    Parameters
    ----------
    settings : HttpConfig
        Port 0 lets the system choose; see the attribute `port`.  Certificate, key, token and password are read again
        when their files change; files that cannot be used leave what was read before.
    snapshot : callable
        Returns the newest :class:`Snapshot`; called on the threads of the server, must not block.
    registry : prometheus_client.CollectorRegistry
        What ``/metrics`` shows.
    days : callable
        Looks up how an hour was on earlier days; called on the threads of the server.

    Attributes
    ----------
    port : int
    url : str
    thread : threading.Thread
        Takes connections in, from :meth:`start` to :meth:`stop`.

    Raises
    ------
    GonEdgeError
        When the address cannot be listened on.
    ConfigError
        When certificate, key, token or password cannot be read.

    Examples
    --------
    >>> server = WebServer(config.http, snapshot=daemon.snapshot, registry=registry)   # doctest: +SKIP
    >>> server.start(); print(server.url)                                              # doctest: +SKIP
    http://127.0.0.1:9109/
    """

    def __init__(
        self,
        settings: HttpConfig,
        *,
        snapshot: Callable[[], Snapshot],
        registry: CollectorRegistry,
        days: api.Days = api.nothing_stored,
    ) -> None:
        host, port = settings.host, settings.port
        tls, guard = Tls(settings) if settings.tls else None, Guard(settings)
        try:
            self._server = _Server(
                (host, port), lambda path, query: api.answer(path, snapshot(), query, days), registry, tls, guard
            )
        except OSError as error:
            raise GonEdgeError(
                f"cannot serve HTTP on {host or '*'}:{port}: {error.strerror or error}; change http.listen"
            ) from error
        self.port = int(self._server.server_address[1])
        shown = host or "localhost"
        self.url = f"{'https' if settings.tls else 'http'}://{f'[{shown}]' if ':' in shown else shown}:{self.port}/"
        self.thread = threading.Thread(target=self._server.lobby.serve, name="gon-edge http", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self.thread.start()

    def stop(self) -> None:
        """Close the port; answers under way are not waited for."""
        self._server.lobby.stop()
        if self.thread.is_alive():
            self.thread.join()
        self._server.lobby.close()
        self._server.server_close()


class _Page:
    """The status page and the policy under which a browser runs it: its own script and style, by hash, nothing else."""

    def __init__(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        self.body = text.encode()
        hashes = {
            tag: " ".join(
                "'sha256-" + base64.b64encode(sha256(block.encode()).digest()).decode() + "'"
                for block in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
            )
            for tag in ("script", "style")
        }
        self.policy = (
            f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )


class _Server(HTTPServer):
    request_queue_size = _WAITING

    def __init__(
        self,
        address: tuple[str, int],
        answer: Callable[[str, str], tuple[HTTPStatus, bytes]],
        registry: CollectorRegistry,
        tls: Tls | None,
        guard: Guard,
    ) -> None:
        self.answer = answer
        self.registry = registry
        self.guard = guard
        self.page = _Page(_PAGE)
        self._slots = threading.BoundedSemaphore(MAX_THREADS)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)
        self.lobby = Lobby(
            self.socket,
            wrap=None if tls is None else tls.wrap,
            admit=self._admit,
            refusal=_BUSY,
            limit_s=_CONNECTION_S,
            patience_s=_SLOT_S,
        )

    def server_bind(self) -> None:
        # Not HTTPServer's: it asks DNS for the name of the address, which takes seconds where there is no DNS.
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def _admit(self, connection: socket.socket, address: Any, question: bytes) -> bool:
        """Answer on a thread of its own; False while there are as many as there may be."""
        if not self._slots.acquire(blocking=False):
            return False
        threading.Thread(
            target=self._reply, args=(connection, address, question), name="gon-edge http", daemon=True
        ).start()
        return True

    def _reply(self, connection: socket.socket, address: Any, question: bytes) -> None:
        answer = b""
        try:
            answer = _Handler(question, address, self).written.getvalue()
        except Exception:
            log.debug("HTTP connection from %s ended", address, exc_info=True)
        finally:
            self._slots.release()
            self.lobby.answer(connection, answer)


class _Request(io.BytesIO):
    """The request as it has come; where that is too long, http.server is told instead of its end."""

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line and len(self.getbuffer()) > QUESTION_BYTES:
            raise http.client.LineTooLong("request")  # http.server answers 431
        return line


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "gon-edge"
    sys_version = ""

    def __init__(self, question: bytes, address: Any, server: _Server) -> None:
        self.written = io.BytesIO()
        self.rfile, self.wfile = _Request(question), self.written
        super().__init__(question, address, server)  # type: ignore[arg-type]  # where socketserver has a socket

    def setup(self) -> None:
        """Nothing: there is no connection, only what has come of it."""

    def finish(self) -> None:
        """Nothing: the answer is in `written`."""

    def do_GET(self) -> None:
        headers: Mapping[str, str] = {}
        try:
            _, _, path, query, _ = urlsplit(self.path)
            refusal = self.server.guard.refusal(path, self.headers, self.client_address[0])
            if refusal is not None:
                status, headers = refusal.status, refusal.headers
                content_type, body = "text/plain", refusal.text.encode()
            else:
                status, content_type, body = self._answer(path, query)
        except Exception:
            log.exception("no answer to %r", self.path)
            status, content_type, body = HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"internal error\n"
        self._send(status, content_type, body, headers)

    def do_HEAD(self) -> None:
        self.do_GET()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what http.server refuses by itself: bad requests and methods, lines that are too long."""
        if code == HTTPStatus.NOT_IMPLEMENTED:  # its answer to a method without a do_ of that name
            code = HTTPStatus.METHOD_NOT_ALLOWED
        status = HTTPStatus(code)
        self.close_connection = True
        headers = {"Allow": "GET, HEAD"} if status == HTTPStatus.METHOD_NOT_ALLOWED else {}
        self._send(status, "text/plain", f"{status.phrase.lower()}\n".encode(), headers)

    def _answer(self, path: str, query: str) -> tuple[HTTPStatus, str, bytes]:
        status = HTTPStatus.OK
        if path not in CONTENT_TYPES:
            return HTTPStatus.NOT_FOUND, "text/plain", b"not found\n"
        if path == "/":
            body = self.server.page.body
        elif path == "/metrics":
            body = page(self.server.registry)
        else:
            status, body = self.server.answer(path, query)
        return status, CONTENT_TYPES[path], body

    def _send(self, status: HTTPStatus, content_type: str, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", self.server.page.policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is the base class's
        log.debug("%s %r", self.address_string(), format % args)
