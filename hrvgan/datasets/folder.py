"""Folder of videos of any origin, read in place.

<class>/<video>.{avi,mp4,mkv,webm,mov}    the folder is the class, every video its own group
v_<Class>_gNN_cMM.avi, at any depth       UCF101's names: class and group come from the name
<class>/<strip>.{png,jpg,jpeg}            strips of square frames, side by side or stacked
<video>.*                                 no folders: a data set without classes

Folders and videos may be symbolic links.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.extraction.videos import Video
from hrvgan.video.io import STRIP_SUFFIXES, VIDEO_SUFFIXES

SUFFIXES = (*VIDEO_SUFFIXES, *STRIP_SUFFIXES)
UCF_NAME = re.compile(r"v_(?P<class_name>\w+)_(?P<group>g\d+)_c\d+")


def fetch(out: Path, path: str | Path) -> list[Video]:
    """List the videos under `path`. Raises InputError if there are none, or if a class has none."""
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; put videos there or change the data set's option `path`")
    videos = [_video(root, file) for file in sorted(_files(root)) if _is_video(file)]
    if not videos:
        raise InputError(f"{root}: no videos in it; put files there that end in {', '.join(SUFFIXES)}")
    _check_classes(root, videos)
    return videos


def _files(root: Path) -> Iterator[Path]:
    """Yield every file below `root`, relative to it, also behind links to folders; cycles of links are walked once.

    Broken links count as files, so that extraction reports them.
    """
    visited = set()
    for folder, inner, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            inner.clear()
            continue
        visited.add(real)
        yield from (Path(folder, name).relative_to(root) for name in files)


def _is_video(inside: Path) -> bool:
    # Hidden files (`._x.avi`, `.cache/x.avi`) belong to other programs.
    return inside.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in inside.parts)


def _video(root: Path, inside: Path) -> Video:
    name = inside.as_posix()
    if ucf := UCF_NAME.fullmatch(inside.stem):
        return Video(root / inside, ucf["class_name"], ucf["group"], video_id=name)
    return Video(root / inside, inside.parts[0] if len(inside.parts) > 1 else "", name, video_id=name)


def _check_classes(root: Path, videos: list[Video]) -> None:
    loose = [video for video in videos if not video.class_name]
    if len(loose) == len(videos):
        return
    if loose:
        raise InputError(f"{loose[0].path}: lies beside class folders but in none; move it into one")
    used = {video.path.relative_to(root).parts[0] for video in videos}
    for folder in sorted(root.iterdir()):
        hidden, named_as_video = folder.name.startswith("."), _is_video(Path(folder.name))
        if folder.is_dir() and folder.name not in used and not hidden and not named_as_video:
            raise InputError(f"{folder}: a class with no videos; put some there or remove the folder")
