"""DVC's remote as what machines share besides Git: a stage takes its inputs from there, and leaves its outputs and its
entry of dvc.lock there, for whoever works at the same commit next."""

from dataclasses import dataclass
from pathlib import Path

import yaml
from dvc.repo import Repo


@dataclass(frozen=True)
class Exchange:
    """With others who work at the same `commit`, in the folder `tree`."""

    tree: Path
    commit: str
    taken: frozenset[str]  # stages of which others have made something that is new here

    @classmethod
    def open(cls, tree: Path, commit: str) -> "Exchange":
        """Bring dvc.lock up to what others have made. Raises DVC's NoRemoteError where the project has no remote."""
        with Repo(str(tree)) as repo:
            fs, folder = place(repo, commit)
            files = fs.find(folder) if fs.exists(folder) else []
            made = {name: entry for file in files for name, entry in yaml.safe_load(fs.read_text(file)).items()}
        lock = read_lock(tree)
        taken = frozenset(name for name, entry in made.items() if lock["stages"].get(name) != entry)
        if taken:
            lock["stages"] |= made
            (tree / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
        return cls(tree, commit, taken)

    def inputs(self, stage: str, needs: set[str]) -> list[str]:
        """What to pull before `stage`: the stages that it needs, and itself where others have made it."""
        return sorted(needs | ({stage} & self.taken))

    def leave(self, stage: str) -> None:
        """Leave the stage's entry of dvc.lock, once what it names has been pushed."""
        entry = {stage: read_lock(self.tree)["stages"][stage]}
        with Repo(str(self.tree)) as repo:
            fs, folder = place(repo, self.commit)
            fs.makedirs(folder, exist_ok=True)
            fs.pipe(fs.join(folder, f"{stage}.yaml"), yaml.safe_dump(entry, sort_keys=False).encode())


def place(repo: Repo, commit: str) -> tuple:
    """(file system, folder) of the entries that were made at `commit`."""
    remote = repo.cloud.get_remote()
    return remote.fs, remote.fs.join(remote.path, "locks", commit)


def read_lock(tree: Path) -> dict:
    path = tree / "dvc.lock"
    return yaml.safe_load(path.read_text()) if path.exists() else {"schema": "2.0", "stages": {}}
