"""When a certificate ends, read from its file.

Python's ``ssl`` has no public way to look into a certificate that belongs to no connection, and a library that has one
weighs more than the daemon may.  So the little DER that is needed is read here; whether the certificate is valid
otherwise is not looked at.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from gon_edge.process.files import read_regular

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"

_LARGEST_BYTES = 1 << 20  # not critical: a chain of certificates has kilobytes
_UTC_TIME = 0x17  # tag of DER, X.690
_VERSION = 0xA0  # context-specific tag [0], RFC 5280
_LONG_FORM, _COUNT = 0x80, 0x7F  # of a length, X.690 section 8.1.3
_LAST_CENTURY = 50  # RFC 5280, section 4.1.2.5.1: two digits from 50 on are 19xx


def first_certificate(pem: Path) -> bytes:
    """Return the first certificate of a PEM file, DER; in the file of a server that is its own.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It holds no certificate.
    """
    text = read_regular(pem, _LARGEST_BYTES).decode("ascii", errors="replace")
    if _BEGIN not in text or _END not in text:
        raise ValueError(f"{pem}: no certificate in PEM form")
    return ssl.PEM_cert_to_DER_cert(_BEGIN + text.split(_BEGIN, 1)[1].split(_END, 1)[0] + _END)


def certificate_expiry(pem: Path) -> float:
    """Return the Unix time at which the first certificate of a PEM file ends.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It holds no certificate.
    """
    try:
        # RFC 5280: Certificate { tbsCertificate { [0] version?, serial, algorithm, issuer, validity { from, until } ...
        inside = _der_items(_der_items(_der_items(first_certificate(pem))[0][1])[0][1])
        if inside[0][0] == _VERSION:
            inside = inside[1:]
        tag, until = _der_items(inside[3][1])[1]
        written = until.decode("ascii")
        if tag == _UTC_TIME:  # it has two digits for the year
            written = ("19" if int(written[:2]) >= _LAST_CENTURY else "20") + written
        return datetime.strptime(written, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except IndexError:
        raise ValueError(f"{pem}: a certificate that is cut off") from None


def _der_items(der: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each element in a piece of DER."""
    items, at = [], 0
    while at < len(der):
        if at + 2 > len(der):
            raise ValueError("a certificate that is cut off")
        tag, length, at = der[at], der[at + 1], at + 2
        if length & _LONG_FORM:
            count = length & _COUNT
            length, at = int.from_bytes(der[at : at + count], "big"), at + count
        items.append((tag, der[at : at + length]))
        at += length
    return items
