"""What every stage program has in common: its argument, its lock, and errors in one sentence."""

import argparse
import contextlib
import fcntl
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from hrvgan.errors import InputError


def run(main: Callable[..., None], doc: str, argument: str = "") -> None:
    """Runs a stage: `main(<argument>)`. InputError becomes one line and exit code 1; Ctrl-C exit code 130."""
    parser = argparse.ArgumentParser(prog=f"python -m pipeline.{module_name(main)}", description=doc)
    if argument:
        parser.add_argument(argument, help=f"a name of the section `{argument}s` of params.yaml")
    arguments = vars(parser.parse_args())
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        with lock("-".join([module_name(main), *arguments.values()])):
            main(**arguments)
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command goes on from here\n")
        sys.exit(130)


def module_name(main: Callable) -> str:
    """The name behind `python -m pipeline.`, although the module itself is called __main__ then."""
    return Path(main.__code__.co_filename).stem


def state_folder() -> Path:
    """Where state lives that DVC does not track: resume states, locks, the MLflow store, Prefect's home.

    Always in the main checkout, also when DVC runs an experiment in a temporary copy below .dvc/tmp; the environment
    variable HRVGAN_STATE moves it.
    """
    if os.environ.get("HRVGAN_STATE"):
        return Path(os.environ["HRVGAN_STATE"]).absolute()
    here = Path.cwd()
    copies = [folder for folder in here.parents if folder.name == ".dvc"]
    return (copies[-1].parent if copies else here) / ".state"


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """One program at a time may write one stage's output: a killed dvc leaves its stage running without any lock."""
    path = state_folder() / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            message = f"{name} is running already (process {owner}); wait for it or end that process"
            raise InputError(message) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
