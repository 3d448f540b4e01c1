"""SHA-256 without OpenSSL: ``sha256`` of :mod:`hashlib`, from another place.

``hashlib`` loads libcrypto, which is 3.5 MiB of resident memory.  Python has an implementation of its own beside it,
under a name that changes from version to version; ``random`` of the standard library takes its hash from there for the
same reason.

>>> sha256(b"abc").hexdigest()[:16]
'ba7816bf8f01cfea'
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

__all__ = ["sha256"]

if TYPE_CHECKING:
    from hashlib import sha256
else:
    for _name in ("_sha256", "_sha2", "hashlib"):  # Python 3.11; from 3.12 on; one built without its own
        with suppress(ImportError):
            sha256 = import_module(_name).sha256
            break
