"""What is known of a file that is published somewhere."""

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """A file by name, where it is, and which bytes are the right ones; what nobody has written down is empty."""

    name: str
    urls: tuple[str, ...]  # http or https, tried in this order
    size: int | None = None  # bytes
    sha256: str = ""  # hex; without it certificates are always verified
    licence: str = ""
