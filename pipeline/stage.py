"""Shared by all stage programs: command line, lock, error messages, folders."""

import argparse
import contextlib
import gc
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from hrvgan.errors import InputError, first_line, one_sentence
from hrvgan.files import locked
from pipeline import params


def run(
    main: Callable[..., None],
    doc: str,
    argument: str = "",
    launch: Callable[..., int | None] = lambda **arguments: None,
) -> None:
    """Run a stage as `main(<argument>)`, or as processes that `launch` starts and of which it returns the exit code.
    InputError becomes one line and exit code 1; Ctrl-C exit code 130."""
    from hrvgan.ops.allocator import keep_freed_memory  # torch, which `make status` does without

    file = Path(main.__code__.co_filename)
    program = file.parent.name if file.stem == "__init__" else file.stem  # a package, or a module
    parser = argparse.ArgumentParser(prog=f"python -m pipeline.{program}", description=doc)
    if argument:
        parser.add_argument(argument, help=f"a name of the section `{argument}s` of params.yaml")
    arguments = vars(parser.parse_args())
    warnings.filterwarnings("ignore", category=FutureWarning)
    keep_freed_memory()
    # Without this the collector would visit torch's modules again and again while MLflow is imported, for a second.
    gc.freeze()
    try:
        name = "-".join([program, *arguments.values()])
        # Of processes that share a training, only the first one writes, so it alone takes the lock.
        first = int(os.environ.get("RANK", 0)) == 0
        with restored_on_failure(first), one_sentence():
            if (code := launch(**arguments)) is not None:
                sys.exit(code)
            with lock(name) if first else contextlib.nullcontext():
                main(**arguments)
    except KeyboardInterrupt as stop:  # A training says from which step it goes on.
        sys.stderr.write(f"\nstopped; {stop or 'the same command goes on from here'}\n")
        sys.exit(130)


@contextlib.contextmanager
def restored_on_failure(first: bool) -> Iterator[None]:
    """Bring back what the stage made when it last succeeded, where the block fails: DVC has deleted it. In a stage that
    DVC runs, of which this is the `first` process."""
    try:
        yield
    except BaseException as end:
        stage, failed = os.environ.get("DVC_STAGE"), not isinstance(end, SystemExit) or end.code
        if stage and first and failed:
            try:
                params.restore(stage)
            except Exception as error:  # DVC's, such as a lock that another process holds
                command = f"`dvc checkout --force {stage}` restores what was there before"
                print(f"{command} ({first_line(error)})", file=sys.stderr)
        raise


def state_folder() -> Path:
    """Folder of state that DVC does not track: resume states, features, the MLflow store, Prefect's home.

    It lies in the main checkout, also when DVC runs an experiment in a temporary copy below .dvc/tmp, unless the
    environment variable HRVGAN_STATE names another one.
    """
    if os.environ.get("HRVGAN_STATE"):
        return Path(os.environ["HRVGAN_STATE"]).absolute()
    return main_checkout() / ".state"


def main_checkout() -> Path:
    """The project's folder, also when DVC runs an experiment in a temporary copy of it, below .dvc/tmp."""
    here = Path.cwd()
    copies = [folder for folder in here.parents if folder.name == ".dvc"]
    return copies[-1].parent if copies else here


def lock(name: str) -> contextlib.AbstractContextManager[None]:
    """Lock of one stage's outputs: a killed dvc leaves its stage running without any lock of DVC's.

    It lies in the current folder, so that queued experiments, each in a copy of the project, run side by side.
    """
    return locked(Path(".state/locks") / f"{name}.lock", name)


def read_json(path: Path) -> dict:
    """Content of a JSON file, {} if there is none. Raises InputError if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON ({error}); remove it and run `dvc repro`") from None
