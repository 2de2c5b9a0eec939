"""List of a data set's videos: output of every source in `hrvgan/datasets`, input of extraction."""

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.files import atomic_path, file_digest

TEXT = {"newline": "", "encoding": "utf-8", "errors": "surrogateescape"}
NOTES = "notes.txt"  # remarks of a source on its files, a line each, beside the list
COLUMNS = ("video_id", "path", "class_name", "group", "split", "bytes", "md5")


@dataclass(frozen=True)
class Video:
    """One video of a data set: a file, or a folder of pictures, one a frame."""

    path: Path
    class_name: str  # "" in a data set without classes
    group: str  # videos of one group (a scene, a person, a mirrored pair) never straddle two splits
    split: str = ""  # train, val or test; "" leaves it to the hash of the group
    video_id: str = ""  # name in the data set, independent of where the files are; by default the path
    md5: str = ""  # filled in by the csv


def write_videos_csv(path: str | Path, videos: Iterable[Video], dask: str = "") -> None:
    """Write the list with size and md5 of each file, so that a changed file changes the list. They are computed by
    threads or, given the address of a scheduler, on the cluster.

    Paths inside the csv's folder are written relative to it, others byte by byte as given. In other columns, bytes
    that are not UTF-8 are escaped.
    """
    videos = list(videos)
    rows = sorted(
        (*_names(video, Path(path).parent), video.split, *content)
        for video, content in zip(videos, _contents(videos, dask), strict=True)
    )
    twice = [name for name, count in Counter(row[0] for row in rows).items() if count > 1]
    if twice:
        raise InputError(f"{path}: two videos are called {twice[0]!r}; rename one")
    with atomic_path(path) as temporary, open(temporary, "w", **TEXT) as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)  # A name may contain "\r".
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def _names(video: Video, folder: Path) -> tuple[str, str, str, str]:
    path = video.path.relative_to(folder) if video.path.is_relative_to(folder) else video.path
    names = video.video_id or path.as_posix(), video.class_name, video.group
    name, class_name, group = (os.fsencode(name).decode(errors="backslashreplace") for name in names)
    return name, path.as_posix(), class_name, group


def _contents(videos: Sequence[Video], dask: str) -> Iterator[tuple[int, str]]:
    """Size and md5 of each video, in order."""
    paths = [video.path.absolute() for video in videos]
    if dask:
        from hrvgan.parallel import ordered_map  # whose libraries no source needs

        yield from ordered_map(size_and_md5, paths, dask=dask, desc="hash", unit="video")
        return
    with ThreadPoolExecutor() as threads:  # Hashing leaves them to run side by side.
        for start in range(0, len(paths), 10_000):
            yield from threads.map(size_and_md5, paths[start : start + 10_000])


def size_and_md5(path: Path) -> tuple[int, str]:
    try:
        return num_bytes(path), content_md5(path)
    except OSError:  # for extraction to report
        return 0, ""


def num_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in _content(path))


def content_md5(path: Path) -> str:
    """Digest of a file, or of the names and digests of the files in a folder of frames."""
    if not path.is_dir():
        return file_digest(path, "md5")
    lines = (f"{file_digest(file, 'md5')} {file.name}\n" for file in _content(path))
    return hashlib.md5("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _content(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]


def read_videos_csv(path: str | Path) -> list[Video]:
    """Videos of a list in its order. Raises InputError if it is missing, empty or has other columns."""
    try:
        with open(path, **TEXT) as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no list of videos ({error}); run the download stage first") from error
    if not rows or tuple(rows[0]) != COLUMNS:
        columns = ", ".join(COLUMNS)
        raise InputError(f"{path}: not a list of videos with the columns {columns}; run download again")
    return [_video(row, Path(path).parent) for row in rows]


def _video(row: dict, folder: Path) -> Video:
    inside = folder / row["path"]
    path = inside if os.path.lexists(inside) else Path(row["path"])
    return Video(path, row["class_name"], row["group"], row["split"], row["video_id"], row["md5"])


def write_notes(folder: Path, notes: Sequence[str]) -> None:
    if notes:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NOTES).write_text("".join(f"{note}\n" for note in notes), encoding="utf-8", errors="backslashreplace")


def read_notes(folder: Path) -> list[str]:
    path = folder / NOTES
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
