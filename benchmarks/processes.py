"""Jobs in processes of their own, which take turns: each has its own allocator and its own peak of memory."""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hrvgan.ops.allocator import keep_freed_memory

Key = TypeVar("Key")


def interleaved(jobs: dict[Key, Callable[[], float]], rounds: int) -> dict[Key, float]:
    """Median of the times that each job (a `Process`, say) returns; the first round warms up."""
    times = {key: [] for key in jobs}
    for _ in range(rounds + 1):
        for key, job in jobs.items():
            time.sleep(0.05)  # The threads of the one before have stopped spinning by then.
            times[key].append(job())
    return {key: statistics.median(each[1:]) for key, each in times.items()}


class Process:
    """Call it to run, there, once more what `make(*arguments)` returned; it says how many seconds that took. `keeps`:
    freed memory, as our programs do."""

    def __init__(self, make: Callable[..., Callable[[], object]], *arguments: object, keeps: bool):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make, arguments, keeps), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()

    def __call__(self) -> float:
        self.pipe.send(True)
        return self.pipe.recv()

    def end(self) -> float:
        """Ends the process; returns its peak of memory in GiB, less what it held before its job was made."""
        self.pipe.send(False)
        peak = self.pipe.recv()
        self.process.join()
        return peak


def _serve(pipe, make: Callable[..., Callable[[], object]], arguments: tuple, keeps: bool) -> None:
    if keeps:
        keep_freed_memory()
    before = used()
    job = make(*arguments)
    pipe.send(True)
    while pipe.recv():
        start = time.perf_counter()
        job()
        pipe.send(time.perf_counter() - start)
    pipe.send(used() - before)


def used() -> float:
    """The most GiB that this process has held (getrusage would start from what its parent held)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return int(line.split()[1]) / 2**20
