"""A training on all cores, alone and beside another busy process: how threads wait for each other.

    python -m benchmarks.beside [--steps 30]

Threads of one operation wait for the slowest of them. As libgomp has it they spin meanwhile; where another process
needs a core too, they spin on the one that the slowest waits for. Each row is a process of its own, which trains HRVGAN
at 32 px. A fair share of C cores beside one busy process is C / (C + 1) of the speed alone.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

import torch

from benchmarks.training_step import Iteration, seconds
from hrvgan.training.iteration import use_bfloat16

WAITING = {"300,000, libgomp's": "300000", "3,000, ours": "3000", "0": "0"}  # hrvgan/__init__.py sets ours
LIMIT = 300  # seconds of a row


def step_time(steps: int) -> float:
    """Median seconds of a training step."""
    step = Iteration(32, plain=False, bfloat16=use_bfloat16("auto", torch.device("cpu")), lazy=True, width=0.25)
    return statistics.median(seconds(step) for _ in range(steps))


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """Another process that always computes."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def speed(steps: int, spins: str, threads: int) -> float:
    """Steps a second of a training in a process of its own; 0 when it takes longer than LIMIT."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": spins}
    command = [sys.executable, "-m", "benchmarks.beside", "--steps", str(steps), "--inside"]
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=True)
    except subprocess.TimeoutExpired:
        return 0.0
    return 1 / float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside", description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)  # of one row
    arguments = parser.parse_args()
    if arguments.inside:
        print(step_time(arguments.steps))
        return
    cores = os.cpu_count()
    fair = cores / (cores + 1)
    print(f"{'threads':>7} {'spins while it waits':<26} {'alone/s':>8} {'beside/s':>9} {'of the fair share':>18}")
    for threads in (1, cores):
        for name, spins in WAITING.items():
            alone = speed(arguments.steps, spins, threads)
            with busy():
                beside = speed(arguments.steps, spins, threads)
            share = beside / alone / (1 if threads < cores else fair)
            print(f"{threads:>7} {name:<26} {alone:>8.2f} {beside:>9.2f} {share:>18.2f}", flush=True)


if __name__ == "__main__":
    main()
