"""params.yaml, checked: a typo is an error that names the file, the key and the known keys.

As a program it makes a configuration of conf/ the active one:

    python -m pipeline.params use weizmann --path ../weizmann      # instead of what is active
    python -m pipeline.params add weizmann                         # beside it
    python -m pipeline.params add folder --path ../videos          # as `videos`, or by --name
    python -m pipeline.params restore                              # outputs that are missing and in DVC's cache
"""

import argparse
import contextlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hrvgan.config import check_values, load_yaml, pick_device
from hrvgan.errors import InputError, one_sentence
from hrvgan.files import atomic_path

FILE = Path("params.yaml")
LOCK = Path("dvc.lock")
ENTRIES = {
    "datasets": {"source": str, "watch": str, "options": dict, "clips": dict},
    "runs": {
        "dataset": str, "model": str, "preset": str, "seed": int, "init_from": str, "score_with": str,
        "net": dict, "train": dict, "sample": dict, "evaluate": dict,
    },
}  # fmt: skip
OVERRIDABLE = ("train", "sample", "evaluate")  # sections of which a run may change values
SECTIONS = dict.fromkeys([*ENTRIES, "extract", "reference", "train", "sample", "evaluate", "report"], dict)
NEEDED = {str: "a text", int: "a whole number, 0 or more", dict: "keys with values, {} for none"}


def load(path: Path = FILE) -> dict:
    """The whole file, validated. Raises InputError if it is missing, not YAML, or invalid."""
    values = load_yaml(text_of(path), str(path))
    validate(values)
    return values


def text_of(path: Path) -> str:
    if not path.exists():
        raise InputError(f"{path}: not found in {Path.cwd()}; run this from the root of the project")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason}); save it as that") from error


def validate(values: object) -> None:
    """Raises InputError for a missing or unknown key of a section, data set or run, and for a value of another type."""
    check_keys(FILE, "", values, SECTIONS)
    check_entries(FILE, values)
    for name, entry in values["runs"].items():
        if entry["dataset"] not in values["datasets"]:
            active = ", ".join(map(str, values["datasets"]))
            raise InputError(f"{FILE}: runs.{name}.dataset {entry['dataset']!r} is not active; active: {active}")


def check_entries(path: Path, values: dict) -> None:
    for kind, keys in ENTRIES.items():
        if not values[kind]:
            raise InputError(
                f"{path}: {kind} names nothing; make a configuration of conf/ active with "
                "`python -m pipeline.params use laptop`"
            )
        for name, entry in values[kind].items():
            if not (isinstance(name, str) and re.fullmatch(r"\w[\w-]*", name)):
                raise InputError(
                    f"{path}: {name!r} in {kind}: a name has letters, digits, - and _ only, and does not begin with -; "
                    "quote one that is a number or a word of YAML's"
                )
            check_keys(path, f"{kind}.{name}", entry, keys)


def check_keys(path: Path, where: str, values: object, known: dict[str, type]) -> None:
    """Raises InputError unless `values` has exactly the keys `known`, with values of their types."""
    place = f" in {where}" if where else ""
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected keys{place}; known: {', '.join(known)}")
    for key in values:
        if key not in known:
            raise InputError(f"{path}: unknown key {key!r}{place}; known: {', '.join(known)}")
    for key, kind in known.items():
        if key not in values:
            raise InputError(f"{path}: key {key!r} is missing{place}; needed: {', '.join(known)}")
        value = values[key]
        if not isinstance(value, kind) or isinstance(value, bool) or (kind is int and value < 0):
            raise InputError(f"{path}: {key} {value!r}{place}: need {NEEDED[kind]}")


def call(function: Callable, *arguments, where: str, values: dict):
    """Return `function(*arguments, **values)`; wrong values and InputErrors are reported as errors of `where`."""
    accept(function, values, where)
    with blamed(where):
        return function(*arguments, **values)


def accept(function: Callable, values: dict, where: str) -> None:
    """Raises InputError for a key of `values` that `function` does not take, for a missing one, and for a value of
    another type. `values` are keyword-only arguments, without those bound by functools.partial."""
    bound = getattr(function, "keywords", {})
    options = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    known = {option.name: option.default for option in options if option.name not in bound}
    for key in values:
        if key not in known:
            raise InputError(f"{FILE}: unknown key {key!r} in {where}; known: {', '.join(known) or 'none'}")
    for name, default in known.items():
        if default is inspect.Parameter.empty and name not in values:
            raise InputError(f"{FILE}: key {name!r} is missing in {where}; needed to run it")
    check_values(f"{FILE}: {where}: ", function, values)


