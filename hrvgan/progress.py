"""Progress bars: redrawn in place on a terminal, whole lines in a log."""

import sys
from collections.abc import Iterable

from tqdm import tqdm

LOG_INTERVAL = 30  # seconds from one line of a log to the next
Bar = tqdm  # the type, for signatures


class LogBar(tqdm):
    """Progress for output that is no terminal: one line every LOG_INTERVAL seconds and one at the end.

    A loop that ends with an exception gets no last line: it would follow the error message.
    """

    def __init__(self, *arguments, **options):
        # `delay` leaves out the line at 0 %; `miniters` keeps tqdm from guessing when to look at the clock.
        super().__init__(
            *arguments, **options, ascii=True, delay=LOG_INTERVAL, miniters=1,
            mininterval=LOG_INTERVAL, maxinterval=LOG_INTERVAL,
        )  # fmt: skip

    def __iter__(self):
        for item in self.iterable:
            yield item
            self.update()
        self.close()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        print(self if msg is None else msg, file=self.fp, flush=True)

    def close(self) -> None:
        if not self.disable:
            self.display()
        self.disable = True

    def __del__(self):
        self.disable = True


def bar(iterable: Iterable | None = None, desc: str = "", *, hidden: bool = False, **options) -> tqdm:
    """A tqdm progress bar on stderr; `options` are tqdm's. `hidden` and the environment variable TQDM_DISABLE=1
    suppress it."""
    options |= {"disable": True} if hidden else {"dynamic_ncols": True}
    return (tqdm if sys.stderr.isatty() else LogBar)(iterable, desc, **options)
