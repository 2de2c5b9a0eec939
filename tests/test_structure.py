"""The house holds its shape: who imports whom, and what dvc.yaml says of it."""

import ast
import graphlib
import importlib
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hrvgan.datasets import DATASETS
from hrvgan.extraction.extract import extract
from hrvgan.models import MODELS
from pipeline import params
from pipeline.checks import check
from tests import processes

ROOT = Path(__file__).resolve().parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# These change no byte of a stage's results: registries only name modules, the rest is arguments, locks, errors, logs
# and times.
NO_DEPENDENCY = {
    "hrvgan/config.py", "hrvgan/errors.py", "hrvgan/files.py", "hrvgan/parallel.py", "hrvgan/progress.py",
    "hrvgan/ops/allocator.py", "pipeline/params.py", "pipeline/stage.py", "pipeline/resume_state.py",
    "hrvgan/evaluation/snapshots.py",  # Left out on purpose, see dvc.yaml: it chooses among weights, and trains none.
}  # fmt: skip


def imported(file: Path) -> set[str]:
    """Names of the modules that `file` imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def closure(file: str, seen: set[str]) -> set[str]:
    """Files of the project that `file` imports, directly or not, and itself; it stops at what is no dependency."""
    if file in seen or file in NO_DEPENDENCY or file.startswith("pipeline/tracking"):
        return seen
    seen.add(file)
    for name in imported(ROOT / file):
        path = name.replace(".", "/") + ".py"
        if (ROOT / path).is_file():
            closure(path, seen)
    return seen


@pytest.mark.parametrize("stage", STAGES)
def test_dependencies_of_a_stage_are_what_its_program_imports(stage):
    """Each file that it imports is named, or lies in a folder that is; and nothing else is named."""
    body = STAGES[stage].get("do", STAGES[stage])
    program = re.match(r"python -m (pipeline\.\w+)", body["cmd"]).group(1).replace(".", "/")
    declared = {dep for dep in body["deps"] if re.match(r"(hrvgan|pipeline)/", dep)}
    found = closure(f"{program}.py" if (ROOT / f"{program}.py").is_file() else f"{program}/__init__.py", set())
    if stage in ("upstream", "download"):  # A source's helpers are left out on purpose: see dvc.yaml.
        found.add("hrvgan/datasets/${item.source}.py")
    if "hrvgan/models/${item.model}.py" in declared:
        models = {name.rpartition(".")[0].replace(".", "/") + ".py" for name in MODELS.values()}
        found |= {"hrvgan/models/${item.model}.py"}.union(*(closure(model, set()) for model in models))
        found -= models
    used = {next((dep for dep in declared if (file + "/").startswith(dep + "/")), None) for file in found}
    missing = [file for file in found if not any((file + "/").startswith(dep + "/") for dep in declared)]
    assert not missing
    assert declared == used


def test_every_argument_of_extraction_can_be_set():
    assert set(extract.__kwdefaults__) == set(params.load(ROOT / "params.yaml")["extract"])


def test_the_graph_names_no_data_set_model_or_run():
    text = (ROOT / "dvc.yaml").read_text()
    values = params.load(ROOT / "params.yaml")
    for name in [*values["datasets"], *values["runs"], *DATASETS]:
        assert not re.search(rf"[\s/@]{name}\b", text.partition("stages:")[2]), name
    assert not re.search(r"models/(hrvgan|vgan|tgan|mocogan)", text)


def test_imports_point_one_way():
    allowed = {"hrvgan": set(), "pipeline": {"hrvgan"}, "flows": set()}
    for room, others in allowed.items():
        for file in (ROOT / room).rglob("*.py"):
            rooms = {name.partition(".")[0] for name in imported(file)} & set(allowed)
            assert rooms <= {room} | others, file


def test_rooms_of_the_core_import_in_no_circle():
    order = graphlib.TopologicalSorter()
    for file in (ROOT / "hrvgan").rglob("*.py"):
        room = file.relative_to(ROOT / "hrvgan").with_suffix("").parts[0]
        others = {name.split(".")[1] for name in imported(file) if name.startswith("hrvgan.")} - {room}
        order.add(room, *others)
    assert {"models", "training", "evaluation"} <= set(order.static_order())  # a circle raises CycleError


@pytest.mark.parametrize("library", ["dvc", "mlflow", "prefect", "jinja2", "ruamel"])
def test_the_core_does_without(library):
    for file in (ROOT / "hrvgan").rglob("*.py"):
        assert library not in {name.partition(".")[0] for name in imported(file)}, file


def test_only_the_tracking_room_knows_mlflow():
    users = {
        f.parent.name for f in (ROOT / "pipeline").rglob("*.py") if any(n.startswith("mlflow") for n in imported(f))
    }
    assert users == {"tracking"}


def test_only_operations_know_the_cpu_kernels():
    users = {
        file.relative_to(ROOT).parts[:2]
        for room in ("hrvgan", "pipeline", "flows")
        for file in (ROOT / room).rglob("*.py")
        if any(name.startswith("hrvgan.ops.cpu") for name in imported(file))
    }
    assert users == {("hrvgan", "ops")}


def test_reading_clips_needs_no_video_library():
    code = "import sys, hrvgan.clipstore.clips; sys.exit(str({'av', 'ffmpeg', 'PIL', 'skvideo'} & set(sys.modules)))"
    done = processes.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.stderr.strip() == "set()"


@pytest.mark.parametrize("module", [*DATASETS.values(), *(name.rpartition(".")[0] for name in MODELS.values())])
def test_registered_modules_exist(module):
    assert importlib.import_module(module).__doc__


@pytest.mark.parametrize("conf", sorted(file.stem for file in (ROOT / "conf").glob("*.yaml")))
def test_every_configuration_can_be_made_active(conf, tmp_path, monkeypatch):
    for room in ("conf", "hrvgan"):
        (tmp_path / room).symlink_to(ROOT / room)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    wanted = yaml.safe_load((ROOT / "conf" / f"{conf}.yaml").read_text())
    for entry in wanted["datasets"].values():
        if not Path(entry["watch"]).exists():  # a folder that a user has to put there
            Path(entry["watch"]).mkdir(parents=True)
        if entry["options"].get("path") == entry["watch"]:  # in any copy of the project
            entry["options"]["path"] = entry["watch"] = str(tmp_path / entry["watch"])
    params.activate(conf)
    check()
    active = params.load()
    assert {kind: active[kind] for kind in wanted} == wanted
    assert "# videos -> clips" in Path("params.yaml").read_text()  # Comments stay.


def test_params_as_committed_are_the_laptop():
    committed, laptop = (yaml.safe_load((ROOT / f).read_text()) for f in ("params.yaml", "conf/laptop.yaml"))
    assert {kind: committed[kind] for kind in laptop} == laptop


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda file: file.stem)
def test_benchmarks_still_fit_what_they_measure(file):
    importlib.import_module(f"benchmarks.{file.stem}")


PROGRAMS = [file for file in sorted((ROOT / "benchmarks").glob("*.py")) if "__main__" in file.read_text()]


@pytest.mark.parametrize("name", [file.stem for file in PROGRAMS])
def test_benchmarks_explain_themselves(name, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / f"benchmarks/{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


# Kind -> (new file, its text, registry, the line that it gets, a program that uses the addition, what that prints).
ADDITIONS = {
    "metric": (
        "hrvgan/metrics/gap.py",
        """
