"""The one exception that a user is meant to read."""


class InputError(ValueError):
    """Bad input: the message names the file, the cause and the remedy.

    Programs print it as one sentence and exit with 1; anything else is a bug and keeps its traceback.
    """
