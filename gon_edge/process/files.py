"""Files that others may have put where ours are looked for.

Only regular files are opened.  A pipe with a name would hold the reader until somebody writes, and a device may begin
to work by being opened.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path


def require_regular(path: Path | str) -> None:
    """Raise what opening it would raise, and ``OSError`` (EINVAL) where `path` is a folder, pipe, socket or device."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def open_regular(path: Path | str) -> io.BufferedReader:
    """Open a regular file for reading bytes; never waits for somebody to write.

    Raises
    ------
    OSError
        It cannot be read, or is a folder, pipe, socket or device.
    """
    require_regular(path)
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # replaced since the look at it
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def read_regular(path: Path | str, most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Raises
    ------
    OSError
        As `open_regular`; EFBIG where it is larger.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most} bytes", str(path))
    return content
