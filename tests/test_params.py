"""params.yaml: what is wrong with it is said in a sentence."""

from pathlib import Path

import pytest
import yaml

from hrvgan.errors import InputError
from pipeline import params

COMMITTED = Path(__file__).resolve().parents[1] / "params.yaml"


@pytest.fixture
def edit(tmp_path, monkeypatch):
    """edit(function) applies `function` to the values of params.yaml in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def apply(change=lambda values: None):
        values = yaml.safe_load(COMMITTED.read_text())
        change(values)
        Path("params.yaml").write_text(yaml.safe_dump(values))

    return apply


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda v: v.update(trian={}), r"params\.yaml: unknown key 'trian'; known: datasets, .*train"),
        (lambda v: v.pop("train"), r"key 'train' is missing; needed: .*train"),
        (lambda v: v["runs"]["laptop"].update(sed=1), r"unknown key 'sed' in runs\.laptop; known: .*seed"),
        (lambda v: v["runs"]["laptop"].pop("seed"), r"key 'seed' is missing in runs\.laptop"),
        (
            lambda v: v["runs"]["laptop"].update(dataset="shape"),
            r"runs\.laptop\.dataset 'shape' is not active; active: shapes",
        ),
        (lambda v: v.update(runs=None), r"params\.yaml: runs names nothing"),
    ],
)
def test_a_typo_names_file_key_and_known_keys(edit, change, sentence):
    edit(change)
    with pytest.raises(InputError, match=sentence):
        params.load()


def test_a_missing_file_and_broken_yaml_are_said(edit, tmp_path):
    with pytest.raises(InputError, match="run this from the root of the project"):
        params.load()
    Path("params.yaml").write_text("a: [1, 2")
    with pytest.raises(InputError, match="not valid YAML"):
        params.load()


def test_an_entry_overrides_its_section(edit):
    edit(
        lambda v: (
            v["runs"]["laptop"]["train"].update(steps=7),
            v["datasets"]["shapes"]["clips"].update(size=64),
        )
    )
    assert params.run("laptop")["train"]["steps"] == 7
    assert params.run("laptop")["train"]["batch_size"] == params.section("train")["batch_size"]
    assert params.dataset("shapes")["clips"]["size"] == 64


def test_an_inactive_name_lists_the_active(edit):
    edit()
    with pytest.raises(InputError, match="no 'weizmann' in runs; active: laptop"):
        params.run("weizmann")


def test_calls_check_their_keys():
    def function(first, *, size, steps=3):
        return first, size, steps

    assert params.call(function, 1, where="x", values={"size": 2}) == (1, 2, 3)
    with pytest.raises(InputError, match="unknown key 'step' in x; known: size, steps"):
        params.call(function, 1, where="x", values={"size": 2, "step": 3})
    with pytest.raises(InputError, match="key 'size' is missing in x"):
        params.call(function, 1, where="x", values={})


def test_a_configuration_can_be_added_and_pointed_elsewhere(edit, tmp_path):
    edit()
    Path("conf").symlink_to(COMMITTED.parent / "conf")
    Path("strips").mkdir()
    params.activate("weizmann", path="strips", add=True)
    values = params.load()
    assert list(values["runs"]) == ["laptop", "weizmann"]
    assert values["datasets"]["weizmann"]["options"] == {"path": "strips"}
    assert values["datasets"]["weizmann"]["watch"] == "strips"
    with pytest.raises(InputError, match=r"no such configuration; known: .*laptop"):
        params.activate("weitzmann")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        params.activate("weizmann", path="nowhere")
    assert params.load() == values
