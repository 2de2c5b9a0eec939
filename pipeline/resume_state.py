"""Where the state of a training lies between two calls of stage `train`: outside of DVC, which deletes outputs before
a stage runs, in a folder named after everything that decides over a step."""

import ast
import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

import hrvgan
from hrvgan.clipstore.clips import Clips
from hrvgan.lock import locked
from hrvgan.models import model_class
from hrvgan.nn.base import VideoGAN
from hrvgan.training import distributed
from hrvgan.training.loop import identity, train
from hrvgan.training.session import NOT_A_STATE
from pipeline import stage

ANY_KEY = "[0-9a-f]" * 16  # for glob; a name alone would find other runs, whose names begin with it


@contextlib.contextmanager
def resume_folder(run: str, gan: VideoGAN, store: Clips, config: dict) -> Iterator[Path]:
    """Where the state of exactly this training lies: another if model, data, seed, code or a training argument differs.
    For the time of the block this training is alone there: another, of other steps, in a queue of experiments, waits.

    Its length is no part of the name, so that asking for more steps continues; `make_room` sees to fewer.
    """
    about = identity(gan, store, **{"seed": config["seed"], **config["train"]}) | {
        "code": code_digest(config)
    }
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    states = stage.state_folder() / "resume"
    folder = states / f"{run}-{key}"
    if distributed.rank():
        yield folder
        return
    with locked(states / f"{folder.name}.lock", f"training of {run}", wait=True):
        make_room(run, folder, config["train"].get("steps", train.__kwdefaults__["steps"]))
        announce(run, folder)
        yield folder


def announce(run: str, folder: Path) -> None:
    """Says whether a training goes on, and if it starts anew although there are states of its name, why."""
    states = folder.parent
    if (folder / "state.pt").exists():
        print(f"{run}: going on from {folder / 'state.pt'}", file=sys.stderr)
    elif any(
        not path.parent.name.startswith(folder.name) for path in states.glob(f"{run}-{ANY_KEY}*/state.pt")
    ):
        print(f"{run}: model, data, code or parameters are new, so training starts anew (old states stay in {states})",
              file=sys.stderr)  # fmt: skip


# Modules that change no step: errors, files, locks, arguments, where freed memory is kept.
NO_STEP = {
    "hrvgan", "hrvgan.config", "hrvgan.errors", "hrvgan.files", "hrvgan.lock", "hrvgan.ops.allocator",
}  # fmt: skip


def code_digest(config: dict) -> str:
    """Hash of the code that a step of this run can reach, as Python's syntax without paths, imports and docstrings: a
    comment or a moved file is no other training, nor is an edit of an operation that its model does not use."""
    model = model_class(config["model"]).__module__
    bare = {
        ast.dump(WithoutProse().visit(ast.parse(source_of(name))))
        for name in reached({train.__module__, model})
    }
    return hashlib.sha256("\n".join(sorted(bare)).encode()).hexdigest()


def reached(names: set[str]) -> set[str]:
    """These modules, and all of `hrvgan` that they import, directly or not, at the top of a file or in a function."""
    found, ahead = set(), set(names)
    while ahead:
        name = ahead.pop()
        if name in found or name in NO_STEP or not source_of(name):
            continue
        found.add(name)
        for node in ast.walk(ast.parse(source_of(name))):
            if isinstance(node, ast.Import):
                ahead |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                ahead |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def source_of(module: str) -> bytes:
    """The source of a module of `hrvgan`; b"" for a package, another library, or a name that is no module."""
    path = Path(hrvgan.__file__).parents[1] / f"{module.replace('.', '/')}.py"
    return path.read_bytes() if module.startswith("hrvgan.") and path.is_file() else b""


class WithoutProse(ast.NodeTransformer):
    """Drops what computes nothing: docstrings and other bare strings, and import statements."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        return None

    visit_ImportFrom = visit_Import


def make_room(run: str, folder: Path, steps: int) -> None:
    """Fewer steps than were trained are another training: what `folder` holds then gets the number of its steps as a
    name, and the longest that is not longer than `steps` takes its place."""
    known = {number_of_steps(path): path.parent for path in folder.parent.glob(f"{folder.name}*/state.pt")}
    fitting = known.get(max((number for number in known if number <= steps), default=-1))
    there = next((number for number, path in known.items() if path == folder), None)
    if there is not None and fitting != folder:
        aside = folder.with_name(f"{folder.name}-{there}")
        folder.rename(aside)
        if there > steps:
            anew = "" if fitting else "; training starts anew"
            print(f"{run}: trained for {there} steps already, {steps} asked for: the longer state waits in {aside} "
                  f"until train.steps is raised again{anew}", file=sys.stderr)  # fmt: skip
    if fitting and fitting != folder:
        shutil.rmtree(folder, ignore_errors=True)  # of a training that was stopped before its first state
        fitting.rename(folder)


def number_of_steps(state: Path) -> int:
    return kept(state, "step", 0)


def kept(state: Path, key: str, otherwise: object) -> object:
    """What the file `state` has as `key`, or `otherwise` if it is none: whoever goes on from it says what is wrong."""
    try:
        return torch.load(state, map_location="cpu", weights_only=True, mmap=True)[key]
    except NOT_A_STATE:
        return otherwise
