"""Whole files or nothing: atomic writes and digests."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hrvgan.errors import InputError


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path` (same suffix) to write to; renamed to `path`, synced, when the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync(temporary)
        temporary.chmod(0o644)  # mkstemp gives 0600; the file is meant to be shared.
        temporary.replace(path)
        sync(path.parent)  # A rename lasts only once its folder is on disk.
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A new empty folder beside `path`; it takes the place of `path` when the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    temporary.chmod(0o755)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                sync(file)
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
