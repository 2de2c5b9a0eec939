"""A training under way, and the file that it goes on from."""

import copy
import inspect
import sys
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn

from hrvgan.checkpoint import warm_start
from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError, first_line
from hrvgan.files import atomic_path, clear
from hrvgan.models import build_model, model_class
from hrvgan.nn.base import Phase, VideoGAN
from hrvgan.training import distributed
from hrvgan.training.meter import Meter

# What reading a file raises that is none, or is cut short: torch.load and what follows each have their own.
NOT_A_STATE = (RuntimeError, LookupError, TypeError, ValueError, EOFError, OSError, UnpicklingError)


def new_model(
    store: Clips, name: str, *, preset: str, net: dict, seed: int, init_from: str | Path = ""
) -> VideoGAN:
    """The model `name` to be trained on the clips of `store`: weights drawn from `seed`, then those of the released
    model in the folder `init_from`, if one is given."""
    torch.manual_seed(seed)
    of_store = {"num_classes": store.num_classes, "size": store.shape[1], "num_frames": store.shape[0]}
    taken = inspect.signature(model_class(name)).parameters  # Not all know classes or choose their length.
    gan = build_model(name, preset=preset, **{key: of_store[key] for key in of_store if key in taken} | net)
    gan.classes, gan.fps, gan.crop = store.classes if gan.num_classes else [], store.fps, store.crop
    if init_from and (fresh := warm_start(gan, init_from)):
        print(f"{init_from}: no weights there for {fresh}: drawn anew", file=sys.stderr)
    return gan


@dataclass
class Session:
    """A training under way: all that it changes, and what it is (`loop.identity`)."""

    gan: VideoGAN
    average: nn.Module  # the EMA of G
    phases: list[Phase]
    about: dict
    bfloat16: bool
    meter: Meter
    step: int = 0  # training steps done
    history: list[dict] = field(default_factory=list)
    partial: list[dict] = field(
        default_factory=list
    )  # a row of fewer steps, at the end: gone when it goes on
    seconds: float = 0.0  # trained so far, of all processes that took turns at it
    saved: float = 0.0  # and up to the last state but one

    @classmethod
    def of(cls, gan: VideoGAN, about: dict, bfloat16: bool) -> "Session":
        """A new one."""
        average = copy.deepcopy(gan.G).requires_grad_(False).eval()
        return cls(gan, average, gan.phases(), about, bfloat16, Meter(gan.device))

    def report(self, row: dict, whole: bool) -> None:
        """Adds a row to the history; from a `whole` one on the meter begins anew."""
        self.partial = [] if whole else [row]
        if whole:
            self.history.append(row)
            self.meter.clear()


def begin(session: Session, state: str | Path, steps: int, minutes: float = 0.0) -> None:
    """Goes on from the file `state`, if it is there, to `steps`, or for `minutes` in all."""
    resume(state, session)
    if session.step != distributed.word_of_first(session.step):
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


def save_state(path: str | Path, session: Session) -> None:
    """Writes all that training needs to go on, as one whole file."""
    state = {
        "about": session.about,
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
    """Puts the state at `path`, if there is one, into `session`.

    Raises InputError when it is that of another training, and says what differs.
    """
    path = Path(path)
    if distributed.rank() == 0:
        clear(path.parent, path.stem, path.suffix)  # of a process that was killed while it wrote
    if not path.exists():
        return
    try:
        state = torch.load(path, map_location=session.gan.device, weights_only=True)
        if changed := differences(state["about"], session.about):
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
    """ "batch_size 16, not 8": what differs between two nested dicts of plain values."""
    said = []
    for key in dict.fromkeys([*then, *now]):
        old, new = then.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            said += filter(None, [differences(old, new)])
        elif old != new:
            said.append(f"{key} {old}, not {new}")
    return ", ".join(said)
