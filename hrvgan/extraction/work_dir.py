"""Where clips lie until their store is written: beside it, for one process at a time, kept when that is stopped."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.lock import locked


@contextlib.contextmanager
def workplace(store: Path, recipe: dict) -> Iterator[Path]:
    """A folder for the clips that are cut by `recipe`, with those of an earlier run that was stopped.

    It is removed when the block succeeds; clips of another recipe are at once. Raises InputError if another process
    is at work on the same store, or the folder cannot be made.
    """
    base = store.absolute().with_name(f".{store.name}.parts")
    with contextlib.ExitStack() as stack:
        with writing(base):
            stack.enter_context(locked(base / "lock", f"extraction to {store}"))
            name = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
            for other in base.iterdir():
                if other.is_dir() and other.name != name:
                    shutil.rmtree(other)
            (base / name).mkdir(exist_ok=True)
        yield base / name
        with writing(base):
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
