"""What the pipeline costs when there is nothing to do: `dvc repro`, and with a Prefect server the flow.

    python -m benchmarks.orchestration [--repeats 3]

In a folder where everything is up to date. The bars are 2 s and 8 s; seconds of the processor are those that no other
work on the machine changes.
"""

import argparse
import resource
import subprocess
import sys
import time

COMMANDS = {
    "dvc repro": ["-m", "dvc", "repro"],
    "train-flow": ["-m", "flows.train_flow"],  # `make schedule` in another terminal
}


def measured(command: list[str]) -> tuple[float, float]:
    """(seconds, of them seconds of the processor) of a command. Exits with its words if it fails or has work to do."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    said = done.stdout + done.stderr
    if done.returncode or not ("up to date" in said or "nothing to do" in said):
        sys.exit(f"{said}\nnot up to date, or no server; see above")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.orchestration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=3, help="of each; the fastest counts (default %(default)s)")
    repeats = parser.parse_args().repeats
    for name, command in COMMANDS.items():
        seconds, processor = min(measured(command) for _ in range(repeats))
        print(f"{name:12} {seconds:5.1f} s, {processor:.1f} s of the processor", flush=True)
