"""How a training ends before its time and loses nothing: clusters take machines back by SIGTERM, and wait a while."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from hrvgan.training import distributed


@contextlib.contextmanager
def on_sigterm() -> Iterator[Callable[[bool], bool]]:
    """For the time of the block SIGTERM ends nothing. Yields a function that says whether it has come; several
    processes agree on that when they call it with `together`, else none of them hears of it."""
    heard = []

    def has_come(together: bool) -> bool:
        if distributed.world_size() == 1:
            return bool(heard)
        return together and bool(distributed.word_of_first(len(heard)))

    handles = threading.current_thread() is threading.main_thread()  # Python lets no other thread.
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(True)) if handles else None
    try:
        yield has_come
    finally:
        if handles:
            signal.signal(signal.SIGTERM, before)
