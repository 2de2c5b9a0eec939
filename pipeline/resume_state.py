"""Folder of a training's resume state: outside of DVC, which deletes outputs before a stage runs, and named by a hash
of everything that determines a training step."""

import ast
import contextlib
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import hrvgan
from hrvgan.clipstore.clips import Clips
from hrvgan.files import locked
from hrvgan.models import model_class
from hrvgan.nn.base import VideoGAN
from hrvgan.training import distributed
from hrvgan.training.loop import identity, train
from hrvgan.training.session import read_state
from pipeline.remote_state import mirrored
from pipeline.stage import state_folder

ANY_KEY = "[0-9a-f]" * 16  # for glob; `*` would match other runs whose names begin with this run's
# Modules that change no step: registries, errors, files, locks, arguments, progress bars, where freed memory is kept.
NO_STEP = {
    "hrvgan", "hrvgan.config", "hrvgan.errors", "hrvgan.files", "hrvgan.models", "hrvgan.ops.allocator",
    "hrvgan.progress",
}  # fmt: skip


@contextlib.contextmanager
def resume_folder(run: str, gan: VideoGAN, store: Clips, config: dict) -> Iterator[Path]:
    """The folder of exactly this training: another one if model, data, seed, code or a training argument differs. It
    is locked for the length of the block; a training of the same key, as in a queue of experiments, waits.

    The number of steps is not part of the key, so that more steps continue; see `make_room` for fewer.
    """
    facts = identity(gan, store, **{"seed": config["seed"], **config["train"]})
    facts["code"] = code_digest(config["model"])
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    folder = state_folder() / "resume" / f"{run}-{key}"
    if distributed.rank():
        yield folder
        return
    with locked(folder.with_name(f"{folder.name}.lock"), f"training of {run}", wait=True):
        steps = config["train"].get("steps", train.__kwdefaults__["steps"])
        with mirrored(folder, steps):
            make_room(run, folder, steps)
            announce(run, folder)
            yield folder


def announce(run: str, folder: Path) -> None:
    """Print whether the training resumes, or starts anew although states of other keys exist."""
    states = folder.parent
    others = [path for path in states.glob(f"{run}-{ANY_KEY}*/state.pt")
              if not path.parent.name.startswith(folder.name)]  # fmt: skip
    if (folder / "state.pt").exists():
        print(f"{run}: going on from {folder / 'state.pt'}", file=sys.stderr)
    elif others:
        print(f"{run}: model, data, code or parameters are new, so training starts anew (old states stay in {states})",
              file=sys.stderr)  # fmt: skip


def code_digest(model: str) -> str:
    """Hash of the code that a training step of `model` can reach: its syntax without paths, imports, comments and
    docstrings, so that none of these starts a training anew, nor does an operation that the model does not use."""
    modules = imported_modules({train.__module__, model_class(model).__module__})
    code = {ast.dump(StripProse().visit(tree)) for tree in modules.values()}
    return hashlib.sha256("\n".join(sorted(code)).encode()).hexdigest()


def imported_modules(names: set[str]) -> dict[str, ast.Module]:
    """Syntax of `names` and of all modules of `hrvgan` that they import, directly or not, at the top of a file or in a
    function."""
    found, queue = {}, set(names)
    while queue:
        name = queue.pop()
        if name in found or name in NO_STEP or not (source := source_of(name)):
            continue
        found[name] = ast.parse(source)
        for node in ast.walk(found[name]):
            if isinstance(node, ast.Import):
                queue |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                queue |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def source_of(module: str) -> bytes:
    """The source of a module or package of `hrvgan`; b"" for another library, or a name that is no module."""
    path = Path(hrvgan.__file__).parents[1] / module.replace(".", "/")
    files = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
    return files[0].read_bytes() if module.startswith("hrvgan.") and files else b""


class StripProse(ast.NodeTransformer):
    """Removes docstrings, other bare strings and import statements, which compute nothing."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        return None

    visit_ImportFrom = visit_Import


def make_room(run: str, folder: Path, steps: int) -> None:
    """Set aside a state of more than `steps` steps, as <folder>-<its steps>, and restore from the folders set aside the
    longest state of at most `steps` steps: a training of fewer steps is another one."""
    paths = folder.parent.glob(f"{folder.name}*/state.pt")
    states = {read_state(path, "step", 0): path.parent for path in paths}
    fitting = states.get(max((number for number in states if number <= steps), default=-1))
    present = next((number for number, path in states.items() if path == folder), None)
    if present is not None and fitting != folder:
        aside = folder.with_name(f"{folder.name}-{present}")
        folder.rename(aside)
        if present > steps:
            anew = "" if fitting else "; training starts anew"
            print(f"{run}: trained for {present} steps already, {steps} asked for: the longer state waits in {aside} "
                  f"until train.steps is raised again{anew}", file=sys.stderr)  # fmt: skip
    if fitting and fitting != folder:
        shutil.rmtree(folder, ignore_errors=True)  # of a training that was stopped before its first state
        fitting.rename(folder)
