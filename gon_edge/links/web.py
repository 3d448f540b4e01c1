"""One HTTP port to look at: metrics, health, a read-only API and the status page.

Nothing can be changed through it.  Handlers see an immutable :class:`Snapshot`, which the daemon builds, and a
Prometheus registry; they never touch streams or models.  Bounded in every direction: a handful of threads, a total time
for each connection, a size for each request, no request bodies.  TLS and passwords where the configuration has them, of
which a few wrong ones a minute are looked at; ``ssl`` is loaded for those alone.  Without either, a request must name
this machine.  A new field of :class:`StreamSnapshot` shows up in the API by itself and on the page
(``static/index.html``) only when written there.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import logging
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, generate_latest

from gon_edge.config.schema import HttpConfig
from gon_edge.errors import ConfigError, GonEdgeError
from gon_edge.events import Cause
from gon_edge.process.digest import sha256

if TYPE_CHECKING:
    import ssl

log = logging.getLogger(__name__)

OPEN_TO_ALL = ("/healthz", "/readyz")  # probes carry no password, and learn a yes or no
_GUESSES = 20  # different wrong passwords that one address may send at once
_GUESS_S = 5.0  # and then one each so often
_PLACES = 256  # for guesses, however many addresses there are: those that fall on one place wait for each other
# Names the public DNS does not have, and numbers.  Not .local, which every device of the network can give itself.
_NOT_PUBLIC = re.compile(r"\[[^\]]*\]|[^.]*|.*\.(?:[0-9]+|localhost|internal|lan|home|home\.arpa|localdomain)")
HEARTBEAT_LIMIT_S = 30.0  # /healthz fails when the scoring loop has not come round for so long

_MAX_THREADS = 8
_CONNECTION_S = 10.0  # from accept to close: whoever sends or reads more slowly is cut off
_REQUEST_BYTES = 128 << 10  # request line and headers; http.server alone admits 6.5 MB
_GATE_BYTES = 4 << 10  # what the gate says of a model is under 1 KiB
_PAGE = Path(__file__).with_name("static") / "index.html"


@dataclass(frozen=True, slots=True)
class StreamSnapshot:
    """What there is to say about one stream.

    Attributes
    ----------
    name : str
    state : str
        ``warming-up``, ``training``, ``scoring`` or ``stale``.
    rows, rows_needed : int
        Rows collected, and needed for the first model.
    eta_s : float or None
        Seconds until the warm-up is over; ``None`` when nobody can say.
    interval_s : float or None
        Of the grid; ``None`` until it is learned.
    score, threshold : float or None
    scores : tuple of float
        Recent scores, oldest first, for the sparkline; about 120.
    model_version : str or None
        Of its own model.
    starter : str or None
        The shipped model that scores it while it has none of its own, as ``shipped:host``.
    model_trained_at, last_timestamp : float or None
        Unix seconds.
    features : int
    missing : tuple of str
        Features masked from the score.
    causes : tuple of Cause
        Of the newest verdict, largest contribution first.
    training : str
        How far a training is; empty when none runs for this stream.
    """

    name: str
    state: str
    rows: int
    rows_needed: int
    eta_s: float | None = None
    interval_s: float | None = None
    score: float | None = None
    threshold: float | None = None
    scores: tuple[float, ...] = ()
    model_version: str | None = None
    starter: str | None = None
    model_trained_at: float | None = None
    last_timestamp: float | None = None
    features: int = 0
    missing: tuple[str, ...] = ()
    causes: tuple[Cause, ...] = ()
    training: str = ""


@dataclass(frozen=True, slots=True)
class HistorySnapshot:
    """Scores of one stream over the last hour, thinned.

    Attributes
    ----------
    stream : str
    end : float
        Of the newest bucket, Unix seconds by the stream's own clock.
    scores, thresholds : sequence of float
        Highest score and last threshold of each bucket, oldest first; NaN where no row was scored.
    """

    stream: str
    end: float
    scores: Sequence[float]
    thresholds: Sequence[float]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The daemon at one moment.

    Attributes
    ----------
    node, version : str
    started_at, now : float
        Unix seconds by the daemon's clock.
    mqtt_connected : bool
    mqtt_url : str
        Without user name and password.
    mqtt_error : str
        Why there is no connection; empty when there is one.
    queue_length : int
        Messages received and not yet scored.
    rss_bytes : int
    heartbeat_at : float
        Seconds of ``time.monotonic()`` when the scoring loop last came round.  A time and not an age: an old snapshot
        must look old.
    ready : bool
        Configuration and models are loaded; the broker does not matter.
    streams : tuple of StreamSnapshot
    alerts : tuple of mapping
        The newest event of each alert as it goes out by MQTT, active ones (``type`` is not ``end``) and recent ones,
        newest first.
    silences : tuple of mapping
        Those that count now, the first to end first.
    bucket_s : float
        Length of a bucket of `history`.
    history : tuple of HistorySnapshot
        Of the streams that have scores.
    trainings : tuple of mapping
        The newest training rounds, newest first: stream, version, outcome, what the gate found and what it took.
    models : mapping of str to mapping
        By stream the lineage of its own model in use.
    latency_s : sequence of float
        From receipt to score, of the last rows.
    """

    node: str
    version: str
    started_at: float
    now: float
    mqtt_connected: bool
    mqtt_url: str
    mqtt_error: str
    queue_length: int
    rss_bytes: int
    heartbeat_at: float
    ready: bool
    streams: tuple[StreamSnapshot, ...] = ()
    alerts: tuple[Mapping[str, Any], ...] = ()
    silences: tuple[Mapping[str, Any], ...] = ()
    bucket_s: float = 15.0
    history: tuple[HistorySnapshot, ...] = ()
    trainings: tuple[Mapping[str, Any], ...] = ()
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    latency_s: Sequence[float] = ()


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

    Attributes
    ----------
    port : int
    url : str

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

    def __init__(self, settings: HttpConfig, *, snapshot: Callable[[], Snapshot], registry: CollectorRegistry) -> None:
        host, port = settings.host, settings.port
        tls, guard = _Tls(settings) if settings.tls else None, _Guard(settings) if settings.guarded else None
        # A browser that was led here under another name has neither our certificate nor our password.
        names = None if settings.tls or settings.guarded else _Names(settings)
        try:
            self._server = _Server(host, port, snapshot, registry, tls, guard, names)
        except OSError as error:
            raise GonEdgeError(
                f"cannot serve HTTP on {host or '*'}:{port}: {error.strerror or error}; change http.listen"
            ) from error
        self.port = int(self._server.server_address[1])
        shown = host or "localhost"
        self.url = f"{'https' if settings.tls else 'http'}://{f'[{shown}]' if ':' in shown else shown}:{self.port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, name="gon-edge http", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port; answers under way are not waited for."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


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


