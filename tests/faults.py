"""Has the n-th system call that writes fail in a process, once, with an error of our choice.

The kernel does it: a filter (seccomp) hands each such call of the process and its children to this one, which lets it
go on or answers with the error.  So SQLite, which calls the kernel itself, is under it like everything else.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import platform
import select
import socket
import struct
import traceback
from collections.abc import Callable

import pytest

# Numbers of system calls: asm/unistd_64.h of x86-64, asm-generic/unistd.h of arm64.
_CALLS = {
    "x86_64": {
        "seccomp": 317,
        "openat": 257,
        "writes": {
            "write": 1,
            "pwrite64": 18,
            "writev": 20,
            "fsync": 74,
            "fdatasync": 75,
            "ftruncate": 77,
            "rename": 82,
            "mkdir": 83,
            "unlink": 87,
            "unlinkat": 263,
            "renameat": 264,
            "fallocate": 285,
            "renameat2": 316,
        },
    },
    "aarch64": {
        "seccomp": 277,
        "openat": 56,
        "writes": {
            "write": 64,
            "pwrite64": 68,
            "writev": 66,
            "fsync": 82,
            "fdatasync": 83,
            "ftruncate": 46,
            "mkdirat": 34,
            "unlinkat": 35,
            "renameat": 38,
            "fallocate": 47,
            "renameat2": 276,
        },
    },
}
_NO_NEW_PRIVILEGES, _SET_FILTER, _NEW_LISTENER = 38, 1, 8
_NOTIFY, _ALLOW, _CONTINUE = 0x7FC00000, 0x7FFF0000, 1
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_LOAD, _EQUAL, _HAS, _RETURN = 0x20, 0x15, 0x45, 0x06  # of the classic BPF machine
_NUMBER, _THIRD_ARGUMENT = 0, 32  # offsets in struct seccomp_data
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_REQUEST_BYTES = 80


def fail_at(nth: int, error: int, work: Callable[[], None]) -> tuple[int, str]:
    """Do the work in a process of its own whose n-th call that writes fails.

    Parameters
    ----------
    nth : int
        From 1.
    error : int
        As in `errno`.
    work : callable
        What it raises is told.

    Returns
    -------
    calls : int
        How many calls were seen; fewer than `nth` when none failed.
    trace : str
        Of what the work raised; empty when nothing.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    child = os.fork()
    if child == 0:
        ours.close()
        told = ""
        try:
            socket.send_fds(theirs, [b"f"], [_listener()])
            work()
        except BaseException:  # told to the other side
            told = traceback.format_exc()
        theirs.sendall(told.encode())
        os._exit(0)
    theirs.close()
    try:
        first, found, _, _ = socket.recv_fds(ours, 65536, 1)
        if not found:
            pytest.skip(f"the kernel takes no filter here: {first.decode()[-200:]}")
        return _supervise(found[0], ours, nth, error)
    finally:
        ours.close()
        os.waitpid(child, 0)


def _supervise(listener: int, ours: socket.socket, nth: int, error: int) -> tuple[int, str]:
    """Answer each call until the process has told how it ended."""
    calls, told = 0, b""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(ours, select.POLLIN | select.POLLHUP)
    try:
        while True:
            for file, _ in poll.poll(60_000):
                if file == listener:
                    calls += _answer(listener, lambda at: error if at == nth else 0, calls + 1)
                elif part := ours.recv(65536):
                    told += part
                else:
                    return calls, told.decode()
    finally:
        os.close(listener)


def _answer(listener: int, verdict: Callable[[int], int], at: int) -> int:
    request = array.array("b", bytes(_REQUEST_BYTES))
    try:
        fcntl.ioctl(listener, _RECEIVE, request, True)
        (call,) = struct.unpack_from("=Q", request)
        refused = verdict(at)
        answer = array.array("b", struct.pack("=QqiI", call, 0, -refused, 0 if refused else _CONTINUE))
        fcntl.ioctl(listener, _SEND, answer, True)
    except OSError:  # whoever called has gone
        return 0
    return 1


def _listener() -> int:
    """Put the filter on this process; return the file by which its calls are answered."""
    if platform.machine() not in _CALLS:
        raise OSError(f"numbers of system calls are unknown for {platform.machine()}")
    calls = _CALLS[platform.machine()]
    writes = list(calls["writes"].values())
    program = [(_LOAD, 0, 0, _NUMBER)]
    # Each is "equal: jump to notify, which is behind the rest of these, the test of openat (3) and allow (1)".
    program += [(_EQUAL, len(writes) - i + 3, 0, number) for i, number in enumerate(writes)]
    program += [
        (_EQUAL, 0, 2, calls["openat"]),
        (_LOAD, 0, 0, _THIRD_ARGUMENT),
        (_HAS, 1, 0, _WRITES),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _NOTIFY),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    filter_ = struct.pack("@HP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    listener = libc.syscall(calls["seccomp"], _SET_FILTER, _NEW_LISTENER, filter_)
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(listener)
