"""The exceptions that a user is meant to read."""

import contextlib
import errno
import sys
from collections.abc import Iterator

# What the system refuses that is no bug of ours: rights, a full or read-only disk, a file in place of a folder.
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


def refusal(error: OSError) -> str | None:
    """What the system refused, and of which file, in one sentence; None for an error that nobody foresaw."""
    if error.errno not in REFUSALS:
        return None
    return (
        f"{error.filename or 'a file'}: {error.strerror}; make room or rights for it, or name another place"
    )


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """The end of a program in which bad input, or what the system refuses, comes up: a sentence and exit code 1."""
    try:
        yield
    except InputError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if sentence := refusal(error):
            sys.exit(f"error: {sentence}")
        raise


def first_line(error: BaseException) -> str:
    """What an error says, for the middle of a sentence; its kind where it says nothing."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
