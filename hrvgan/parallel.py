"""Parallel map over many files: worker processes or a Dask cluster, results in order, with a progress bar."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from functools import partial
from itertools import takewhile
from multiprocessing import connection

from hrvgan.errors import InputError, first_line
from hrvgan.progress import bar

START_TIMEOUT = 120  # seconds that a worker may take to start on a busy machine
GONE = EOFError, ConnectionResetError  # from the pipe of a worker that has died
ANSWER_TIMEOUT = 10  # seconds that a Dask scheduler may take to answer
# Many items go to Dask in batches, for each costs it milliseconds: few enough that all threads end at about one time.
MOST_BATCH, FEWEST_BATCHES = 16, 64  # items of a batch, batches of a thread


def _raise_lost(item: object, cause: str) -> None:
    raise RuntimeError(f"{item}: {cause}")


def ordered_map(
    function: Callable,
    items: Sequence,
    *,
    workers: int | str = "auto",
    dask: str = "",
    lost: Callable = _raise_lost,
    limit: Callable | None = None,
    lead: int = 8,
    desc: str,
    unit: str,
) -> Iterator:
    """Yield `function(item)` for the items in order, computed in `workers` processes ("auto": one per CPU).

    With 1 it is computed in this process, which a `function` that crashes or hangs takes with it. Results do not
    depend on `workers`; at most `lead` of each wait in memory. `function` must be importable, because processes are
    spawned: forking a process that has threads can deadlock.

    A process that dies or takes more than `limit(item)` seconds is replaced, and `lost(item, cause)` becomes the
    result; without `lost` the map ends with RuntimeError, as it does if a process cannot start. An exception of
    `function` also ends it. With `dask`, the address of a scheduler (tcp://host:8786), the cluster computes, with
    `limit` in processes of its workers; it gets a window of the items at a time, and retries one whose worker died.
    """
    if dask and items:
        results = _dask_map(function, items, dask, lost, limit, lead)
    elif workers == 1 or not items:
        results = map(function, items)
    else:
        if workers == "auto":
            workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        results = _pool_map(function, items, min(workers, len(items)), lost, limit, lead)
    yield from bar(results, desc, total=len(items), unit=unit)


def _pool_map(function, items: Sequence, count: int, lost, limit, lead: int) -> Iterator:
    pool, done, following = [_Worker(function) for _ in range(count)], {}, 0
    try:
        for number in range(len(items)):
            while number not in done:
                for worker in pool:
                    # A bounded lead over the result that is awaited keeps results from piling up in memory.
                    if worker.number is None and following < min(len(items), number + lead * count):
                        worker.start(following, items[following], limit)
                        following += 1
                busy = [worker for worker in pool if worker.number is not None]
                patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
                ready = connection.wait([worker.pipe for worker in busy], min(patience, 3600))
                for worker in busy:
                    done |= worker.poll(worker.pipe in ready, lost)
            yield done.pop(number)
    finally:
        for worker in pool:
            worker.stop()


class _Worker:
    """Process that computes one item at a time, so that a death or a timeout loses exactly that item.

    Not Pebble's pool (5.2), whose workers share one result pipe: if one is killed while it sends, all others hang.
    """

    def __init__(self, function: Callable):
        self.function, self.number, self.started = function, None, False
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()

    def start(self, number: int, item: object, limit: Callable | None) -> None:
        self.number, self.item = number, item
        self.seconds = limit(item) if limit else float("inf")
        self.deadline = time.monotonic() + self.seconds + (0 if self.started else START_TIMEOUT)
        with contextlib.suppress(BrokenPipeError):  # If it has died, `poll` finds the pipe closed.
            self.pipe.send(item)

    def poll(self, ready: bool, lost: Callable) -> dict[int, object]:
        """Number and result of the item if it is done, died or is late; {} otherwise."""
        number = self.number
        if ready and not self.started:
            self._confirm_start()
        elif ready:
            return {number: self._receive(lost)}
        elif time.monotonic() > self.deadline:
            return {number: self._replace("took too long", lost)}
        return {}

    def _confirm_start(self) -> None:
        """Raise RuntimeError if the process could not start: it would fail with every item."""
        try:
            self.pipe.recv()
        except GONE as error:
            raise RuntimeError(
                f"a process ended before its first item ({self._exit_status()}); in a script, call it below "
                "`if __name__ == '__main__':`, else read its error message above"
            ) from error
        self.started, self.deadline = True, time.monotonic() + self.seconds

    def _receive(self, lost: Callable) -> object:
        try:
            succeeded, value = self.pipe.recv()
        except GONE:
            return self._replace(f"its process died ({self._exit_status()})", lost)
        self.number = None
        if not succeeded:
            raise value
        return value

    def _exit_status(self) -> str:
        self.process.join()
        code = self.process.exitcode
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _replace(self, cause: str, lost: Callable) -> object:
        self.stop()
        item = self.item
        self.__init__(self.function)
        return lost(item, cause)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe, function: Callable) -> None:
    """Main loop of a worker process."""
    # Ctrl-C is for the main process, which then stops its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    pipe.send("started")
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, function(item)
        except Exception as error:  # Raised again in the main process.
            answer = False, error
        pipe.send(answer)


def _exit_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _dask_map(function, items: Sequence, address: str, lost, limit, lead: int) -> Iterator:
    try:
        from distributed import Client, KilledWorker, wait
        from distributed.comm import CommClosedError
    except ImportError as error:
        raise InputError(f"{address}: needs Dask; pip install -e '.[dask]'") from error
    try:
        client = Client(address, timeout=ANSWER_TIMEOUT)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{address}: no Dask scheduler answers ({error}); start `dask scheduler` or correct the address"
        ) from error
    job = partial(_each, partial(_in_child, function, limit=limit, lost=lost) if limit else function)
    with client:
        queue, taken = deque(), 0  # batches of items with their futures, in order; items that went into it
        while queue or taken < len(items):
            threads = sum(client.nthreads().values())  # Workers come and go.
            size = min(MOST_BATCH, 1 + len(items) // (FEWEST_BATCHES * max(1, threads)))
            room = max(64 // size, lead * threads) - len(queue)
            batches = _batches(items, taken, size, room)
            taken += sum(map(len, batches))
            try:
                queue.extend(_submit(client, job, batches))
                wait(queue[0][1])
                finished = list(takewhile(lambda future: future.status == "finished", (f for _, f in queue)))
                results = client.gather(finished or [queue[0][1]])  # Each call costs milliseconds.
            except KilledWorker:
                batch, _ = queue.popleft()
                if len(batch) > 1:
                    queue.extendleft(reversed(_submit(client, job, [[item] for item in batch])))
                else:
                    yield lost(batch[0], "its Dask worker died again and again")
                continue
            except (CancelledError, CommClosedError) as error:
                raise InputError(
                    f"{address}: the Dask cluster is gone ({first_line(error)}); start it and run this again, it "
                    "goes on from here"
                ) from error
            for result in results:
                queue.popleft()
                yield from result


def _batches(items: Sequence, start: int, size: int, most: int) -> list[list]:
    """At most `most` batches of `size` consecutive items, from number `start` on."""
    starts = range(start, len(items), size)[: max(0, most)]
    return [[items[n] for n in range(first, min(first + size, len(items)))] for first in starts]


def _submit(client, job: Callable, batches: list[list]) -> list[tuple]:
    # pure: equal batches would become one
    return list(zip(batches, client.map(job, batches, pure=False), strict=True)) if batches else []


def _each(function: Callable, batch: list) -> list:
    return [function(item) for item in batch]


_thread = threading.local()


def _in_child(function: Callable, item: object, limit: Callable, lost: Callable) -> object:
    """`function(item)` in a child of a Dask worker, one for each of its threads: one that hangs can be ended."""
    key = pickle.dumps(function)
    if getattr(_thread, "key", None) != key:
        if hasattr(_thread, "key"):
            _thread.child.stop()
        multiprocessing.current_process().daemon = False  # Dask's workers are, and daemons have no children.
        _thread.key, _thread.child = key, _Worker(function)
    child = _thread.child
    child.start(0, item, limit)
    while True:
        ready = child.pipe.poll(min(max(0.0, child.deadline - time.monotonic()), 3600))
        if results := child.poll(ready, lost):
            return results[0]
