"""Near-duplicates: videos that show the same, encoded anew, mirrored, at another size, or without their begin or end.

A fingerprint shows frames at equal steps, counted from the first frame and counted from the last: a video without its
last second has the former in common with the whole one, without its first second the latter.
"""

import functools
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from hrvgan.clipstore.clips import SPLITS
from hrvgan.extraction.videos import Video

THUMBNAIL = 32  # pixels of the image that a fingerprint is computed from
GRID = 8  # A fingerprint has the mean Y, Cb and Cr of GRID x GRID cells of each frame that it shows,
CELLS = GRID, GRID, 3
FEWEST, MOST = 8, 16  # of so many in each direction: with few, all that pass a fixed camera would look alike.
OVERLAP = 5  # frames shown by both of two videos of different lengths, at least
HEAD = 4  # frames that candidates for the comparison are found by
# Levels of 255 by which each cell may differ in Y, Cb and Cr, and all cells in the mean. Copies by H.264 (crf 28),
# mirrored or at half the size differ by 9, 16 and 23 at most and 1.7 in the mean, in videos of 36 people bending,
# jumping and waving and of 624 moving shapes; other people by 21 or more in Y, shapes of other colours by 70 in Cb.
TOLERANCE, MEAN_TOLERANCE = np.array([10, 24, 24]), 2


def shown_frames(num_frames: int) -> list[int]:
    """Numbers of the frames, of a video of `num_frames`, that its fingerprint shows."""
    forward = range(0, num_frames, _step(num_frames))
    return sorted({*forward, *(num_frames - 1 - number for number in forward)})


def _step(num_frames: int) -> int:
    """The largest power of two that gives FEWEST frames or more, so that steps of other videos are multiples."""
    return 1 << max(0, (num_frames // FEWEST).bit_length() - 1)


def fingerprint(frames: Sequence[np.ndarray]) -> bytes:
    """Fingerprint of a video by its `shown_frames`, uint8 (H, W, 3): as many bytes each as CELLS has values."""
    cells = [Image.fromarray(frame).resize((GRID, GRID), Image.Resampling.BOX).convert("YCbCr") for frame in frames]
    return b"".join(cell.tobytes() for cell in cells)


def hardly_changes(frames: bytes) -> bool:
    """True of a fingerprint whose frames are alike: if such videos could be near-duplicates, all of one fixed camera
    would be."""
    cells = np.frombuffer(frames, np.uint8).reshape(-1, *CELLS)
    return not len(cells) or bool((np.ptp(cells, axis=0) <= TOLERANCE).all())


def find_near_duplicates(lengths: Sequence[int], fingerprints: Sequence[bytes]) -> list[tuple[int, int]]:
    """Pairs (i, j) that connect all videos which agree, one maybe mirrored, within TOLERANCE and MEAN_TOLERANCE in all
    frames that both fingerprints show, counted from one end, and change in these frames.

    Of equal fingerprints each is paired with the first only.
    """
    first, pairs, series, offset = {}, [], defaultdict(list), 0
    for number, (length, print_) in enumerate(zip(lengths, fingerprints, strict=True)):
        cells = np.frombuffer(print_, np.uint8).reshape(-1, *CELLS)
        offset += len(cells)
        if hardly_changes(print_):
            continue
        original = first.setdefault((length, min(print_, cells[..., ::-1, :].tobytes())), number)
        if original != number:
            pairs.append((original, number))
            continue
        for kind, places, *row in _series(length):
            series[kind].append((number, offset - len(cells) + places, *row))
    cells = np.frombuffer(b"".join(fingerprints), np.uint8).reshape(-1, *CELLS)
    for rows in series.values():
        numbers, *columns = map(np.array, zip(*rows, strict=True))
        pairs += (numbers[pair].tolist() for pair in _near(cells, *columns))
    return sorted({(min(pair), max(pair)) for pair in pairs})


@functools.cache
def _series(num_frames: int) -> list[tuple]:
    """Frames that a video may have in common with others: (counted from the end?, step), their places in its
    fingerprint (MOST, the last one repeated), their number, the video's, and if the step is its own. Videos up to
    twice as long have twice its step."""
    shown, own = shown_frames(num_frames), _step(num_frames)
    series = []
    for end, step in itertools.product((False, True), (own, 2 * own)):
        numbers = np.arange(0, num_frames, step)
        places = np.searchsorted(shown, num_frames - 1 - numbers if end else numbers)
        padded = np.pad(places, (0, MOST - len(places)), mode="edge")
        series.append(((end, step), padded, len(places), num_frames, step == own))
    return series


def _near(
    cells: np.ndarray, places: np.ndarray, counts: np.ndarray, lengths: np.ndarray, own: np.ndarray
) -> Iterator[np.ndarray]:
    """Yield pairs of rows of `places`, frames in `cells`, that agree.

    Mirroring keeps the mean luma of rows of cells, so only neighbours in the order of the mean are compared, and first
    in the means of rows.
    """
    rows = cells[places[:, :HEAD], ..., 0].mean(axis=-1, dtype=np.float32).reshape(len(places), -1)
    means = rows.mean(axis=1)
    order = np.argsort(means)
    near = np.arange(len(order))
    for distance in range(1, len(order)):
        near = near[near + distance < len(order)]
        one, other = order[near], order[near + distance]
        close = means[other] - means[one] <= MEAN_TOLERANCE
        # Pairs too far apart stay so at larger distances.
        near, one, other = near[close], one[close], other[close]
        if not len(near):
            return
        common = np.minimum(counts[one], counts[other])
        maybe = (own[one] | own[other]) & ((common >= OVERLAP) | (lengths[one] == lengths[other]))
        maybe &= abs(rows[one] - rows[other]).mean(axis=1) <= MEAN_TOLERANCE
        pairs = np.stack([one, other], axis=1)[maybe]
        for pair, count in zip(pairs, common[maybe], strict=True):
            if _alike(*cells[places[pair, :count]]):
                yield pair


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Compare frames of two videos, uint8 (count, *CELLS)."""
    if hardly_changes(one.tobytes()):
        return False
    differences = (abs(one.astype(np.int16) - view) for view in (other, other[..., ::-1, :]))
    return any((d <= TOLERANCE).all() and d.mean(axis=(0, 1, 2)).max() <= MEAN_TOLERANCE for d in differences)


def join_near_duplicates(
    videos: Sequence[Video], pairs: Sequence[tuple[int, int]]
) -> tuple[list[Video], dict[int, tuple[str, str]]]:
    """Merge the groups of near-duplicates; return the videos and those to leave out: index -> failure and cause.

    Left out are exact copies within a class, and videos that the data set's own lists assign to another split than a
    near-duplicate: the one in test stays, otherwise the one in val.
    """
    first, left_out, joined, held_out = {}, {}, [], ("", *SPLITS)
    copies = [(first.setdefault(video.md5, number), number) for number, video in enumerate(videos) if video.md5]
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
