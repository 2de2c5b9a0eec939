"""Assign videos to train, val and test by group, never by clip; near-duplicates are made one group first.

Near-duplicates are exact copies, re-encoded copies and mirror images.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from hrvgan.clipstore.clips import SPLITS
from hrvgan.clipstore.writer import stable_hash
from hrvgan.errors import InputError
from hrvgan.extraction.videos import Video

LUMA = np.array([0.299, 0.587, 0.114])  # Rec. 601
THUMBNAIL = 32  # pixels of the image that a fingerprint is computed from
FRAMES = 8  # of a video that its fingerprint shows: with few, all that pass a fixed camera would look alike
GRID = 8  # A fingerprint is the mean luma of GRID x GRID cells of each.
# Levels of 255 by which each cell may differ, and all in the mean. Of 36 people bending, jumping and waving, copies by
# H.264 (crf 28), mirrored or at half the size differ by 9 at most and 1.7, different videos by 21 or more.
TOLERANCE, MEAN_TOLERANCE = 10, 2
LARGE = 200  # groups, from which on independent hashes give the fractions closely enough


def fingerprint(frames: Sequence[np.ndarray]) -> bytes:
    """Fingerprint of a video by some of its frames (H, W, 3): GRID * GRID bytes each."""
    cells = [
        Image.fromarray((frame @ LUMA).astype(np.float32)).resize((GRID, GRID), Image.Resampling.BOX)
        for frame in frames
    ]
    return np.stack([np.asarray(cell) for cell in cells]).round().astype(np.uint8).tobytes()


def find_near_duplicates(lengths: Sequence[int], fingerprints: Sequence[bytes]) -> list[tuple[int, int]]:
    """Pairs (i, j) that connect all videos of equal length whose fingerprints, one maybe mirrored, agree within
    TOLERANCE and MEAN_TOLERANCE.

    Mirroring keeps the mean, so only neighbours in the order of means are compared. Of equal fingerprints, of which
    a set with black videos may have many, each is paired with the first only.
    """
    prints = np.frombuffer(b"".join(fingerprints), np.uint8).reshape(-1, FRAMES, GRID, GRID)
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
        close = (lengths[one] == lengths[other]) & (means[other] - means[one] <= MEAN_TOLERANCE)
        # Pairs too far apart stay so at larger steps.
        near, one, other = near[close], one[close], other[close]
        if not len(near):
            break
        views = prints[other], prints[other][..., ::-1]
        alike = np.any([_alike(prints[one], view) for view in views], axis=0)
        pairs += zip(numbers[one[alike]].tolist(), numbers[other[alike]].tolist(), strict=True)
    return sorted((min(pair), max(pair)) for pair in pairs)


def _alike(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    difference = abs(one - other)
    return (difference.max(axis=(1, 2, 3)) <= TOLERANCE) & (difference.mean(axis=(1, 2, 3)) <= MEAN_TOLERANCE)


def join_near_duplicates(
    videos: Sequence[Video], pairs: Sequence[tuple[int, int]]
) -> tuple[list[Video], dict[int, tuple[str, str]]]:
    """Merge the groups of near-duplicates; return the videos and those to leave out: index -> failure and cause.

    Left out are exact copies within a class, and videos that the data set's own lists assign to another split than a
    near-duplicate: the one in test stays, otherwise the one in val.
    """
    first, left_out, joined, held_out = {}, {}, [], ("", *SPLITS)
    copies = [
        (first.setdefault(video.md5, number), number) for number, video in enumerate(videos) if video.md5
    ]
    for numbers in _components([*pairs, *copies]):
        numbers.sort(key=lambda number: (-held_out.index(videos[number].split), number))
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


def _components(pairs: Sequence[tuple]) -> list[list]:
    """Connected components of the graph with edges `pairs`, each sorted, in the order of their first elements."""
    component = {}
    for pair in pairs:
        merged = set().union(*(component.get(element, {element}) for element in pair))
        component |= dict.fromkeys(merged, merged)
    return sorted({id(members): sorted(members) for members in component.values()}.values())


def assign_splits(
    videos: Sequence[Video], *, val_fraction: float, test_fraction: float, seed: int = 0
) -> list[Video]:
    """Give every video without a split the split of its group.

    Groups are ordered by a hash; the first ones are test, the last ones val, the rest train. Another video of a known
    group therefore changes nothing, and another group moves at most one group across each border, never between val
    and test; from LARGE groups on, each is assigned by its own hash, and another one moves none. Groups that occur in
    several classes (UCF101's g01) are ordered together and so bring every class into every split; groups of one class
    are ordered within it. With three or more groups each split gets at least one; one or two are train.

    Where the data set itself assigns some splits only (UCF101's lists have no val), the others are drawn from its
    train groups by their fractions. Raises InputError if the fractions leave nothing to train, or the data set puts
    one group into two splits.
    """
    check_fractions(val_fraction, test_fraction)
    splits = _official_splits(videos)
    train = [video for video in videos if splits.get(video.group) == "train"]
    missing_val = 0 if "val" in splits.values() else val_fraction
    missing_test = 0 if "test" in splits.values() else test_fraction
    splits |= _hashed_splits(train, missing_val, missing_test, seed)
    others = [video for video in videos if video.group not in splits]
    splits |= _hashed_splits(others, val_fraction, test_fraction, seed)
    return [replace(video, split=splits[video.group]) for video in videos]


def check_fractions(val_fraction: float, test_fraction: float) -> None:
    if not (val_fraction >= 0 and test_fraction >= 0 and val_fraction + test_fraction < 1):
        raise InputError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction}: need both >= 0, sum below 1"
        )


def _official_splits(videos: Sequence[Video]) -> dict[str, str]:
    splits = {}
    for video in videos:
        if video.split and splits.setdefault(video.group, video.split) != video.split:
            raise InputError(
                f"{video.path}: group {video.group!r} is in {video.split} and {splits[video.group]}; use one"
            )
    return splits


def _hashed_splits(videos: Sequence[Video], val_fraction: float, test_fraction: float, seed: int) -> dict:
    classes = defaultdict(set)
    for video in videos:
        classes[video.group].add(video.class_name)
    hashes = {group: stable_hash(f"{seed}/{group}") for group in classes}
    by_class, splits = defaultdict(list), {}
    for group in sorted(classes, key=hashes.get):
        by_class[min(classes[group]) if len(classes[group]) == 1 else None].append(group)
    for groups in by_class.values():
        if len(groups) < LARGE:
            names = _by_order(len(groups), val_fraction, test_fraction)
        else:
            names = [_by_hash(hashes[group], val_fraction, test_fraction) for group in groups]
        splits |= zip(groups, names, strict=True)
    return splits


def _by_hash(number: int, val_fraction: float, test_fraction: float) -> str:
    fraction = number / 2**64
    return "test" if fraction < test_fraction else "val" if fraction >= 1 - val_fraction else "train"


def _by_order(count: int, val_fraction: float, test_fraction: float) -> list[str]:
    if count < 3:
        return ["train"] * count
    num_test = _share(count - 2, test_fraction * count)
    num_val = _share(count - 1 - num_test, val_fraction * count)
    return ["test"] * num_test + ["train"] * (count - num_test - num_val) + ["val"] * num_val


def _share(most: int, wanted: float) -> int:
    return min(most, max(1, round(wanted))) if wanted else 0