@contextlib.contextmanager
def blamed(where: str) -> Iterator[None]:
    """Add params.yaml and `where` to an InputError of the block that names no file."""
    try:
        yield
    except InputError as error:
        if "/" in str(error).partition(": ")[0] or str(FILE) in str(error):
            raise
        raise InputError(f"{FILE}: {where}: {error}") from error


def dataset(name: str) -> dict:
    """The active data set `name`; its "clips" are those of section extract, overridden by its own."""
    values = load()
    entry = entry_of(values, "datasets", name)
    return {**entry, "clips": {**values["extract"], **entry["clips"]}}


def run(name: str) -> dict:
    """The active run `name`; its "train", "sample" and "evaluate" are the sections, overridden by its own. "processes"
    of section train, which changes no step, stands beside them."""
    values = load()
    entry = entry_of(values, "runs", name)
    config = entry | {kind: {**values[kind], **entry[kind]} for kind in OVERRIDABLE}
    config["processes"] = config["train"].pop("processes", 1)
    if config["processes"] != "auto" and not is_count(config["processes"]):
        raise InputError(f"{FILE}: train.processes {config['processes']!r}: need a number from 1 on, or auto")
    return config


def is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def device(config: dict):
    """The device of all stages of the run `config`."""
    return pick_device(config["train"].get("device", "auto"))


def entry_of(values: dict, kind: str, name: str) -> dict:
    if name not in values[kind]:
        raise InputError(f"{FILE}: no {name!r} in {kind}; active: {', '.join(values[kind])}")
    return values[kind][name]


def require_watched(name: str, entry: dict) -> None:
    """Raises InputError with a remedy if the watched file is missing; DVC's error would only name it."""
    if not Path(entry["watch"]).exists():
        raise InputError(
            f"{FILE}: datasets.{name}.watch: {entry['watch']} is not there; put or link the videos there, or say where "
            "they are (`make run CONF=... DATA=their folder`); data/README.md says where to get them"
        )


def activate(conf_name: str, path: str = "", name: str = "", add: bool = False) -> None:
    """Replace the data sets and runs of params.yaml by those of conf/<conf_name>.yaml, or with `add` extend them.

    `path` is the folder that its data sets read, `name` that of its data set and run: for conf/folder.yaml by
    default that of the folder. Comments and the other sections of params.yaml stay. Raises InputError, and leaves
    params.yaml unchanged, if the result is not valid.
    """
    conf = Path("conf") / f"{conf_name}.yaml"
    if not conf.exists():
        known = ", ".join(sorted(file.stem for file in conf.parent.glob("*.yaml")))
        raise InputError(f"{conf}: no such configuration; known: {known}")
    editor = YAML()
    editor.width = 120
    editor.preserve_quotes = True
    wanted, values = read(editor, conf), read(editor, FILE)
    check_keys(conf, "", wanted, dict.fromkeys(ENTRIES, dict))
    check_entries(conf, wanted)
    check_keys(FILE, "", values, SECTIONS)
    if path:
        point(wanted, conf, path)
    if name:
        rename(wanted, conf, name)
    elif path and "folder" in wanted["datasets"]:
        rename(wanted, conf, name_of_folder(Path(path)))
    for dataset, entry in wanted["datasets"].items():
        require_watched(dataset, entry)
    make_absolute(wanted)
    for kind in ENTRIES:
        if add:
            values[kind].update(wanted[kind])
        else:
            values[kind] = wanted[kind]
    validate(values)
    with atomic_path(FILE) as temporary, temporary.open("w", encoding="utf-8") as file:
        editor.dump(values, file)


def read(editor: YAML, path: Path) -> dict:
    try:
        return editor.load(text_of(path))
    except YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error


def point(wanted: dict, conf: Path, path: str) -> None:
    """Set the folder that the data sets of a configuration read."""
    if not Path(path).is_dir():
        raise InputError(f"{path}: no such folder; give the one that holds the videos")
    readers = [entry for entry in wanted["datasets"].values() if "path" in entry["options"]]
    if not readers:
        raise InputError(f"{conf}: its data sets read no folder; leave --path (DATA=) out, or choose another one")
    for entry in readers:
        entry["options"]["path"] = entry["watch"] = path


def make_absolute(wanted: dict) -> None:
    """Name the folders that data sets read by whole paths, which hold in a queued experiment's copy of the project."""
    for entry in wanted["datasets"].values():
        if entry["options"].get("path") == entry["watch"]:
            entry["options"]["path"] = entry["watch"] = os.path.abspath(entry["watch"])


