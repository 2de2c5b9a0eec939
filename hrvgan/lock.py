"""One program at a time."""

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from hrvgan.errors import InputError


@contextlib.contextmanager
def locked(path: str | Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock file `path` for the time of the block. When another process does, waits for it with `wait`, and
    says so; else raises InputError.

    The system lets go of it when its holder ends, however that comes about; the file stays, unless the holder removes
    it.
    """
    path = Path(path)
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+", encoding="ascii") as file:
            if not take(file.fileno()):
                file.seek(0)
                said = f"{what} is running already (process {file.read().strip() or 'unknown'})"
                if not wait:
                    raise InputError(f"{said}; wait for it or end that process")
                sys.stderr.write(f"{said}; waiting\n")
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file.fileno(), path):
                continue  # Who held it before has removed the file since it was opened here.
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield
            return


def take(handle: int) -> bool:
    """Whether this process now holds the lock of an open file or folder, until it closes it or ends."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
