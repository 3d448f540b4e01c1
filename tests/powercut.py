"""Ends a process at its n-th operation on a file, as a power cut would: the n-th write is half done."""

from __future__ import annotations

import os
import sys

_AUDITED = ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "os.link")


def after(operations: int) -> None:
    """Let this process do so many more operations; it ends at the next one, with status 9."""
    left = operations
    write, fsync = os.write, os.fsync

    def spend() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    def audited(event: str, arguments: tuple[object, ...]) -> None:
        if event in _AUDITED and spend():
            os._exit(9)

    def half(file: int, content: bytes) -> int:
        if spend():
            write(file, bytes(content)[: len(content) // 2])
            os._exit(9)
        return write(file, content)

    def flush(file: int) -> None:
        if spend():
            os._exit(9)
        fsync(file)

    os.write, os.fsync = half, flush
    sys.addaudithook(audited)
