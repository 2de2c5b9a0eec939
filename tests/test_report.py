"""The report: everything is on the page, what is missing breaks nothing, what may not be shown is not."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_project import DIRECTIONS, SCORES, make_project, make_scores, make_store, write_params, write_report

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError
from hrvgan.metrics.protocols import write_result
from pipeline import params, report, summary
from pipeline.report.run_results import read_runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    make_project(folder, {"laptop": "shapes"})
    return folder


@pytest.fixture
def project(finished, tmp_path, monkeypatch) -> Path:
    """A copy of the finished project, and the current folder."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def page() -> str:
    return report.render(read_runs(), **params.load()["report"])


class References(HTMLParser):
    """Everything that a page fetches or links to."""

    def __init__(self, text: str):
        super().__init__()
        self.found, self.ids, self.open = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        values = dict(attributes)
        self.found += [values[key] for key in ("src", "href", "poster", "srcset", "data") if key in values]
        self.ids.add(values.get("id"))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_everything_is_on_the_page(project):
    text = page()
    for name in [*DIRECTIONS, *SCORES, "31.4", "± 1.4", "4.61", "35.1", "3.87", "0.995", "\N{MINUS SIGN}0.00210"]:
        assert name in text, name
    for words in [
        "1,700 steps",
        "shapes: 20 clips from 20 videos",
        "12 train, 4 val, 4 test",
        "loss/d/r1",
        "dvc repro",
    ]:
        assert words in text, words
    for words in [
        "5 draws of 2 generated clips",
        "2 real test clips",
        "on real training clips and knows 31.0% of val clips and 28.6% of test clips. ±",
        "mostly bias",
        "without skill 88.1",
    ]:
        assert words in text, words
    assert Clips("data/clips/shapes").digest[:12] in text
    assert text.count("<video") == 2 * 4 + 2
    assert text.count('class="curve"') == 3
    assert "missing" not in re.sub("<style>.*</style>", "", text, flags=re.DOTALL)


def test_it_is_one_file_of_sound_html(project):
    references = References(page())
    assert references.open == []
    assert {reference.split(":")[0] for reference in references.found if not reference.startswith("#")} == {"data"}
    assert {reference[1:] for reference in references.found if reference.startswith("#")} <= references.ids


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("train", "val"), ("train",)])
def test_real_clips_are_those_kept_from_the_model_and_say_so(project, splits):
    make_store(Path("data/clips/shapes"), first_seed=0, labelled=True, splits=splits)
    assert set(re.findall(r"<span>real, (\w+)</span>", page())) == {splits[-1]}


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("models/laptop", "dvc repro train@laptop"),
        ("samples/laptop", "dvc repro sample@laptop"),
        ("metrics/laptop.json", "dvc repro evaluate@laptop"),
    ],
)
def test_what_is_missing_is_named_with_its_command(project, path, command, capsys):
    shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()
    text = page()
    assert text.count(f"<code>{command}</code>") == 1
    assert References(text).open == []
    assert command in "\n".join(summary.lines(read_runs()))


def test_classes_that_the_data_set_no_longer_has_stand_alone(project):
    make_store(Path("data/clips/shapes"), first_seed=0, labelled=False)
    assert page().count("<video") == 4 + 2


def test_another_process_writes_the_same_bytes_and_a_wrong_setting_leaves_them(project):
    before = write_report(project).read_bytes()
    assert before == page().encode()
    text = Path("params.yaml").read_text().replace("report: {}", "report: {titel: mine}")
    Path("params.yaml").write_text(text)
    with pytest.raises(InputError, match="unknown key 'titel' in report; known: title, "):
        report.main()
    assert Path("report/index.html").read_bytes() == before


@pytest.mark.parametrize("path", ["data/clips/shapes", "models/laptop/history.csv", "metrics/laptop.manifest.json"])
def test_a_page_comes_out_without(project, path):
    shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()
    assert "laptop" in page()


