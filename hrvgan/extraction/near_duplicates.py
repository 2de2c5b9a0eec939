"""Near-duplicate videos: exact copies, re-encoded copies and mirror images, which must not straddle splits."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from hrvgan.clipstore.clips import SPLITS
from hrvgan.extraction.videos import Video

LUMA = np.array([0.299, 0.587, 0.114])  # Rec. 601
THUMBNAIL = 32  # pixels of the image that a fingerprint is computed from
GRID = 8  # A fingerprint is the mean luma of GRID x GRID cells of two frames.
TOLERANCE = 4  # levels of 255 by which each cell may differ; re-encoding costs one or two


def fingerprint(first: np.ndarray, last: np.ndarray) -> bytes:
    """Fingerprint of a video by its first and last frame (H, W, 3): 2 * GRID * GRID bytes."""
    cells = [
        Image.fromarray((frame @ LUMA).astype(np.float32)).resize((GRID, GRID), Image.Resampling.BOX)
        for frame in (first, last)
    ]
    return np.stack([np.asarray(cell) for cell in cells]).round().astype(np.uint8).tobytes()


def find_near_duplicates(lengths: Sequence[int], fingerprints: Sequence[bytes]) -> list[tuple[int, int]]:
    """Pairs (i, j) that connect all videos of equal length whose fingerprints, one maybe mirrored, agree within
    TOLERANCE.

    Mirroring keeps the mean, so only neighbours in the order of means are compared. Of equal fingerprints, of which
    a set with black videos may have many, each is paired with the first only.
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
        near, one, other = (
            near[close],
            one[close],
            other[close],
        )  # Pairs too far apart stay so at larger steps.
        if not len(near):
            break
        alike = _alike(prints[one], prints[other])
        pairs += zip(numbers[one[alike]].tolist(), numbers[other[alike]].tolist(), strict=True)
    return sorted((min(pair), max(pair)) for pair in pairs)


def _alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    near = [abs(one - view).max(axis=(1, 2, 3)) <= TOLERANCE for view in (other, other[..., ::-1])]
    return near[0] | near[1]


def join_near_duplicates(
    videos: Sequence[Video], pairs: Sequence[tuple[int, int]]
) -> tuple[list[Video], dict[int, tuple[str, str]]]:
    """Merge the groups of near-duplicates; return the videos and those to leave out: index -> failure and cause.

    Left out are exact copies within a class, and videos that the data set's own lists assign to another split than a
    near-duplicate: the one in test stays, otherwise the one in val.
    """
    first, left_out, joined = {}, {}, []
    copies = [
        (first.setdefault(video.md5, number), number) for number, video in enumerate(videos) if video.md5
    ]
    for numbers in _components([*pairs, *copies]):
        numbers.sort(key=lambda number: (-_held_out(videos[number]), number))
        best, originals = videos[numbers[0]], {}
        for number in numbers:
            video = videos[number]
            original = originals.setdefault((video.md5 or number, video.class_name), video)
            if original is not video:
                left_out[number] = "duplicate", f"the same file as {original.video_id}"
            elif video.split and video.split != best.split:
                left_out[number] = "twin", f"shows the same as {best.video_id}, which is in {best.split}"
            else:
                joined.append((best.group, video.group))
    names = {group: groups[0] for groups in _components(joined) for group in groups}
    return [replace(video, group=names.get(video.group, video.group)) for video in videos], left_out


def _held_out(video: Video) -> int:
    return SPLITS.index(video.split) if video.split else -1


def _components(pairs: Sequence[tuple]) -> list[list]:
    """Connected components of the graph with edges `pairs`, each sorted, in the order of their first elements."""
    component = {}
    for pair in pairs:
        merged = set().union(*(component.get(element, {element}) for element in pair))
        component |= dict.fromkeys(merged, merged)
    return sorted({id(members): sorted(members) for members in component.values()}.values())
