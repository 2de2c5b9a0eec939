"""Whole files or nothing: atomic writes and digests."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.lock import take


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path` (same suffix) to write to; renamed to `path`, synced, when the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path.parent, path.stem, path.suffix)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    temporary = Path(name)
    try:
        with _held(handle):
            yield temporary
            sync(temporary)
            temporary.chmod(0o644)  # mkstemp gives 0600; the file is meant to be shared.
            temporary.replace(path)
            sync(path.parent)  # A rename lasts only once its folder is on disk.
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A new empty folder beside `path`; it takes the place of `path` when the block succeeds. Where `path` is a link to
    a folder, beside and in place of that."""
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    temporary.chmod(0o755)
    try:
        with _held(os.open(temporary, os.O_RDONLY)):
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    sync(file)
            _swap(temporary, path)
            sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _put_back(path)


def recover(path: str | Path) -> None:
    """Puts the folder `path` back where it was, and removes what lies beside it, after a process was killed that was
    at work on it."""
    path = Path(os.path.realpath(path))
    _put_back(path)
    clear(path.parent, path.name)


def clear(folder: Path, stem: str, suffix: str = "") -> None:
    """Removes temporaries of `folder`/`stem``suffix` whose process was killed."""
    name = re.compile(rf"\.{re.escape(stem)}-[a-z0-9_]{{8}}{re.escape(suffix)}")  # as tempfile makes them
    for path in folder.iterdir() if folder.is_dir() else ():
        if name.fullmatch(path.name) and _is_free(path):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _swap(new: Path, path: Path) -> None:
    if path.is_dir():
        path.replace(_aside(path))  # Whatever happens from here on, `_put_back` finds the old one there.
    new.replace(path)


def _put_back(path: Path) -> None:
    """The old folder, where no new one has taken its place; else what is left of the old one goes."""
    aside = _aside(path)
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
    elif aside.exists():
        aside.replace(path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


@contextlib.contextmanager
def _held(handle: int) -> Iterator[None]:
    """Closes the handle of a temporary after the block; until then its lock says that somebody is at work on it."""
    try:
        with contextlib.suppress(OSError):  # Not every file system has locks.
            take(handle)
        yield
    finally:
        os.close(handle)


def _is_free(temporary: Path) -> bool:
    try:
        handle = os.open(temporary, os.O_RDONLY)
    except OSError:
        return False
    try:
        return take(handle)
    except OSError:
        return False
    finally:
        os.close(handle)


def sync(path: Path) -> None:
    """Returns when the content of a file, or of a folder, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    """Indented JSON; NaN and infinity are errors, because most readers refuse them."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def user_cache() -> Path:
    """The folder for what can be made again, of all projects of this user. Raises RuntimeError for a user without a
    home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hrvgan"


def file_digest(path: str | Path, algorithm: str = "sha256") -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def require_space(path: str | Path, needed: int) -> None:
    """Raises InputError if the disk that `path` is, or will be, on has fewer than `needed` bytes free."""
    folder = next(
        folder for folder in (Path(path).absolute(), *Path(path).absolute().parents) if folder.is_dir()
    )
    free = shutil.disk_usage(folder).free
    if needed > free:
        sizes = f"{needed / 1e9:,.2f} GB needed, {free / 1e9:,.2f} GB free"
        raise InputError(f"{path}: {sizes}; free some disk, or link the folder to another one")