def test_nothing_made_yet_is_a_page_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, {"laptop": "shapes"})
    assert "not trained yet" in page()


def test_ungated_scores_are_hidden_and_the_reason_is_said(project):
    make_scores(Path("metrics"), "laptop", Clips("data/clips/shapes"), gated=False)
    for text in (page(), "\n".join(summary.lines(read_runs()))):
        assert "hidden" in text
        assert "it is right about 31.0% of 4 val clips" in text
        assert not any(number in text for number in ("31.4 ", "± 1.4", "0.421", "± 0.08", "0.860"))


def test_names_are_no_markup(project):
    samples = json.loads(Path("samples/laptop/samples.json").read_text())
    samples["kinds"][0]["caption"] = "<script>alert(1)</script>"
    Path("samples/laptop/samples.json").write_text(json.dumps(samples))
    assert "<script>alert" not in page()
    assert "&lt;script&gt;alert" in page()


def test_a_broken_file_is_one_sentence(project):
    Path("metrics/laptop.json").write_text('{"refnet_fd": ')
    with pytest.raises(InputError, match=r"metrics/laptop\.json: not valid JSON .*`dvc repro`"):
        page()


def test_only_scores_against_the_same_real_clips_share_a_table(project):
    write_params(project, {"laptop": "shapes", "longer": "shapes", "other": "people"})
    make_store(Path("data/clips/people"), first_seed=50, labelled=True)
    for run, dataset in (("longer", "shapes"), ("other", "people")):
        make_scores(Path("metrics"), run, Clips(Path("data/clips", dataset)))
    table = re.findall("<table.*?</table>", page(), re.DOTALL)[0]
    assert 'href="#laptop"' in table
    assert 'href="#longer"' in table
    assert 'href="#other"' not in table
    assert "other: scored against other real clips" in page()


def test_videos_without_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_project(tmp_path, {"golf": "strips"}, labelled=False)
    text = page()
    assert "refnet_fd" in text
    assert "refnet_is" not in text
    assert "refnet_acc" not in text
    assert text.count("<video") == 2 + 2
    assert "Any video" in text


def test_the_summary_holds_each_score_beside_its_landmarks(project):
    text = "\n".join(summary.lines(read_runs()))
    assert re.search(r"refnet_fd +31\.4 ± 1\.4 +lower is better +real against real \(floor\) 4\.61", text)
    assert re.search(r"refnet_is +2\.61 ± 0\.08 +higher is better +real clips \(ceiling\) 3\.87", text)
    assert "samples/laptop/" in text


def test_the_summary_suggests_nothing_that_is_active_and_says_what_is_wrong(project, monkeypatch):
    said = summary.what_next()
    assert "CONF=weizmann" in said
    assert "DATA=" not in said  # The data set of this project is a folder.
    Path("params.yaml").write_text("a: [1, 2")
    monkeypatch.setattr("sys.argv", ["summary"])
    with pytest.raises(SystemExit, match=r"^error: params\.yaml: not valid YAML"):
        summary.main()


def test_a_predicting_model_shows_its_protocol_and_its_scores_by_frames_ahead(project):
    scores = {"predict_psnr": {"value": 20.5, "sd": 0.1, "copy": 18.2}, "gated": True}
    manifest = {
        "context": 4, "num_real": 2, "num_fake": 2, "num_draws": 5, "extractor": "none",
        "real": {"split": "test"}, "protocols": {"predict_psnr": "as ever"},
        "frames_ahead": {"predict_psnr": {"model": [21.0, 20.0], "copy": [19.0, 17.0]}},
    }  # fmt: skip
    write_result(Path("metrics/laptop.json"), scores, manifest)
    text = page()
    assert "the model saw the first 4 frames of each and drew the rest 5 times" in text
    assert "Prediction, PSNR, frame by frame" in text
    assert "20.5" in text
    assert text.count('class="curve"') == 3 + 1
