"""Sources of clips that are files of others: folders of videos, npz and npy (see sources.py)."""

import functools
import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hrvgan.datasets.folder import fetch
from hrvgan.errors import InputError
from hrvgan.files import file_digest
from hrvgan.parallel import ordered_map
from hrvgan.scoring.sources import CHUNK, Cut, Source, StoreSource
from hrvgan.video.files import read_frames


def open_source(path: str | Path, split: str = "") -> Source:
    """The clips at `path`; `split` chooses those of a clip store. Raises InputError if there is nothing to score."""
    path = Path(path)
    if not path.exists():
        raise InputError(
            f"{path}: no such file or folder; give a clip store, a folder of videos, .npz or .npy"
        )
    if path.is_dir():
        source = StoreSource(path, split) if (path / "index.parquet").exists() else FolderSource(path)
    elif path.suffix in (".npz", ".npy"):
        source = ArraySource(path)
    else:
        raise InputError(f"{path}: cannot be scored; give a clip store, a folder of videos, .npz or .npy")
    if len(source) < 2:
        raise InputError(f"{path}: {len(source)} clip(s), need at least 2; a spread needs two points")
    return source


class FolderSource:
    """A folder of video files, one clip of each; what is in a folder of its own is a class."""

    def __init__(self, path: Path):
        self.name, self.videos = str(path), fetch(path, path)
        self.classes = sorted({video.class_name for video in self.videos} - {""})
        known = {name: label for label, name in enumerate(self.classes)}
        self.labels = np.array([known.get(video.class_name, 0) for video in self.videos])
        self.groups = np.array([video.group for video in self.videos], dtype=str)

    @functools.cached_property
    def digest(self) -> str:
        about = [(video.video_id, file_digest(video.path, "md5")) for video in self.videos]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.videos)

    def read(self, rows: np.ndarray, cut: Cut) -> Iterator[np.ndarray]:
        jobs = [(self.videos[row].path, row) for row in rows.tolist()]
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
    return np.ascontiguousarray(cut(read_frames(path)[0], row, str(path)))


class ArraySource:
    """Frames uint8 (N, T, H, W, 3) in an .npy, or as `frames` or the first such array of an .npz; never whole in
    memory, also where the .npz is compressed."""

    def __init__(self, path: Path):
        self.name, self.path, self.classes = str(path), path, []
        self.member, shape, dtype = _find_frames(path)
        if dtype != np.uint8 or len(shape) != 5 or shape[-1] != 3:
            raise InputError(f"{path}: holds {dtype} {shape}, need uint8 clips (N, T, H, W, 3)")
        self.shape = shape
        self.labels, self.groups = np.zeros(shape[0], dtype=np.int64), np.arange(shape[0]).astype(str)

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


def _open_member(path: Path, member: str):
    return zipfile.ZipFile(path).open(member) if member else open(path, "rb")


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
        return next((item for item in found if len(item[1]) == 5), found[0])
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no readable numpy file ({error}); write it again") from None
