"""TLS to a broker: certificates and keys of the configuration, whose certificate is expected, and what went wrong.

`ssl` is 4 MiB, and loaded only where TLS is configured.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from gon_edge.errors import ConfigError
from gon_edge.links.mqtt.lost import Lost
from gon_edge.process.files import require_regular

if TYPE_CHECKING:
    import ssl

    from gon_edge.config.schema import MqttConfig

_WRONG_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH, openssl/x509_vfy.h
_NAMES_SHOWN = 10  # not critical: a certificate of a hosting service may have hundreds
_ASK_S = 5.0  # not critical: the broker has just answered


def tls_context(settings: MqttConfig) -> ssl.SSLContext | None:
    """Return a fresh context, so that renewed certificates count from the next connection on; ``None`` without TLS.

    Raises
    ------
    ConfigError
        When a certificate or key cannot be used.
    """
    if not settings.tls:
        return None
    import ssl  # where it is used

    key, file = "mqtt.ca_file", settings.ca_file
    try:
        if file is not None:
            require_regular(file)
        context = ssl.create_default_context(cafile=file)
        if settings.cert_file is not None:
            key, file = "mqtt.cert_file", settings.cert_file
            for pem in (settings.cert_file, settings.key_file or settings.cert_file):
                require_regular(pem)
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be used for TLS: {error}", key=key) from error
    return context


def tls_loss(error: Exception | None, settings: MqttConfig) -> Lost | None:
    """What an error of TLS says; ``None`` for any other, and where there is no TLS."""
    if not settings.tls:
        return None
    import ssl

    if not isinstance(error, ssl.SSLError):
        return None
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"the broker's certificate is not valid: {error.verify_message.rstrip('.')}"
        if error.verify_code in _WRONG_NAME and (names := _names(settings)):
            text += f"; it is for {names}: write one of these as mqtt.server_name, or in mqtt.url"
        return Lost("auth", text, concerns="certificate")
    reason = error.reason or str(error)
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:  # alerts of the broker about ours
        return Lost("auth", f"the broker refuses our certificate: {reason}", concerns="tls")
    return Lost("protocol", f"TLS failed: {reason}", concerns="tls")


def _names(settings: MqttConfig) -> str:
    """The names in the broker's certificate, which a trusted authority has signed; asked for by one more handshake."""
    names: list[str] = []
    with contextlib.suppress(OSError, ConfigError):
        context = tls_context(settings)
        assert context is not None
        context.check_hostname = False  # nothing is sent over it
        with (
            socket.create_connection((settings.host, settings.port), timeout=_ASK_S) as plain,
            context.wrap_socket(plain, server_hostname=settings.server_name or settings.host) as channel,
        ):
            names = certificate_names(channel.getpeercert() or {})
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more


def certificate_names(certificate: dict[str, Any]) -> list[str]:
    """Return names and addresses of a certificate, as ``ssl`` shows it; those of its subject where it has no others.

    Examples
    --------
    >>> certificate_names({"subjectAltName": (("DNS", "broker.home"), ("IP Address", "192.168.1.10"))})
    ['broker.home', '192.168.1.10']
    """
    alternative = [str(value) for _, value in certificate.get("subjectAltName", ())]
    subject = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return alternative or subject
