"""The wheel: installed in an environment of its own, it samples from a released model."""

import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

import hrvgan
from hrvgan import cli
from hrvgan.datasets import shapes
from hrvgan.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--net", "{width: 0.04}", "--train", "{steps: 1, batch_size: 4, log_every: 1, save_every: 1}"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built without isolation, so that no package index is asked."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "hrvgan", "pyproject.toml", "README.md", "LICENSE"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder, source], check=True, timeout=120)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_core_alone_and_its_types(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "hrvgan/py.typed" in names
    assert {name.partition("/")[0] for name in names} == {"hrvgan", f"hrvgan-{hrvgan.__version__}.dist-info"}


def test_the_version_has_one_source(wheel):
    assert wheel.name == f"hrvgan-{hrvgan.__version__}-py3-none-any.whl"
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]


def test_an_editable_install_wins_over_the_folder_of_the_checkout(tmp_path):
    """In the folder that holds a checkout named hrvgan, which is a namespace package there."""
    checkout, site = tmp_path / "hrvgan", tmp_path / "site"
    (checkout / "hrvgan").mkdir(parents=True), site.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "hrvgan/__init__.py"):
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    build = "import sys; from setuptools import build_meta; print(build_meta.build_editable(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, site], cwd=checkout, check=True, capture_output=True, timeout=120)
    with zipfile.ZipFile(next(site.glob("*.whl"))) as archive:
        archive.extractall(site)
    code = f"import site; site.addsitedir({str(site)!r}); import hrvgan; print(hrvgan.__file__, hrvgan.__version__)"
    command = [sys.executable, "-S", "-c", code]
    said = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said == f"{checkout / 'hrvgan/__init__.py'} {hrvgan.__version__}\n"


def test_the_installed_wheel_samples_from_a_released_model(wheel, shapes_clips, tmp_path):
    """The environment sees this one's libraries, and not this checkout."""
    cli.main(["train", str(shapes_clips.folder), str(tmp_path / "model"), *TINY])
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    site = next((environment / "lib").glob("python*")) / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    libraries = Path(next(path for path in sys.path if path.endswith("site-packages")))
    # A path configuration file of its own would also run that of the editable install: the libraries come behind.
    (site / "libraries.pth").write_text(f"import sys; sys.path.append({str(libraries)!r})\n")
    command = [
        environment / "bin/python",
        "-m",
        "hrvgan.cli",
        "sample",
        tmp_path / "model",
        "--out",
        tmp_path / "a.mp4",
    ]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.mp4").stat().st_size > 1000
    command[command.index(tmp_path / "model")] = "shapes-32"  # the model that comes with the package
    command[-1] = tmp_path / "b.mp4"
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "b.mp4").stat().st_size > 1000
    where = [environment / "bin/python", "-c", "import hrvgan; print(hrvgan.__file__)"]
    said = subprocess.run(where, cwd=tmp_path, env={}, capture_output=True, text=True, timeout=60, check=True).stdout
    assert said.strip() == str(site / "hrvgan/__init__.py")


def test_the_model_that_comes_with_the_package_draws_what_its_classes_say(tmp_path, monkeypatch):
    """What is bright travels along the class's way by more than a fifth of the frame, in nine of ten clips."""
    monkeypatch.chdir(tmp_path)
    gan = hrvgan.load("shapes-32")
    assert gan.classes == shapes.class_names()
    clips = gan.sample(80, seed=0).numpy().astype(float)
    bright = (clips.max(axis=-1) - 70).clip(min=0)[:, [0, -1]]
    ys, xs = np.mgrid[:32, :32]
    centres = np.stack([(bright * axis).sum(axis=(2, 3)) / bright.sum(axis=(2, 3)) for axis in (xs, ys)], axis=-1)
    ways = np.array([shapes.DIRECTIONS[re.sub("Disc|Bar", "", gan.classes[n % 8])] for n in range(80)])
    assert ((np.diff(centres, axis=1)[:, 0] * ways).sum(axis=1) > 32 / 5).mean() >= 0.9


def test_a_folder_of_the_same_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("shapes-32").mkdir()
    with pytest.raises(InputError, match=r"shapes-32: no model\.json"):
        hrvgan.load("shapes-32")
