"""The tree of a branch: a Git worktree beside the files of this folder, for work that nobody watches.

It never holds what somebody is editing. DVC's cache and the state folder are shared, so that nothing is trained twice.
"""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import yaml
from dvc.repo import Repo

from flows import ROOT
from flows.stages import StageError

TREE = ROOT / ".state" / "tree"
# What says on which data and how to train; the rest of the code is taken from the branch in any case.
DECISIVE = ["params.yaml", "dvc.yaml", "dvc.lock", ".dvc/config", "data"]
USERS_OWN = ("data/weights", "data/downloads")  # put here by hand, and ignored by Git


def prepare(branch: str, commit: str = "") -> None:
    """Bring TREE to `commit`, by default that of `branch`, with what was made there last. Raises StageError if what
    decides a training at a branch is not committed in this folder, or not to be found from another one."""
    if not commit:
        require_branch(branch)
        require_committed(branch)
    check_out(commit or branch)
    share_cache()
    link_data()
    with Repo(str(TREE)) as repo:
        repo.checkout(force=True, allow_missing=True)


def git(*arguments: str, tree: Path = ROOT) -> str:
    done = subprocess.run(["git", *arguments], cwd=tree, capture_output=True, text=True)
    if done.returncode:
        raise StageError(f"git {arguments[0]}: {' '.join(done.stderr.split())}")
    return done.stdout.strip()


def whole_name(commit: str) -> str:
    """Hash of a commit, which is fetched where this clone has none such."""
    with contextlib.suppress(StageError):
        return git("rev-parse", "--verify", f"{commit}^{{commit}}")
    git("fetch", "--quiet", "--all")
    return git("rev-parse", "--verify", f"{commit}^{{commit}}")


def require_branch(branch: str) -> None:
    known = git("for-each-ref", "--format=%(refname:short)", "refs/heads").split()
    if branch not in known:
        raise StageError(
            f"Git has no branch {branch} here; name one in prefect.yaml (parameter `branch` of nightly): "
            f"{', '.join(known) or 'none yet, commit first'}"
        )


def require_committed(branch: str) -> None:
    lines = git("status", "--porcelain", "--", *DECISIVE).splitlines()
    if files := [line.split(maxsplit=1)[1] for line in lines]:
        raise StageError(
            f"{', '.join(files)}: changed or unknown to Git, so that a training at branch {branch} would be another "
            f"one than this folder's; `git add {' '.join(files)} && git commit -m state` keeps the change, and "
            f"`git stash push -u {' '.join(files)}` puts it away"
        )


def check_out(branch: str) -> None:
    """Bring the files of TREE to those of the branch; dvc.lock stays as the last run left it, unless the branch has
    another one by now."""
    lock, recorded = TREE / "dvc.lock", b""
    try:
        before = (TREE / ".git").is_file() and git("rev-parse", "HEAD", tree=TREE)
    except StageError:  # The project was moved.
        before = ""
    if not before:
        shutil.rmtree(TREE, ignore_errors=True)
        git("worktree", "prune")
        git("worktree", "add", "--force", "--detach", str(TREE), branch)
        return
    if lock.exists() and blob(before) == blob(branch):
        recorded = lock.read_bytes()
    git("checkout", "--force", "--detach", branch, tree=TREE)
    if recorded:
        lock.write_bytes(recorded)


def blob(commit: str) -> str:
    """Identity of a commit's dvc.lock, "" if it has none."""
    return git("ls-tree", "--object-only", commit, "dvc.lock")


def share_cache() -> None:
    with Repo(str(ROOT)) as repo:
        local, cache = repo.config.load_one("local"), repo.cache.local_cache_dir
    with Repo(str(TREE)) as repo, repo.config.edit("local") as config:
        config |= local
        config.setdefault("cache", {})["dir"] = cache


def link_data() -> None:
    """Link, from the tree to this folder, the data that people have put there and Git ignores. Raises StageError for a
    relative path out of the project."""
    values = yaml.safe_load((TREE / "params.yaml").read_text())
    entries = values.get("datasets", {}).values()
    paths = {entry["watch"] for entry in entries} | {entry["options"].get("path", "") for entry in entries}
    paths |= {run["init_from"] for run in values.get("runs", {}).values()}
    for path in sorted({*paths, *USERS_OWN} - {""}):
        if os.path.isabs(path):
            continue
        if os.path.normpath(path).startswith(".."):
            raise StageError(
                f"params.yaml: {path} lies outside of the project, and leads elsewhere from the tree of a branch; "
                " write the absolute one and commit it (`make run DATA=/...`)"
            )
        if (ROOT / path).exists() and not (TREE / path).exists():
            (TREE / path).parent.mkdir(parents=True, exist_ok=True)
            (TREE / path).symlink_to(ROOT / path)
