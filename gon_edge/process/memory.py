"""How the daemon stays small: what it does not load, how it takes memory and gives it back, and how much it holds.

The figures are resident memory on x86-64 with Python 3.11 and glibc.  A library that the daemon begins to use may need
a line in `_UNUSED`; a test shows which modules it brings.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

_UNUSED: Mapping[str, tuple[str, ...]] = {
    # 4.3 MiB.  The names stand in signatures of prometheus_client.exposition, of functions that nobody calls here.
    "ssl": ("SSLContext", "TLSVersion", "PROTOCOL_TLS_SERVER", "PROTOCOL_TLS_CLIENT"),
    "hashlib": (),  # loads libcrypto as well; paho hashes for WebSockets, urllib for passwords
    # 0.4 MiB, for pushing to a gateway, which nobody does here.
    "urllib.request": (
        "BaseHandler",
        "build_opener",
        "HTTPHandler",
        "HTTPRedirectHandler",
        "HTTPSHandler",
        "Request",
    ),
    "urllib.error": ("HTTPError",),  # of the same, and with it tempfile
    "wsgiref.simple_server": ("make_server", "WSGIRequestHandler", "WSGIServer"),  # another web server than ours
    # 0.4 MiB.  inspect, which dataclasses asks for signatures, needs it for the source text of classes alone.
    "ast": ("NodeVisitor",),
    "gzip": (),  # prometheus_client, in its own web server
    "calendar": (),  # email, for the dates of mails
    "locale": (),  # 0.4 MiB.  calendar, and subprocess for text in it
    "mimetypes": (),  # http.server, for files
    "uuid": (),  # paho, for a client identifier; we have one
    "html": (),  # http.server, for pages that are not asked of it
    "bz2": (),  # shutil, which argparse asks for the width of the terminal, and zipfile
    "lzma": (),
    "pickle": (),  # numpy
    "numpy.random": (),  # of numpy 1, which is Debian 12's; 2 waits by itself.  Loads libcrypto, too.
    "numpy.ma": (),
    "numpy.polynomial": (),
    "numpy.fft": (),
    "numpy.ctypeslib": (),
}
"""Modules that libraries of the daemon import at their top and use on ways that it does not take, each with the names
that they look up while they are being imported."""

_DONE_WITH = ("locale",)
"""Modules that the command line has used by now, and nobody holds: argparse translates its words."""

PROC = Path("/proc")

_NOT_RAISED: Mapping[str, tuple[str, ...]] = {"ssl": ("SSLWantReadError", "SSLWantWriteError")}
"""Exceptions that paho asks for whenever a socket has nothing to read.  What is not loaded raises nothing, so until
then ``except`` is told to catch nothing."""

_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3  # of <malloc.h>
_MAPPED_BYTES = 64 << 10  # half of glibc's own: blocks of messages and buffers of rows are larger


class _Deferred(ModuleType):
    """Stands for a module in the libraries that have imported it: what is asked of it is asked of the real one."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system wants to know of any module
            raise AttributeError(name)
        if name in _NOT_RAISED.get(self.__name__, ()) and sys.modules.get(self.__name__, self) is self:
            return ()
        if sys.modules.get(self.__name__) is self:  # used while the imports still run
            del sys.modules[self.__name__]
        return getattr(import_module(self.__name__), name)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Have libraries imported here load OpenSSL and a few other modules when they first use them.

    A library that does use one, because the configuration asks for TLS or because something unusual happens, finds the
    whole real module behind the name at that moment.  An import after this block gets the real module at once.

    Examples
    --------
    >>> with deferred():
    ...     import http.client
    """
    for name in _DONE_WITH:
        sys.modules.pop(name, None)
    standing = {name: _Deferred(name) for name in _UNUSED if name not in sys.modules}
    for name, module in standing.items():
        vars(module).update(dict.fromkeys(_UNUSED[name], object))
        sys.modules[name] = module
    try:
        yield
    finally:
        for name, module in standing.items():
            for placeholder in _UNUSED[name]:
                del vars(module)[placeholder]
            if sys.modules.get(name) is module:
                del sys.modules[name]


def keep_what_is_loaded() -> None:
    """Take modules, classes and functions out of garbage collection: they stay until the end.

    A full collection, of which :func:`return_memory` makes one every few seconds, stopped the scoring for 11 to 25 ms
    with them, and for 0.4 ms without.
    """
    gc.collect()
    gc.freeze()


def tame_malloc() -> None:
    """Let all threads share one heap, and large blocks leave it when they are freed.

    By default each thread gets a heap of its own, and glibc raises the size from which blocks are mapped by themselves
    up to 32 MiB: a packed chunk of rows, freed, leaves a hole that nothing else fits.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # a libc that is not glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def return_memory() -> None:
    """Give freed memory back to the system, which glibc keeps otherwise: 1.3 MiB after the start."""
    import ctypes

    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def rss_bytes(pid: int | None = None, *, proc: Path = PROC) -> int:
    """Return the resident memory (RSS) of a process, pages shared with others counted in full.

    Parameters
    ----------
    pid : int, optional
        Default: this process.
    proc : Path
        Where procfs is mounted.

    Returns
    -------
    int
        Bytes; 0 when the process is gone or the system does not say.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = int((proc / _name(pid) / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")  # a Raspberry Pi 5 has pages of 16 KiB
    return 0


def pss_bytes(pid: int | None = None, *, proc: Path = PROC) -> int:
    """Return the proportional memory (PSS) of a process: a page shared by n processes counts 1/n.

    PSS is never more than RSS.  The kernel walks every page for it and holds a lock of that process meanwhile, so ask
    for :func:`rss_bytes` first.

    Parameters
    ----------
    pid : int, optional
        Default: this process.
    proc : Path
        Where procfs is mounted.

    Returns
    -------
    int
        Bytes; 0 when the process is gone, is not ours, or the system does not say.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (proc / _name(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024  # proc(5): always in kB
    return 0


def installed_bytes(*, proc: Path = PROC) -> int:
    """Memory of this machine, bytes; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (proc / "meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    return 0


def allowed_bytes(*, proc: Path = PROC, groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What this process and those beside it in its control groups may use together, bytes; ``None`` for no limit.

    The least of ``memory.high`` and ``memory.max`` of its group and of those around it (cgroup v2).  A container sees
    its own group as the root.

    Parameters
    ----------
    proc, groups : Path
        Where procfs and the control groups are mounted.
    """
    limits: list[int] = []
    with contextlib.suppress(OSError):
        named = next((n for n in (proc / "self" / "cgroup").read_text().splitlines() if n.startswith("0::")), "0::/")
        group = groups / named.removeprefix("0::").lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(groups):
                break
            for name in ("memory.high", "memory.max"):
                with contextlib.suppress(OSError, ValueError):  # there is none in the root, or it says "max"
                    limits.append(int((folder / name).read_text()))
    return min(limits, default=None)


def _name(pid: int | None) -> str:
    return "self" if pid is None else str(pid)