def rename(wanted: dict, conf: Path, name: str) -> None:
    """Call the data set and the run of a configuration `name`."""
    if any(len(wanted[kind]) > 1 for kind in ENTRIES):
        raise InputError(f"{conf}: has several data sets or runs; leave --name (NAME=) out, or choose another one")
    for kind in ENTRIES:
        (entry,) = wanted[kind].values()
        wanted[kind] = {name: entry}
    run = wanted["runs"][name]
    run["dataset"] = name
    if Path(run["score_with"]).parent == Path("data/reference"):
        run["score_with"] = f"data/reference/{name}"


def name_of_folder(folder: Path) -> str:
    """Name of a data set that reads `folder`. Raises InputError if outputs of this name were made of another folder."""
    name = re.sub(r"[^\w-]+", "-", folder.resolve().name).strip("-") or "folder"
    stages = load_yaml(text_of(LOCK), str(LOCK))["stages"] if LOCK.exists() else {}
    if stage := stages.get(f"download@{name}"):
        before = stage["params"][str(FILE)][f"datasets.{name}.options"].get("path", "another source")
        if Path(before).resolve() != folder.resolve():
            raise InputError(
                f"{folder}: data/clips/{name} and models/{name} were made of {before}, and this would replace them; "
                f"give it a name of its own: NAME=another with make, --name here (or NAME={name} to replace them)"
            )
    return name


def active() -> str:
    """One line with the active data sets and runs."""
    names = {kind: ", ".join(map(str, load()[kind])) for kind in ENTRIES}
    return f"{FILE}: active now: data sets {names['datasets']}; runs {names['runs']}"


def changed_settings() -> str:
    """Sentence on what differs in the other sections from the file that Git has; "" if nothing does."""
    committed = subprocess.run(["git", "show", f"HEAD:./{FILE}"], capture_output=True, text=True)
    if committed.returncode:  # nothing is committed yet
        return ""
    before, now = load_yaml(committed.stdout, f"{FILE} in Git"), load()
    changes = [
        f"{section}.{key} is {now[section].get(key, 'not there')} ({before[section].get(key, 'not there')} in Git)"
        for section in SECTIONS if section not in ENTRIES and section in before
        for key in {**before[section], **now[section]} if before[section].get(key) != now[section].get(key)
    ]  # fmt: skip
    remedy = f"`git checkout HEAD -- {FILE}`, and then this command again, puts it back"
    return f"{FILE}: {', '.join(changes)}; {remedy}" if changes else ""


def keep_inactive() -> None:
    """Have DVC forget that it made the outputs of inactive runs and data sets: it deletes what it knows and params.yaml
    does not name, at each experiment and at `dvc checkout`."""
    from dvc.repo import Repo

    with Repo() as repo:
        used = {Path(out.fspath) for out in repo.index.outs if out.protocol == "local"}
        with repo.state.links as links:
            for path in [path for path in links if Path(repo.root_dir, path) not in used]:
                del links[path]


def restore(stage: str = "") -> None:
    """Check out, and print, those outputs of active stages, or of one, that are missing and in DVC's cache: DVC deletes
    the outputs of a stage before it runs."""
    from dvc.repo import Repo

    with Repo() as repo:
        outs = [out for out in repo.index.outs if out.use_cache and out.hash_info and out.protocol == "local"]
        outs = [out for out in outs if stage in ("", out.stage.addressing)]
        missing = [str(out) for out in outs if not out.exists and not out.changed_cache()]
        if missing:
            repo.checkout(targets=missing)
            print(f"back from DVC's cache: {', '.join(missing)}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.params", description="Make a configuration of conf/ active in params.yaml."
    )
    commands = parser.add_subparsers(dest="how", required=True, metavar="command")
    for how, words in (("use", "in place of what is active"), ("add", "beside what is active")):
        command = commands.add_parser(how, help=f"make a configuration of conf/ active, {words}")
        command.add_argument("conf_name", metavar="name", help="a file of conf/, without .yaml")
        command.add_argument("--path", default="", help="the folder of videos that it reads")
        command.add_argument("--name", default="", help="of its data set and run; else as in conf/, or the folder's")
    commands.add_parser("restore", help="check out outputs of active stages that are missing and in DVC's cache")
    arguments = vars(parser.parse_args())
    with one_sentence():
        if (how := arguments.pop("how")) != "restore":
            activate(**arguments, add=how == "add")
            print("\n".join(filter(None, [active(), changed_settings()])))
        if Path(".dvc").is_dir():
            keep_inactive()
            restore()


if __name__ == "__main__":
    main()
