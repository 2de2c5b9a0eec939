"""Exceptions whose message is meant for the user."""

import contextlib
import errno
import sys
from collections.abc import Iterator, Sequence

# Errors of the operating system that are no bug of ours: rights, a full or read-only disk, a file in place of a folder.
REFUSALS = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
    errno.ENAMETOOLONG,
)  # fmt: skip


class InputError(ValueError):
    """Bad input: the message names the file, the cause and the remedy.

    Programs print it as one sentence and exit with 1; anything else is a bug and keeps its traceback.
    """


class VideoError(InputError):
    """A video that cannot be used; the message names the file and the cause."""


class SlowVideoError(VideoError):
    """A video that took longer than it may; on a faster machine it might not."""


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Turns bad input and refusals of the operating system into one sentence on stderr and exit code 1."""
    try:
        yield
    except InputError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        remedy = "make room or rights for it, or name another place"
        sys.exit(f"error: {error.filename or 'a file'}: {error.strerror}; {remedy}")


def first_line(error: BaseException) -> str:
    """First line of an error message, for use inside a sentence; the name of its class if it has none."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def first_few(causes: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    more = [f"and {len(causes) - 3} more"] if len(causes) > 3 else []
    return "; ".join([*causes[:3], *more])
