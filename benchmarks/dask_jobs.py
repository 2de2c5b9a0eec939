"""Overhead of extraction on a cluster: tiny jobs through a real Dask scheduler, each with a time limit as videos have.

    python -m benchmarks.dask_jobs [--jobs 10000 100000] [--workers 2]

Milliseconds a job, those of CPUs in all processes together, and how much the memory of the client grows. On two cores
that other programs used as well: 1.0 ms and 0.9 MB for 10,000 jobs (6.1 ms and 5.6 MB when each was a task of Dask),
1.4 ms and 4.2 MB for 100,000.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

import psutil

from hrvgan.parallel import ordered_map


@contextlib.contextmanager
def cluster(workers: int) -> Iterator[str]:
    """Address of a scheduler with `workers` workers of one thread, in processes of their own."""
    address, quiet = "tcp://127.0.0.1:28786", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    scheduler = ["dask_scheduler", "--host", "127.0.0.1", "--port", "28786", "--no-dashboard", "--no-show"]
    worker = ["dask_worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny"]
    with contextlib.ExitStack() as stack:
        for module, *arguments in (scheduler, *[worker] * workers):
            command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments]
            started = stack.enter_context(subprocess.Popen(command, env=environment, **quiet))
            stack.callback(started.kill)
        yield address


def cpu_seconds(client: psutil.Process) -> float:
    """Of the client, the scheduler, the workers and their children."""
    times = [process.cpu_times() for process in (client, *client.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--jobs", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    client = psutil.Process()
    with cluster(args.workers) as address:
        options = {"dask": address, "desc": "jobs", "unit": "job"}
        options |= {"limit": partial(max, 60)}  # seconds, as for videos; of functions that workers can import
        list(ordered_map(abs, range(100 * args.workers), **options))  # Everything has started.
        for count in args.jobs:
            before, most, start = client.memory_info().rss, 0, time.perf_counter()
            cpu = cpu_seconds(client)
            for number, result in enumerate(ordered_map(abs, range(count), **options)):
                assert result == number
                if number % 1000 == 0:
                    most = max(most, client.memory_info().rss)
            each = (time.perf_counter() - start) / count
            cpu = (cpu_seconds(client) - cpu) / count
            times = f"{1000 * each:.2f} ms a job, {1000 * cpu:.2f} ms of CPUs"
            print(f"{count:>7} jobs: {times}, {(most - before) / 1e6:+.1f} MB", flush=True)


if __name__ == "__main__":
    main()
