"""One program at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from hrvgan.errors import InputError


@contextlib.contextmanager
def locked(path: str | Path, what: str) -> Iterator[None]:
    """Holds the lock file `path` for the time of the block. Raises InputError when another process does.

    The system lets go of it when its holder ends, however that comes about; the file stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            message = f"{what} is running already (process {owner}); wait for it or end that process"
            raise InputError(message) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
