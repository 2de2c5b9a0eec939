"""What users write: numbers in YAML, types, ranges."""

import inspect
from pathlib import Path

import pytest

from hrvgan.config import RANGES, check_values, load_yaml
from hrvgan.datasets import DATASETS, load_source
from hrvgan.errors import InputError
from hrvgan.extraction.extract import extract
from hrvgan.models import MODELS, build_model, model_class
from hrvgan.training.loop import train
from pipeline.checks import FUNCTIONS, FUNCTIONS_OF_RUNS

OF_SECTIONS = [function for section, function in (FUNCTIONS | FUNCTIONS_OF_RUNS).items() if section != "train"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("-2.5E-1", -0.25), (".5e1", 5), ("1.e2", 100), ("1e3", 1000), ("1.5", 1.5), ("1.0", 1.0),
        ("7", 7), ("1e", "1e"), ("e3", "e3"), ("v1e3", "v1e3"), ("'1e3'", "1e3"),
    ],
)  # fmt: skip
def test_numbers_of_yaml(text, value):
    read = load_yaml(f"key: {text}", "here")["key"]
    assert read == value
    assert type(read) is type(value)


def test_broken_yaml_is_one_sentence():
    with pytest.raises(InputError, match=r"^params\.yaml: not valid YAML: [^\n]*$"):
        load_yaml("a: [1, 2", "params.yaml")


def test_types_and_ranges():
    def function(
        num: int, truncation: float, flip: bool, out: list, betas: tuple[float, float], seed: int | None,
        names: list[str], path: str | Path, workers: int | str,
    ):  # fmt: skip
        pass

    def check(**values):
        check_values("x.", function, values)

    check(num=1, truncation=0, flip=True, out="anything", betas=[0, 0.5], seed=None)
    check(truncation=0.5, seed=3)
    for values, sentence in [
        ({"num": 1.0}, r"x\.num 1\.0: need a whole number"),
        ({"num": True}, r"x\.num True: need a whole number"),
        ({"num": 0}, r"x\.num 0: need 1 or more"),
        ({"truncation": "1"}, r"truncation '1': need a number"),
        ({"truncation": float("nan")}, "truncation nan: need a number"),
        ({"flip": 1}, "flip 1: need true or false"),
        ({"betas": [0.5]}, r"betas \[0\.5\]: need \[a number, a number\]"),
        ({"betas": [0.5, 1.0]}, r"betas .*: need 0 or more, less than 1"),
        ({"seed": -1}, "seed -1: need 0 or more"),
        ({"names": "fvd"}, r"names 'fvd': need \[a text, ...\]"),
        ({"names": [1]}, r"names \[1\]: need \[a text, ...\]"),
        ({"path": 5}, "path 5: need a text or a path"),
        ({"workers": "all"}, "workers 'all': need a whole number or auto"),
    ]:
        with pytest.raises(InputError, match=sentence):
            check(**values)


def test_every_range_is_of_an_argument_and_holds_its_default():
    sources = [load_source(name).fetch for name in DATASETS]
    functions = [train, *map(model_class, MODELS), extract, *OF_SECTIONS, *sources]
    known = {key for function in functions for key in inspect.signature(function).parameters}
    assert set(RANGES) - known == {"num", "frames", "to_seed", "refine"}  # of the commands that draw
    for function in (train, extract, *OF_SECTIONS):
        check_values("", function, {key: v for key, v in function.__kwdefaults__.items() if key in RANGES})


@pytest.mark.parametrize(
    ("function", "values", "sentence"),
    [
        (extract, {"num_shards": 2**15}, "num_shards 32768: need 1 or more, less than 32768"),
        (extract, {"scene_cut": 500}, "scene_cut 500: need 0 or more, less than 100"),
        (load_source("shapes").fetch, {"num_groups": 0}, "num_groups 0: need 1 or more"),
        (load_source("shapes").fetch, {"videos_per_group": 0}, "videos_per_group 0: need 1 or more"),
    ],
)
def test_what_a_stage_could_not_do_is_refused(function, values, sentence):
    with pytest.raises(InputError, match=sentence):
        check_values("", function, values)


@pytest.mark.parametrize("name", MODELS)
def test_presets_are_allowed(name):
    for preset in model_class(name).presets:
        build_model(name, preset=preset, **({} if name == "hrvgan" else {"size": 32}), width=0.05)
