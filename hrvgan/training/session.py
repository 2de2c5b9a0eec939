"""The state of a running training, what it measures, and the file from which it resumes."""

import contextlib
import copy
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError, first_line
from hrvgan.files import atomic_path, clear
from hrvgan.models import build_model, load, model_class
from hrvgan.nn.base import VideoGAN
from hrvgan.nn.checkpoint import warm_start
from hrvgan.training import distributed

# Raised by torch.load and by what follows for a file that is no state, or cut short.
NOT_A_STATE = (RuntimeError, LookupError, TypeError, ValueError, EOFError, OSError, UnpicklingError)


def new_model(store: Clips, name: str, *, preset: str, net: dict, seed: int, init_from: str | Path = "") -> VideoGAN:
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


class Meter:
    """Running means for one row of the history. Sums stay on the device: reading them each step would synchronise."""

    def __init__(self, device: torch.device):
        self.device = device
        self.clear()
        self.clips, self.wait, self.since = 0, 0.0, time.perf_counter()

    def clear(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0) + value.float()
            self.counts[key] = self.counts.get(key, 0) + 1

    def waited(self, seconds: float, clips: int) -> None:
        """Adds the seconds that the loop waited for a batch of `clips` clips (of all processes together)."""
        self.wait += seconds
        self.clips += clips

    def means(self) -> dict[str, float]:
        """Means of all values added since `clear`, over all processes, whose sums are equal from then on."""
        sums = torch.stack(list(self.sums.values()))
        distributed.average_([sums])
        self.sums = dict(zip(self.sums, sums, strict=True))
        return {key: value / self.counts[key] for key, value in zip(self.sums, sums.tolist(), strict=True)}

    def timings(self) -> dict[str, float]:
        """Clips a second and the share of time spent waiting for data, since the last call; peak memory of this process
        in GB, since its start."""
        elapsed = time.perf_counter() - self.since
        timings = {
            "speed/clips_per_s": self.clips / elapsed,
            "speed/data_wait": self.wait / elapsed,
            "speed/peak_memory_gb": peak_memory(self.device) / 1e9,
        }
        self.clips, self.wait, self.since = 0, 0.0, time.perf_counter()
        return timings


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


PROGRESS = ("step", "history", "partial", "best", "seconds", "saved")  # fields that a state file holds as they are


class Session:
    """All that a training changes, and its `identity` (see loop.identity); at first at step 0."""

    def __init__(self, gan: VideoGAN, identity: dict, bfloat16: bool):
        self.gan, self.identity, self.bfloat16 = gan, identity, bfloat16
        self.average = copy.deepcopy(gan.G).requires_grad_(False).eval()  # the EMA of G
        self.phases, self.meter = gan.phases(), Meter(gan.device)
        self.step = 0  # training steps done
        self.history: list[dict] = []
        # A last row of fewer than `log_every` steps, dropped when training continues.
        self.partial: list[dict] = []
        self.best: dict | None = None  # weights of the best of the averages that were scored
        self.seconds = 0.0  # of training so far, over all resumes
        self.saved = 0.0  # the same, at the last state but one
        self.began = 0.0  # time.monotonic() less `seconds`, at the start or resume

    def out_of_time(self, minutes: float) -> bool:
        """True if at the last save the training had taken longer than `minutes`, 0 = no limit."""
        return bool(minutes) and self.seconds > 60 * minutes


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
        "meter": (session.meter.sums, session.meter.counts),
        "bfloat16": session.bfloat16,
        **{name: getattr(session, name) for name in PROGRESS},
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
        state = {"saved": 0.0, "best": None, **state}  # Earlier versions did not write these.
        for name in PROGRESS:
            setattr(session, name, state[name])
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


def read_state(state: str | Path, key: str, default: object) -> object:
    """Entry `key` of a state file; `default` if there is none, or no state in it, which resuming from it reports."""
    try:
        return torch.load(state, map_location="cpu", weights_only=True, mmap=True)[key]
    except NOT_A_STATE:
        return default


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
        step = read_state(state, "step", 0)
        raise KeyboardInterrupt(f"the same command goes on from step {step}") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
