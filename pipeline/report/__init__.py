"""Stage `report`: report/index.html shows all active runs; comparison.csv and .md hold their scores, plots/ what
`dvc plots` shows and compares.

The page needs no network and no other file, and equal inputs give equal bytes. Results that no stage has made yet
are named on the page with the command that makes them.
"""

import base64
import io
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pyarrow
from PIL import Image
from pyarrow.csv import write_csv

from hrvgan.clipstore.clips import SPLITS, Clips
from hrvgan.files import atomic_folder, write_text
from hrvgan.video.io import read_frames, write_video
from pipeline import params
from pipeline.report import comparison
from pipeline.report.charts import against, curve, read_history
from pipeline.report.run_results import RunResults, read_runs, read_scores, title_of

PAGE = Path(__file__).parent / "page"
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def main() -> None:
    runs = read_runs()
    text = params.call(render, runs, where="report", values=params.load()["report"])
    write_text("report/comparison.csv", comparison.csv_text(runs))
    write_text("report/comparison.md", comparison.markdown(runs))
    write_text("report/index.html", text)
    with atomic_folder("report/plots") as folder:
        for run in runs:
            write_plots(run, folder / run.name)


def write_plots(run: RunResults, folder: Path) -> None:
    """Pictures of a run, and each column of its history as a file of its own: DVC draws the last column of a file."""
    folder.mkdir()
    pictures = [run.sample_folder / kind["png"] for kind in run.samples.get("kinds", [])]
    for path in filter(None, [*pictures, run.nearest_picture]):
        shutil.copy(path, folder / path.name.removeprefix(f"{run.name}."))
    for name, columns in history(run).items():
        table = {"step": columns[0].astype(int), name: columns[1]}
        write_csv(pyarrow.table(table), folder / f"{name.replace('/', '-')}.csv")


def render(runs: list[RunResults], *, title: str = "HRVGAN report", real_clips_per_class: int = 1) -> str:
    """The page as HTML: of each run the classes that stage `sample` drew, with real clips beside generated ones."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = count
    environment.globals |= {"embed_picture": embed_picture, "embed_video": embed_video, "SPLITS": SPLITS}
    return environment.get_template("index.html.j2").render(
        title=title, runs=runs, chapters=[chapter(run, real_clips_per_class) for run in runs], comparison=comparison
    )


def count(number: int, noun: str) -> str:
    """ "two models", "12 models" """
    return f"{NUMBERS[number] if number < len(NUMBERS) else number} {noun}{'' if number == 1 else 's'}"


def chapter(run: RunResults, real_clips_per_class: int) -> dict:
    """Values of the templates for one run."""
    folder = Path("data/clips", run.dataset)
    clips = Clips(folder) if folder.is_dir() else None
    generated = run.samples.get("clips", [])
    names = list(dict.fromkeys(clip["class"] or "" for clip in generated))
    return {
        "run": run,
        "clips": clips,
        "pairs": [(name, screens(run, clips, name, real_clips_per_class)) for name in names],
        "hidden_classes": max(0, len(run.model.get("classes", ())) - len(names)),
        "scores": read_scores(run.shown),
        "ahead": frames_ahead(run),
        "curves": curves(run),
        "settings": json.dumps(run.settings, indent=2, ensure_ascii=False),
    }


def screens(run: RunResults, clips: Clips | None, class_name: str, num_real: int) -> list[tuple[str, str, "Media"]]:
    """(kind, caption, video) of the generated clips of a class, then of real ones of the same length and size."""
    generated = [
        ("generated", "generated", embed_video(run.sample_folder / clip["mp4"]))
        for clip in run.samples["clips"]
        if (clip["class"] or "") == class_name
    ]
    if clips is None:
        return generated
    split, videos = real_videos(clips, class_name, num_real, generated[0][2])
    return generated + [("real", f"real, {split}", video) for video in videos]


def frames_ahead(run: RunResults) -> list[tuple[str, str]]:
    """(title, chart) of each score of a predicting model by how far ahead the frame lies."""
    return [
        (title_of(name), against(f"{run.name} {name}", values["model"], values["copy"]))
        for name, values in run.manifest.get("frames_ahead", {}).items()
    ]


def curves(run: RunResults) -> list[tuple[str, str]]:
    """(column, chart) of each column of history.csv."""
    return [
        (name, curve(f"{run.name} {name}", *columns)) for name, columns in history(run).items() if len(columns[0]) > 1
    ]


def history(run: RunResults) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    path = run.folder / "history.csv"
    return read_history(path) if path.is_file() else {}


@dataclass(frozen=True)
class Media:
    """A picture, or a video with its first frame as poster, as data: URIs; `width` and `height` in pixels."""

    uri: str
    width: int
    height: int
    frames: int = 1
    poster: str = ""

    @property
    def share(self) -> float:
        """Width / height: media that share a line in this proportion are equally high."""
        return round(self.width / self.height, 3)


def embed_picture(path: Path) -> Media:
    with Image.open(path) as image:
        return Media(data_uri(path.read_bytes(), "image/png"), *image.size)


def embed_video(path: Path) -> Media:
    frames = read_frames(path)[0]  # (T, H, W, 3)
    poster = io.BytesIO()
    Image.fromarray(frames[0]).save(poster, "JPEG", quality=90, subsampling=0)
    num, height, width, _ = frames.shape
    video, picture = data_uri(path.read_bytes(), "video/mp4"), data_uri(poster.getvalue(), "image/jpeg")
    return Media(video, width, height, num, picture)


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def real_videos(clips: Clips, class_name: str, num: int, like: Media) -> tuple[str, list[Media]]:
    """(split, videos) of the first `num` real clips of a class, as long and large as `like`.

    From the test split; a data set without one shows val, and one without either its training clips.
    """
    if class_name and class_name not in clips.classes:
        return "", []  # The data set has changed since the model was trained.
    for split in ("test", "val", "train"):
        view = clips.split(split)
        members = np.arange(len(view))
        if class_name:
            members = members[view.labels == clips.classes.index(class_name)]
        if len(members):
            return split, [embed_real(view[int(row)], clips.fps, like) for row in members[:num]]
    return "", []


def embed_real(frames: np.ndarray, fps: float, like: Media) -> Media:
    """Frames enlarged as the generated ones are, so that the codec's chroma subsampling affects both alike."""
    factor = max(1, like.width // frames.shape[2])
    enlarged = frames[: like.frames].repeat(factor, axis=1).repeat(factor, axis=2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "real.mp4")
        write_video(path, enlarged, fps=fps)
        return embed_video(path)
