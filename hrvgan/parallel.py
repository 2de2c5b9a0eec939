"""The same work on many files: in several processes, in order, with a progress bar."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from tqdm import tqdm


def ordered_map(
    function: Callable, items: Sequence, *, workers: int | str = "auto", desc: str, unit: str
) -> Iterator:
    """Yield `function(item)` for the items in order, computed in `workers` processes ("auto": one a CPU).

    The order and so what is made of the results does not depend on `workers`; at most a few results wait in
    memory. `function` must be importable, because the processes are spawned: forking a process that has
    threads can deadlock.
    """
    if workers == "auto":
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = min(workers, len(items))
    results = map(function, items) if workers <= 1 else _pool_map(function, items, workers)
    yield from tqdm(results, total=len(items), desc=desc, unit=unit)


def _pool_map(function: Callable, items: Sequence, workers: int) -> Iterator:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        pending = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    # Ctrl-C is for the main process, which then stops the pool; if it dies at once, nobody would.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
