"""A writer of rar 5 archives without compression, as no free program makes them (format: rarlab's technote)."""

import struct
import zlib


def number(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + number(rest) if rest else bytes([low])


def block(header: bytes, data: bytes = b"") -> bytes:
    header = number(len(header)) + header
    return struct.pack("<I", zlib.crc32(header)) + header + data


def member(name: str, data: bytes, link: str = "", size: int | None = None, crc: int | None = None) -> bytes:
    """A file, or a symbolic link; `size` and `crc` may lie."""
    target = link.encode()
    record = number(5) + number(1) + number(0) + number(len(target)) + target  # type 5: a unix link
    extra = number(len(record)) + record if link else b""
    flags = number(3) + number(len(extra)) if link else number(2)
    size, crc = len(data) if size is None else size, zlib.crc32(data) if crc is None else crc
    mode, stored, unix = number(0o120777 if link else 0o100644), number(0), number(1)
    about = number(4) + number(size) + mode + struct.pack("<I", crc) + stored + unix
    title = number(len(name.encode())) + name.encode()
    return block(number(2) + flags + number(len(data)) + about + title + extra, data)


def rar(*members: bytes) -> bytes:
    start = b"Rar!\x1a\x07\x01\x00" + block(number(1) + number(0) + number(0))
    return start + b"".join(members) + block(number(5) + number(0) + number(0))
