"""Sources in common formats (see sources.py): folders of videos, frames and precomputed features in .npz and .npy."""

import contextlib
import functools
import hashlib
import itertools
import json
import math
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from hrvgan.clipstore.clips import SPLITS
from hrvgan.datasets.folder import find
from hrvgan.errors import InputError, VideoError, first_few
from hrvgan.evaluation.clip_files import Shrink, try_decode
from hrvgan.evaluation.frame_range import FrameRange, Undefined
from hrvgan.evaluation.sources import BATCH, ClipSource, StoreSource
from hrvgan.extraction.videos import content_md5
from hrvgan.features.extractors import UNVERIFIED, Extractor
from hrvgan.files import file_digest
from hrvgan.metrics.arrays import class_labels, clip_rows
from hrvgan.metrics.inception import class_probabilities
from hrvgan.parallel import ordered_map
from hrvgan.video.io import probe

MAX_BYTES = 2**27  # of a batch of decoded clips
LARGE = 2**18  # pixels of a frame from which on clips are shrunk while they are decoded
# What readers of a damaged numpy file raise.
UNREADABLE = (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile)


def open_source(path: str | Path, split: str = "", max_bad_fraction: float = 0.0) -> ClipSource:
    """The clips at `path`, or a `split` of a clip store; of a folder of videos, at most `max_bad_fraction` may be too
    short or broken. Raises InputError for fewer than two clips, and for a split of a source without splits: clips that
    a model was trained on must not pass for held-out ones."""
    path, known = Path(path), "give a clip store, a folder of videos, .npz or .npy"
    is_store = (path / "index.parquet").exists()
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; {known}")
    if split and not is_store:
        raise InputError(f"{path}: only a clip store has splits; leave out --split, or give the clip store")
    if path.is_dir():
        source = StoreSource(path, split) if is_store else FolderSource(path, max_bad_fraction)
    elif path.suffix in (".npz", ".npy"):
        source = ArraySource(path)
    else:
        raise InputError(f"{path}: cannot be scored; {known}")
    if len(source) < 2:
        remedy = f"the splits are {', '.join(SPLITS)}" if split else "a spread needs two points"
        raise InputError(f"{source.name}: {len(source)} clip(s), need at least 2; {remedy}")
    return source


class FolderSource(ClipSource):
    """A folder of video files, one clip of each; subfolders are classes."""

    def __init__(self, path: Path, max_bad_fraction: float = 0.0):
        self.name, (self.files, _) = str(path), find(path)
        self.bad, self.most_bad = defaultdict(dict), math.floor(max_bad_fraction * len(self.files))
        self.classes = sorted({video.class_name for video in self.files} - {""})
        numbers = {name: label for label, name in enumerate(self.classes)}
        self.labels = np.array([numbers.get(video.class_name, 0) for video in self.files])
        self.groups = np.array([video.group for video in self.files], dtype=str)
        self.videos = np.array([video.video_id for video in self.files], dtype=str)

    @functools.cached_property
    def digest(self) -> str:
        digests = [(video.video_id, content_md5(video.path)) for video in self.files]
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    def read(self, rows: np.ndarray, frames: FrameRange) -> Iterator[np.ndarray]:
        return self.read_shrunk(rows, frames, None)

    def read_shrunk(self, rows: np.ndarray, frames: FrameRange, shrink: Shrink | None) -> Iterator[np.ndarray]:
        jobs = [(self.files[row].path, row) for row in rows.tolist()]
        large = any(_num_pixels(path) > LARGE for path, _ in jobs)
        cut = functools.partial(try_decode, frames=frames, shrink=shrink if large else None)
        # A second of 1080p is 190 MB, a process that shrinks its frames 430: they stay in this one, a clip at a time.
        workers = 1 if large else "auto"
        lost = lambda job, cause: f"{job[0]}: {cause} while decoding; replace it"  # noqa: E731
        clips = ordered_map(cut, jobs, workers=workers, lost=lost, lead=1, desc="decode", unit="video")
        yield from _batches(self._good(rows, clips, frames))

    def _good(self, rows: np.ndarray, clips: Iterable[np.ndarray | str], frames: FrameRange) -> Iterator[np.ndarray]:
        """The clips without those, given as a cause, that are too short or broken. Raises Undefined if they are more
        than `most_bad`."""
        for row, clip in zip(rows.tolist(), clips, strict=True):
            if isinstance(clip, np.ndarray):
                yield clip
                continue
            bad = self.bad[frames]
            bad[row] = clip
            if len(bad) > self.most_bad:
                count = f"more than {self.most_bad} of {len(self)} clips, which --max-bad-fraction allows,"
                raise Undefined(f"{self.name}: {count} cannot be scored: {first_few(list(bad.values()))}")


