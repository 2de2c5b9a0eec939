"""Kernels that earlier processes compiled, in the user's cache folder."""

import contextlib
import functools
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path

from hrvgan.files import atomic_path, user_cache


def folder() -> Path:
    return user_cache() / "kernels"


def name(write: Callable, *about: object) -> str:
    """Of a kernel: a digest of what `write` writes it for, and of the code by which it does."""
    folders = Path(inspect.getfile(write)).parent, Path(__file__).parent
    known = write.__module__, write.__qualname__, about, [sources(folder) for folder in folders]
    return f"{hashlib.sha256(repr(known).encode()).hexdigest()[:32]}.o"


@functools.cache
def sources(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def read(name: str) -> bytes | None:
    """The object code, if it is there and whole: it is going to be run."""
    try:
        whole = (folder() / name).read_bytes()
    except (OSError, RuntimeError):  # RuntimeError: a user without a home
        return None
    digest, code = whole[:32], whole[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def write(name: str, code: bytes) -> None:
    """Where that is not possible, the next process compiles again."""
    with contextlib.suppress(OSError, RuntimeError), atomic_path(folder() / name) as file:
        file.write_bytes(hashlib.sha256(code).digest() + code)
