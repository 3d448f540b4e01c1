"""When a certificate ends."""

from __future__ import annotations

import ssl
import subprocess

import pytest
from e2e.servers import require

from gon_edge.process.certificate import certificate_expiry


@pytest.mark.parametrize("days", [1, 800, 9000])
def test_the_end_of_a_certificate_is_read_as_openssl_reads_it(tmp_path, days):
    # 9000 days from now the year has four digits (GeneralizedTime from 2050 on).
    openssl = require("openssl")
    pem = tmp_path / "c.pem"
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=x",
    ]
    command += ["-days", str(days), "-keyout", str(tmp_path / "k.pem"), "-out", str(pem)]
    subprocess.run(command, check=True, capture_output=True)
    shown = subprocess.run([openssl, "x509", "-noout", "-enddate", "-in", pem], capture_output=True, text=True).stdout
    assert certificate_expiry(pem) == ssl.cert_time_to_seconds(shown.strip().removeprefix("notAfter="))


@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "\x00" * 99])
def test_what_is_no_certificate_is_said_to_be_none(tmp_path, content):
    pem = tmp_path / "c.pem"
    pem.write_text(content)
    with pytest.raises(ValueError):
        certificate_expiry(pem)
