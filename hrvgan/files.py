"""Atomic writes, file locks, digests, and the record of a published file."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hrvgan.errors import InputError


@dataclass(frozen=True)
class PublishedFile:
    """Name, addresses and expected content of a file on the web; unknown values are empty."""

    name: str
    urls: tuple[str, ...]  # http or https, tried in this order
    size: int | None = None  # bytes
    sha256: str = ""  # hex; without it certificates are always verified
    licence: str = ""


@contextlib.contextmanager
def locked(path: str | Path, work: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` during the block; `work` names the work in messages.

    If another process holds the lock, raise InputError, or with `wait` report it on stderr and wait. The system
    releases the lock when its holder ends for any reason. The file stays unless the holder removes it.
    """
    import filelock  # 50 ms, which `hrvgan --help` need not wait for

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path, on_acquired=_write_pid)
    try:
        lock.acquire(timeout=0.1)  # more than one attempt: the previous holder may just have removed the file
    except filelock.Timeout:
        message = f"{work} is running already (process {_read_pid(path)})"
        if not wait:
            raise InputError(f"{message}; wait for it or end that process") from None
        sys.stderr.write(f"{message}; waiting\n")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _write_pid(handle: int) -> None:
    os.ftruncate(handle, 0)
    os.write(handle, str(os.getpid()).encode())


def _read_pid(path: Path) -> str:
    with contextlib.suppress(OSError):  # Windows does not let others read a locked file.
        return path.read_text(encoding="ascii").strip() or "unknown"
    return "unknown"


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` (same suffix); rename it to `path`, synced, when the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path.parent, path.stem, path.suffix)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    temporary = Path(name)
    try:
        with _in_use(handle):
            yield temporary
            sync(temporary)
            temporary.chmod(0o666 & ~_umask())  # mkstemp gives 0600.
            temporary.replace(path)
            sync(path.parent)  # A rename lasts only once its folder is on disk.
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new empty folder beside `path`; it replaces `path`, synced, when the block succeeds.

    If `path` is a link to a folder, the target is replaced and the link stays.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    mask = _umask()
    temporary.chmod(0o777 & ~mask)
    try:
        with _in_use(os.open(temporary, os.O_RDONLY)):
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    sync(file)
                    _share(file, mask)
            if path.is_dir():
                path.replace(_backup(path))  # From here on `_restore` finds the old folder, whatever happens.
            temporary.replace(path)
            sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _restore(path)


def _umask() -> int:
    """The user's umask, which the system tells only to those who set another one."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _share(file: Path, mask: int) -> None:
    """Give a new file the mode of the umask `mask`: safetensors writes with 0600. Links to other files stay."""
    if not file.is_symlink() and file.stat().st_nlink == 1:
        file.chmod(0o666 & ~mask)


def recover(path: str | Path) -> None:
    """Restore the folder `path` and delete its temporaries after a process that wrote it was killed."""
    path = Path(os.path.realpath(path))
    _restore(path)
    clear(path.parent, path.name)


def clear(folder: Path, stem: str, suffix: str = "") -> None:
    """Delete the temporaries of `folder`/`stem``suffix` whose process was killed."""
    name = re.compile(rf"\.{re.escape(stem)}-[a-z0-9_]{{8}}{re.escape(suffix)}")  # as tempfile makes them
    for path in folder.iterdir() if folder.is_dir() else ():
        if name.fullmatch(path.name) and _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _restore(path: Path) -> None:
    """Restore the backup if the swap did not finish; otherwise delete it."""
    backup = _backup(path)
    if path.exists():
        shutil.rmtree(backup, ignore_errors=True)
    elif backup.exists():
        backup.replace(path)


def _backup(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


@contextlib.contextmanager
def _in_use(handle: int) -> Iterator[None]:
    """Lock the open temporary `handle` during the block, which protects it from `clear`; then close it."""
    from filelock import lock_descriptor

    try:
        with contextlib.suppress(OSError):  # Not every file system has locks.
            lock_descriptor(handle, blocking=False)
        yield
    finally:
        os.close(handle)


def _is_abandoned(temporary: Path) -> bool:
    from filelock import lock_descriptor

    with contextlib.suppress(OSError):
        handle = os.open(temporary, os.O_RDONLY)
        try:
            return lock_descriptor(handle, blocking=False)
        finally:
            os.close(handle)
    return False


def sync(path: Path) -> None:
    """Return when the content of a file or folder is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    """Write indented JSON; NaN and infinity are errors, because most readers refuse them."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def user_cache() -> Path:
    """The user's cache folder, shared by all projects. Raises RuntimeError for a user without a home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hrvgan"


def file_digest(path: str | Path, algorithm: str = "sha256") -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def require_space(path: str | Path, needed: int) -> None:
    """Raise InputError if the disk of `path`, which need not exist yet, has fewer than `needed` bytes free."""
    path = Path(path).absolute()
    free = shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.is_dir())).free
    if needed > free:
        sizes = f"{needed / 1e9:,.2f} GB needed, {free / 1e9:,.2f} GB free"
        raise InputError(f"{path}: {sizes}; free some disk, or link the folder to another one")
