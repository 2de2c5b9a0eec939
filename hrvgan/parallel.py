"""The same work on many files: in several processes or on a Dask cluster, in order, with a progress bar."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from multiprocessing.connection import wait

from hrvgan.errors import InputError, first_line
from hrvgan.progress import bar

STARTING = 120  # seconds that a process may take on a machine that is busy, before its first item counts


def ordered_map(
    function: Callable,
    items: Sequence,
    *,
    workers: int | str = "auto",
    dask: str = "",
    lost: Callable | None = None,
    limit: Callable | None = None,
    desc: str,
    unit: str,
) -> Iterator:
    """Yield `function(item)` for the items in order, computed in `workers` processes ("auto": one a CPU).

    With 1 it is computed in this process, which a `function` that crashes or hangs takes with it. The order and so what
    is made of the results does not depend on `workers`; at most a few results wait in memory. `function` must be
    importable, because the processes are spawned: forking a process that has threads can deadlock.

    A process that dies, or takes more than `limit(item)` seconds, is replaced, and `lost(item, cause)` stands
    for the result; without `lost` it ends the map with a RuntimeError. So does a process that cannot start; and an
    exception of `function` ends it too.
    With `dask`, the address of a scheduler (tcp://host:8786), the cluster computes; it tries an item again
    whose worker died, and knows no limit.
    """
    lost = lost or _refuse
    if dask:
        results = _dask_map(function, items, dask, lost)
    elif workers == 1 or not items:
        results = map(function, items)
    else:
        results = _pool_map(function, items, min(num_workers(workers), len(items)), lost, limit)
    yield from bar(results, desc, total=len(items), unit=unit)


def num_workers(workers: int | str) -> int:
    if workers != "auto":
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _refuse(item: object, cause: str) -> None:
    raise RuntimeError(f"{item}: {cause}")


def _pool_map(function, items: Sequence, count: int, lost, limit) -> Iterator:
    pool, done, following = [_Worker(function) for _ in range(count)], {}, 0
    try:
        for number in range(len(items)):
            while number not in done:
                for worker in pool:
                    # Who is far ahead waits: results would pile up in memory.
                    if worker.number is None and following < min(len(items), number + 8 * count):
                        worker.start(following, items[following], limit)
                        following += 1
                busy = [worker for worker in pool if worker.number is not None]
                patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
                ready = wait([worker.pipe for worker in busy], min(patience, 3600))
                for worker in busy:
                    if worker.pipe in ready and not worker.started:
                        worker.greet()
                        continue
                    answered, late = worker.pipe in ready, time.monotonic() > worker.deadline
                    if answered or late:
                        place = worker.number  # which is forgotten once the answer is there
                        done[place] = (
                            worker.result(lost) if answered else worker.replace("took too long", lost)
                        )
            yield done.pop(number)
    finally:
        for worker in pool:
            worker.stop()


class _Worker:
    """A process that computes one item at a time; it is known which one, so that only that one can be lost."""

    def __init__(self, function: Callable):
        self.function, self.number, self.started = function, None, False
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()

    def start(self, number: int, item: object, limit: Callable | None) -> None:
        self.number, self.item = number, item
        self.patience = limit(item) if limit else float("inf")
        self.deadline = time.monotonic() + self.patience + (0 if self.started else STARTING)
        with contextlib.suppress(BrokenPipeError):  # If it has died, `result` finds the pipe closed.
            self.pipe.send(item)

    def greet(self) -> None:
        """Hears that the process has started; one that could not would fail with every item."""
        try:
            self.pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            self.process.join()
            raise RuntimeError(
                f"a process ended before its first item ({_status(self.process.exitcode)}); in a script, call it below "
                "`if __name__ == '__main__':`, else read above what it said"
            ) from error
        self.started, self.deadline = True, time.monotonic() + self.patience

    def result(self, lost: Callable) -> object:
        try:
            succeeded, value = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return self.replace(f"its process died ({_status(self.process.exitcode)})", lost)
        self.number = None
        if not succeeded:
            raise value
        return value

    def replace(self, cause: str, lost: Callable) -> object:
        self.stop()
        item = self.item
        self.__init__(self.function)
        return lost(item, cause)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _status(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _serve(pipe, function: Callable) -> None:
    # Ctrl-C is for the main process, which then stops its workers; if it dies at once, nobody would.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    pipe.send("started")
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, function(item)
        except Exception as error:  # It is raised again in the main process.
            answer = False, error
        pipe.send(answer)


def _die_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _dask_map(function, items: Sequence, address: str, lost: Callable) -> Iterator:
    try:
        from distributed import Client, KilledWorker
        from distributed.comm import CommClosedError
    except ImportError as error:
        raise InputError(f"{address}: needs Dask; pip install -e '.[dask]'") from error
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{address}: no Dask scheduler answers ({error}); start `dask scheduler` or correct the address"
        ) from error
    with client:
        futures = client.map(function, items, pure=False)  # pure: equal items would become one
        for number, item in enumerate(items):
            try:
                result = futures[number].result()
            except KilledWorker:
                result = lost(item, "its Dask worker died again and again")
            except (CancelledError, CommClosedError) as error:
                cause = first_line(error)
                raise InputError(
                    f"{address}: the Dask cluster is gone ({cause}); start it and run this again, it goes on from here"
                ) from error
            yield result
            futures[number] = None  # lets the cluster forget the result
