"""A training's resume state on DVC's remote, so that it goes on on another machine where this one was taken away."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from hrvgan.errors import InputError, first_line
from hrvgan.training.session import read_state

SWITCH = "HRVGAN_REMOTE_STATE"  # set by the flow for stages that run at a commit, on any machine
FILES = ("run_id", "state.pt")  # the MLflow run comes first: a state without it would begin another record
PAUSE = 1  # seconds between two looks at the state


@contextlib.contextmanager
def mirrored(folder: Path, steps: int) -> Iterator[None]:
    """For the length of the block, copy each new state in `folder` to DVC's remote; first take from there a state of at
    most `steps` steps that is further than the one here. Nothing happens unless SWITCH is set."""
    if not os.environ.get(SWITCH):
        yield
        return
    from dvc.repo import Repo

    ended = threading.Event()
    with Repo() as repo:
        try:
            remote = repo.cloud.get_remote()
            there = remote.fs.join(remote.path, "resume", folder.name)
            sent = time_of(folder / "state.pt") if fetch(remote.fs, there, folder, steps) else 0
        except Exception as error:
            raise InputError(f"DVC's remote does not answer ({first_line(error)}); see `dvc remote list`") from error
        sender = threading.Thread(target=send_each, args=(remote.fs, there, folder, sent, ended))
        sender.start()
        try:
            yield
        finally:
            ended.set()
            sender.join()


def fetch(fs, there: str, folder: Path, steps: int) -> bool:
    """Take the state from the folder `there` if it fits; returns whether it does."""
    state, fetched = folder / "state.pt", folder / "fetched.pt"
    if not fs.exists(fs.join(there, "state.pt")):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    fs.get_file(fs.join(there, "state.pt"), str(fetched))
    fits = read_state(state, "step", 0) < read_state(fetched, "step", 0) <= steps
    if fits:
        fetched.replace(state)
        with contextlib.suppress(FileNotFoundError):
            fs.get_file(fs.join(there, "run_id"), str(folder / "run_id"))
        print(f"{state}: from DVC's remote", file=sys.stderr)
    fetched.unlink(missing_ok=True)
    return fits


def send_each(fs, there: str, folder: Path, sent: int, ended: threading.Event) -> None:
    """Copy the state whenever it is newer than at the time `sent`, for the last time once `ended` is set. A remote that
    does not answer is reported once, and does not stop the training."""
    failed = last = False
    while not last:
        last = ended.wait(PAUSE)
        if (now := time_of(folder / "state.pt")) == sent:
            continue
        try:
            for file in filter(Path.exists, (folder / name for name in FILES)):
                fs.makedirs(there, exist_ok=True)
                fs.put_file(str(file), fs.join(there, file.name))
            sent, failed = now, False
        except Exception as error:
            if not failed:
                sys.stderr.write(f"\nwarning: DVC's remote does not take the state ({first_line(error)})\n")
            failed = True


def time_of(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
