"""Aeroplane: strips of stabilised frames, cut by iVGAN's authors from YouTube-BoundingBoxes; a folder of the user.

Kratzwald et al. 2017, "Towards an Understanding of Our World by GANing Videos in the Wild", never published
them, and its videos may only be obtained where they were shared: nothing can be downloaded here.
"""

from pathlib import Path

from hrvgan.datasets import folder
from hrvgan.errors import InputError
from hrvgan.extraction.videos import Video
from hrvgan.video.io import is_strip

WHY = (
    "the Aeroplane set was never published (iVGAN's authors cut it from YouTube-BoundingBoxes), so it cannot be "
    "downloaded; put strips of square frames there, one jpg or png a clip, or change the option `path`"
)


def fetch(out: Path, *, path: str | Path = "data/aeroplane") -> list[Video]:
    """List the strips under `path`, read in place, without classes; strips of one folder are one group.

    Raises InputError, with the reason why there is no download, if there are none.
    """
    if not Path(path).is_dir():
        raise InputError(f"{path}: no such folder; {WHY}")
    return [_assign(video, Path(path)) for video in folder.fetch(out, path=path)]


def _assign(video: Video, root: Path) -> Video:
    if not is_strip(video.path):
        raise InputError(f"{video.path}: not a strip; {WHY}")
    inside = video.path.relative_to(root)
    group = inside.parent.as_posix() if len(inside.parts) > 1 else inside.stem
    return Video(video.path, "", group, video_id=video.video_id)
