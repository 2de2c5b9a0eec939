"""The state of a running training, and the file from which it resumes."""

import contextlib
import copy
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError, first_line
from hrvgan.files import atomic_path, clear
from hrvgan.models import build_model, load, model_class
from hrvgan.nn.base import Phase, VideoGAN
from hrvgan.nn.checkpoint import warm_start
from hrvgan.training import distributed
from hrvgan.training.meter import Meter

# Raised by torch.load and by what follows for a file that is no state, or cut short.
NOT_A_STATE = (RuntimeError, LookupError, TypeError, ValueError, EOFError, OSError, UnpicklingError)


def new_model(
    store: Clips, name: str, *, preset: str, net: dict, seed: int, init_from: str | Path = ""
) -> VideoGAN:
    """The model `name` for the clips of `store`, with weights drawn from `seed`; then those of the released model in
    the folder `init_from`, if one is given."""
    torch.manual_seed(seed)
    store_arguments = {"num_classes": store.num_classes, "size": store.shape[1], "num_frames": store.shape[0]}
    taken = inspect.signature(model_class(name)).parameters  # Not every model has classes or a free length.
    gan = build_model(
        name, preset=preset, **{key: value for key, value in store_arguments.items() if key in taken} | net
    )
    gan.classes, gan.fps, gan.crop = store.classes if gan.num_classes else [], store.fps, store.crop
    if init_from and (fresh := warm_start(gan, load(init_from), init_from)):
        print(f"{init_from}: no weights there for {fresh}: drawn anew", file=sys.stderr)
    return gan


@dataclass
class Session:
    """All that a training changes, and its `identity` (see loop.identity)."""

    gan: VideoGAN
    average: nn.Module  # the EMA of G
    phases: list[Phase]
    identity: dict
    bfloat16: bool
    meter: Meter
    step: int = 0  # training steps done
    history: list[dict] = field(default_factory=list)
    # A last row of fewer than `log_every` steps, dropped when training continues.
    partial: list[dict] = field(default_factory=list)
    seconds: float = 0.0  # of training so far, over all resumes
    saved: float = 0.0  # the same, at the last state but one
    began: float = 0.0  # time.monotonic() less `seconds`, at the start or resume

    @classmethod
    def of(cls, gan: VideoGAN, identity: dict, bfloat16: bool) -> "Session":
        """A new training at step 0."""
        average = copy.deepcopy(gan.G).requires_grad_(False).eval()
        return cls(gan, average, gan.phases(), identity, bfloat16, Meter(gan.device))

    def out_of_time(self, minutes: float) -> bool:
        """True if at the last save the training had taken longer than `minutes`, 0 = no limit."""
        return bool(minutes) and self.seconds > 60 * minutes

    def report(self, row: dict, whole: bool) -> None:
        """Adds a row to the history; a `whole` row resets the meter."""
        self.partial = [] if whole else [row]
        if whole:
            self.history.append(row)
            self.meter.clear()


def begin(session: Session, state: str | Path, steps: int, minutes: float = 0.0) -> None:
    """Resumes from the file `state` if it exists; checks it against the length asked for, `steps` and `minutes` in
    all."""
    resume(state, session)
    if session.step != distributed.broadcast_from_rank0(session.step):
        raise InputError(f"{state}: processes see different files; put it where all machines can read it")
    if session.step > steps:
        raise InputError(
            f"{state}: trained for {session.step} steps already, {steps} asked for; "
            "raise train.steps, or remove the file to train anew"
        )
    if minutes and session.saved > 60 * minutes:
        raise InputError(
            f"{state}: trained for {session.seconds / 60:.3g} minutes already, {minutes:g} asked for; "
            "raise train.minutes, or remove the file to train anew"
        )
    session.began = time.monotonic() - session.seconds


def save_state(path: str | Path, session: Session) -> None:
    """Measures the time of training so far; the first process writes the resume state, atomically."""
    session.saved = session.seconds
    session.seconds = distributed.broadcast_from_rank0(time.monotonic() - session.began)
    if distributed.rank():
        return
    state = {
        "about": session.identity,
        "gan": session.gan.state_dict(),
        "average": session.average.state_dict(),
        "optimizers": {phase.name: phase.optimizer.state_dict() for phase in session.phases},
        "step": session.step,
        "bfloat16": session.bfloat16,
        "history": session.history,
        "partial": session.partial,
        "meter": (session.meter.sums, session.meter.counts),
        "seconds": session.seconds,
        "saved": session.saved,
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def resume(path: str | Path, session: Session) -> None:
    """Loads the state at `path`, if it exists, into `session`.

    Raises InputError when it belongs to another training, and names the difference.
    """
    path = Path(path)
    if distributed.rank() == 0:
        clear(path.parent, path.stem, path.suffix)  # of a process that was killed while it wrote
    if not path.exists():
        return
    try:
        state = torch.load(path, map_location=session.gan.device, weights_only=True)
        if changed := differences(state["about"], session.identity):
            raise InputError(
                f"{path}: the state of a training with {changed}; put that back, or remove the file to train anew"
            )
        session.gan.load_state_dict(state["gan"])
        session.average.load_state_dict(state["average"])
        for phase in session.phases:
            phase.optimizer.load_state_dict(state["optimizers"][phase.name])
        for name in ("step", "history", "partial", "seconds"):
            setattr(session, name, state[name])
        session.saved = state.get("saved", 0.0)  # Earlier versions did not write it.
        session.meter.sums, session.meter.counts = state["meter"]
        if state["bfloat16"] != session.bfloat16:
            began = "bfloat16" if state["bfloat16"] else "float32"
            print(f"{path}: goes on in {began}, as it began (train.precision auto)", file=sys.stderr)
            session.bfloat16 = state["bfloat16"]
    except InputError:
        raise
    except NOT_A_STATE as error:
        reason = first_line(error)
        raise InputError(f"{path}: not a state of this model ({reason}); remove it to train anew") from error


def differences(then: dict, now: dict) -> str:
    """Differences between two nested dicts of plain values, as text: "batch_size 16, not 8"."""
    found = []
    for key in dict.fromkeys([*then, *now]):
        old, new = then.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += filter(None, [differences(old, new)])
        elif old != new:
            found.append(f"{key} {old}, not {new}")
    return ", ".join(found)


def saved_step(state: str | Path) -> int:
    """Step of the resume state in the file `state`; 0 if there is none."""
    if not Path(state).exists():
        return 0
    return torch.load(state, map_location="cpu", weights_only=True, mmap=True)["step"]


@contextlib.contextmanager
def stop_signals(state: str | Path) -> Iterator[Callable[[bool], int]]:
    """Defers SIGTERM, by which clusters take machines back, and the first SIGINT (Ctrl-C) for the time of the block.

    Yields a function that returns the number of the signal that has arrived, or 0; several processes agree on that
    when they call it with `together`, else it is 0. A second SIGINT raises KeyboardInterrupt, which names the step of
    the file `state`.
    """
    received = []

    def has_arrived(together: bool) -> int:
        mine = received[0] if received else 0
        if distributed.world_size() == 1:
            return mine
        return distributed.broadcast_from_rank0(mine) if together else 0

    def receive(number: int, _) -> None:
        received.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if distributed.rank() == 0:  # os.write, for a handler may interrupt a print.
                os.write(2, b"\nstopping after this step; Ctrl-C again ends at once\n")

    before = {}
    if threading.current_thread() is threading.main_thread():  # Python allows signal handlers there only.
        handled = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) != signal.SIG_IGN]
        before = {number: signal.signal(number, receive) for number in handled}
    try:
        yield has_arrived
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command goes on from step {saved_step(state)}") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
