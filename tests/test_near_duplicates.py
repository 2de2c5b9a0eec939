"""Copies and mirror images: found, and never on both sides of a split."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hrvgan.clipstore.clips import Clips
from hrvgan.extraction.extract import extract
from hrvgan.extraction.near_duplicates import (
    find_near_duplicates,
    fingerprint,
    hardly_changes,
    join_near_duplicates,
    shown_frames,
)
from hrvgan.extraction.videos import Video, read_videos_csv, write_videos_csv
from hrvgan.video.io import encode
from tests.test_extraction import list_raw

XVID = {"vcodec": "mpeg4", "vtag": "xvid", "pix_fmt": "yuv420p", "bf": 2, "q:v": 5}
OPTIONS = {"size": 32, "num_frames": 8, "workers": 1, "scene_cut": 0}


def scene(seed, num_frames=12):
    """Soft random patches that drift, uint8 (T, 48, 64, 3): what a camera might see."""
    draw = np.random.default_rng(seed)
    wide = draw.integers(256, size=(7, 11 + num_frames // 4, 1)).astype(float).repeat(8, 0).repeat(8, 1)
    wide = wide * draw.uniform(0.5, 1, size=3)  # the colour of the light
    for axis in (0, 1):
        wide = (wide + np.roll(wide, 3, axis) + np.roll(wide, -3, axis)) / 3
    return np.stack([wide[4:52, 2 * time : 2 * time + 64] for time in range(num_frames)]).astype(np.uint8)


def test_fingerprints_by_hand():
    """Y, Cb and Cr of JFIF: Y = 0.299 R + 0.587 G + 0.114 B, Cb = 128 + (B - Y) / 1.772, Cr = 128 + (R - Y) / 1.402;
    Pillow cuts fractions off."""
    frame = np.zeros((16, 16, 3), np.uint8)
    frame[:2, :2] = (30, 60, 90)  # the first of 8 x 8 cells: Y 54.45, Cb 148.06, Cr 110.56
    frame[2, 0] = 200  # a quarter of the cell below
    cells = np.frombuffer(fingerprint([frame, 255 - frame]), np.uint8).reshape(2, 8, 8, 3)
    assert cells[0, 0, 0].tolist() == [54, 148, 110]
    assert cells[0, 1, 0].tolist() == [50, 128, 128]
    assert cells[0, ..., 0].sum() == 104
    assert cells[1, 0, 0].tolist() == [200, 107, 145]


def test_frames_of_fingerprints_by_hand():
    """Every 8th from the first, every 8th from the last; a video without its last frames has the former in common."""
    assert shown_frames(100) == sorted([*range(0, 100, 8), *range(3, 100, 8)])
    assert shown_frames(75) == sorted([*range(0, 75, 8), *range(2, 75, 8)])
    assert shown_frames(12) == list(range(12))
    assert shown_frames(1) == [0]
    assert shown_frames(0) == []


def near(one, other):
    """Of two videos in cells, uint8 (T, 8, 8, 3): all frames of both, counted from the first or from the last."""
    lengths = sorted(map(len, (one, other)))
    steps = [max(2 ** int(np.log2(max(1, length / 8))), 1) for length in lengths]
    numbers = np.arange(0, lengths[0], steps[1])
    if steps[1] > 2 * steps[0] or (len(numbers) < 5 and lengths[0] < lengths[1]):
        return False
    for place in (lambda video: video[numbers], lambda video: video[::-1][numbers]):
        a, b = place(one).astype(int), place(other).astype(int)
        for view in (b, b[..., ::-1, :]):
            head = abs(a[:4, ..., 0].mean(axis=-1) - view[:4, ..., 0].mean(axis=-1)).mean()
            if (
                (np.ptp(a, axis=0) > (10, 24, 24)).any()
                and (abs(a - view) <= (10, 24, 24)).all()
                and abs(a - view).mean(axis=(0, 1, 2)).max() <= 2 >= head
            ):
                return True
    return False


def test_near_duplicates_are_all_pairs_within_the_tolerance():
    """Against all with all, where many have nearly the same mean."""
    draw = np.random.default_rng(0)

    def noisy(video):
        return video + draw.integers(draw.integers(2, 6), size=video.shape, dtype=np.uint8)

    originals = [draw.integers(100, 116, size=(length, 8, 8, 3), dtype=np.uint8) for length in [7, 33, 40, 64] * 5]
    videos = [*originals, *(noisy(v)[..., ::-1, :] for v in originals), *originals[:8]]
    videos += [noisy(video[len(video) // 3 :]) for video in originals]
    videos += [noisy(video[: -len(video) // 4]) for video in originals]
    videos += [video[5:-5] for video in originals if len(video) > 10]  # cut at both ends
    videos += [video // 2 + 60 for video in originals[:4]]  # They hardly change.
    count = len(videos)
    wanted = [(i, j) for i in range(count) for j in range(i + 1, count) if near(videos[i], videos[j])]
    assert len(wanted) >= 60
    prints = [video[shown_frames(len(video))].tobytes() for video in videos]
    found = find_near_duplicates(list(map(len, videos)), prints)
    assert set(found) <= set(wanted)
    np.testing.assert_array_equal(connected(found, count), connected(wanted, count))
    many = find_near_duplicates([7] * 5000, [prints[0]] * 5000)  # not 12 million pairs
    assert len(many) == 4999
    assert find_near_duplicates([], []) == []
    assert find_near_duplicates([7], prints[:1]) == []


def test_videos_that_hardly_change_are_nobodys_near_duplicates():
    black = np.zeros((5000, 16, 8, 8, 3), np.uint8)
    assert hardly_changes(black[0].tobytes())
    assert find_near_duplicates([16] * 5000, [video.tobytes() for video in black]) == []


def test_the_same_motion_in_another_colour_is_no_near_duplicate():
    """Red and blue of the same luma."""
    frames = np.zeros((12, 32, 32, 3), np.uint8)
    for time in range(12):
        frames[time, 2 * time : 2 * time + 8] = (200, 0, 0)
    blue = np.where(frames[..., :1] > 0, np.uint8([0, 52, 255]), np.uint8(0))
    assert find_near_duplicates([12, 12], [fingerprint(frames), fingerprint(blue)]) == []
    assert find_near_duplicates([12, 12], [fingerprint(blue), fingerprint(blue[:, :, ::-1])]) == [(0, 1)]


def connected(pairs, count):
    """(count, count) bool: whether a chain of pairs leads from one to the other."""
    linked = np.eye(count, dtype=bool)
    for pair in pairs:
        linked[pair] = linked[pair[::-1]] = True
    for _ in range(6):
        linked = linked @ linked
    return linked


def video(name, group, split="", md5="", class_name="a"):
    return Video(Path(name), class_name, group, split, name, md5 or name)


def test_groups_of_near_duplicates_become_one_and_copies_go():
    videos = [
        video("a", "g2", md5="x"),
        video("b", "g1"),
        video("c", "g3", md5="x"),
        video("d", "g3"),
        video("e", "g5"),
    ]
    joined, left_out = join_near_duplicates(videos, [(0, 2), (1, 3)])
    assert left_out == {2: ("duplicate", "the same file as a")}
    assert [v.group for v in joined] == ["g2", "g1", "g1", "g1", "g5"]
    # A chain is one group. The same file under two labels stays, in one split.
    chain = [video("a", "g9"), video("b", "g4"), video("c", "g7", md5="a", class_name="b")]
    joined, left_out = join_near_duplicates(chain, [(0, 1), (0, 2)])
    assert left_out == {}
    assert {v.group for v in joined} == {"g4"}


@pytest.mark.parametrize(("splits", "stays"), [
    (("train", "test"), "b"), (("test", "train"), "a"), (("train", "val"), "b"), (("val", "test"), "b"),
    (("", "test"), "b"),
])  # fmt: skip
def test_of_copies_the_one_that_is_held_out_stays(splits, stays):
    copies = [video(name, name, split, md5="x") for name, split in zip("ab", splits, strict=True)]
    _, left_out = join_near_duplicates(copies, [])
    assert ["ab"[number] for number in {0, 1} - left_out.keys()] == [stays]


def test_near_duplicates_that_lists_put_apart_are_not_trained_on():
    videos = [video("a", "g1", "train"), video("b", "g2", "test"), video("c", "g3", "train"), video("d", "g4")]
    joined, left_out = join_near_duplicates(videos, [(0, 1), (2, 3)])
    assert left_out == {0: ("twin", "shows the same as b, which is in test")}
    assert [v.group for v in joined] == ["g1", "g2", "g3", "g3"]
    # Also where the chain from one to the other leads over a third that is left out.
    videos = [video("a", "g1", "train"), video("b", "g2", "train"), video("c", "g3", "val"), video("d", "g4", "test")]
    _, left_out = join_near_duplicates(videos, [(0, 1), (1, 2), (2, 3)])
    assert set(left_out) == {0, 1, 2}


def test_mirrored_and_encoded_anew_from_files_to_splits(tmp_path):
    """Ten scenes in ten groups, and of each its mirror image, of another codec and quality, in a group of its own."""
    for seed in range(10):
        frames = scene(seed)
        encode(tmp_path / "videos" / f"{seed}.avi", frames, fps=12, **XVID)
        mirrored = np.ascontiguousarray(frames[:, :, ::-1])
        encode(tmp_path / "videos" / f"{seed}m.mp4", mirrored, fps=12, vcodec="libx264", pix_fmt="yuv420p", crf=30)
    encode(tmp_path / "videos" / "0again.mkv", scene(0), fps=12, vcodec="libx264", pix_fmt="yuv420p", crf=23)
    raw = list_raw(tmp_path)
    copy = raw / "videos" / "3copy.avi"
    copy.write_bytes((raw / "videos" / "3.avi").read_bytes())
    summary = extract(list_raw(raw), tmp_path / "clips", **OPTIONS)
    assert (summary["videos"], summary["duplicate"], summary["clips"]) == (22, 1, 42)
    clips = Clips(tmp_path / "clips").index.to_pylist()
    sides = {row["video_id"]: (row["group"], row["split"]) for row in clips}
    assert {split for _, split in sides.values()} == {"train", "val", "test"}
    assert len({group for group, _ in sides.values()}) == 10
    for seed in range(10):
        assert sides[f"{seed}.avi"] == sides[f"{seed}m.mp4"]
    assert sides["0again.mkv"] == sides["0.avi"]
    assert "3copy.avi" not in sides


def test_trims_of_a_second_from_files_to_groups(tmp_path):
    """Encoded anew or not; without the last second the first frames are the same, without the first the last."""
    h264 = {"vcodec": "libx264", "pix_fmt": "yuv420p", "crf": 25}
    for seed in range(6):
        frames = scene(seed, 48)
        encode(tmp_path / "videos" / f"{seed}.avi", frames, fps=12, **XVID)
        encode(tmp_path / "videos" / f"{seed}begin.mp4", frames[:-12], fps=12, **h264)
        encode(tmp_path / "videos" / f"{seed}end.mkv", frames[12:, :, ::-1].copy(), fps=12, **XVID)
    extract(list_raw(tmp_path), tmp_path / "clips", **OPTIONS)
    clips = Clips(tmp_path / "clips").index.to_pylist()
    groups = {(row["video_id"][0], row["group"]) for row in clips}
    assert len({row["video_id"] for row in clips}) == 18
    assert groups == {(str(seed), f"{seed}.avi") for seed in range(6)}
    notes = json.loads((tmp_path / "clips" / "manifest.json").read_text())["notes"]
    assert notes == ["18 videos show the same as others and share their groups, as 0.avi and 0begin.mp4"]


def passing(path, height, first=0, **options):
    """A video of a fixed camera, grey but for a square that passes at `height`; from frame `first` on."""
    frames = np.full((24, 64, 64, 3), 128, np.uint8)
    for time, left in enumerate(range(-20, 100, 5)):
        frames[time, height : height + 16, max(left, 0) : max(left + 16, 0)] = (255, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    encode(path, frames[first:], fps=10, vcodec="libx264", pix_fmt="yuv420p", **options)


def test_what_passes_a_fixed_camera_is_no_near_duplicate(tmp_path, capfd):
    """Videos that begin and end with the same empty view, and what passes takes another path in each. Views in which
    nothing passes are no near-duplicates either; one that two classes share is said to be."""
    for height in range(0, 48, 4):
        passing(tmp_path / "videos" / "ab"[height // 4 % 2] / f"{height}.mp4", height, crf=18)
    passing(tmp_path / "videos" / "a" / "again.mp4", 8, crf=30)
    passing(tmp_path / "videos" / "b" / "trimmed.mp4", 8, first=6, crf=25)
    for name in "xyz":
        passing(tmp_path / "videos" / "a" / f"{name}.mp4", 64, crf=18 + ord(name) % 7)
    summary = extract(list_raw(tmp_path), tmp_path / "clips", **OPTIONS)
    groups = {row["video_id"]: row["group"] for row in Clips(tmp_path / "clips").index.to_pylist()}
    assert len(groups) == 17
    assert len(set(groups.values())) == 15
    assert groups["a/8.mp4"] == groups["a/again.mp4"] == groups["b/trimmed.mp4"]
    assert summary["test"] > 0
    manifest = json.loads((tmp_path / "clips" / "manifest.json").read_text())
    assert manifest["notes"] == [
        "3 videos show the same as others and share their groups, as a/8.mp4 and a/again.mp4",
        "3 videos hardly change, as a/x.mp4: among them only equal files are known as copies",
    ]
    warning = "2 pairs show the same in two classes, as a/8.mp4 and b/trimmed.mp4; look at their labels"
    assert manifest["warnings"] == [warning]
    assert f"warning: {warning}\n" in capfd.readouterr().err


def test_official_lists_do_not_leak(tmp_path):
    for seed in range(6):
        encode(tmp_path / "videos" / f"{seed}.avi", scene(seed), fps=12, **XVID)
    mirrored = np.ascontiguousarray(scene(0)[:, :, ::-1])
    encode(tmp_path / "videos" / "mirror.avi", mirrored, fps=12, **XVID)
    lists = {"0.avi": "test", "1.avi": "test"}
    listed = read_videos_csv(list_raw(tmp_path) / "videos.csv")
    write_videos_csv(tmp_path / "videos.csv", [replace(v, split=lists.get(v.video_id, "train")) for v in listed])
    summary = extract(tmp_path, tmp_path / "clips", **OPTIONS)
    assert (summary["twin"], summary["test"], summary["val"], summary["train"]) == (1, 4, 2, 6)
    assert "mirror.avi" not in Clips(tmp_path / "clips").index["video_id"].to_pylist()
