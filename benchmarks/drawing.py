"""Clips that G draws a second, by size, batch and processes, and how long the first one takes.

    python -m benchmarks.drawing [--sizes 32 64 128 256] [--rounds 5]

Against benchmarks/plain.py in the same run; every number is the median of interleaved rounds. Ours keep freed memory,
as our programs do (hrvgan/ops/allocator.py). Two processes have one thread each, where one has them all.
"""

import argparse
import multiprocessing
import time

import torch

from benchmarks.plain import PlainGenerator
from benchmarks.processes import Process, interleaved
from benchmarks.training_step import ceilings
from hrvgan.models.hrvgan import HRVGAN
from hrvgan.ops.allocator import keep_freed_memory

BATCHES = {32: (1, 4, 16), 64: (1, 2, 4), 128: (1, 2), 256: (1, 2)}
PROCESSES, REPEATS = 2, 3


class Drawing:
    """Call it to draw `n` clips, with the plain network or with ours."""

    def __init__(self, size: int, n: int, plain: bool, bfloat16: bool):
        self.network = PlainGenerator(10, size, "paper", 1.0) if plain else HRVGAN(10, size).G
        self.n, self.bfloat16 = n, bfloat16

    @torch.no_grad()
    def __call__(self) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            self.network(torch.randn(self.n, 128), torch.arange(self.n) % 10)


def measure(size: int, rounds: int, precisions: dict[str, bool]) -> None:
    kinds = {"plain": (True, False)} | {name: (False, bfloat16) for name, bfloat16 in precisions.items()}
    jobs = {
        (name, n): Process(Drawing, size, n, *about, keeps=name != "plain")
        for name, about in kinds.items()
        for n in BATCHES[size]
    }
    medians = interleaved(jobs, rounds)
    for job in jobs.values():
        job.end()
    for name, n in jobs:
        took = medians[name, n]
        print(
            f"{size:>4} {name:>9} {n:>6} {n / took:>8.2f} {medians['plain', n] / took:>9.2f} {1e3 * took:>9.0f}",
            flush=True,
        )


def one_of_several(size: int, n: int, bfloat16: bool, barrier, times) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    draw = Drawing(size, n, False, bfloat16)
    draw()
    barrier.wait()
    start = time.perf_counter()
    for _ in range(REPEATS):
        draw()
    times.put((time.perf_counter() - start) / REPEATS)


def measure_processes(size: int, precisions: dict[str, bool]) -> None:
    """Clips a second of so many processes together, each with one thread and the largest batch."""
    context, n = multiprocessing.get_context("spawn"), BATCHES[size][-1]
    for name, bfloat16 in precisions.items():
        rates = {}
        for count in range(1, PROCESSES + 1):
            barrier, times = context.Barrier(count), context.Queue()
            work = (size, n, bfloat16, barrier, times)
            processes = [context.Process(target=one_of_several, args=work) for _ in range(count)]
            for process in processes:
                process.start()
            rates[count] = sum(n / times.get() for _ in processes)
            for process in processes:
                process.join()
        ratios = "".join(f"{rates[count]:>9.2f} {rates[count] / rates[1]:>9.2f}" for count in rates)
        print(f"{size:>4} {name:>9} {n:>6}{ratios}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drawing", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", choices=list(BATCHES), default=list(BATCHES))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    precisions = {"float32": False} | ({"bfloat16": True} if ceilings() else {})
    print("drawing        batch  clips/s   x plain  a batch, ms")
    for size in arguments.sizes:
        measure(size, arguments.rounds, precisions)
    print("\none thread each  batch  1 process         1  2 processes    x one")
    for size in arguments.sizes:
        measure_processes(size, precisions)


if __name__ == "__main__":
    main()
