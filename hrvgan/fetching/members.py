"""What all kinds of archives have in common: files in them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True)
class Member:
    """A file in an archive. `open` gives its bytes; members of tar and rar are read in their order."""

    name: str
    size: int  # bytes, as declared
    kind: str  # "file", or what it is instead
    open: Callable[[], BinaryIO]
