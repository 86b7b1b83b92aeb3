"""A folder that one process at a time works in."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contar._errors import bad

LOCK = ".contar-lock"
_HELD: set[int] = set()
_WITHOUT = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # file systems that know no locks


def _close_in_child() -> None:
    """Close the locks in a forked process, which would otherwise hold them after the first."""
    while _HELD:
        os.close(_HELD.pop())


os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if need be.

    The lock is the operating system's: it ends with the process, however that ends.

    Raises:
        ValueError: another process, or another call in this one, holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = _acquire(folder)
    _HELD.add(handle)
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        if handle in _HELD:
            (folder / LOCK).unlink(missing_ok=True)
            _HELD.discard(handle)
            os.close(handle)


def _acquire(folder: Path) -> int:
    file = folder / LOCK
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _WITHOUT:
                return handle
            holder = os.pread(handle, 200, 0).decode(errors="replace")
            os.close(handle)
            if not isinstance(error, BlockingIOError):
                raise
            got = f"{folder}, in which another run goes on ({holder})"
            allowed = "a folder in which none does: wait for that one, or end it"
            raise bad("out", got, allowed) from None
        try:
            if os.path.samestat(os.fstat(handle), os.stat(file)):
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)  # of a file that was let go of in between
