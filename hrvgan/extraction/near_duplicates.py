"""Videos that show the same: exact copies, copies encoded anew, mirror images. One may not be trained on and the other
tested with."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from hrvgan.datasets.videos import SPLITS, Video

LUMA = np.array([0.299, 0.587, 0.114])  # Rec. 601
THUMBNAIL = 32  # pixels, of the picture that a fingerprint is made of
GRID = 8  # A fingerprint is the brightness of GRID x GRID fields of two frames.
TOLERANCE = 4  # levels of 255 that each field may differ by; encoding anew costs one or two


def fingerprint(first: np.ndarray, last: np.ndarray) -> bytes:
    """Of the first and the last frame (H, W, 3) that are cut from a video, 2 * GRID * GRID bytes."""
    fields = [
        Image.fromarray((frame @ LUMA).astype(np.float32)).resize((GRID, GRID), Image.Resampling.BOX)
        for frame in (first, last)
    ]
    return np.stack([np.asarray(field) for field in fields]).round().astype(np.uint8).tobytes()


def find_twins(lengths: Sequence[int], fingerprints: Sequence[bytes]) -> list[tuple[int, int]]:
    """Pairs that connect all videos with as many frames and the same fingerprint, as it is or mirrored, within
    TOLERANCE.

    Mirroring keeps the mean, so that only neighbours in its order are compared, not all with all; and of those that
    are equal, of which there may be many in a set with black videos, only one.
    """
    prints = np.frombuffer(b"".join(fingerprints), np.uint8).reshape(-1, 2, GRID, GRID)
    first, pairs = {}, []
    for number, (length, print_) in enumerate(zip(lengths, prints, strict=True)):
        key = length, min(print_.tobytes(), print_[..., ::-1].tobytes())
        if first.setdefault(key, number) != number:
            pairs.append((first[key], number))
    numbers = np.array(list(first.values()), dtype=np.int64)
    prints, lengths = prints[numbers].astype(np.int16), np.asarray(lengths)[numbers]
    means = prints.mean(axis=(1, 2, 3))
    order = np.lexsort((means, lengths))
    near = np.arange(len(order) - 1)
    for step in range(1, len(order)):
        near = near[near + step < len(order)]
        one, other = order[near], order[near + step]
        close = (lengths[one] == lengths[other]) & (means[other] - means[one] <= TOLERANCE)
        near, one, other = near[close], one[close], other[close]  # Who is too far now is so at the next step.
        if not len(near):
            break
        alike = _alike(prints[one], prints[other])
        pairs += zip(numbers[one[alike]].tolist(), numbers[other[alike]].tolist(), strict=True)
    return sorted((min(pair), max(pair)) for pair in pairs)


def _alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    near = [abs(one - seen).max(axis=(1, 2, 3)) <= TOLERANCE for seen in (other, other[..., ::-1])]
    return near[0] | near[1]


def join_twins(
    videos: Sequence[Video], pairs: Sequence[tuple[int, int]]
) -> tuple[list[Video], dict[int, tuple[str, str]]]:
    """Videos with the groups of twins made one, and those to be left out: number -> failure and cause.

    Left out are exact copies inside a class, and whatever the data set's own lists put into a split although a twin
    is in one that is held out from it: what is in test stays, or else what is in val.
    """
    families = _Sets()
    for one, other in [*pairs, *_same_files(videos)]:
        families.join(one, other)
    left_out, groups = {}, _Sets()
    for family in families.all():
        family.sort(key=lambda number: (-_held_out(videos[number]), number))
        best, known = videos[family[0]], {}
        for number in family:
            video = videos[number]
            original = known.setdefault((video.md5 or number, video.class_name), video)
            if original is not video:
                left_out[number] = "duplicate", f"the same file as {original.video_id}"
            elif video.split and video.split != best.split:
                left_out[number] = "twin", f"shows the same as {best.video_id}, which is in {best.split}"
            else:
                groups.join(best.group, video.group)
    return [replace(video, group=groups.name(video.group)) for video in videos], left_out


def _same_files(videos: Sequence[Video]) -> list[tuple[int, int]]:
    first = {}
    pairs = [
        (first.setdefault(video.md5, number), number) for number, video in enumerate(videos) if video.md5
    ]
    return [pair for pair in pairs if pair[0] != pair[1]]


def _held_out(video: Video) -> int:
    return SPLITS.index(video.split) if video.split else -1


class _Sets:
    """Things that were joined, each set of them known by its smallest."""

    def __init__(self):
        self.parents = {}

    def name(self, thing):
        while self.parents.get(thing, thing) != thing:
            thing = self.parents[thing]
        return thing

    def join(self, one, other) -> None:
        smaller, larger = sorted((self.name(one), self.name(other)))
        self.parents.setdefault(smaller, smaller)
        self.parents[larger] = smaller

    def all(self) -> list[list]:
        members = defaultdict(list)
        for thing in self.parents:
            members[self.name(thing)].append(thing)
        return [members[name] for name in sorted(members)]