class _Tls:
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
        self._refused = 0

    def knows(self, host: str) -> bool:
        """Whether a header ``Host`` is one of ours; a program that sends none is no browser."""
        name = re.sub(r"\.?(:\d*)?$", "", host.strip().lower())
        if _NOT_PUBLIC.fullmatch(name) or name in self._known:
            return True
        own = socket.gethostname().lower()  # now: it may come by DHCP
        return name in (own, own.partition(".")[0] + ".local")

    def refused(self, host: str) -> None:
        """Log the 1st, 2nd, 4th, 8th ... request that was refused."""
        with self._lock:
            self._refused += 1
            count = self._refused
        if count & (count - 1) == 0:
            log.warning(
                "HTTP: %d requests refused for their name, the last for %.100r; if that is this machine, add it to "
                "http.names",
                count,
                host,
            )


class _Guard:
    """Who may read: whoever shows the token, or user and password, and has not guessed too often."""

    def __init__(self, settings: HttpConfig) -> None:
        from hmac import compare_digest  # where a password is asked for

        self._same = compare_digest
        self._settings = settings
        self._files = _Files(settings.token_file, settings.password_file)
        self._files.changed()
        self._admitted = self._load()
        self._lock = threading.Lock()
        self._refused = 0
        self._paid_at = [0.0] * _PLACES  # monotonic seconds when all guesses of a place are forgotten
        self._newest = [b""] * _PLACES
        self.challenge = 'Basic realm="gon-edge", charset="UTF-8"' if settings.username is not None else "Bearer"

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
        return max(0.0, self._paid_at[_place(address)] - time.monotonic() - (_GUESSES - 1) * _GUESS_S)

    def guessed(self, address: str, authorization: str) -> None:
        """Enter a wrong password; the same again is no guess, but a program that was not told of a new one."""
        place, given = _place(address), _digest(authorization)
        with self._lock:
            if self._newest[place] != given:
                self._newest[place] = given
                self._paid_at[place] = max(self._paid_at[place], time.monotonic()) + _GUESS_S

    def refused(self, address: str) -> None:
        """Log the 1st, 2nd, 4th, 8th ... request that was refused."""
        with self._lock:
            self._refused += 1
            count = self._refused
        if count & (count - 1) == 0:
            log.warning("HTTP: %d requests refused for their token or password, the last from %s", count, address)

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


