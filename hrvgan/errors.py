"""The exceptions that a user is meant to read."""


class InputError(ValueError):
    """Bad input: the message names the file, the cause and the remedy.

    Programs print it as one sentence and exit with 1; anything else is a bug and keeps its traceback.
    """


class VideoError(InputError):
    """A video that cannot be used; the message names the file and the cause."""


class SlowVideoError(VideoError):
    """A video that took longer than it may; on a faster machine it might not."""


def first_line(error: BaseException) -> str:
    """What an error says, for the middle of a sentence; its kind where it says nothing."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
