"""Folder of videos of any origin, read in place.

<class>/<video>.{avi,mp4,mkv,webm,...}    the folder is the class, every video its own group
v_<Class>_gNN_cMM.avi, at any depth       UCF101's names: class and group come from the name
<class>/<strip>.{png,jpg,jpeg}            strips of square frames, side by side or stacked
<class>/<video>/<frame>.{png,jpg,jpeg}    folders of frames, which are no strips: one video each
<video>.*, <video>/<frame>.*              no folders of classes: a data set without

Folders train, val (valid, validation) and test above or below the classes assign the splits; folders around everything
are passed over. Pictures in or below a folder that holds videos are by-products. Folders and videos may be symbolic
links.
"""

import itertools
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.extraction.videos import Video, write_notes
from hrvgan.video.io import VIDEO_SUFFIXES
from hrvgan.video.readers import PICTURE_SUFFIXES, WEBP, are_frames, webp_times

SUFFIXES = (*VIDEO_SUFFIXES, *PICTURE_SUFFIXES)
UCF_NAME = re.compile(r"v_(?P<class_name>\w+)_(?P<group>g\d+)_c\d+")
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def fetch(out: Path, *, path: str | Path) -> list[Video]:
    """List the videos under `path`; remarks on what else is there go to stderr and to `out`, for the manifest.

    Raises InputError if there are none, or if a class has none.
    """
    videos, notes = find(path)
    sys.stderr.writelines(f"{path}: {note}\n" for note in notes)
    write_notes(out, notes)
    return videos


def class_names(path: str | Path) -> list[str]:
    """Names of the classes that the videos under `path` have."""
    return sorted({video.class_name for video in find(path)[0]} - {""})


def find(path: str | Path) -> tuple[list[Video], list[str]]:
    """Videos under `path`, and remarks on splits, folders and files that are no videos. Raises InputError."""
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; put videos there or change the data set's option `path`")
    files, others = _separate(root, sorted(_files(root)))
    files = _join_frames(root, files)
    if not files:
        raise InputError(f"{root}: no videos in it; put files there that end in {', '.join(SUFFIXES)}")
    layout = Layout.of([file.parent.parts for file in files])
    videos = [_video(root, file, layout) for file in files]
    _check_classes(root.joinpath(*layout.around), videos)
    return videos, [*_split_notes(layout, videos), *_other_notes(others)]


def _files(root: Path) -> Iterator[Path]:
    """Yield every file below `root`, relative to it, also behind links to folders; cycles of links are walked once.

    Broken links count as files, so that extraction reports them. Hidden folders belong to other programs.
    """
    visited = set()
    for folder, inner, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            inner.clear()
            continue
        visited.add(real)
        inner[:] = [name for name in inner if not name.startswith(".")]
        yield from (Path(folder, name).relative_to(root) for name in files)


