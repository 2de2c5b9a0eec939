"""Show everything that was made on one page: report/index.html.

The page needs no network and no other file, and equal inputs give equal bytes. What no stage has made yet
is named on the page with the command that makes it.
"""

import json
from pathlib import Path

import jinja2

from hrvgan.datasets.clips import Clips
from hrvgan.files import write_text
from pipeline import params, stage
from pipeline.charts import curve, read_history
from pipeline.comparison import apart, tables
from pipeline.facts import deck, facts, overview, protocol
from pipeline.findings import Findings, find_all
from pipeline.media import Screen, embed_picture, embed_video, real_screens
from pipeline.scales import read_scores

PAGE = Path(__file__).parent / "page"
TITLES = {"classes": "Class by class", "interpolation": "From one video to another"}


def main() -> None:
    text = params.call(render, find_all(), where="report", values=params.section("report"))
    write_text("report/index.html", text)


def render(
    runs: list[Findings],
    *,
    title: str = "HRVGAN report",
    real_clips_per_class: int = 1,
    max_classes: int = 12,
) -> str:
    """The page as HTML: at most `max_classes` classes a run, each with real clips beside generated ones."""
    chapters = [chapter(run, open_clips(run.dataset), real_clips_per_class, max_classes) for run in runs]
    loader = jinja2.FileSystemLoader(PAGE)
    pages = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return pages.get_template("index.html.j2").render(
        title=title, deck=overview(runs), chapters=chapters, tables=tables(runs), apart=apart(runs)
    )


def open_clips(dataset: str) -> Clips | None:
    folder = Path("data/clips", dataset)
    return Clips(folder) if folder.is_dir() else None


def chapter(run: Findings, clips: Clips | None, real_clips_per_class: int, max_classes: int) -> dict:
    """All that the templates say about one run."""
    generated = (run.samples or {}).get("clips", [])
    names = list(dict.fromkeys(clip["class"] or "" for clip in generated))
    return {
        "run": run,
        "deck": deck(run),
        "facts": facts(run, clips),
        "pairs": [(name, screens(run, clips, name, real_clips_per_class)) for name in names[:max_classes]],
        "hidden_classes": max(0, len(names) - max_classes),
        "sheets": [sheet(run, kind) for kind in (run.samples or {}).get("kinds", [])],
        "protocol": protocol(run),
        "scores": read_scores(run.scores) if run.gated else [],
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


def curves(run: Findings) -> list[tuple[str, str]]:
    path = run.folder / "history.csv"
    history = read_history(path) if path.is_file() else {}
    return [
        (name, curve(f"{run.name} {name}", *columns))
        for name, columns in history.items()
        if len(columns[0]) > 1
    ]


if __name__ == "__main__":
    stage.run(main, __doc__)
