"""Sources of clips in common formats: folders of videos, .npz and .npy (see sources.py)."""

import contextlib
import functools
import hashlib
import itertools
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from hrvgan.clipstore.clips import SPLITS
from hrvgan.datasets.folder import find
from hrvgan.errors import InputError, VideoError
from hrvgan.evaluation.sources import BATCH, ClipSource, FrameRange, StoreSource
from hrvgan.extraction.videos import content_md5
from hrvgan.files import file_digest
from hrvgan.metrics.arrays import class_labels
from hrvgan.parallel import ordered_map
from hrvgan.video.decode import decode, expected_frames
from hrvgan.video.io import is_strip, read_frames


def open_source(path: str | Path, split: str = "") -> ClipSource:
    """The clips at `path`, or a `split` of a clip store. Raises InputError for fewer than two clips, and for a split of
    a source without splits: clips that a model was trained on must not pass for held-out ones."""
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
    """A folder of video files, one clip of each; subfolders are classes."""

    def __init__(self, path: Path):
        self.name, (self.files, _) = str(path), find(path)
        self.classes = sorted({video.class_name for video in self.files} - {""})
        numbers = {name: label for label, name in enumerate(self.classes)}
        self.labels = np.array([numbers.get(video.class_name, 0) for video in self.files])
        self.groups = np.array([video.group for video in self.files], dtype=str)
        self.videos = np.array([video.video_id for video in self.files], dtype=str)

    @functools.cached_property
    def digest(self) -> str:
        digests = [(video.video_id, content_md5(video.path)) for video in self.files]
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.files)

    def read(self, rows: np.ndarray, frames: FrameRange) -> Iterator[np.ndarray]:
        jobs = [(self.files[row].path, row) for row in rows.tolist()]
        clips = ordered_map(
            functools.partial(_decode, frames=frames), jobs, workers="auto", desc="decode", unit="video"
        )
        yield from _batches(clips)


def _batches(clips: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Batches of consecutive clips of one shape."""
    for _, alike in itertools.groupby(clips, key=np.shape):
        while batch := list(itertools.islice(alike, BATCH)):
            yield np.stack(batch)


def _decode(job: tuple[Path, int], frames: FrameRange) -> np.ndarray:
    path, row = job
    if is_strip(path) or not frames.frames:
        return np.ascontiguousarray(frames(read_frames(path)[0], row, str(path)))
    pictures, length = _decode_range(path, *frames.place(expected_frames(path), row, str(path)))
    if len(pictures) < frames.frames:  # The header promises more frames than there are.
        pictures, _ = _decode_range(path, *frames.place(length, row, str(path)))
    if len({picture.shape for picture in pictures}) > 1:
        raise VideoError(f"{path}: its frames change their size; encode it again")
    return np.stack(pictures)


class _Enough(Exception):
    """Ends decoding after the last frame needed."""


def _decode_range(path: Path, start: int, stop: int) -> tuple[list[np.ndarray], int]:
    """Frames `start` to `stop` of a video, and the number of frames decoded."""
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

    def read(self, rows: np.ndarray, frames: FrameRange) -> Iterator[np.ndarray]:
        wanted, clips = set(rows.tolist()), enumerate(self._stream())
        yield from _batches(
            frames(clip, row, f"{self.name}, clip {row}") for row, clip in clips if row in wanted
        )

    def _stream(self) -> Iterator[np.ndarray]:
        size = int(np.prod(self.shape[1:]))
        with _open_member(self.path, self.member) as file:
            _read_header(file)
            for _ in range(len(self)):
                content = file.read(size)
                if len(content) < size:
                    raise InputError(f"{self.path}: ends in the middle of a clip; write it again")
                yield np.frombuffer(content, np.uint8).reshape(self.shape[1:])


def _read_labels(path: Path, n: int) -> tuple[np.ndarray, list[str]]:
    """(labels int64 (n,), names of the classes) of an .npz; zeros and [] where it has none."""
    stored = {}
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                stored = {name: file[name] for name in ("labels", "label", "classes") if name in file}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: labels that cannot be read ({error}); write it again") from None
    values = stored.get("labels", stored.get("label"))  # `hrvgan clips export` writes the latter.
    if values is None or ("classes" in stored and not stored["classes"].size):
        return np.zeros(n, dtype=np.int64), []
    labels = class_labels(values, n, f"{path}: labels")
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


def _find_frames(path: Path) -> tuple[str, tuple[int, ...], np.dtype]:
    """(member of the zip or "", shape, dtype) of the clips in `path`."""
    try:
        members = [""]
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                members = sorted(archive.namelist(), key=lambda name: name != "frames.npy")
        arrays = []
        for member in members:
            with _open_member(path, member) as file:
                arrays.append((member, *_read_header(file)))
        if not arrays:
            raise ValueError("it has no array")
        return next((array for array in arrays if len(array[1]) == 5), arrays[0])
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no readable numpy file ({error}); write it again") from None
