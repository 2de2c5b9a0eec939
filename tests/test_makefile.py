"""The Makefile as a newcomer meets it: before anything is installed."""

import shutil
from pathlib import Path

import pytest

from tests import processes

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def archive(tmp_path):
    """A downloaded tree: no .git, nothing installed."""
    for file in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


@pytest.mark.parametrize("target", ["run", "exp"])
def test_a_tree_without_git_gets_one_sentence_and_installs_nothing(archive, target):
    done = processes.run(["make", "--no-print-directory", target], cwd=archive, check=False)
    assert done.returncode == 2
    assert f"error: {archive} is no Git checkout, and DVC needs one; clone the project, or run: git init" in done.stdout
    assert not (archive / ".venv").exists()


def test_a_machine_without_git_gets_one_sentence_and_installs_nothing(archive, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("make", "bash", "sh"):
        (tools / tool).symlink_to(shutil.which(tool))
    environment = {"PATH": str(tools), "HOME": str(tmp_path)}
    done = processes.run(["make", "run"], cwd=archive, env=environment, check=False)
    assert "error: git is not installed, and DVC needs it; install git and run this again" in done.stdout
    assert not (archive / ".venv").exists()


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (["DATA=../a b"], 'folder --path "../a b"'),
        (["DATA=../a", "NAME=mine"], 'folder --path "../a" --name "mine"'),
        (["CONF=weizmann"], "weizmann"),
    ],
)
def test_run_hands_on_folder_and_name(archive, given, options):
    planned = processes.run(["make", "--dry-run", "run", *given], cwd=archive).stdout
    commands = [line.split() for line in planned.splitlines()]
    assert ["python", "-m", "pipeline.params", "use", *options.split()] in commands


def test_every_documented_target_is_listed(archive):
    listed = processes.run(["make", "help"], cwd=archive).stdout
    for target in (
        "run",
        "exp",
        "queue",
        "scores",
        "compare",
        "test",
        "test-faults",
        "test-faults-full",
        "ui",
        "schedule",
        "status",
        "bench",
        "clean",
    ):
        assert f"\n{target} " in f"\n{listed}"
