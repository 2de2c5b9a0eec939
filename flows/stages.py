"""Stages of DVC as Prefect tasks, and other commands of the project in a tree: their lines in the run's log, their own
sentence as the error, and none of them outlives the flow."""

import contextlib
import os
import queue
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from dvc.lock import LockError
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from flows import ROOT, child_process, graph
from flows.exchange import Exchange
from flows.summary import ELSEWHERE, Outcome

PYTHON = [sys.executable, "-m"]
GRACE = 10  # seconds from interrupt to kill of a cancelled stage; Prefect kills the flow itself after 30
# Seconds to wait for a `dvc` command of somebody else.
LOCK_WAIT = float(os.environ.get("HRVGAN_DVC_LOCK_WAIT", "7200"))
LOCKED = re.compile("Unable to acquire lock|is busy, it is being blocked by")  # DVC's messages
at_work: set[subprocess.Popen] = set()


class StageError(RuntimeError):
    """A stage ended with an error; the message is the stage's own."""


def devices(number: int) -> queue.SimpleQueue:
    """The variables of each of `number` stages at the same time: a GPU of its own, or a share of the cores. With 0, as
    many as there are GPUs, or one."""
    gpus = visible_gpus()
    number = number or len(gpus) or 1
    share = str(max(1, len(os.sched_getaffinity(0)) // number))
    slots = queue.SimpleQueue()
    for slot in range(number):
        gpu = {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {"OMP_NUM_THREADS": share}
        slots.put(gpu if number > 1 else {})
    return slots


def visible_gpus() -> list[str]:
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name]
    if not (program := shutil.which("nvidia-smi")):
        return []
    command = [program, "--query-gpu=index", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.split() if done.returncode == 0 else []


@task
def check(tree: Path) -> None:
    """Refuse a params.yaml with which a stage would fail. Raises StageError."""
    command = [*PYTHON, "pipeline.checks"]
    done = subprocess.run(command, cwd=tree, env=environment(tree), capture_output=True, text=True)
    if done.returncode:
        raise StageError(own_sentence(done.stderr.splitlines()))


@task(task_run_name="{stage}", cache_policy=NO_CACHE)
def run_stage(
    tree: Path, stage: str, because: str, slots: queue.SimpleQueue, needs: set[str], exchange: Exchange | None
) -> State:
    """Run one stage if DVC calls it changed, or if there is another reason, `because`, with the variables of one of
    `slots`. With `exchange`, inputs are pulled from DVC's remote, of the stages that it `needs`, and outputs pushed."""
    start, device = time.monotonic(), slots.get()
    try:
        if exchange and (inputs := exchange.inputs(stage, needs)):
            call_dvc(tree, ["pull", "--force", *inputs], f"inputs of {stage}")
        changes, before = when_unlocked(lambda: graph.status(tree, stage))
        why, state = changes or because, "unchanged"
        if why:
            options = [*["--force"][: bool(because)], *["--allow-missing"][: bool(exchange)]]
            variables = device | ({"HRVGAN_REMOTE_STATE": "1"} if exchange else {})
            lines = call_dvc(tree, ["repro", "--single-item", *options, stage], stage, variables)
            state = states(lines).get(stage, "unchanged")
        new = state != "unchanged" and when_unlocked(lambda: graph.status(tree, stage))[1] != before
        if exchange:
            call_dvc(tree, ["push", stage], f"outputs of {stage}")
            exchange.leave(stage)
            if state == "unchanged" and stage in exchange.taken:
                state, why, new = "restored", ELSEWHERE, True
    finally:
        slots.put(device)
    outcome = Outcome(stage, state, why, time.monotonic() - start, new)
    return Completed(name=state.capitalize(), message=why or None, data=outcome)


def call_dvc(tree: Path, arguments: list[str], work: str, variables: dict[str, str] | None = None) -> list[str]:
    return when_unlocked(lambda: run(tree, [*PYTHON, "dvc", *arguments], work, variables))


def states(lines: list[str]) -> dict[str, str]:
    """What DVC did with each stage, by its own lines: "ran", "restored" or "unchanged"."""
    found = {}
    for match in filter(None, (re.match(r"(Running stage|Stage) '([^']+)'(.*)", line) for line in lines)):
        unrun = "restored" if "is cached - skipping run" in match[3] else "unchanged"
        found[match[2]] = "ran" if match[1] == "Running stage" else unrun
    return found


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


def run(tree: Path, command: list[str], work: str, variables: dict[str, str] | None = None) -> list[str]:
    """Run a command in `tree`, with more environment `variables`, and return its lines. Raises StageError, which names
    the `work`, or LockError if another process holds a lock of DVC."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    env = {**environment(tree), **(variables or {})}
    process = child_process.start(command, grace=GRACE, cwd=tree, env=env, **pipes)
    at_work.add(process)
    lines = []
    try:
        listen(process, lines)
    finally:
        process.stdin.close()  # ends the stage if the run was cancelled; then its last lines are logged
        listen(process, lines)
        code = process.wait()
        at_work.discard(process)
    if code != 0 and any(line.startswith("ERROR: ") and LOCKED.search(line) for line in lines):
        raise LockError("\n".join(lines))
    if code != 0:
        raise StageError(f"{work}: {own_sentence(lines)}")
    return lines


def end_all() -> None:
    """End the commands at work, within GRACE seconds: those of tasks in other threads do not hear of a cancellation."""
    for process in list(at_work):
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


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


def environment(tree: Path) -> dict[str, str]:
    """The worker's environment, with its Python first for the `python -m pipeline...` of dvc.yaml, the state of this
    checkout, and a name for the commits of experiments where Git knows none."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    defaults = {"HRVGAN_STATE": str(ROOT / ".state")} if tree != ROOT else {}
    for what, value in (("name", "hrvgan"), ("email", "hrvgan@localhost")):
        own = subprocess.run(["git", "config", f"user.{what}"], cwd=tree, capture_output=True, text=True)
        value = own.stdout.strip() or value
        defaults |= {f"GIT_{role}_{what.upper()}": value for role in ("AUTHOR", "COMMITTER")}
    return {**defaults, **os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}


def own_sentence(lines: list[str]) -> str:
    """The last line that the stage itself wrote, or DVC's if the stage wrote nothing."""
    frame = ("Running stage ", "> ", "ERROR: failed to reproduce")  # lines of DVC around it
    own = [line for line in lines if not line.startswith(frame)]
    return (own or lines or ["ended without a word"])[-1]
