"""Run a command that cannot outlive its parent: `python child_process.py SECONDS COMMAND...`.

Killing `dvc` orphans the program of its stage, and a flow that is killed outright can forward nothing. So the
command runs in a session of its own, beside this program, which reads its standard input until the parent
closes it or dies. Then the whole session gets SIGINT and, SECONDS later, SIGKILL. Where the command itself is killed,
what it leaves behind gets SIGTERM and, SECONDS later, SIGKILL: a killed `dvc` leaves its trainer, a killed worker its
flows, which have sessions of their own.
"""

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

PR_SET_CHILD_SUBREAPER = 36  # of Linux's sys/prctl.h


def start(command: list[str], *, grace: float, **options) -> subprocess.Popen:
    """Start `command`, `options` as for Popen. Closing `.stdin` of the result ends it within `grace` seconds."""
    supervisor = [sys.executable, __file__, str(grace), *command]
    return subprocess.Popen(supervisor, stdin=subprocess.PIPE, start_new_session=True, **options)


@contextmanager
def running(command: list[str], *, grace: float, **options) -> Iterator[subprocess.Popen]:
    """`start` for the length of a block, which ends the command and waits for its end."""
    process = start(command, grace=grace, **options)
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()


def supervise(grace: float, command: list[str]) -> int:
    # A handler, unlike SIG_IGN, is not inherited: SIGINT ends the command and not this program.
    signal.signal(signal.SIGINT, lambda *_: None)
    adopt_orphans()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    parent_gone = threading.Event()
    threading.Thread(target=end_session_with_parent, args=(grace, parent_gone), daemon=True).start()
    code = child.wait()
    if code < 0 and not parent_gone.is_set():
        end_orphans(grace)
    if parent_gone.is_set() or code < 0:
        os.killpg(os.getpgrp(), signal.SIGKILL)  # children that the command left behind, and this program
    return code


def adopt_orphans() -> None:
    """Makes processes that the command leaves behind children of this one, on Linux; elsewhere they are init's."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans(grace: float) -> None:
    """End the adopted processes, which end their own, and wait for all of them."""
    for orphan in psutil.Process().children():
        orphan.terminate()
    end = time.monotonic() + grace
    while time.monotonic() < end:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not ended:
            time.sleep(0.1)
    for process in psutil.Process().children(recursive=True):
        process.kill()


def end_session_with_parent(grace: float, parent_gone: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    parent_gone.set()
    os.killpg(os.getpgrp(), signal.SIGINT)
    time.sleep(grace)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python child_process.py", description=__doc__.partition(":")[0] + ".")
    parser.add_argument("grace", type=float, help="seconds from the interrupt to the kill")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="with its arguments")
    arguments = parser.parse_args()
    sys.exit(supervise(arguments.grace, arguments.command))
