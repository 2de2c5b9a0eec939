"""params.yaml, checked: a typo is an error that names the file, the key and the known keys.

As a program it makes a configuration of conf/ the active one:

    python -m pipeline.params use weizmann --path ../weizmann      # instead of what is active
    python -m pipeline.params add weizmann                         # beside it
"""

import argparse
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML

from hrvgan.arguments import load_yaml
from hrvgan.errors import InputError
from hrvgan.files import atomic_path

FILE = Path("params.yaml")
DATASET_KEYS = ("source", "watch", "options", "clips")
RUN_KEYS = ("dataset", "model", "preset", "seed", "init_from", "net", "train")
SECTIONS = ("datasets", "runs", "extract", "reference", "train", "sample", "evaluate", "report")


def load(path: Path = FILE) -> dict:
    """The whole file as a dict. Raises InputError when it is missing, no YAML, or has unknown or missing keys."""
    if not path.exists():
        raise InputError(f"{path}: not found in {Path.cwd()}; run this from the root of the project")
    values = load_yaml(path.read_text(encoding="utf-8"), str(path))
    check_keys(path, "", values, SECTIONS)
    for kind, keys in (("datasets", DATASET_KEYS), ("runs", RUN_KEYS)):
        if not isinstance(values[kind], dict) or not values[kind]:
            raise InputError(
                f"{path}: {kind} names nothing; make a configuration of conf/ active with "
                "`python -m pipeline.params use laptop`"
            )
        for name, entry in values[kind].items():
            check_keys(path, f"{kind}.{name}", entry, keys)
    for name, entry in values["runs"].items():
        if entry["dataset"] not in values["datasets"]:
            active = ", ".join(values["datasets"])
            raise InputError(
                f"{path}: runs.{name}.dataset {entry['dataset']!r} is not active; active: {active}"
            )
    return values


def check_keys(path: Path, where: str, values: object, known: tuple[str, ...]) -> None:
    """Every one of `known` is there, and nothing else."""
    place = f" in {where}" if where else ""
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected keys{place}; known: {', '.join(known)}")
    for key in values:
        if key not in known:
            raise InputError(f"{path}: unknown key {key!r}{place}; known: {', '.join(known)}")
    for key in known:
        if key not in values:
            raise InputError(f"{path}: key {key!r} is missing{place}; needed: {', '.join(known)}")


def section(name: str) -> dict:
    """The arguments of a stage's function."""
    return load()[name] or {}


def call(function: Callable, *arguments, where: str, values: dict):
    """`function(*arguments, **values)`, where a key of `values` that it does not take, or lacks, is an InputError that
    names the file, the place and the known keys."""
    parameters = list(inspect.signature(function).parameters.values())[len(arguments) :]
    known = [parameter.name for parameter in parameters]
    for key in values:
        if key not in known:
            raise InputError(f"{FILE}: unknown key {key!r} in {where}; known: {', '.join(known) or 'none'}")
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in values:
            raise InputError(f"{FILE}: key {parameter.name!r} is missing in {where}; needed to run it")
    return function(*arguments, **values)


def dataset(name: str) -> dict:
    """The active data set `name`; its "clips" are those of section extract, overridden by its own."""
    values = load()
    entry = entry_of(values, "datasets", name)
    return {**entry, "clips": {**values["extract"], **entry["clips"]}}


def run(name: str) -> dict:
    """The active run `name`; its "train" is section train, overridden by its own."""
    values = load()
    entry = entry_of(values, "runs", name)
    return {**entry, "train": {**values["train"], **entry["train"]}}


def entry_of(values: dict, kind: str, name: str) -> dict:
    if name not in values[kind]:
        raise InputError(f"{FILE}: no {name!r} in {kind}; active: {', '.join(values[kind])}")
    return values[kind][name]


def activate(name: str, path: str = "", add: bool = False) -> None:
    """Puts the data sets and runs of conf/<name>.yaml into params.yaml, in place of those there or beside them.

    `path` is the folder that its data sets read. Comments and the other sections of params.yaml stay.
    """
    conf = Path("conf") / f"{name}.yaml"
    if not conf.exists():
        known = ", ".join(sorted(file.stem for file in conf.parent.glob("*.yaml")))
        raise InputError(f"{conf}: no such configuration; known: {known}")
    editor = YAML()
    editor.width = 120
    editor.preserve_quotes = True
    wanted, values = editor.load(conf.read_text()), editor.load(FILE.read_text())
    if path and not Path(path).is_dir():
        raise InputError(f"{path}: no such folder; give the one that holds the videos")
    for entry in wanted["datasets"].values():
        if path and "path" in entry["options"]:
            entry["options"]["path"] = entry["watch"] = path
    for kind in ("datasets", "runs"):
        if add:
            values[kind].update(wanted[kind])
        else:
            values[kind] = wanted[kind]
    with atomic_path(FILE) as temporary, temporary.open("w", encoding="utf-8") as file:
        editor.dump(values, file)
    load()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.params", description=__doc__.split("\n\n")[1])
    parser.add_argument("how", choices=["use", "add"], help="in place of what is active, or beside it")
    parser.add_argument("name", help="a file of conf/, without .yaml")
    parser.add_argument("--path", default="", help="the folder of videos that it reads")
    arguments = parser.parse_args()
    try:
        activate(arguments.name, arguments.path, arguments.how == "add")
        print(
            f"params.yaml: active now: data sets {', '.join(load()['datasets'])}; runs {', '.join(load()['runs'])}"
        )
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
