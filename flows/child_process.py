"""Run a command that cannot outlive the one who holds it: `python leash.py SECONDS COMMAND...`.

Killing `dvc` orphans the program of its stage, and a flow that is killed outright can forward nothing. So the
command runs in a session of its own, beside this program, which reads its standard input until the holder
closes it or dies. Then the whole session gets SIGINT and, SECONDS later, SIGKILL.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


def hold(command: list[str], *, grace: float, **options) -> subprocess.Popen:
    """Start `command` on a leash, `options` as for Popen. Closing `.stdin` of the result ends the command."""
    leash = [sys.executable, __file__, str(grace), *command]
    return subprocess.Popen(leash, stdin=subprocess.PIPE, start_new_session=True, **options)


@contextmanager
def held(command: list[str], *, grace: float, **options) -> Iterator[subprocess.Popen]:
    """`hold` for the length of a block, and wait for its end."""
    process = hold(command, grace=grace, **options)
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()


def main(grace: float, command: list[str]) -> int:
    # A handler, unlike SIG_IGN, is not inherited: the command can be interrupted, this program cannot.
    signal.signal(signal.SIGINT, lambda *_: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    let_go = threading.Event()
    threading.Thread(target=end_session_with_holder, args=(grace, let_go), daemon=True).start()
    code = child.wait()
    if let_go.is_set():
        os.killpg(os.getpgrp(), signal.SIGKILL)  # whatever the command left behind, and this program
    return code


def end_session_with_holder(grace: float, let_go: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    let_go.set()
    os.killpg(os.getpgrp(), signal.SIGINT)
    time.sleep(grace)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python leash.py", description=__doc__.partition(":")[0] + ".")
    parser.add_argument("grace", type=float, help="seconds from the interrupt to the kill")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="with its arguments")
    arguments = parser.parse_args()
    sys.exit(main(arguments.grace, arguments.command))
