"""The list of a data set's videos: what every source makes and extraction reads."""

import csv
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.files import atomic_path, file_digest

SPLITS = ("train", "val", "test")
TEXT = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
COLUMNS = ("video_id", "path", "class_name", "group", "split", "bytes", "md5")


@dataclass(frozen=True)
class Video:
    """One video file of a data set."""

    path: Path
    class_name: str  # "" in a data set without classes
    group: str  # videos of one group (a scene, a person, a mirrored pair) never straddle two splits
    split: str = ""  # train, val or test; "" leaves it to the hash of the group
    video_id: str = ""  # its name in the data set, the same wherever the files lie; by default the path
    md5: str = ""  # filled in by the csv


def write_videos_csv(path: str | Path, videos: Iterable[Video]) -> None:
    """Write the list with size and md5 of each file, so that a file changed in place changes the list.

    Paths inside the csv's folder are written relative to it, others as they were given, byte by byte; of names that
    are not UTF-8 all but the path is made readable.
    """
    rows = sorted(_row(video, Path(path).parent) for video in videos)
    twice = [name for name, count in Counter(row[0] for row in rows).items() if count > 1]
    if twice:
        raise InputError(f"{path}: two videos are called {twice[0]!r}; rename one")
    with atomic_path(path) as temporary, open(temporary, "w", **TEXT) as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)  # A name may hold a "\r".
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def _row(video: Video, folder: Path) -> tuple:
    path = video.path.relative_to(folder) if video.path.is_relative_to(folder) else video.path
    name, class_name, group = map(
        _readable, (video.video_id or path.as_posix(), video.class_name, video.group)
    )
    return (name, path.as_posix(), class_name, group, video.split, *_content(video.path))


def _readable(name: str) -> str:
    """Valid Unicode: a byte of a file's name that is none becomes its number, \\xff."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _content(path: Path) -> tuple[int, str]:
    """Size and md5; 0 and "" of a file that cannot be read, which is for extraction to report."""
    try:
        return path.stat().st_size, file_digest(path, "md5")
    except OSError:
        return 0, ""


def read_videos_csv(path: str | Path) -> list[Video]:
    """The videos of a list in its order. Raises InputError if it is missing, empty or of another kind."""
    try:
        with open(path, **TEXT) as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no list of videos ({error}); run the download stage first") from error
    if not rows or tuple(rows[0]) != COLUMNS:
        raise InputError(
            f"{path}: not a list of videos with the columns {', '.join(COLUMNS)}; run download again"
        )
    return [_video(row, Path(path).parent) for row in rows]


def _video(row: dict, folder: Path) -> Video:
    inside = folder / row["path"]
    path = inside if os.path.lexists(inside) else Path(row["path"])
    return Video(path, row["class_name"], row["group"], row["split"], row["video_id"], row["md5"])
