"""The key of a resume state: edits that change a training step change it, other edits do not."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hrvgan.models import MODELS
from pipeline.resume_state import announce

ROOT = Path(__file__).resolve().parents[1]
# Prints the digests of all models, again for each line of input.
SERVER = """
import json, sys
from hrvgan.models import MODELS
from pipeline.resume_state import code_digest
for line in sys.stdin:
    print(json.dumps({model: code_digest(model) for model in MODELS}), flush=True)
"""


class Copy:
    """A copy of the code, whose digests a process of its own computes."""

    def __init__(self, root: Path):
        self.root = root
        self.restore()
        self.server = self.start()

    def restore(self) -> None:
        for room in ("hrvgan", "pipeline"):
            shutil.rmtree(self.root / room, ignore_errors=True)
            shutil.copytree(ROOT / room, self.root / room, ignore=shutil.ignore_patterns("__pycache__"))

    def start(self) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen([sys.executable, "-c", SERVER], cwd=self.root, env=environment, text=True, **pipes)

    def digests(self) -> dict[str, str]:
        self.server.stdin.write("\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def changed(self) -> set[str]:
        """Models whose digest differs from that of the unedited code."""
        return {model for model, digest in self.digests().items() if digest != self.before[model]}

    def append(self, pattern: str, text: str) -> None:
        files = list(self.root.glob(pattern))
        assert files, pattern
        for file in files:
            file.write_text(file.read_text() + text)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    copy = Copy(tmp_path_factory.mktemp("code"))
    with copy.server:
        copy.before = copy.digests()
        yield copy


@pytest.fixture
def code(server):
    yield server
    server.restore()


def test_models_have_keys_of_their_own(code):
    assert len(set(code.before.values())) == len(MODELS)


def test_a_comment_or_a_docstring_changes_no_key(code):
    code.append("hrvgan/**/*.py", '\n"""More prose."""\n# A comment.\n')
    file = code.root / "hrvgan/training/loop.py"
    file.write_text(file.read_text().replace('"""', '"""Other words. ', 1))
    assert code.changed() == set()


def test_moving_a_module_that_others_import_changes_no_key(code):
    (code.root / "hrvgan/nn/optim.py").rename(code.root / "hrvgan/optimizers.py")
    users = 0
    for file in code.root.rglob("*.py"):
        text, count = re.subn(r"hrvgan\.nn\.optim\b", "hrvgan.optimizers", file.read_text())
        file.write_text(text)
        users += count
    assert users >= len(MODELS)
    assert code.changed() == set()
    with code.start() as process:  # The moved code runs, and computes the same.
        assert json.loads(process.communicate("\n")[0]) == code.before


@pytest.mark.parametrize(
    ("pattern", "models"),
    [
        ("hrvgan/models/vgan.py", {"vgan"}),
        ("hrvgan/training/loop.py", set(MODELS)),
        ("hrvgan/nn/base.py", set(MODELS)),
        ("hrvgan/nn/losses.py", set(MODELS) - {"vgan"}),  # whose loss is in its own file
        ("hrvgan/nn/layers.py", {"hrvgan"}),
        ("hrvgan/metrics/*.py", set()),
        ("hrvgan/extraction/*.py", set()),
        ("hrvgan/models/__init__.py", set()),  # Adding a model is adding a line there.
        ("hrvgan/progress.py", set()),
    ],
)
def test_an_edit_changes_the_keys_of_models_that_can_reach_it(code, pattern, models):
    code.append(pattern, "\nEDITED = True\n")
    assert code.changed() == models


def test_a_kernel_changes_no_key_of_a_model_without_kernels(code):
    code.append("hrvgan/ops/cpu/*.py", "\nEDITED = True\n")
    changed = code.changed()
    assert "hrvgan" in changed
    assert not {"vgan", "tgan", "mocogan"} & set(changed)


def test_states_of_another_key_are_named_where_training_starts_anew(tmp_path, capsys):
    """As states of an earlier version are, whose keys were computed in another way."""
    ours = tmp_path / f"laptop-{'a' * 16}"
    announce("laptop", ours)
    (tmp_path / f"laptop-wide-{'b' * 16}").mkdir()
    (tmp_path / f"laptop-wide-{'b' * 16}/state.pt").touch()
    (tmp_path / f"{ours.name}-800").mkdir()
    (tmp_path / f"{ours.name}-800/state.pt").touch()  # of this training, set aside
    announce("laptop", ours)
    assert capsys.readouterr().err == ""
    (tmp_path / f"laptop-{'0' * 16}").mkdir()
    (tmp_path / f"laptop-{'0' * 16}/state.pt").touch()
    announce("laptop", ours)
    assert f"so training starts anew (old states stay in {tmp_path})" in capsys.readouterr().err
    ours.mkdir()
    (ours / "state.pt").touch()
    announce("laptop", ours)
    assert capsys.readouterr().err == f"laptop: going on from {ours / 'state.pt'}\n"
