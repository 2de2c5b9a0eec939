"""Safe unpacking of untrusted archives: no path outside the target, no unbounded output.

Every member is read and written here, under a checked name; no library or tool extracts to disk by itself. Links and
devices are refused.
"""

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from hrvgan.errors import InputError
from hrvgan.files import require_space
from hrvgan.progress import bar

CHUNK = 1 << 20
MAX_HEADER = 1 << 20  # bytes of a tar's extended header
EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK)  # fmt: skip
# Exceptions of the standard library for files that are not valid archives.
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError,
          RuntimeError, ValueError, LookupError, OverflowError)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """File in an archive. `open` returns its bytes; members of tar and rar are read in their order."""

    name: str
    size: int  # bytes, as declared
    kind: str  # "file", or the type that is refused
    open: Callable[[], BinaryIO]


def unpack(
    archive: Path,
    out: Path,
    *,
    max_bytes: int,
    max_members: int = 100_000,
    target_path: Callable[[str], str | None] = lambda name: name,
) -> list[Path]:
    """Unpack a zip, tar, tar.{gz,bz2,xz} or rar into the folder `out`; return the paths of the files.

    `target_path` maps a member's name to its path below `out`; None skips it. Existing files are not overwritten.
    Raises InputError, with archive and member, for a member outside of `out` (absolute, `..`), a link or device, a
    duplicate name; for more than `max_members` members or `max_bytes`, declared or actual; for a broken archive, and a
    disk too small. Of a zip or rar nothing is written then, of a tar the members before.
    """
    guard, written = Guard(archive, max_bytes, max_members), []
    with readable(archive), _open(archive) as members:
        checked = map(guard.check, members)
        if isinstance(members, list):
            checked = list(checked)
            require_space(out, guard.total)
        for member in bar(checked, f"unpack {archive.name}", unit="file"):
            if (name := target_path(member.name)) is not None:
                written.append(write(member, out / inside(name, archive), archive))
    return written


class Guard:
    """Checks each member: name, type, and the running totals of members and declared bytes."""

    def __init__(self, archive: Path, max_bytes: int, max_members: int):
        self.archive, self.max_bytes, self.max_members = archive, max_bytes, max_members
        self.count = self.total = 0

    def check(self, member: Member) -> Member:
        self.count, self.total = self.count + 1, self.total + member.size
        if self.count > self.max_members or self.total > self.max_bytes or member.size < 0:
            limits = f"more than {self.max_members:,} files or {self.max_bytes:,} bytes"
            raise InputError(
                f"{self.archive}: unpacks to {limits}, so it is not what it should be; delete it and fetch it again"
            )
        inside(member.name, self.archive)
        if member.kind != "file":
            raise InputError(f"{self.archive}: {member.name!r} is a {member.kind}, which is never unpacked")
        return member


def inside(name: str, archive: Path) -> PurePosixPath:
    """Relative path of a member. Raises InputError unless it stays in the folder that it is joined to."""
    path = PurePosixPath(name)
    unsafe = "\\" in name or not name.isprintable() or re.match("[A-Za-z]:", name)
    if path.is_absolute() or ".." in path.parts or not path.parts or unsafe:
        raise InputError(f"{archive}: member {name!r} would not lie inside the target, so it is not unpacked")
    return path


def write(member: Member, path: Path, archive: Path) -> Path:
    """Write one member to the new file `path`. Raises InputError unless its actual size is the declared one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    try:
        with member.open() as source, open(path, "xb") as file:
            while data := source.read(min(CHUNK, left + 1)):
                left -= len(data)
                if left < 0:
                    break
                file.write(data)
    except FileExistsError as error:
        raise InputError(
            f"{archive}: {member.name!r} comes twice, as {path}; delete the archive and fetch it again"
        ) from error
    if left:
        raise InputError(
            f"{archive}: {member.name!r} is not as long as it says; delete the archive and fetch it again"
        )
    return path


@contextlib.contextmanager
def readable(archive: Path) -> Iterator[None]:
    """Convert errors of the archive libraries to an InputError that names `archive`."""
    try:
        yield
    except InputError:
        raise
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno:
            full = "; free some disk" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
            raise InputError(f"{archive}: cannot be unpacked ({error}){full}") from error
        raise InputError(f"{archive}: a broken archive ({error}); delete it and fetch it again") from error


@contextlib.contextmanager
def _open(archive: Path) -> Iterator[Iterable[Member]]:
    """Members of an archive without folders: a list if it has a directory, otherwise an iterator."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(archive, "rb"))
        start = file.peek(8)
        if start.startswith(b"Rar!"):
            from hrvgan.fetching.rar import rar_members

            yield stack.enter_context(rar_members(archive))
        elif start.startswith(b"PK"):
            yield _zip_members(stack.enter_context(zipfile.ZipFile(file)))
        else:
            yield tar_members(file)


def _zip_members(archive: zipfile.ZipFile) -> list[Member]:
    def member(info: zipfile.ZipInfo) -> Member:
        plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
        return Member(info.filename, info.file_size, "file" if plain else "link", lambda: archive.open(info))

    return [member(info) for info in archive.infolist() if not info.is_dir()]


def tar_members(file: io.BufferedReader) -> Iterator[Member]:
    """Yield the files of a tar, tar.gz, tar.bz2 or tar.xz from a stream that need not be seekable."""
    with tarfile.open(fileobj=_decompressed(file), mode="r|", tarinfo=_Header) as opened:
        while (info := opened.next()) is not None:
            opened.members.clear()  # tarfile would keep all headers of a long stream
            if not info.isdir():
                plain = info.isreg() and not info.issparse()
                kind = "file" if plain else "link" if info.issym() or info.islnk() else "special file"
                yield Member(info.name, info.size, kind, lambda info=info: opened.extractfile(info))


class _Header(tarfile.TarInfo):
    """Header of limited size: tarfile reads extended headers into memory at once."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> "_Header":
        header = super().frombuf(buf, encoding, errors)
        if header.type in EXTENDED and header.size > MAX_HEADER:
            raise tarfile.TarError(f"a header of {header.size:,} bytes")
        return header


def _decompressed(file: io.BufferedReader) -> BinaryIO:
    """Decompress by magic bytes. Unlike tarfile's own readers, these accept multi-stream files (pbzip2)."""
    start = file.peek(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if start.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if start.startswith(b"\xfd7zXZ"):
        return lzma.LZMAFile(file)
    return file
