"""Train, val or test: by group, never by clip."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from hrvgan.datasets.store import stable_hash
from hrvgan.datasets.videos import Video
from hrvgan.errors import InputError


def assign_splits(
    videos: Sequence[Video], *, val_fraction: float, test_fraction: float, seed: int = 0
) -> list[Video]:
    """Give every video without a split the one of its group.

    Groups stand in the order of a hash; the first ones are test, the last ones val, the rest train. Another
    video of a known group so changes nothing, and another group moves at most one group across each border,
    never between val and test. Groups that occur in several classes (UCF101's g01) are ordered together and
    so bring every class into every split; groups of one class are ordered inside it. From three groups on
    each split gets at least one; one or two are train. Raises InputError if the fractions leave nothing to
    train, or the data set itself puts one group into two splits.
    """
    if not (val_fraction >= 0 and test_fraction >= 0 and val_fraction + test_fraction < 1):
        raise InputError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction}: need both >= 0, sum below 1"
        )
    splits = _given_splits(videos)
    classes = defaultdict(set)
    for video in videos:
        if video.group not in splits:
            classes[video.group].add(video.class_name)
    rooms = defaultdict(list)
    for group in sorted(classes, key=lambda group: stable_hash(f"{seed}/{group}")):
        rooms[min(classes[group]) if len(classes[group]) == 1 else None].append(group)
    for groups in rooms.values():
        splits |= zip(groups, _in_order(len(groups), val_fraction, test_fraction), strict=True)
    return [replace(video, split=splits[video.group]) for video in videos]


def _given_splits(videos: Sequence[Video]) -> dict[str, str]:
    splits = {}
    for video in videos:
        if video.split and splits.setdefault(video.group, video.split) != video.split:
            raise InputError(
                f"{video.path}: group {video.group!r} is in {video.split} and {splits[video.group]}; use one"
            )
    return splits


def _in_order(count: int, val_fraction: float, test_fraction: float) -> list[str]:
    if count < 3:
        return ["train"] * count
    num_test = _share(count - 2, test_fraction * count)
    num_val = _share(count - 1 - num_test, val_fraction * count)
    return ["test"] * num_test + ["train"] * (count - num_test - num_val) + ["val"] * num_val


def _share(most: int, wanted: float) -> int:
    return min(most, max(1, round(wanted))) if wanted else 0
