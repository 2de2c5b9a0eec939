"""Show everything that was made on one page: report/index.html; the comparison also as comparison.csv and .md.

The page needs no network and no other file, and equal inputs give equal bytes. What no stage has made yet
is named on the page with the command that makes it.
"""

import json
from pathlib import Path

import jinja2

from hrvgan.clipstore.clips import Clips
from hrvgan.files import write_text
from pipeline import params
from pipeline.report import literature
from pipeline.report.charts import against, curve, read_history
from pipeline.report.comparison import apart, tables
from pipeline.report.comparison_files import csv_text, markdown
from pipeline.report.media import Media, Screen, embed_picture, embed_video, real_screens
from pipeline.report.report_text import deck, facts, overview, protocol
from pipeline.report.run_results import Findings, find_all
from pipeline.report.score_display import read_scores, title_of

PAGE = Path(__file__).parent / "page"
TITLES = {
    "classes": "Class by class",
    "interpolation": "From one video to another",
    "prediction": "How videos go on",
}


def main() -> None:
    runs = find_all()
    text = params.call(render, runs, where="report", values=params.section("report"))
    write_text("report/comparison.csv", csv_text(runs))
    write_text("report/comparison.md", markdown(runs))
    write_text("report/index.html", text)


def render(
    runs: list[Findings],
    *,
    title: str = "HRVGAN report",
    real_clips_per_class: int = 1,
) -> str:
    """The page as HTML: of each run the classes that stage `sample` drew, with real clips beside generated ones."""
    chapters = [chapter(run, open_clips(run.dataset), real_clips_per_class) for run in runs]
    loader = jinja2.FileSystemLoader(PAGE)
    pages = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return pages.get_template("index.html.j2").render(
        title=title, deck=overview(runs), chapters=chapters, apart=apart(runs), published=literature,
        tables=[{**table, "films": films(table["runs"])} for table in tables(runs)],
    )  # fmt: skip


def films(runs: list[Findings]) -> list[tuple[Findings, Media]]:
    """A row of clips for each run, those of the same labels one above the other."""
    rows = [(run, run.sample_folder / run.samples["row"]) for run in runs if "row" in (run.samples or {})]
    return [(run, embed_video(path)) for run, path in rows]


def open_clips(dataset: str) -> Clips | None:
    folder = Path("data/clips", dataset)
    return Clips(folder) if folder.is_dir() else None


def chapter(run: Findings, clips: Clips | None, real_clips_per_class: int) -> dict:
    """All that the templates say about one run."""
    generated = (run.samples or {}).get("clips", [])
    names = list(dict.fromkeys(clip["class"] or "" for clip in generated))
    return {
        "run": run,
        "deck": deck(run),
        "facts": facts(run, clips),
        "pairs": [(name, screens(run, clips, name, real_clips_per_class)) for name in names],
        "hidden_classes": max(0, len((run.model or {}).get("classes", ())) - len(names)),
        "sheets": [sheet(run, kind) for kind in (run.samples or {}).get("kinds", [])] + nearest(run),
        "protocol": protocol(run),
        "scores": read_scores(run.shown),
        "ahead": frames_ahead(run),
        "curves": curves(run),
        "settings": json.dumps(run.settings, indent=2, ensure_ascii=False),
    }


def screens(run: Findings, clips: Clips | None, class_name: str, real_clips: int) -> list[Screen]:
    """The generated clips of a class, then real ones of the same class, length and size on screen."""
    made = [clip for clip in run.samples["clips"] if (clip["class"] or "") == class_name]
    found = [Screen("generated", "generated", embed_video(run.sample_folder / clip["mp4"])) for clip in made]
    if clips is not None and real_clips:
        found += real_screens(clips, class_name, real_clips, found[0].media)
    return found


def sheet(run: Findings, kind: dict) -> dict:
    """A picture of samples.json and its video, beside each other unless one is much wider."""
    rows = ", ".join(filter(None, kind.get("rows", [])))
    picture, video = (
        embed_picture(run.sample_folder / kind["png"]),
        embed_video(run.sample_folder / kind["mp4"]),
    )
    return {
        "title": TITLES.get(kind["kind"], kind["kind"].capitalize()),
        "caption": kind["caption"],
        "alt": f"Generated frames{'; rows from the top: ' + rows if rows else ''}. {kind['caption']}",
        "picture": picture,
        "video": video,
        "beside": picture.share < 1.6 * video.share,
    }


def frames_ahead(run: Findings) -> list[tuple[str, str]]:
    """Of a model that predicts: each score by how far ahead the frame lies."""
    found = (run.manifest or {}).get("frames_ahead", {})
    return [
        (title_of(name), against(f"{run.name} {name}", each["model"], each["copy"]))
        for name, each in found.items()
    ]


def nearest(run: Findings) -> list[dict]:
    """The picture of stage `evaluate`: shown samples beside the training clips nearest to them."""
    path = Path("metrics") / f"{run.name}.nearest.png"
    if not path.is_file() or not run.manifest:
        return []
    far = run.manifest.get("memorisation")
    share = (
        f" Generated clips lie {far['ratio']:.2g} times as far from their nearest training clip as new real clips "
        "do: about 1 is as new as those, far below 1 would be copying."
        if far
        else ""
    )
    caption = f"Left the first sample of each class, right the training clip nearest to it.{share}"
    return [
        {
            "title": "Nearest training clips",
            "caption": caption,
            "alt": f"Film strips. {caption}",
            "picture": embed_picture(path),
            "video": None,
            "beside": False,
        }
    ]


def curves(run: Findings) -> list[tuple[str, str]]:
    path = run.folder / "history.csv"
    history = read_history(path) if path.is_file() else {}
    return [
        (name, curve(f"{run.name} {name}", *columns))
        for name, columns in history.items()
        if len(columns[0]) > 1
    ]
