"""Processes that tests start: with default signals and a time limit, and with none of them left at the end."""

import contextlib
import itertools
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

# Environment variable that every process carries which a test has started, however far it has detached itself.
MARK = "HRVGAN_TEST_PROCESS"
NUMBERS = itertools.count()
LIMIT = 100  # seconds, also on a machine that is busy; less than the limit of a whole test in pyproject.toml
# Command lines of what multiprocessing keeps for the next process; both end with their parent.
HELPERS = "multiprocessing.resource_tracker", "multiprocessing.forkserver"


def default_signals() -> None:
    """Reset in this process all that is inherited about signals: a shell's background job ignores SIGINT, say."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class Process(subprocess.Popen):
    """A process in a session of its own, which prints into two open files: they are readable meanwhile, and never full.

    Made by `start`, which ends it.
    """

    def __init__(self, command: list, files: dict[str, BinaryIO], env: dict[str, str], **options):
        self.mark, self.files = f"{os.getpid()}.{next(NUMBERS)}", files
        defaults = {"stdin": subprocess.DEVNULL, "start_new_session": True, "preexec_fn": default_signals}
        super().__init__(command, env={**env, MARK: self.mark}, **{**defaults, **files, **options})

    def read(self, stream: str) -> bytes:
        """What it has printed so far on its `stream`, stdout or stderr."""
        file = self.files[stream].fileno()
        # Without a move of the position, at which the process writes.
        return os.pread(file, os.fstat(file).st_size, 0)

    def output(self, stream: str = "stdout") -> str:
        return _text(self.read(stream))

    def finish(self, seconds: float = LIMIT) -> int:
        """Its exit status, once it has ended."""
        if self.poll() is None:
            descriptor = os.pidfd_open(self.pid)
            ended, _, _ = select.select([descriptor], [], [], seconds)  # Popen.wait looks every 50 ms.
            os.close(descriptor)
            assert ended, f"waited {seconds} s in vain for the end of {self}"
        return self.wait()

    def end(self) -> None:
        """Kill it, and all that it has started and left."""
        kill(self.mark)
        for pipe in filter(None, (self.stdin, self.stdout, self.stderr)):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self.wait()

    def __str__(self) -> str:
        """Command and output, for messages."""
        command = " ".join(map(os.fsdecode, self.args))
        return f"`{command}` (process {self.pid}), which printed:\n{self.output()}{self.output('stderr')}"


@contextlib.contextmanager
def start(command: list, *, env: dict[str, str] | None = None, **options) -> Iterator[Process]:
    """A `Process` for the length of a block, `options` as for Popen."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        files = {"stdout": stdout, "stderr": stderr}
        process = Process(command, files, os.environ if env is None else env, **options)
        try:
            yield process
        finally:
            process.end()


def run(
    command: list, *, input: bytes = b"", seconds: float = LIMIT, check: bool = True, text: bool = True, **options
) -> subprocess.CompletedProcess:
    """As subprocess.run with `capture_output`; the test fails after `seconds`, and with `check` at an exit status."""
    with tempfile.TemporaryFile() as stdin:
        stdin.write(input)
        stdin.seek(0)
        with start(command, stdin=stdin, **options) as process:
            code = process.finish(seconds)
            assert code == 0 or not check, f"exit status {code} of {process}"
            printed = process.read("stdout"), process.read("stderr")
            return subprocess.CompletedProcess(command, code, *(map(_text, printed) if text else printed))


def _text(printed: bytes) -> str:
    return printed.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")


def free_port() -> int:
    """A port of loopback at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(
    condition: Callable, what: str, seconds: float = LIMIT, *, pause: float = 0.01, process: Process | None = None
):
    """The first value of `condition()` that is true; the test fails after `seconds`, or where `process` has ended."""
    deadline = time.monotonic() + seconds
    while True:
        # Asked before, for what a process did before its end counts.
        ended = process is not None and process.poll() is not None
        if value := condition():
            return value
        assert not ended, f"exit status {process.returncode} before {what}: {process}"
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}: {process or ''}"
        time.sleep(pause)


def left(mark: str) -> dict[int, str]:
    """Processes with that mark, or with one that begins with it and a dot: process id -> command line."""
    found, wanted, helpers = {}, f"{MARK}={mark}".encode(), children(helpers=True)
    for pid in {int(folder.name) for folder in Path("/proc").glob("[0-9]*")}.difference(helpers):
        with contextlib.suppress(OSError):  # It ends meanwhile, or is another user's.
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if any(variable == wanted or variable.startswith(wanted + b".") for variable in variables):
                found[pid] = _command(pid)
    return found


def none_left(seconds: float = 10) -> None:
    """Fail, and kill it, if a process is left of those that this session has started, on its way out for `seconds`.

    A `dvc daemon` fails at once: it ends by itself, after seconds in which it takes most of a core.
    """
    session, deadline = str(os.getpid()), time.monotonic() + seconds
    while found := left(session):
        if time.monotonic() > deadline or any(" daemon " in command for command in found.values()):
            kill(session)
            raise AssertionError(f"processes are left: {found}")
        time.sleep(0.01)


def kill(mark: str, seconds: float = 30) -> None:
    """Kill the processes with that mark, and those that they start meanwhile."""
    deadline = time.monotonic() + seconds
    while found := left(mark):
        assert time.monotonic() < deadline, f"processes are killed and do not end: {found}"
        # Stopped first: a shell whose command is killed before it would go on to its next one.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        time.sleep(0.005)


def children(*, helpers: bool = False) -> list[int]:
    """Process ids of this process's children, zombies among them: what multiprocessing itself keeps, or the others."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # A thread that has ended meanwhile.
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return [pid for pid in found if any(name in _command(pid) for name in HELPERS) == helpers]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def faults(few, many):
    """Number of kills, of damaged files or of seconds: `many` with HRVGAN_FAULTS=full (`make test-faults-full`)."""
    return many if os.environ.get("HRVGAN_FAULTS") == "full" else few


in_full = pytest.mark.skipif(not faults(False, True), reason="slow: make test-faults-full")
