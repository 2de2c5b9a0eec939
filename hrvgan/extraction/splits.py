"""Assign videos to train, val and test by group, never by clip."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from hrvgan.clipstore.writer import stable_hash
from hrvgan.errors import InputError
from hrvgan.extraction.videos import Video

LARGE = 200  # groups, from which on independent hashes give the fractions closely enough


def assign_splits(videos: Sequence[Video], *, val_fraction: float, test_fraction: float, seed: int = 0) -> list[Video]:
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
        raise InputError(f"val_fraction {val_fraction} and test_fraction {test_fraction}: need both >= 0, sum below 1")


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