import numpy as np
from hrvgan.metrics.protocols import Protocol

def gap(real, fake):
    return float(np.abs(real.mean(axis=0) - fake.mean(axis=0)).sum())

PROTOCOLS = [
    Protocol("refnet_gap", "refnet", lambda real, fake, protocol: gap(real.features, fake.features), "floor",
             "gap between means", lower_is_better=True, title="Gap", meaning="How far the means are apart."),
]
""",
        "hrvgan/metrics/__init__.py",
        '    "gap": ("gap",),',
        """
import numpy as np
from hrvgan.evaluation.evaluate import Comparison, evaluate
from hrvgan.evaluation.real_baseline import RealBaseline
from hrvgan.features import Features
from hrvgan.metrics.protocols import of_extractor
from pipeline.report.run_results import read_scores
a, b = (Features(np.full((9, 2), level), np.eye(9), np.arange(9), np.arange(9)) for level in (0.0, 1.5))
clips = Comparison(RealBaseline(a, [(a, a)]), [b], {})
scores, about, _ = evaluate(of_extractor("refnet"), lambda protocol: clips)
shown = next(score for score in read_scores(scores) if score.name == "refnet_gap")
print(scores["refnet_gap"]["value"], shown.title, shown.meaning, shown.better, about["refnet_gap"]["description"])
""",
        "3.0 Gap How far the means are apart. lower gap between means",
    ),
    "data set": (
        "hrvgan/datasets/empty.py",
        "def fetch(out, *, count: int = 0):\n    return [None] * count\n",
        "hrvgan/datasets/__init__.py",
        '    "empty": "hrvgan.datasets.empty",',
        "from hrvgan.datasets import load_source; print(load_source('empty').fetch('x', count=1))",
        "[None]",
    ),
    "model": (
        "hrvgan/models/twice.py",
        "from hrvgan.models.vgan import VGAN\n\nclass Twice(VGAN):\n    presets = {'other': {'width': 0.1}}\n",
        "hrvgan/models/__init__.py",
        '    "twice": "hrvgan.models.twice.Twice",',
        "from hrvgan.models import build_model; gan = build_model('twice', preset='other', size=32, num_frames=16)\n"
        "print(tuple(gan.sample(2).shape), gan.name)",
        "(2, 16, 32, 32, 3) twice",
    ),
}


@pytest.mark.parametrize("kind", ADDITIONS)
def test_an_addition_is_one_file_and_one_line(kind, tmp_path):
    new, text, registry, line, program, printed = ADDITIONS[kind]
    for room in ("hrvgan", "pipeline"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / new).write_text(text)
    content = (ROOT / registry).read_text()
    start = re.search(r"^(METRICS|DATASETS|MODELS)\b.* = \{$", content, re.MULTILINE).end()
    (tmp_path / registry).write_text(f"{content[:start]}\n{line}{content[start:]}")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.stdout.strip(), done.returncode) == (printed, 0), done.stderr
    files = {file.relative_to(tmp_path) for file in tmp_path.rglob("*.py")}
    touched = {
        str(f) for f in files if not (ROOT / f).exists() or (ROOT / f).read_bytes() != (tmp_path / f).read_bytes()
    }
    assert touched == {new, registry}


@pytest.mark.parametrize("program", ["pipeline.train", "hrvgan.models"])
def test_threads_are_told_how_to_wait_before_torch_is_imported(program):
    code = f"import os, sys, {program}; print(*sys.modules); assert os.environ['GOMP_SPINCOUNT'] == '3000'"
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    modules = processes.run([sys.executable, "-c", code], cwd=ROOT, env=environment).stdout.split()
    assert modules.index("hrvgan") < modules.index("torch")