def _place(address: str) -> int:
    """Where guesses from this address are counted; of IPv6 from its network: one machine has a whole one."""
    network: str | bytes = address
    if ":" in address:
        packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
        network = packed[12:] if packed.startswith(bytes(10) + b"\xff\xff") else packed[:8]
    return hash(network) % _PLACES  # in another way by each process: nobody can choose whose place to share


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


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 32

    def __init__(
        self,
        host: str,
        port: int,
        snapshot: Callable[[], Snapshot],
        registry: CollectorRegistry,
        tls: _Tls | None,
        guard: _Guard | None,
        names: _Names | None,
    ) -> None:
        self.snapshot = snapshot
        self.registry = registry
        self.guard = guard
        self.names = names
        self._tls = tls
        self.page = _Page(_PAGE)
        self._slots = threading.BoundedSemaphore(_MAX_THREADS)
        self._open: dict[socket.socket, float] = {}
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's: it asks DNS for the name of the address, which takes seconds where there is no DNS.
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "localhost", self.server_address[1]

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        connection.settimeout(_CONNECTION_S)
        return (connection if self._tls is None else self._tls.wrap(connection)), address

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(timeout=1.0):
            with contextlib.suppress(OSError):
                request.settimeout(1.0)
                if self._tls is None:  # with TLS a handshake would come first, which is what there is no time for
                    request.sendall(b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n")
            self.shutdown_request(request)
            return
        self._open[request] = time.monotonic() + _CONNECTION_S
        threading.Thread(
            target=self.process_request_thread, args=(request, client_address), name="gon-edge http", daemon=True
        ).start()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            if self._tls is not None:
                request.do_handshake()
            super().process_request_thread(request, client_address)
        except OSError as error:  # of the handshake: all else is caught where it happens
            log.debug("no TLS with %s: %s", client_address, error)
            self.shutdown_request(request)
        finally:
            self._open.pop(request, None)
            self._slots.release()

    def service_actions(self) -> None:
        now = time.monotonic()
        for request, until in list(self._open.items()):
            if now > until:
                with contextlib.suppress(OSError):
                    # Not SSLSocket's own, which takes TLS away under the thread that is using it.
                    socket.socket.shutdown(request, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("HTTP connection from %s ended", client_address, exc_info=True)


class _Limited:
    """The reading side of a connection, up to a number of bytes."""

    def __init__(self, file: Any, limit_bytes: int) -> None:
        self._file = file
        self._left = limit_bytes

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self._file.readline(size)
        self._left -= len(line)
        if self._left < 0:
            raise http.client.LineTooLong("request")  # http.server answers 431
        return line

    def close(self) -> None:
        self._file.close()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "gon-edge"
    sys_version = ""
    timeout = _CONNECTION_S

    def setup(self) -> None:
        super().setup()
        self.rfile = _Limited(self.rfile, _REQUEST_BYTES)  # type: ignore[assignment]

    def do_GET(self) -> None:
        headers: dict[str, str] = {}
        try:
            path = urlsplit(self.path).path
            refused = None if path in OPEN_TO_ALL else self._refusal()
            if refused is not None:
                status, headers, text = refused
                content_type, body = "text/plain", text.encode()
            else:
                status, content_type, body = self._answer(path)
        except Exception:
            log.exception("no answer to %r", self.path)
            status, content_type, body = HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"internal error\n"
        self._send(status, content_type, body, headers)

    def _refusal(self) -> tuple[HTTPStatus, dict[str, str], str] | None:
        """Why this request gets no answer: status, headers and a line of text."""
        names, guard = self.server.names, self.server.guard
        if names is not None:
            hosts = self.headers.get_all("Host") or [""]
            if len(hosts) != 1 or not names.knows(hosts[0]):
                names.refused(hosts[-1])
                text = "gon-edge does not know this name; ask by address, or add the name to http.names\n"
                return HTTPStatus.MISDIRECTED_REQUEST, {}, text
        if guard is None:
            return None
        shown, address = self._authorization(), self.client_address[0]
        if not shown:  # a browser asks without one first
            return HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": guard.challenge}, "unauthorized\n"
        wait_s = guard.wait_s(address)
        if not wait_s and guard.admits(shown):
            return None
        guard.refused(address)
        if wait_s:
            text = "too many wrong passwords from this address\n"
            return HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": str(math.ceil(wait_s))}, text
        guard.guessed(address, shown)
        return HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": guard.challenge}, "unauthorized\n"

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

    def _authorization(self) -> str:
        shown = self.headers.get_all("Authorization") or []
        return shown[0] if len(shown) == 1 else ""

    def _answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        route = ROUTES.get(path)
        if route is None:
            return HTTPStatus.NOT_FOUND, "text/plain", b"not found\n"
        content_type, answer = route
        status, body = answer(self.server)
        return status, content_type, body

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


def _health(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    age_s = time.monotonic() - snapshot.heartbeat_at
    healthy = age_s < HEARTBEAT_LIMIT_S
    status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
    return status, {"healthy": healthy, "heartbeat_age_s": round(age_s, 3)}


def _readiness(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    status = HTTPStatus.OK if snapshot.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return status, {"ready": snapshot.ready}


def _streams(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    entries = [_plain(stream) for stream in snapshot.streams]
    return HTTPStatus.OK, {"streams": [{"stream": entry.pop("name"), **entry} for entry in entries]}


def _alerts(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    return HTTPStatus.OK, {"alerts": snapshot.alerts}


def _silences(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    return HTTPStatus.OK, {"silences": snapshot.silences}


def _history(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    return HTTPStatus.OK, {
        "bucket_s": snapshot.bucket_s,
        "streams": [_thinned(history) for history in snapshot.history],
    }


def _thinned(history: HistorySnapshot) -> dict[str, Any]:
    """From its first score on, in four digits; of the thresholds only where they change, as ``[index, value]``."""
    first = next((i for i, score in enumerate(history.scores) if score == score), len(history.scores))
    changes: list[tuple[int, float]] = []
    for i, threshold in enumerate(history.thresholds[first:]):
        if threshold == threshold and (not changes or changes[-1][1] != threshold):
            changes.append((i, threshold))
    return {
        "stream": history.stream,
        "end": history.end,
        "scores": [float(f"{score:.4g}") for score in history.scores[first:]],
        "thresholds": [[i, float(f"{threshold:.4g}")] for i, threshold in changes],
    }


def _trainings(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    return HTTPStatus.OK, {"trainings": snapshot.trainings}


def _models(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    # Chosen keys, and a bound: a model from elsewhere may have more to say of itself.
    keys = ("version", "parent", "trained_at", "rows", "since", "until")
    models = [
        {"stream": name, **{key: lineage.get(key) for key in keys}, "gate": _bounded(lineage.get("gate"))}
        for name, lineage in snapshot.models.items()
    ]
    return HTTPStatus.OK, {"models": models}


def _bounded(gate: object) -> object:
    with contextlib.suppress(RecursionError):
        return gate if len(_json(gate)) <= _GATE_BYTES else None
    return None


def _latency(seconds: Sequence[float]) -> dict[str, float | None]:
    ordered = sorted(seconds)
    return {
        name: round(ordered[int(share * (len(ordered) - 1))], 6) if ordered else None
        for name, share in (("median_s", 0.5), ("p95_s", 0.95))
    }


def _status(snapshot: Snapshot) -> tuple[HTTPStatus, object]:
    return HTTPStatus.OK, {
        "node": snapshot.node,
        "version": snapshot.version,
        "now": snapshot.now,
        "started_at": snapshot.started_at,
        "uptime_s": snapshot.now - snapshot.started_at,
        "ready": snapshot.ready,
        "heartbeat_age_s": round(time.monotonic() - snapshot.heartbeat_at, 3),
        "mqtt": {
            "connected": snapshot.mqtt_connected,
            "url": snapshot.mqtt_url,
            "error": snapshot.mqtt_error,
        },
        "queue_length": snapshot.queue_length,
        "rss_bytes": snapshot.rss_bytes,
        "latency": _latency(snapshot.latency_s),
    }


Route = tuple[str, Callable[[_Server], tuple[HTTPStatus, bytes]]]
"""Content type, and what makes the answer."""


def _of_snapshot(answer: Callable[[Snapshot], tuple[HTTPStatus, object]]) -> Route:
    def of_server(server: _Server) -> tuple[HTTPStatus, bytes]:
        status, value = answer(server.snapshot())
        return status, _json(value)

    return "application/json", of_server


ROUTES: Mapping[str, Route] = {
    "/": ("text/html; charset=utf-8", lambda server: (HTTPStatus.OK, server.page.body)),
    "/metrics": (
        "text/plain; version=0.0.4; charset=utf-8",
        lambda server: (HTTPStatus.OK, generate_latest(server.registry)),
    ),
    "/healthz": _of_snapshot(_health),
    "/readyz": _of_snapshot(_readiness),
    "/api/v1/streams": _of_snapshot(_streams),
    "/api/v1/alerts": _of_snapshot(_alerts),
    "/api/v1/silences": _of_snapshot(_silences),
    "/api/v1/history": _of_snapshot(_history),
    "/api/v1/trainings": _of_snapshot(_trainings),
    "/api/v1/models": _of_snapshot(_models),
    "/api/v1/status": _of_snapshot(_status),
}
"""Every path there is."""


def _json(value: object) -> bytes:
    return json.dumps(_plain(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _plain(value: Any) -> Any:
    """Return `value` as JSON knows it: dataclasses as objects; NaN and infinities, which it does not have, as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, StreamSnapshot | Cause):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value
