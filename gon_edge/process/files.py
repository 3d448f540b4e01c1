"""Files that others may have put where ours are looked for, and whose ours are.

Only regular files are opened.  A pipe with a name would hold the reader until somebody writes, and a device may begin
to work by being opened.  What root makes in a folder of somebody else belongs to that one: a service whose models root
has imported must be able to replace them.
"""

from __future__ import annotations

import contextlib
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
        if os.fstat(file.fileno()).st_size <= most:
            content = file.read()  # not of `most` bytes: a buffer of that size would be made first
            if len(content) <= most:
                return content
    raise OSError(errno.EFBIG, f"larger than {most} bytes", str(path))


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are missing; each is its parent's owner's.  Raises OSError."""
    for folder in (*reversed(path.parents), path):
        if folder.is_dir():
            continue
        try:
            folder.mkdir()
        except FileExistsError:  # another process may have been quicker
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
        adopt(folder)


def make_file(path: Path) -> None:
    """Make an empty file where there is none, its folder's owner's.  Raises OSError."""
    with contextlib.suppress(FileExistsError):  # O_EXCL never follows a link that another user has put there
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    adopt(path)


def adopt(path: Path) -> None:
    """Give what root has made to the owner of the folder it is in.  Nothing happens where this process is not root."""
    if os.geteuid() == 0 and path.lstat().st_uid == 0:
        folder = path.parent.stat()
        give(path, folder.st_uid, folder.st_gid)


def give(path: Path, user: int, group: int) -> bool:
    """Make `path` a user's; return whether it was another's.  Needs root; raises OSError.

    A link, and a file that has another name elsewhere, stays whose it is: whoever may write to the folder could have
    put it there to be given a file of root.
    """
    status = path.lstat()
    single = stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and status.st_nlink == 1)
    if status.st_uid == user or not single:
        return False
    os.chown(path, user, group, follow_symlinks=False)
    return True
