"""SHA-256 without OpenSSL gives what hashlib gives."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from gon_edge.process.digest import sha256


@pytest.mark.parametrize("length", [0, 1, 55, 56, 63, 64, 65, 1000])
def test_it_is_the_hash_of_hashlib(length: int) -> None:
    data = bytes(i % 251 for i in range(length))
    assert sha256(data).hexdigest() == hashlib.sha256(data).hexdigest()
    in_parts = sha256(data[: length // 3])
    in_parts.update(data[length // 3 :])
    assert in_parts.digest() == hashlib.sha256(data).digest()


def test_no_openssl_is_loaded_for_it() -> None:
    code = (
        "import sys; from gon_edge.process.digest import sha256; sha256(b'x').digest(); "
        "sys.exit('_hashlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
