"""A small copy of the project for tests: finished once a session, then copied for whatever a test does to it."""

import contextlib
import gc
import io
import json
import os
import re
import runpy
import shutil
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import yaml

from hrvgan.files import file_digest, locked
from pipeline import tracking  # also for the limits that it sets MLflow
from tests import processes

ROOT = Path(__file__).resolve().parents[1]
PARTS = (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "conf", "dvc.yaml", "hrvgan", "params.yaml",
         "pipeline")  # fmt: skip
STORE = ".state/mlflow/mlflow.db"
# What the environment of this session must not decide.
SETTINGS = ("DVC_", "MLFLOW_TRACKING_URI", "HRVGAN_STATE", "HRVGAN_DOWNLOADS")
# Nobody listens there, which MLflow takes for certain without a pause.
NO_TRACKER = {
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
}
# Someone for Git to name, where the machine has nobody.
WHO = {f"GIT_{role}_{what}": "t@t" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
LIMIT = 250  # seconds for one program; `dvc repro` runs several


class Project:
    """A project in a folder of its own, with its own git and DVC."""

    def __init__(self, root: Path):
        self.root = root

    @classmethod
    def new(cls, root: Path, change: Callable[[dict], object]) -> "Project":
        """The code of this checkout, and its params after `change`; nothing is made yet."""
        for part in PARTS:
            (root / part).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
            copy(ROOT / part, root / part)
        project = cls(root)
        project.edit_params(change)
        project.run("git", "init", "-q")
        return project

    @contextlib.contextmanager
    def copied(self, root: Path) -> Iterator["Project"]:
        """A copy at `root` for the length of a block, as if everything had been made there."""
        shutil.copytree(self.root, root, symlinks=True, copy_function=link_or_copy)
        # MLflow's database holds the addresses of its files.
        with contextlib.closing(sqlite3.connect(root / STORE)) as store, store:
            for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
                update = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"
                store.execute(update, (f"{self.root}/", f"{root}/"))
        yield Project(root)
        shutil.rmtree(root)  # 30 MB

    def edit_params(self, change: Callable[[dict], object]) -> None:
        path = self.root / "params.yaml"
        values = yaml.safe_load(path.read_text())
        change(values)
        path.write_text(yaml.safe_dump(values, sort_keys=False))

    def environment(self) -> dict[str, str]:
        """That of this session, with the tools of this Python's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        # DVC's caches of a project stay outside of it, in /var/tmp, unless told otherwise.
        own = {"PATH": path, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(self.root / ".dvc/tmp/site")}
        return {**kept, **own}

    def with_make(self) -> "Project":
        """This project, with the Makefile and an environment that make finds installed."""
        venv = self.root / ".venv"
        venv.mkdir()
        for file in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / file, self.root / file)
        for part in ("pyvenv.cfg", "bin", "lib"):
            (venv / part).symlink_to(Path(sys.prefix) / part)
        (venv / "ready").touch()
        return self

    def run(self, *command: str, code: int = 0, **variables: str) -> str:
        """All that `command` prints."""
        env = {**self.environment(), **variables}
        done = processes.run(command, cwd=self.root, env=env, check=False, seconds=LIMIT)
        said = done.stdout + done.stderr
        assert done.returncode == code, f"exit status {done.returncode} of {' '.join(command)}:\n{said}"
        return said

    def commit(self) -> str:
        """The hash of a commit of all files."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "-qm", "as it is", **WHO)
        return self.run("git", "rev-parse", "HEAD").strip()

    def call(self, program: str, *arguments: str, code: int = 0, **variables: str) -> str:
        """All that `python -m pipeline.<program> <arguments>` prints, run on this project in the process of the test
        and so with the code of this checkout: importing torch and MLflow takes longer than most programs."""
        said = io.StringIO()
        with (
            contextlib.chdir(self.root),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            mock.patch.dict(os.environ),  # MLflow leaves its address there.
            mock.patch.object(sys, "argv", [program, *arguments]),
            warnings.catch_warnings(action="ignore"),
        ):
            for name in filter(lambda name: name.startswith(SETTINGS), list(os.environ)):
                del os.environ[name]
            # As the user's choice of an allocator: else the program changes that of this process for good.
            os.environ |= {"MALLOC_TRIM_THRESHOLD_": "131072", **variables}
            status = exit_status(program, said)
            gc.unfreeze()  # A program's process is its own, and this one is not.
        said = said.getvalue()
        assert status == code, f"exit status {status} of {program} {' '.join(arguments)}:\n{said}"
        return said

    def repro(self, *arguments: str) -> set[str]:
        """The stages that `dvc repro` runs."""
        return set(running(self.run("dvc", "repro", *arguments)))

    def stale(self) -> set[str]:
        """The stages of which something has changed since they ran, as DVC sees it."""
        return set(json.loads(self.run("dvc", "status", "--json")))

    def records(self, run: str, condition: str = "") -> tuple:
        """MLflow's client, and what it has of a run, the newest first."""
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{self.root / STORE}")
        experiment = client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id
        return client, client.search_runs([experiment], f"tags.run = '{run}'{condition}")


def link_or_copy(source: str, target: str) -> None:
    """For copytree: what DVC has in its cache is never written to again."""
    (os.link if "/.dvc/cache/" in source else shutil.copy2)(source, target)


def exit_status(program: str, said: io.StringIO) -> int:
    """That of pipeline.<program>, run with this process's arguments; a sentence that it ends with goes to `said`."""
    try:
        runpy.run_module(f"pipeline.{program}", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            said.write(f"{end.code}\n")
            return 1
        return end.code or 0
    return 0


def running(said: str) -> list[str]:
    """The stages that `dvc repro` says it runs, in this order."""
    return re.findall(r"Running stage '([^']+)'", said)


def digests(folder: Path) -> dict[str, str]:
    """Of all files below `folder`, by their paths in it."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): file_digest(file) for file in files}


def shrink(values: dict) -> None:
    """Params with which all stages together take seconds."""
    values["datasets"]["shapes"]["options"] = {"num_groups": 6, "videos_per_group": 1}
    values["runs"]["laptop"]["net"]["width"] = 0.04
    values["reference"] |= {"steps": 20}
    values["train"] |= {"steps": 4, "batch_size": 4, "log_every": 2, "save_every": 2, "sample_every": 4}
    values["sample"] |= {"clips_per_class": 2, "interpolation_steps": 2}
    values["evaluate"] |= {"draws": 2, "num_clips": 16}


def finished(tmp_path_factory) -> tuple[Project, set[str]]:
    """The project after a first `dvc repro`, and the stages that ran. It is for reading and copying: it is made once
    for all workers of a session."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    root, done = shared / "finished", shared / "finished.json"
    with locked(shared / "finished.lock", "the project", wait=True):
        if not done.exists():
            shutil.rmtree(root, ignore_errors=True)  # of a worker in which it failed
            done.write_text(json.dumps(sorted(Project.new(root, shrink).repro())))
    return Project(root), set(json.loads(done.read_text()))