def _separate(root: Path, files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Videos and strips, and the other files: hidden ones, pictures beside videos, still WebPs, unknown suffixes."""
    videos = [file for file in files if _is_video(file) and not _is_still(root / file)]
    holders = {file.parent for file in videos if not _is_picture(file)}
    videos = [file for file in videos if not _is_picture(file) or holders.isdisjoint(file.parents)]
    return videos, sorted(set(files).difference(videos))


def _is_still(path: Path) -> bool:
    return path.suffix.lower() == WEBP and path.is_file() and not webp_times(path)


def _join_frames(root: Path, files: Sequence[Path]) -> list[Path]:
    """`files` with the folder in place of pictures that are the frames of one video; by first and last one."""
    folders = defaultdict(list)
    for file in filter(_is_picture, files):
        folders[file.parent].append(file)
    videos = {folder for folder, frames in folders.items() if folder.name and len(frames) > 1
              and are_frames([root / frames[0], root / frames[-1]])}  # fmt: skip
    return sorted(videos.union(file for file in files if not (_is_picture(file) and file.parent in videos)))


def _is_video(file: Path) -> bool:
    hidden = file.name.startswith(".")  # `._x.avi` is of another program
    return file.suffix.lower() in SUFFIXES and not hidden


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in PICTURE_SUFFIXES


@dataclass(frozen=True)
class Layout:
    """Folders around everything, and the levels of the folders that name class and split."""

    around: tuple[str, ...]
    class_level: int
    split_level: int | None = None
    assigned: bool = False  # A folder train exists; test or val alone would leave nothing to train with.

    @classmethod
    def of(cls, parents: Sequence[tuple[str, ...]]) -> "Layout":
        """Layout of videos with the folders `parents`, from the root down."""
        level = next((level for level in range(max(map(len, parents))) if _names_splits(parents, level)), None)
        if level is None:
            depth = _depth_around(parents)
            return cls(parents[0][:depth], depth)
        above, below = [folders[:level] for folders in parents], [folders[level + 1 :] for folders in parents]
        assigned = "train" in {folders[level].lower() for folders in parents if len(folders) > level}
        if len(set(above)) > 1 or (level and not any(below)):
            depth = _depth_around(above) if len(set(above)) > 1 else level - 1
            return cls(above[0][:depth], depth, level, assigned)
        return cls(above[0], level + 1 + _depth_around(below), level, assigned)

    def class_of(self, folders: tuple[str, ...]) -> str:
        return folders[self.class_level] if len(folders) > self.class_level else ""

    def split_of(self, folders: tuple[str, ...]) -> str:
        named = self.assigned and len(folders) > self.split_level
        return SPLIT_FOLDERS[folders[self.split_level].lower()] if named else ""


def _names_splits(parents: Sequence[tuple[str, ...]], level: int) -> bool:
    return {folders[level].lower() for folders in parents if len(folders) > level} <= SPLIT_FOLDERS.keys()


def _depth_around(parents: Sequence[tuple[str, ...]]) -> int:
    """Number of folders that hold all videos, where each video is in a further one; 0 for a single class."""
    levels = (set(names) for names in zip(*parents, strict=False))
    depth = sum(1 for _ in itertools.takewhile(lambda names: len(names) == 1, levels))
    return depth if all(len(folders) > depth for folders in parents) else 0


def _video(root: Path, inside: Path, layout: Layout) -> Video:
    folders, name = inside.parent.parts, inside.as_posix()
    split = layout.split_of(folders)
    if ucf := UCF_NAME.fullmatch(inside.stem):
        return Video(root / inside, ucf["class_name"], ucf["group"], split, name)
    return Video(root / inside, layout.class_of(folders), name, split, name)


def _check_classes(root: Path, videos: Sequence[Video]) -> None:
    loose = [video for video in videos if not video.class_name]
    if len(loose) == len(videos):
        return
    if loose:
        raise InputError(f"{loose[0].path}: lies beside class folders but in none; move it into one")
    used = {video.path.relative_to(root).parts[0] for video in videos}
    for folder in sorted(root.iterdir()):
        hidden, named_as_video = folder.name.startswith("."), _is_video(Path(folder.name))
        if folder.is_dir() and folder.name not in used and not hidden and not named_as_video:
            kind = "split" if folder.name.lower() in SPLIT_FOLDERS else "class"
            raise InputError(f"{folder}: a {kind} with no videos; put some there or remove the folder")


def _split_notes(layout: Layout, videos: Sequence[Video]) -> Iterator[str]:
    if layout.around:
        yield f"classes and splits are the folders in {'/'.join(layout.around)}"
    if layout.split_level is None:
        return
    if not layout.assigned:
        yield "no folder train among the splits: all splits are drawn by group"
        return
    counts = Counter(video.split for video in videos)
    given = [f"{name} ({counts[name]} videos)" for name in ("train", "val", "test") if counts[name]]
    missing = [name for name in ("val", "test") if not counts[name]]
    drawn = f"; {' and '.join(missing)} drawn from train by group" if missing else ""
    rest = f"; {counts['']} videos in no split are drawn by group" if counts[""] else ""
    yield f"splits of the folders are kept: {', '.join(given)}{drawn}{rest}"


def _other_notes(others: Sequence[Path]) -> Iterator[str]:
    if others:
        kinds = Counter("hidden" if file.name.startswith(".") else file.suffix.lower() or file.name for file in others)
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        examples = ", ".join(file.as_posix() for file in others[:3])
        yield f"{len(others)} files are no videos and left out ({counts}), for example {examples}"
