"""Sources of clips that are files of others: folders of videos, npz and npy (see sources.py)."""

import contextlib
import functools
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from hrvgan.clipstore.clips import SPLITS
from hrvgan.datasets.folder import fetch
from hrvgan.errors import InputError, VideoError
from hrvgan.evaluation.sources import CHUNK, Cut, Source, StoreSource
from hrvgan.files import file_digest
from hrvgan.metrics.arrays import class_labels
from hrvgan.parallel import ordered_map
from hrvgan.video.decode import decode, expected_frames
from hrvgan.video.io import is_strip, read_frames


def open_source(path: str | Path, split: str = "") -> Source:
    """The clips at `path`; `split` chooses those of a clip store. Raises InputError if there is nothing to score, and
    for a split of what has none: real clips that a model was trained on are not to stand in for held-out ones."""
    path = Path(path)
    if not path.exists():
        raise InputError(
            f"{path}: no such file or folder; give a clip store, a folder of videos, .npz or .npy"
        )
    if split and not (path / "index.parquet").exists():
        raise InputError(f"{path}: only a clip store has splits; leave out --split, or give the clip store")
    if path.is_dir():
        source = StoreSource(path, split) if (path / "index.parquet").exists() else FolderSource(path)
    elif path.suffix in (".npz", ".npy"):
        source = ArraySource(path)
    else:
        raise InputError(f"{path}: cannot be scored; give a clip store, a folder of videos, .npz or .npy")
    if len(source) < 2:
        remedy = f"the splits are {', '.join(SPLITS)}" if split else "a spread needs two points"
        raise InputError(f"{source.name}: {len(source)} clip(s), need at least 2; {remedy}")
    return source


class FolderSource:
    """A folder of video files, one clip of each; what is in a folder of its own is a class."""

    def __init__(self, path: Path):
        self.name, self.files = str(path), fetch(path, path)
        self.classes = sorted({video.class_name for video in self.files} - {""})
        known = {name: label for label, name in enumerate(self.classes)}
        self.labels = np.array([known.get(video.class_name, 0) for video in self.files])
        self.groups = np.array([video.group for video in self.files], dtype=str)
        self.videos = np.array([video.video_id for video in self.files], dtype=str)

    @functools.cached_property
    def digest(self) -> str:
        about = [(video.video_id, file_digest(video.path, "md5")) for video in self.files]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.files)

    def read(self, rows: np.ndarray, cut: Cut) -> Iterator[np.ndarray]:
        jobs = [(self.files[row].path, row) for row in rows.tolist()]
        clips = ordered_map(
            functools.partial(_decode, cut=cut), jobs, workers="auto", desc="decode", unit="video"
        )
        waiting = []
        for clip in clips:
            if waiting and (len(waiting) == CHUNK or clip.shape != waiting[0].shape):
                yield np.stack(waiting)
                waiting = []
            waiting.append(clip)
        if waiting:
            yield np.stack(waiting)


def _decode(job: tuple[Path, int], cut: Cut) -> np.ndarray:
    path, row = job
    if is_strip(path) or not cut.frames:
        return np.ascontiguousarray(cut(read_frames(path)[0], row, str(path)))
    frames, length = _frames(path, *cut.place(expected_frames(path), row, str(path)))
    if len(frames) < cut.frames:  # The header promised more than there is.
        frames, _ = _frames(path, *cut.place(length, row, str(path)))
    if len({frame.shape for frame in frames}) > 1:
        raise VideoError(f"{path}: its frames change their size; encode it again")
    return np.stack(frames)


class _Enough(Exception):
    """Ends a decoding whose rest nobody asks for."""


def _frames(path: Path, start: int, stop: int) -> tuple[list[np.ndarray], int]:
    """Frames `start` to `stop` of a video, and how many there are as far as was looked."""
    frames = []

    def put(number: int, picture: Callable) -> None:
        frames.append(picture(None, True))
        if number + 1 == stop:
            raise _Enough

    with contextlib.suppress(_Enough):
        return frames, decode(path, range(start, stop).__contains__, put).num_frames
    return frames, stop


class ArraySource:
    """Frames uint8 (N, T, H, W, 3) in an .npy, or as `frames` or the first such array of an .npz; never whole in
    memory, also where the .npz is compressed. An .npz may have `labels` (N,) from 0 on and names of `classes`."""

    def __init__(self, path: Path):
        self.name, self.path = str(path), path
        self.member, shape, dtype = _find_frames(path)
        if dtype != np.uint8 or len(shape) != 5 or shape[-1] != 3:
            raise InputError(f"{path}: holds {dtype} {shape}, need uint8 clips (N, T, H, W, 3)")
        self.shape = shape
        self.labels, self.classes = _read_labels(path, shape[0])
        self.groups = self.videos = np.arange(shape[0]).astype(str)

    @functools.cached_property
    def digest(self) -> str:
        return file_digest(self.path)

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, rows: np.ndarray, cut: Cut) -> Iterator[np.ndarray]:
        wanted, size = set(rows.tolist()), int(np.prod(self.shape[1:]))
        waiting = []
        with _open_member(self.path, self.member) as file:
            _read_header(file)
            for row in range(self.shape[0]):
                if len(waiting) == CHUNK:
                    yield np.stack(waiting)
                    waiting = []
                content = _read_exactly(file, size, self.path)
                if row in wanted:
                    clip = np.frombuffer(content, np.uint8).reshape(self.shape[1:])
                    waiting.append(cut(clip, row, f"{self.name}, clip {row}"))
        if waiting:
            yield np.stack(waiting)


def _read_labels(path: Path, n: int) -> tuple[np.ndarray, list[str]]:
    """(labels int64 (n,), names of the classes) of an .npz; zeros and [] where it has none."""
    stored = {}
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                stored = {name: file[name] for name in ("labels", "label", "classes") if name in file}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: labels that cannot be read ({error}); write it again") from None
    given = stored.get("labels", stored.get("label"))  # `hrvgan clips export` calls its column by the latter.
    if given is None or ("classes" in stored and not stored["classes"].size):
        return np.zeros(n, dtype=np.int64), []
    labels = class_labels(given, n, f"{path}: labels")
    classes = stored.get("classes", np.arange(labels.max() + 1)).astype(str).tolist()
    if labels.max() >= len(classes):
        raise InputError(f"{path}: labels up to {labels.max()}, but there are {len(classes)} classes")
    return labels, classes


@contextlib.contextmanager
def _open_member(path: Path, member: str) -> Iterator[IO[bytes]]:
    if not member:
        with open(path, "rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        yield file


def _read_header(file) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    reader = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
    shape, fortran, dtype = reader(file)
    if fortran:
        raise ValueError("column-major; save it with numpy.ascontiguousarray")
    return shape, dtype


def _read_exactly(file, size: int, path: Path) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise InputError(f"{path}: ends in the middle of a clip; write it again")
    return content


def _find_frames(path: Path) -> tuple[str, tuple[int, ...], np.dtype]:
    """(member of the zip or "", shape, dtype) of the clips in `path`."""
    try:
        members = [""]
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                members = sorted(archive.namelist(), key=lambda name: name != "frames.npy")
        found = []
        for member in members:
            with _open_member(path, member) as file:
                found.append((member, *_read_header(file)))
        if not found:
            raise ValueError("it has no array")
        return next((item for item in found if len(item[1]) == 5), found[0])
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no readable numpy file ({error}); write it again") from None
