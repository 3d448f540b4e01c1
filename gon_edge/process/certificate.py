"""When a certificate ends, read from its file.

Python's ``ssl`` gives no public way to look into a certificate that belongs to no connection, and a library that does
weighs more than the daemon may.  The four lines of DER that are needed are read here.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def first_certificate(pem: Path) -> bytes:
    """Return the first certificate of a PEM file, DER; in the file of a server that is its own.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It holds no certificate.
    """
    text = pem.read_text(encoding="ascii", errors="replace")
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
        if inside[0][0] == 0xA0:
            inside = inside[1:]
        tag, until = _der_items(inside[3][1])[1]
        written = until.decode("ascii")
        if tag == 0x17:  # UTCTime has two digits for the year, 50 and later are of the last century
            written = ("19" if int(written[:2]) >= 50 else "20") + written
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
        if length & 0x80:
            count = length & 0x7F
            length, at = int.from_bytes(der[at : at + count], "big"), at + count
        items.append((tag, der[at : at + length]))
        at += length
    return items
