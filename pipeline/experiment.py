"""Run an experiment, or queue several: `dvc exp run -S ...` with settings that are checked before anything runs.

    python -m pipeline.experiment "train.steps=4000 train.lr_decay=4200"
    python -m pipeline.experiment --queue --seeds 1,2,3 "train.batch_size=16,32"      # six

If a setting is wrong, the experiment fails or is stopped, params.yaml and what it made are as they were before.
"""

import argparse
import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from hrvgan.errors import InputError, one_sentence
from hrvgan.files import write_text
from pipeline import params
from pipeline.checks import check

# A setting goes on over quoted text, and over spaces that no other setting follows.
SETTING = re.compile(r"""(?:"[^"]*"|'[^']*'|\S|\s++(?!~|\+{0,2}[\w.]+=))+""")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.experiment", description=__doc__.split("\n\n")[0])
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="a value of params.yaml; + before a new key")
    parser.add_argument("--queue", action="store_true", help="one for each value of KEY=VALUE,VALUE,...; later")
    parser.add_argument("--seeds", default="", metavar="N,N,...", help="training seeds of all active runs")
    parser.add_argument(
        "--target", action="append", default=[], help="a stage, and what it needs; may be repeated; all without"
    )
    parser.add_argument("--force", action="store_true", help="run every stage, changed or not")
    arguments = parser.parse_args()
    settings = [setting.strip() for text in arguments.settings for setting in SETTING.findall(text)]
    with one_sentence():
        if arguments.queue:
            if not (settings or arguments.seeds):
                raise InputError("nothing to queue; name settings (SET=) or training seeds (SEEDS=)")
            queue([[*settings, *seeds] for seeds in seed_settings(arguments.seeds)])
            return
        with unchanged_params() as before:
            apply(settings)
            check()
            told = [params.active(), *overrides(settings)]
        print("\n".join(told), flush=True)
        params.keep_inactive()
    options = [*["--force"][: arguments.force], *(word for setting in settings for word in ("-S", setting))]
    code = run(["dvc", "exp", "run", *options, *arguments.target])
    if code:
        write_text(params.FILE, before)
        params.restore()
        sys.exit(f"the experiment has failed; {params.FILE} is as before")


@contextlib.contextmanager
def unchanged_params() -> Iterator[str]:
    """The text of params.yaml, written again at the end of the block."""
    before = params.text_of(params.FILE)
    try:
        yield before
    finally:
        write_text(params.FILE, before)


def queue(sweeps: list[list[str]]) -> None:
    """Queue an experiment for each combination of values in each of `sweeps`, if all of them can run."""
    from dvc.repo import Repo
    from dvc.utils.hydra import get_hydra_sweeps

    told = []
    with unchanged_params() as before:
        for settings in sweeps:
            with settings_refused(settings):
                combinations = get_hydra_sweeps({str(params.FILE): settings})
            for combination in combinations:
                apply(combination[str(params.FILE)])
                check()
                require_in_copies()
                told += overrides(settings)
                write_text(params.FILE, before)
    print("\n".join(dict.fromkeys(told)), flush=True)
    with Repo() as repo:
        for settings in sweeps:
            repo.experiments.run(queue=True, params=settings)


def recorded() -> dict[str, str]:
    """Name of each experiment that DVC has recorded, of whatever commit -> its revision."""
    from dvc.repo import Repo

    with Repo() as repo:
        return dict(pair for pairs in repo.experiments.ls(all_commits=True).values() for pair in pairs)


def seed_settings(seeds: str) -> list[list[str]]:
    """Settings of each seed of a list "1,2,3": all active runs have the same one. Without seeds one of none."""
    runs = params.load()["runs"]
    return [[f"runs.{run}.seed={seed}" for run in runs if seed] for seed in seeds.split(",")]


def require_in_copies() -> None:
    """Raises InputError for videos that the copies of the project, in which queued experiments run, would not have."""
    for name, entry in params.load()["datasets"].items():
        watched = Path(entry["watch"])
        known = subprocess.run(["git", "ls-files", "--", watched], capture_output=True).stdout
        if not (watched.is_absolute() or known):
            raise InputError(
                f"{params.FILE}: datasets.{name}: {watched} is not in Git, so the copies of the project in which "
                f"queued experiments run do not have it; set watch and options.path to {watched.absolute()}"
            )


def apply(settings: list[str]) -> None:
    """Write the settings, in Hydra's grammar, into params.yaml. Raises InputError for those that do not fit it."""
    from dvc.utils.hydra import apply_overrides

    with settings_refused(settings):
        apply_overrides(params.FILE, settings)


@contextlib.contextmanager
def settings_refused(settings: list[str]) -> Iterator[None]:
    """Raise InputError where Hydra does not understand `settings`, or params.yaml does not have their keys."""
    from dvc.exceptions import InvalidArgumentError
    from hydra.errors import HydraException

    try:
        yield
    except (InvalidArgumentError, HydraException) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise InputError(
            f"{params.FILE}: {' '.join(settings)}: {reason}; a key that is not there yet needs a + before it"
        ) from error


def overrides(settings: list[str]) -> list[str]:
    """Sentences on those of `settings` that a run overrides, which change nothing there."""
    runs, sentences = params.load()["runs"], []
    for setting in settings:
        key = setting.partition("=")[0].lstrip("+~")
        section, _, name = key.partition(".")
        for run, entry in runs.items():
            if section in params.OVERRIDABLE and name in entry[section]:
                value = entry[section][name]
                sentences.append(f"runs.{run}.{key} ({value}) overrides {key}: set runs.{run}.{key} instead")
    return sentences


def run(command: list[str]) -> int:
    """Exit code of the command; Ctrl-C reaches it, and this program waits for its end."""
    # A handler, unlike SIG_IGN, is not inherited.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return subprocess.run(command).returncode
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    main()
