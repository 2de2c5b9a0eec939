"""The comparison: one table of what may be compared, its fairness said, published numbers beside it and never in it."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
import torch
from report_project import SCORES, make_project, make_scores

from hrvgan.clipstore.clips import Clips
from hrvgan.metrics.protocols import write_result
from pipeline import compare, params, report
from pipeline.report import comparison
from pipeline.report.comparison import csv_text, markdown
from pipeline.report.run_results import read_runs
from pipeline.train import machine


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    make_project(folder, {"ours": "shapes", "rival": "shapes"})
    return folder


@pytest.fixture
def project(finished, monkeypatch):
    """Two runs on one data set; what a test changes is put back."""
    monkeypatch.chdir(finished)
    before = {path: path.read_bytes() for path in finished.glob("metrics/*.json")}
    yield finished
    for path, content in before.items():
        path.write_bytes(content)


def change(path: str, **values) -> None:
    file = Path(path)
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def fairness() -> list[str]:
    (table,) = comparison.tables(read_runs())
    return table["fairness"]


def test_a_row_has_scores_and_what_they_cost(project):
    table, *others = comparison.tables(read_runs())
    assert not others
    assert [head.name for head in table["heads"]] == ["refnet_fd", "refnet_kid", "refnet_is", "refnet_acc"]
    run, cells, costs = table["rows"][0]
    assert (run.name, cells[0]) == ("ours", "31.4 ± 1.4")
    assert costs[:3] == ["best", "0.05", ""]  # preset, width, batch
    assert costs[3:] == ["0.94 M, 3.03 M", "0.571, 1.52", "45.3", "10", "27\u202f200"]
    assert "refnet-0123, 2 generated clips a draw beside 2 real ones" in table["caption"]
    cells = ["4.61", "\N{MINUS SIGN}0.00210", "3.87", "0.995"]
    assert table["landmarks"] == [("real clips (floor or ceiling)", cells)]


def test_an_unconditional_rival_shares_the_table_without_class_accuracy(project):
    for file in ("metrics/rival.json", "metrics/rival.manifest.json"):
        values = json.loads(Path(file).read_text())
        values.get("protocols", values).pop("refnet_acc")
        if "scores" in values:
            values["scores"]["refnet_fd"]["floor"] = 5.02
        Path(file).write_text(json.dumps(values))
    (table,) = comparison.tables(read_runs())
    assert [cells[-1] for _, cells, _ in table["rows"]] == ["0.860 ± 0.022", "n/a"]
    (_, asked), (head, free) = table["landmarks"]
    assert (asked[0], free[0], asked[-1], free[-1]) == ("4.61", "5.02", "0.995", "")  # A floor of its own.
    assert f"| {head} |  | 5.02 |" in markdown(read_runs())
    assert head in report.render(read_runs(), **params.load()["report"])


def test_fairness_is_said_as_it_is(project):
    same, time, seeds = fairness()
    assert same == "Trained on the same clips, 8 frames of 16 \N{MULTIPLICATION SIGN} 16 px; each by its own recipe."
    assert time == "Same wall time: 10 to 10 minutes on a CPU, 2 threads."
    assert "training seeds 0." in seeds
    change("metrics/rival.training.json", seconds=1200.0)
    assert fairness()[1].startswith("Not the same wall time: 10 to 20 minutes")
    change("metrics/rival.training.json", seconds=600.0, machine="a GPU")
    assert "on different machines (a CPU, 2 threads; a GPU)" in fairness()[1]
    change("metrics/rival.training.json", seconds=None)
    assert fairness()[1] == "How long these were trained is not known: rival."


def test_models_of_different_clips_are_not_called_fair(project):
    file = Path("models/rival/model.json")
    before = file.read_bytes()
    change("models/rival/model.json", data_digest="f" * 64)
    assert fairness()[0].startswith("Not fair: ")
    file.write_bytes(before)


def test_csv_has_plain_numbers_and_the_keys_of_mlflow(project):
    rows = list(csv.DictReader(io.StringIO(csv_text(read_runs()))))
    assert [row["run"] for row in rows] == ["ours", "rival"]
    first = rows[0]
    assert (float(first["refnet_fd"]), float(first["refnet_fd/sd"]), float(first["refnet_fd/floor"])) == (
        31.42,
        1.37,
        4.61,
    )
    assert (first["parameters_g"], first["gflop_d"], first["clips_seen"]) == ("938516", "1.52", "27200")
    assert (first["yardstick"], first["model"], first["seed"]) == ("shapes/refnet-0123/n2", "hrvgan", "0")


def test_runs_of_another_yardstick_are_numbered_apart(project):
    change("metrics/rival.manifest.json", extractor="refnet-9999")
    assert [row["yardstick"] for row in csv.DictReader(io.StringIO(csv_text(read_runs())))] == [
        "shapes/refnet-0123/n2",
        "shapes/refnet-9999/n2",
    ]
    assert "no common table" in markdown(read_runs())
    for path in ("metrics/rival.json", "metrics/rival.manifest.json"):
        Path(path).unlink()
    said = markdown(read_runs())
    assert said.startswith("ours: no other run has scores to compare its own with.\nrival: not scored yet.\n")
    assert "no common table" not in said


def test_a_collapsed_run_stands_beside_a_good_one(project):
    """Warnings and the number of draws say how good a run is, not what was measured."""
    for run, about in (("ours", {"num_draws": 5}), ("rival", {"num_draws": 1, "warnings": ["collapsed"]})):
        manifest = json.loads(Path(f"metrics/{run}.manifest.json").read_text())
        fvd = {"extractor_id": "i3d-0", "real_digest": "d", "num_real": 9, "num_fake": 9, "asks_labels": False}
        change(f"metrics/{run}.manifest.json", protocols={**manifest["protocols"], "fvd2048_16f_n9": fvd | about})
    assert len(comparison.tables(read_runs())) == 1
    change("metrics/rival.manifest.json", protocols={**manifest["protocols"], "fvd2048_16f_n9": fvd | {"seed": 1}})
    assert not comparison.tables(read_runs())


def test_published_numbers_are_marked_and_in_a_table_of_their_own(project):
    ours, theirs = (part for part in markdown(read_runs()).split("\n\n") if part.startswith("|"))
    assert "| ours | hrvgan | 31.4 ± 1.4 |" in ours
    assert not re.search(r"8\.18|TGANv2", ours)
    assert "IS on UCF101 ↑ (published, other data)" in theirs
    assert "FID on Golf ↓ (protocol unknown)" in theirs
    assert "| VGAN | 8.18 |  | 113,007 | 149,094 |" in theirs
    assert "| PG-SWGAN-3D | 14.56 |" in theirs
    for line in (ours + "\n" + theirs).splitlines():
        assert line.count("|") in (ours.splitlines()[0].count("|"), theirs.splitlines()[0].count("|"))


def test_the_page_shows_a_row_of_videos_a_model_and_greys_what_is_published(project):
    text = report.render(read_runs(), **params.load()["report"])
    section = text[text.index('aria-labelledby="comparison"') : text.index('id="ours"')]
    assert section.count("<video") == 2
    assert '<table class="published"' in section
    assert "Same wall time" in section
    assert ".published" in text


def test_of_ungated_runs_only_scores_of_other_networks_are_shown(project):
    for run in ("ours", "rival"):
        make_scores(Path("metrics"), run, Clips("data/clips/shapes"), gated=False)
    assert "31.4" not in csv_text(read_runs()) + markdown(read_runs())
    for run in ("ours", "rival"):
        name, manifest = "fvd2048_16f_n64", json.loads(Path(f"metrics/{run}.manifest.json").read_text())
        change(f"metrics/{run}.json", **{name: 512.25})
        scores = manifest["scores"] | {name: {"value": 512.25, "floor": 101.5}}
        change(f"metrics/{run}.manifest.json", scores=scores)
    text = markdown(read_runs())
    assert "`fvd2048_16f_n64` ↓" in text
    assert "| ours | hrvgan | 512 |" in text
    assert "refnet_fd" not in text
    assert "512.25" in csv_text(read_runs())
    assert "the reference network has not passed its gates, so its scores are hidden" in text
    page = report.render(read_runs(), **params.load()["report"])
    assert "512" in page
    assert "it is right about 31.0% of 4 val clips" in page


def test_the_machine_has_a_name():
    assert re.search(r"\w.*, \d+ threads?", machine(torch.device("cpu")))


def test_states_of_runs_are_rows_beside_the_settings_in_which_they_differ(project, monkeypatch):
    """Within the width of a terminal; an equal state has several names, and means are over training seeds."""
    monkeypatch.setenv("COLUMNS", "120")
    ours, _ = read_runs()
    manifest = json.loads(Path("metrics/ours.manifest.json").read_text())
    better = SCORES | {"refnet_fd": {"value": 33.42, "sd": 1.37}, "gated": True}
    write_result(Path("metrics/ours.json"), better, manifest)
    again, _ = read_runs()
    again.settings["seed"] = 7
    head, *rows = compare.tables([("old-owl", ours), ("new-hen", again), ("now", again)])[1].splitlines()
    assert head.split() == ["seed", "refnet_fd", "↓", "refnet_kid", "↓", "refnet_is", "↑", "refnet_acc", "↑"]
    assert [re.split("  +", row)[:-3] for row in rows] == [
        ["ours: old-owl", "0", "31.4 ± 1.4"],
        ["ours: new-hen, now", "7", "33.4 ± 1.4"],
        ["ours: mean ± sd of seeds 0, 7", "32.4 ± 1.4"],
    ]
    scores = {f"refnet_{name}": {"value": -0.09161, "sd": 0.00171} for name in ("kid", *"abcdefgh")}
    for run in ("ours", "rival"):
        write_result(Path(f"metrics/{run}.json"), {**scores, "gated": True}, manifest)
    lines = "\n".join(compare.tables([("", run) for run in read_runs()])).splitlines()
    assert max(map(len, lines[1:])) <= 120
    assert sum(line.count("\N{MINUS SIGN}0.0916 ± 0.0017") for line in lines) == 2 * len(scores)
