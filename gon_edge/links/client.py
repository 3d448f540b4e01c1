"""Asks a running daemon over HTTP, for ``gon-edge status``, ``top``, the doctor and the demonstration.

The reading side of ``web``: it knows the paths there, and the names of the fields it shows.
"""

from __future__ import annotations

import base64
import http.client
import json
import math
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

from gon_edge.config.schema import Config
from gon_edge.errors import ConfigError, UnreachableError
from gon_edge.process.certificate import first_certificate

_LARGEST_ANSWER = 16 << 20  # not critical: a hundred streams with 120 scores each are 190 KiB


class DaemonApi:
    """The HTTP port of a daemon.

    Parameters
    ----------
    url : str
        Such as ``http://127.0.0.1:9109``.
    timeout_s : float
        For each answer.
    authorization : str, optional
        Header that opens a guarded port; see :func:`bearer` and :func:`basic`.
    tls : ssl.SSLContext, optional
        For ``https://``; by default the authorities of the system are trusted.

    Raises
    ------
    UnreachableError
        From every method: nothing answers there, or something else than a gon-edge.
    """

    def __init__(
        self,
        url: str,
        timeout_s: float = 5.0,
        *,
        authorization: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._authorization = authorization
        # No proxy: the daemon is on this machine or this network.
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if tls is not None:
            handlers.append(urllib.request.HTTPSHandler(context=tls))
        self._opener = urllib.request.build_opener(*handlers)

    def status(self) -> dict[str, Any]:
        """Return what ``/api/v1/status`` says, with ``streams``, ``alerts`` and ``silences``."""
        status = self._json("/api/v1/status")
        status["silences"] = self._json("/api/v1/silences")["silences"]
        status["streams"] = self._json("/api/v1/streams")["streams"]
        status["alerts"] = self._json("/api/v1/alerts")["alerts"]
        return status

    def trainings(self) -> list[dict[str, Any]]:
        """Return what ``/api/v1/trainings`` says: the newest ones, newest first."""
        trainings: list[dict[str, Any]] = self._json("/api/v1/trainings")["trainings"]
        return trainings

    def readings(self, stream: str) -> dict[str, Any]:
        """Return what ``/api/v1/readings`` says of a stream that has rows."""
        return self._json(f"/api/v1/readings?{urllib.parse.urlencode({'stream': stream})}")

    def metrics(self) -> str:
        """Return the Prometheus page."""
        return self._get("/metrics").decode(errors="replace")

    def _json(self, path: str) -> dict[str, Any]:
        try:
            answer = json.loads(self._get(path))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise UnreachableError(f"{self.url} is not a gon-edge; name the port of http.listen with --url")
        return answer

    def _get(self, path: str) -> bytes:
        try:
            request = urllib.request.Request(self.url + path)  # noqa: S310  the user named it
            if self._authorization is not None:
                request.add_unredirected_header("Authorization", self._authorization)
            with self._opener.open(request, timeout=self._timeout_s) as response:
                body: bytes = response.read(_LARGEST_ANSWER)
                return body
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.UNAUTHORIZED:
                wrong = "refuses this token or password" if self._authorization else "asks for a token or password"
                raise UnreachableError(
                    f"{self.url} {wrong}; name the daemon's configuration with --config, or see --token-file and "
                    "--username"
                ) from None
            if error.code == http.HTTPStatus.MISDIRECTED_REQUEST:
                raise UnreachableError(
                    f"{self.url} does not answer to this name; use its IP address, or add the name to http.names there"
                ) from None
            if error.code == http.HTTPStatus.TOO_MANY_REQUESTS:
                raise UnreachableError(
                    f"{self.url} has had too many wrong passwords from this address; wait "
                    f"{error.headers.get('Retry-After', '60')} s, and set right what sends them"
                ) from None
            raise UnreachableError(
                f"{self.url}{path} answers {error.code}; name the port of http.listen with --url"
            ) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            text = getattr(reason, "strerror", None) or str(reason)
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise UnreachableError(
                    f"{self.url}: the certificate is not valid: {reason.verify_message}; name its authority with "
                    "--ca-file, or the daemon's configuration with --config"
                ) from None
            if isinstance(reason, http.client.RemoteDisconnected | ConnectionResetError):
                text = "it hangs up; with http.cert_file the URL begins with https"
            raise UnreachableError(f"no gon-edge at {self.url}: {text}; is it running, and is --url right?") from None


def bearer(token: str) -> str:
    """Return the header that shows a token (RFC 6750)."""
    return f"Bearer {token}"


def basic(username: str, password: str) -> str:
    """Return the header that shows user and password (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def daemon_api(config: Config) -> DaemonApi:
    """The daemon with this configuration, asked from this machine.

    With TLS exactly the certificate of the configuration is accepted, whatever name it is for: it seldom is for the
    loopback address.

    Raises
    ------
    UnreachableError
        ``http.listen`` is off.
    ConfigError
        Token, password or certificate cannot be read.
    """
    settings = config.http
    authorization, tls = None, None
    token, password = settings.secrets()
    if token is not None:
        authorization = bearer(token)
    elif settings.username is not None and password is not None:
        authorization = basic(settings.username, password)
    if settings.cert_file is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname = False
        tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        try:
            tls.load_verify_locations(cadata=first_certificate(settings.cert_file))
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot be used for TLS: {error}", key="http.cert_file") from None
    return DaemonApi(daemon_url(config), authorization=authorization, tls=tls)


def daemon_url(config: Config) -> str:
    """Where a daemon with this configuration answers on this machine.

    Raises
    ------
    UnreachableError
        ``http.listen`` is off.
    """
    if not config.http.enabled:
        raise UnreachableError("http.listen is off: nobody can ask this daemon; set it to 127.0.0.1:9109")
    host = config.http.host
    if host in ("", "0.0.0.0", "::"):  # noqa: S104  compared, not listened on
        host = "127.0.0.1"
    scheme = "https" if config.http.tls else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{config.http.port}"


def histogram_buckets(metrics: str, name: str) -> dict[float, float]:
    """Return the cumulative counts of a histogram on a Prometheus page by upper bound; empty when it is not there."""
    pattern = re.compile(rf'^{re.escape(name)}_bucket\{{le="([^"]+)"\}} (\S+)$', re.MULTILINE)
    return {float(bound): float(count) for bound, count in pattern.findall(metrics)}


def histogram_quantile(buckets: Mapping[float, float], quantile: float) -> float | None:
    """Return a quantile of a histogram as Prometheus estimates it; ``None`` when nothing was counted.

    Parameters
    ----------
    buckets : mapping of float to float
        Cumulative counts by upper bound, ``inf`` included.
    quantile : float
        0 to 1.

    Examples
    --------
    >>> histogram_quantile({1.0: 90, 3.0: 100, math.inf: 100}, 0.95)
    2.0
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0.0:
        return None
    rank = quantile * total
    below, lower = 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= rank and count > below:
            return lower if math.isinf(bound) else lower + (bound - lower) * (rank - below) / (count - below)
        below, lower = count, bound
    return lower
