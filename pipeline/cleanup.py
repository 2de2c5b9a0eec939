"""Show what is kept for longer than the rule says, and with --apply remove it.

The rule: of each run the newest 3 resume states, the newest 30 trainings in MLflow and every one that was its champion;
the newest 30 nights among DVC's experiments; features that were used in the last 90 days; and of DVC's cache what
the files here, a commit or an experiment that stays refers to. Compiled kernels keep to 64 MB by themselves.
"""

import argparse
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from hrvgan.errors import one_sentence
from pipeline.params import LOCK
from pipeline.stage import state_folder

NIGHTS, TRAININGS, STATES, DAYS = 30, 30, 3, 90
NIGHT = re.compile(r"nightly-\d{4}-\d\d-\d\d(-\d+)?")
TREE = Path(".state/tree")  # in which nights work


@dataclass(frozen=True)
class Removal:
    what: str
    size: int  # bytes; 0 if they are not known
    apply: Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.cleanup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--apply", action="store_true", help="remove it; without, it is only shown")
    apply = parser.parse_args().apply
    with one_sentence():
        removals = [*old_states(), *old_features(), *old_trainings(), *old_nights()]
        for removal in removals:
            print(f"{removal.size / 1e6:9.1f} MB  {removal.what}")
            if apply:
                removal.apply()
        print(collect_cache(apply))
        if not removals:
            print("nothing else is older than the rule says")
        elif not apply:
            print("`make cleanup APPLY=1` removes it")


def size_of(folder: Path) -> int:
    return sum(file.lstat().st_size for file in [folder, *folder.rglob("*")] if not file.is_dir())


def old_states() -> Iterator[Removal]:
    """Resume states, but for the newest of each run and those that are in use."""
    of_run = defaultdict(list)
    for path in (state_folder() / "resume").glob("*/state.pt"):
        of_run[re.sub(r"-[0-9a-f]{16}(-\d+)?$", "", path.parent.name)].append(path)
    for run, paths in sorted(of_run.items()):
        paths.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in paths[STATES:]:
            folder = path.parent
            if not in_use(folder):
                what = f"{folder}: not among the newest {STATES} resume states of {run}"
                yield Removal(what, size_of(folder), lambda folder=folder: shutil.rmtree(folder))


def in_use(folder: Path) -> bool:
    key = re.match(r".*-[0-9a-f]{16}", folder.name)[0]
    try:
        with FileLock(folder.with_name(f"{key}.lock"), timeout=0):
            return False
    except Timeout:
        return True


def old_features() -> Iterator[Removal]:
    """Features of real clips that nobody has read for a while: they are computed again when asked for."""
    for path in sorted((state_folder() / "features").glob("*")):
        if time.time() - max(path.stat().st_mtime, path.stat().st_atime) > DAYS * 86400:
            yield Removal(f"{path}: not used for {DAYS} days", size_of(path), path.unlink)


def old_trainings() -> Iterator[Removal]:
    """Runs of MLflow, but for the newest of each name and those that made a champion. They go to MLflow's trash, which
    `mlflow gc` empties."""
    from pipeline.status import is_there
    from pipeline.tracking import connect
    from pipeline.tracking.registry import champions_ever

    if not is_there():
        return
    client, experiment = connect()
    of_run = defaultdict(list)
    for run in client.search_runs([experiment], order_by=["attributes.start_time DESC"], max_results=5000):
        of_run[run.data.tags.get("run", "")].append(run.info.run_id)
    for name, ids in sorted(of_run.items()):
        champions = champions_ever(client, name) if len(ids) > TRAININGS else set()
        for run_id in [run_id for run_id in ids[TRAININGS:] if run_id not in champions]:
            what = f"MLflow run {run_id}: not among the newest {TRAININGS} trainings of {name}"
            yield Removal(what, 0, lambda run_id=run_id: client.delete_run(run_id))


def old_nights() -> Iterator[Removal]:
    from pipeline.experiment import recorded  # torch, which the rest does without

    for name in sorted(filter(NIGHT.fullmatch, recorded()), key=by_date)[:-NIGHTS]:
        what = f"experiment {name}: not among the newest {NIGHTS} nights"
        yield Removal(what, 0, lambda name=name: forget(name))


def by_date(name: str) -> tuple[int, ...]:
    """nightly-2026-11-27-2 comes after nightly-2026-11-27, and before nightly-2026-11-27-10."""
    return tuple(map(int, name.split("-")[1:]))


def forget(name: str) -> None:
    from dvc.repo import Repo

    with Repo() as repo:
        repo.experiments.remove([name])


def collect_cache(apply: bool) -> str:
    """Have DVC remove from its cache what nothing refers to; returns what happened as a sentence. A cache that others
    share, or that holds the outputs of runs that are not active and so unknown to DVC, is left alone."""
    from dvc.repo import Repo

    with Repo() as repo:
        cache, root = Path(repo.cache.local_cache_dir), Path(repo.root_dir)
        before = size_of(cache)
        size = f"{before / 1e6:9.1f} MB  DVC's cache"
        known = yaml.safe_load(LOCK.read_text())["stages"] if LOCK.exists() else {}
        if inactive := sorted(set(known) - {stage.addressing for stage in repo.index.stages}):
            return f"{size}, which stays: it holds what {', '.join(inactive)} made, not active in params.yaml"
        if not cache.is_relative_to(root):
            return f"{size}, which stays: it lies outside of the project, and others may use it"
        if not apply:
            return f"{size}; what nothing refers to goes"
        others = [str(TREE.resolve())] if TREE.exists() else []
        repo.gc(workspace=True, all_commits=True, all_experiments=True, repos=others, force=True)
        return f"{size}; {(before - size_of(cache)) / 1e6:.1f} MB, to which nothing referred, are gone"


if __name__ == "__main__":
    main()
