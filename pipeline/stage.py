"""What every stage program has in common: its argument, its lock, and errors in one sentence."""

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from hrvgan.errors import one_sentence
from hrvgan.files import locked
from hrvgan.ops.allocator import keep_freed_memory


def run(main: Callable[..., None], doc: str, argument: str = "") -> None:
    """Runs a stage: `main(<argument>)`. InputError becomes one line and exit code 1; Ctrl-C exit code 130."""
    parser = argparse.ArgumentParser(prog=f"python -m pipeline.{module_name(main)}", description=doc)
    if argument:
        parser.add_argument(argument, help=f"a name of the section `{argument}s` of params.yaml")
    arguments = vars(parser.parse_args())
    warnings.filterwarnings("ignore", category=FutureWarning)
    keep_freed_memory()
    try:
        name = "-".join([module_name(main), *arguments.values()])
        # Of processes that share a training, the first one holds the lock for all: it alone writes.
        with one_sentence(), contextlib.nullcontext() if int(os.environ.get("RANK", 0)) else lock(name):
            main(**arguments)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command goes on from here\n")
        sys.exit(130)


def module_name(main: Callable) -> str:
    """The name behind `python -m pipeline.`: of the file, or of the package whose `__main__.py` is running."""
    file = Path(main.__code__.co_filename)
    return file.parent.name if file.stem == "__init__" else file.stem


def state_folder() -> Path:
    """Where state lives that DVC does not track: resume states, features, the MLflow store, Prefect's home.

    Always in the main checkout, also when DVC runs an experiment in a temporary copy below .dvc/tmp; the environment
    variable HRVGAN_STATE moves it.
    """
    if os.environ.get("HRVGAN_STATE"):
        return Path(os.environ["HRVGAN_STATE"]).absolute()
    return main_checkout() / ".state"


def main_checkout() -> Path:
    """The folder of the project, also when DVC runs an experiment in a temporary copy of it, below .dvc/tmp."""
    here = Path.cwd()
    copies = [folder for folder in here.parents if folder.name == ".dvc"]
    return copies[-1].parent if copies else here


def lock(name: str) -> contextlib.AbstractContextManager[None]:
    """One program at a time may write one stage's output: a killed dvc leaves its stage running without any lock.

    It is this folder's own: experiments of a queue, each in a copy of the project, run side by side.
    """
    return locked(Path(".state/locks") / f"{name}.lock", name)
