"""Where clips lie until their store is written: beside it, for one process at a time, kept when that is stopped."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hrvgan.errors import InputError


@contextlib.contextmanager
def workplace(store: Path, recipe: dict) -> Iterator[Path]:
    """A folder for the clips that are cut by `recipe`, with those of an earlier run that was stopped.

    It is removed when the block succeeds; clips of another recipe are at once. Raises InputError if another process
    is at work on the same store, or the folder cannot be made.
    """
    base = store.absolute().with_name(f".{store.name}.parts")
    with writing(base):
        base.mkdir(parents=True, exist_ok=True)
        with _lock(base, store):
            name = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
            for other in base.iterdir():
                if other.is_dir() and other.name != name:
                    shutil.rmtree(other)
            (base / name).mkdir(exist_ok=True)
            yield base / name
            shutil.rmtree(base)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """A disk that is full, or that must not be written to, becomes an InputError that says so."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or error
        raise InputError(
            f"{folder}: cannot be written ({cause}); make room and run it again, it goes on from here"
        ) from error


@contextlib.contextmanager
def _lock(base: Path, store: Path) -> Iterator[None]:
    with open(base / "lock", "a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it before may have removed the file between opening and locking.
            if os.stat(file.name).st_ino != os.fstat(file.fileno()).st_ino:
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError) as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise InputError(
                f"{store}: process {owner} is extracting to it; wait for it or end that process"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