def _num_pixels(path: Path) -> int:
    """Pixels of a frame; 0 of what is no video, as its decoding will say."""
    try:
        return math.prod(probe(path)[:2])
    except VideoError:
        return 0


def _batches(clips: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Batches of consecutive clips of one shape, of at most MAX_BYTES where one clip has no more."""
    for shape, alike in itertools.groupby(clips, key=np.shape):
        count = max(1, min(BATCH, MAX_BYTES // math.prod(shape)))
        while batch := list(itertools.islice(alike, count)):
            yield batch[0][None] if len(batch) == 1 else np.stack(batch)


class NumpySource(ClipSource):
    """An .npy or .npz."""

    def __init__(self, path: Path):
        self.name, self.path = str(path), path

    @functools.cached_property
    def digest(self) -> str:
        return file_digest(self.path)


class ArraySource(NumpySource):
    """Frames uint8 (N, T, H, W, 3) in an .npy, or as `frames` or the first such array of an .npz; never whole in
    memory, also where the .npz is compressed. An .npz may have `labels` (N,) from 0 on and names of `classes`."""

    def __init__(self, path: Path):
        super().__init__(path)
        self.member, self.shape, dtype = _find_frames(path)
        if dtype != np.uint8 or len(self.shape) != 5 or self.shape[-1] != 3:
            raise InputError(f"{path}: holds {dtype} {self.shape}, need uint8 clips (N, T, H, W, 3)")
        self.labels, self.classes = _read_labels(path, self.shape[0])

    def read(self, rows: np.ndarray, frames: FrameRange) -> Iterator[np.ndarray]:
        wanted, clips = set(rows.tolist()), enumerate(self._stream())
        yield from _batches(frames(clip, row, f"{self.name}, clip {row}") for row, clip in clips if row in wanted)

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
        except UNREADABLE as error:
            raise InputError(f"{path}: labels that cannot be read ({error}); write it again") from None
    values = stored.get("labels", stored.get("label"))  # `hrvgan clips export` writes the latter.
    if values is None or ("classes" in stored and not stored["classes"].size):
        return np.zeros(n, dtype=np.int64), []
    named = stored["classes"].astype(str).tolist() if "classes" in stored else None
    labels = class_labels(values, n, f"{path}: labels", None if named is None else len(named))
    return labels, np.arange(labels.max() + 1).astype(str).tolist() if named is None else named


@contextlib.contextmanager
def _open_member(path: Path, member: str) -> Iterator[IO[bytes]]:
    if not member:
        with open(path, "rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive, archive.open(member) as file:
        yield file


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
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
    except UNREADABLE as error:
        raise _unreadable(path, error) from None


class PrecomputedSource(NumpySource):
    """Precomputed features, whose "clips" are rows of numbers: .npy (N, D), or .npz with `features` and optionally
    `logits` or `probs`, `labels` and `extractor`. Raises InputError that names the array that is wrong."""

    def __init__(self, path: Path):
        super().__init__(path)
        arrays = _open_arrays(path)
        try:
            stored = {"features": arrays} if isinstance(arrays, np.ndarray) else dict(arrays)
        except UNREADABLE as error:
            raise _unreadable(path, error) from None
        self.features = clip_rows(stored["features"], f"{path}: features")
        self.logits = _logits(path, stored, len(self.features))
        num_classes = self.logits.shape[1]
        self.labels, self.labelled = (_labels(path, stored, len(self.features), num_classes), "labels" in stored)
        self.extractor = str(stored.get("extractor", ""))
        self.classes = [str(label) for label in range(num_classes)] if num_classes > 1 else []

    def read(self, rows: np.ndarray, frames: FrameRange) -> Iterator[np.ndarray]:
        yield np.concatenate([self.features[rows], self.logits[rows]], axis=1)


def open_precomputed(real: Path, fake: Path) -> tuple[PrecomputedSource, PrecomputedSource]:
    """Both files. Raises InputError unless they name the same extractor, or none, and have the same widths."""
    pair = PrecomputedSource(real), PrecomputedSource(fake)
    by, fake_by = (source.extractor for source in pair)
    if by != fake_by:
        raise InputError(f"{real} has features of {by or 'an unnamed extractor'}, {fake} of {fake_by or 'one'}; "
                         "scores across extractors mean nothing")  # fmt: skip
    # Rows pass as features and logits side by side: with other widths, one would be taken for the other.
    width, fake_width = (source.features.shape[1] for source in pair)
    count, fake_count = (source.logits.shape[1] for source in pair)
    if width != fake_width:
        widths = f"{real} has features of D = {width}, {fake} of {fake_width}"
        raise InputError(f"{widths}; use one extractor for both")
    if count != fake_count and count and fake_count:
        raise InputError(f"{real} knows {count} classes, {fake} {fake_count}; use one network for both")
    pair[0].classes = pair[1].classes  # An Inception Score looks at the generated side alone.
    return pair


def precomputed_extractor(real: PrecomputedSource) -> Extractor:
    """Extractor that splits rows into features and logits. The file only claims its extractor, so: unverified."""
    width, by = real.features.shape[1], real.extractor
    identity = f"{by.removesuffix(UNVERIFIED)}{UNVERIFIED}" if by else "given"
    return Extractor(identity, None, lambda x: (x[:, :width], x[:, width:]), classes=real.classes)


def holds_features(path: str | Path) -> bool:
    """Tells a numpy file of features from one of frames by array names and shape."""
    path = Path(path)
    if path.suffix not in (".npz", ".npy") or not path.is_file():
        return False
    arrays = _open_arrays(path)
    return arrays.ndim == 2 if isinstance(arrays, np.ndarray) else "features" in arrays


def _open_arrays(path: Path) -> np.ndarray | np.lib.npyio.NpzFile:
    try:
        arrays = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
    except UNREADABLE as error:
        raise _unreadable(path, error) from None
    if not getattr(arrays, "files", True):
        raise InputError(f"{path}: an .npz without any array; write `features` or `frames` into it")
    return arrays


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: no readable numpy file ({error}); write it again")


def _logits(path: Path, stored: dict[str, np.ndarray], n: int) -> np.ndarray:
    """Logits (N, K) of the file, or the logarithm of its probabilities; K = 0 without either."""
    if "probs" in stored:
        probs = class_probabilities(stored["probs"], f"{path}: probs")
        logits = np.log(np.maximum(probs, 1e-300))
    elif "logits" in stored:
        logits = clip_rows(stored["logits"], f"{path}: logits")
    else:
        logits = np.empty((n, 0))
    if len(logits) != n:
        raise InputError(f"{path}: {n} features, {len(logits)} rows of classes; need one each a clip")
    return logits


def _labels(path: Path, stored: dict[str, np.ndarray], n: int, num_classes: int) -> np.ndarray:
    labels = class_labels(stored.get("labels", np.zeros(n, int)), n, f"{path}: labels", num_classes or None)
    # Without classes they only say which clips are of one class.
    return labels if num_classes else np.unique(labels, return_inverse=True)[1]
