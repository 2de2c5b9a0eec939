"""`train-flow`: every stage of dvc.yaml as a Prefect task that calls `dvc repro --single-item`.

The order, and whether a stage has anything to do, are DVC's answers, asked when the stage's turn comes:
nothing here changes when dvc.yaml does. Stages run in the Python environment of the worker.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import psutil
from dvc.lock import LockError
from filelock import FileLock, Timeout
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.states import Completed, State

from flows import ROOT, child_process, graph
from flows.summary import ASKED, FORCED, Outcome, report, verdict

GRACE = 15  # seconds from interrupt to kill of a cancelled stage; Prefect kills the flow itself after 30
# Seconds to wait for a `dvc` command of somebody else.
LOCK_WAIT = float(os.environ.get("HRVGAN_DVC_LOCK_WAIT", "7200"))
LOCKED = re.compile("Unable to acquire lock|is busy, it is being blocked by")  # DVC's messages


class StageError(RuntimeError):
    """A stage ended with an error; the message is the stage's own."""


@flow(name="train-flow")
def train_flow(
    targets: list[str] | None = None, force: bool = False, refresh: bool = False, retries: int = 0
) -> State:
    """Bring the stages `targets` (default: all) and what they need up to date.

    force: run every stage, changed or not. refresh: run the stages that need no other, since DVC cannot see
    new data at a source; the rest follows only if they made something new. retries: of each failing stage.
    The run's message says what happened and why; the artifact `train-flow` shows times and metrics.
    """
    attempt = run_stage.with_options(retries=retries)
    outcomes = []
    with alone():
        check()
        for stage, is_source in graph.plan(ROOT, targets):
            because = FORCED if force else ASKED if refresh and is_source else ""
            outcomes.append(attempt(stage, because).result())
    sentence = verdict(outcomes)
    get_run_logger().info(sentence)
    create_markdown_artifact(key="train-flow", markdown=report(sentence, outcomes, graph.metrics(ROOT)))
    return Completed(message=sentence, data=[asdict(outcome) for outcome in outcomes])


@contextmanager
def alone() -> Iterator[None]:
    """Wait until no other run works in the project's folder."""
    (ROOT / ".state").mkdir(exist_ok=True)
    lock = FileLock(ROOT / ".state" / "train-flow.lock")
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        get_run_logger().info("Another run is at work in this folder; waiting for its end.")
        held = lock.acquire()
    with held:
        yield


@task
def check() -> None:
    """Refuse a params.yaml with which a stage would fail. Raises StageError."""
    command = [sys.executable, "-m", "pipeline.checks"]
    done = subprocess.run(command, cwd=ROOT, env=stage_environment(), capture_output=True, text=True)
    if done.returncode:
        raise StageError(own_sentence(done.stderr.splitlines()))


@task(task_run_name="{stage}")
def run_stage(stage: str, because: str) -> State:
    """Run one stage if DVC calls it changed, or if there is another reason, `because`."""
    start = time.monotonic()
    changes, before = when_unlocked(lambda: graph.status(ROOT, stage))
    why = changes or because
    state = when_unlocked(lambda: dvc_repro(stage, force=bool(because))) if why else "unchanged"
    new = state != "unchanged" and when_unlocked(lambda: graph.status(ROOT, stage))[1] != before
    outcome = Outcome(stage, state, why, time.monotonic() - start, new)
    return Completed(name=state.capitalize(), message=why or None, data=outcome)


def when_unlocked(action: Callable):
    """The result of `action`, which is tried again for LOCK_WAIT seconds while another process holds a lock of DVC."""
    start, told = time.monotonic(), ""
    while True:
        try:
            return action()
        except LockError as error:
            holder = lock_holder(str(error))
            if time.monotonic() - start > LOCK_WAIT:
                reason = f"DVC is locked by {holder}, and was for {LOCK_WAIT:g} s"
                raise StageError(f"{reason}; end that process, and run the flow again") from error
            if holder != told:
                told = holder
                limit = f"at most {LOCK_WAIT:g} s"
                get_run_logger().info(f"DVC is locked by {holder}; waiting for its end, {limit}.")
        time.sleep(1)


def dvc_repro(stage: str, force: bool) -> str:
    """Run one stage, its lines into the run's log; "ran", "restored" or "unchanged". Raises StageError, or LockError
    if another process holds a lock of DVC."""
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", *["--force"][:force], stage]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    process = child_process.start(command, grace=GRACE, cwd=ROOT, env=stage_environment(), **pipes)
    lines = []
    try:
        listen(process, lines)
    finally:
        process.stdin.close()  # ends the stage if the run was cancelled; then its last lines are logged
        listen(process, lines)
        code = process.wait()
    if code != 0 and any(line.startswith("ERROR: ") and LOCKED.search(line) for line in lines):
        raise LockError("\n".join(lines))
    if code != 0:
        raise StageError(f"{stage}: {own_sentence(lines)}")
    if any(line.startswith("Running stage ") for line in lines):
        return "ran"
    return "restored" if any("is cached - skipping run" in line for line in lines) else "unchanged"


def lock_holder(message: str) -> str:
    """Command, process id and start of the process that keeps others out, from DVC's message or its lock file."""
    file = ROOT / ".dvc" / "tmp" / "lock"
    content = file.read_text() if file.exists() else ""
    found = re.search(r"\(PID (\d+)\)", message) or re.fullmatch(r"\s*(\d+)\s*", content)
    try:
        process = psutil.Process(int(found[1]))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(process.create_time()))
        command = " ".join(" ".join(process.cmdline()).split())  # in one line
        return f"`{command}` (process {process.pid}, since {since})"
    except (TypeError, psutil.Error):
        return "another process"


def listen(process: subprocess.Popen, lines: list[str]) -> None:
    """Log and collect the output of the process until it ends."""
    for line in process.stdout:
        if line.strip():
            lines.append(line.rstrip())
            get_run_logger().info(lines[-1])


def stage_environment() -> dict[str, str]:
    """The worker's environment, with its Python first for the `python -m pipeline...` of dvc.yaml."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}


def own_sentence(lines: list[str]) -> str:
    """The last line that the stage itself wrote, or DVC's if the stage wrote nothing."""
    frame = ("Running stage ", "> ", "ERROR: failed to reproduce")  # lines of DVC around it
    own = [line for line in lines if not line.startswith(frame)]
    return (own or lines or ["ended without a word"])[-1]


def require_server() -> None:
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    if error:
        sys.exit(
            f"error: no Prefect server at {client.api_url} ({error}); start one with `make schedule`, or "
            "name yours in PREFECT_API_URL"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m flows.train_flow",
        description="Run the flow here and now, on the server that `make schedule` started.",
    )
    parser.add_argument(
        "targets", nargs="*", help="stages such as evaluate@laptop, and what they need; all without"
    )
    parser.add_argument("--force", action="store_true", help="run every stage, changed or not")
    parser.add_argument(
        "--refresh", action="store_true", help="ask the sources for new data first, as nightly does"
    )
    parser.add_argument("--retries", type=int, default=0, help="of each failing stage")
    arguments = vars(parser.parse_args())
    require_server()
    state = train_flow(**arguments, return_state=True)
    sys.exit(0 if state.is_completed() else 1)
