"""From video files to a store, on files as good and as bad as they come."""

import json
import warnings

import numpy as np
import pytest

from hrvgan.clipstore.clips import Clips, common_rate
from hrvgan.datasets import folder
from hrvgan.errors import InputError
from hrvgan.extraction.cut import spread
from hrvgan.extraction.extract import extract
from hrvgan.extraction.manifest import dropped_table
from hrvgan.extraction.videos import write_videos_csv
from hrvgan.video.io import encode, read_frames

SMALL = {"size": 16, "num_frames": 4, "scene_cut": 0, "workers": 1, "val_fraction": 0, "test_fraction": 0}


def write_raw(root, lengths: dict[str, int]):
    """A folder of lossless videos of noise, name -> number of frames, and its list."""
    for number, (name, length) in enumerate(lengths.items()):
        frames = np.random.default_rng(number).integers(256, size=(length, 16, 16, 3), dtype=np.uint8)
        encode(root / "videos" / name, frames, fps=10, vcodec="huffyuv", pix_fmt="rgb24")
    return list_raw(root)


def list_raw(root):
    write_videos_csv(root / "videos.csv", folder.fetch(root, path=root / "videos"))
    return root


def stored_bytes(store):
    return {path.name: path.read_bytes() for path in store.iterdir()}


def test_shapes_come_down_the_whole_road(shapes_clips):
    assert (len(shapes_clips), shapes_clips.shape, shapes_clips.num_classes) == (96, (8, 32, 32, 3), 8)
    for split, count in {"train": 64, "val": 16, "test": 16}.items():
        clips = shapes_clips.split(split)
        assert len(clips) == count
        assert set(clips.labels) == set(range(8))
    groups = {split: set(shapes_clips.split(split).index["group"].to_pylist()) for split in ("train", "val", "test")}
    assert sum(len(group) for group in groups.values()) == len(set.union(*groups.values())) == 6


def test_the_bytes_do_not_depend_on_the_number_of_workers(shapes_raw, shapes_clips, tmp_path):
    extract(shapes_raw, tmp_path / "two", size=32, num_frames=8, workers=2)
    assert stored_bytes(tmp_path / "two") == stored_bytes(shapes_clips.folder)


def test_clips_are_the_frames_that_they_say(tmp_path):
    raw = write_raw(tmp_path, {"a.avi": 21})
    summary = extract(raw, tmp_path / "clips", **SMALL | {"frame_step": 3, "clips_per_video": 3})
    assert summary["clips"] == 3
    clips, frames = Clips(tmp_path / "clips"), read_frames(tmp_path / "videos" / "a.avi")[0]
    assert clips.fps == pytest.approx(10 / 3)
    assert clips.index["start_frame"].to_pylist() == [0, 6, 11]  # A clip reaches over 10 of 21 frames.
    for clip, start in zip(clips.read(range(3)), (0, 6, 11), strict=True):
        np.testing.assert_array_equal(clip, frames[start : start + 12 : 3])


@pytest.mark.parametrize(("last", "count", "starts"), [(10, 1, [5]), (10, 3, [0, 5, 10]), (1, 4, [0, 1]), (0, 3, [0])])
def test_starts_are_evenly_spread(last, count, starts):
    assert spread(last, count) == starts


def test_a_bad_video_is_left_out_and_listed(tmp_path):
    raw = write_raw(tmp_path, {f"{name}.avi": 8 for name in "abcdefghi"} | {"short.avi": 3})
    whole = (tmp_path / "videos" / "a.avi").read_bytes()
    (tmp_path / "videos" / "b.avi").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "videos" / "c.avi").write_bytes(b"text")
    (tmp_path / "videos" / "d.avi").write_bytes(b"")
    summary = extract(list_raw(raw), tmp_path / "clips", **SMALL | {"max_bad_fraction": 0.3})
    assert summary == {"videos": 10, "clips": 12, "train": 12, "val": 0, "test": 0,
                       "dropped": 4, "unreadable": 3, "small": 0, "short": 1, "static": 0, "duplicate": 0,
                       "twin": 0}  # fmt: skip
    manifest = json.loads((tmp_path / "clips" / "manifest.json").read_text())
    assert [(item["video_id"], item["failure"]) for item in manifest["dropped"]] == [
        ("b.avi", "unreadable"), ("c.avi", "unreadable"), ("d.avi", "unreadable"), ("short.avi", "short"),
    ]  # fmt: skip
    assert manifest["dropped"][3]["cause"].startswith("3 frames, need 4; lower extract.num_frames")
    cause = manifest["dropped"][1]["cause"]
    assert cause.startswith("cannot be decoded (Invalid data")  # No path: places differ.
    assert dropped_table(tmp_path / "clips")["video_id"] == ["b.avi", "c.avi", "d.avi", "short.avi"]


def test_the_manifest_keeps_the_splits_of_folders_and_says_so(tmp_path):
    lengths = {f"{split}/{kind}/{n}.avi": 4 for split in ("train", "test") for kind in ("run", "walk") for n in "123"}
    write_raw(tmp_path, lengths)
    (tmp_path / "videos" / "train" / "run" / "1.json").write_text("{}")
    extract(list_raw(tmp_path), tmp_path / "clips", **SMALL | {"val_fraction": 0.15, "test_fraction": 0.2})
    clips = Clips(tmp_path / "clips")
    assert clips.classes == ["run", "walk"]
    splits = {name.partition("/")[0]: set() for name in lengths}
    for row in clips.index.to_pylist():
        splits[row["video_id"].partition("/")[0]].add(row["split"])
    assert splits == {"train": {"train", "val"}, "test": {"test"}}
    assert json.loads((tmp_path / "clips" / "manifest.json").read_text())["notes"] == [
        "splits of the folders are kept: train (6 videos), test (6 videos); val drawn from train by group",
        "1 files are no videos and left out (1 .json), for example train/run/1.json",
    ]


def write_rates(root, rates):
    for number, rate in enumerate(rates):
        frames = np.random.default_rng(number).integers(256, size=(4, 16, 16, 3), dtype=np.uint8)
        encode(root / "videos" / f"{number:02d}.avi", frames, fps=rate, vcodec="huffyuv", pix_fmt="rgb24")
    extract(list_raw(root), root / "clips", **SMALL)
    return Clips(root / "clips").fps, json.loads((root / "clips" / "manifest.json").read_text())["warnings"]


def test_rates_of_phones_are_one_and_a_really_other_one_is_said(tmp_path, capfd):
    phones = [29.91, 29.93, 29.94, 29.96, 29.97, 29.98, 30, 30.02, 30.03, 30.05]
    assert write_rates(tmp_path / "phones", phones) == (pytest.approx(29.98, abs=0.02), [])
    fps, warning = write_rates(tmp_path / "mixed", [*phones, 8])
    assert fps == pytest.approx(29.98, abs=0.02)
    assert warning == [
        "10 videos have about 29.98 frames a second, 1 have 8; all count as 29.98: set extract.fps, "
        "for example to 29.98, to resample them"
    ]
    assert warning[0] in capfd.readouterr().err


@pytest.mark.parametrize(
    ("rates", "common"), [([25], 25), ([30, 30, 8], 30), ([8, 8, 8, 30, 30.1], 8), ([25, 25, 25.1], 25)]
)
def test_the_common_rate_is_one_that_occurs(rates, common):
    assert common_rate(np.array(rates, float)) == common


def test_too_many_bad_videos_end_it_and_leave_the_old_store(tmp_path):
    raw = write_raw(tmp_path, {f"{name}.avi": 8 for name in "abcde"})
    extract(raw, tmp_path / "clips", **SMALL)
    before = stored_bytes(tmp_path / "clips")
    (tmp_path / "videos" / "b.avi").write_bytes(b"text")
    with pytest.raises(InputError, match=r"the 0 of 5 that .*max_bad_fraction allows: .*b\.avi: cannot be decoded"):
        extract(list_raw(raw), tmp_path / "clips", **SMALL)
    assert stored_bytes(tmp_path / "clips") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".clips.parts", "clips", "videos", "videos.csv"]


def test_a_class_that_ends_empty_is_named_with_its_cause(tmp_path):
    raw = write_raw(tmp_path, {"run/a.avi": 8, "walk/b.avi": 3})
    with pytest.raises(InputError, match=r"class 'walk' has no clips: .*b\.avi: 3 frames, need 4; lower"):
        extract(raw, tmp_path / "clips", **SMALL)


def test_a_class_that_a_bad_video_empties_is_left_out_with_a_warning(tmp_path, capfd):
    """Below max_bad_fraction one bad video stops nothing, also where it is alone in its class."""
    raw = write_raw(tmp_path, {f"{name}/a.avi": 8 for name in ("run", "jump", "walk")})
    (tmp_path / "videos" / "run" / "a.avi").write_bytes(b"text")
    summary = extract(list_raw(raw), tmp_path / "clips", **SMALL | {"max_bad_fraction": 0.4})
    assert (summary["clips"], summary["unreadable"]) == (4, 1)
    clips = Clips(tmp_path / "clips")
    assert clips.classes == ["jump", "walk"]
    assert clips.labels.tolist() == [0, 0, 1, 1]
    warning = "class 'run' has no clips and is left out: run/a.avi: cannot be decoded"
    assert json.loads((tmp_path / "clips" / "manifest.json").read_text())["warnings"][0].startswith(warning)
    assert f"warning: {warning}" in capfd.readouterr().err


def test_nothing_left_says_why(tmp_path):
    raw = write_raw(tmp_path, {f"{name}.avi": 3 for name in "abcde"})
    with pytest.raises(InputError, match=r"no clips: .*a\.avi: 3 frames, need 4; .*and 2 more"):
        extract(raw, tmp_path / "clips", **SMALL)


def test_still_clips_are_left_out_when_asked(tmp_path):
    write_raw(tmp_path, {"moves.avi": 8})
    still = np.full((8, 16, 16, 3), 90, np.uint8)
    encode(tmp_path / "videos" / "still.avi", still, fps=10, vcodec="huffyuv", pix_fmt="rgb24")
    raw = list_raw(tmp_path)
    assert extract(raw, tmp_path / "clips", **SMALL)["clips"] == 4
    assert Clips(tmp_path / "clips").index["motion"].to_pylist()[2:] == [0, 0]
    summary = extract(raw, tmp_path / "clips", **SMALL | {"min_motion": 1.0})
    assert (summary["clips"], summary["static"], summary["dropped"]) == (2, 1, 1)
    manifest = json.loads((tmp_path / "clips" / "manifest.json").read_text())
    assert manifest["motion"]["clips"] == [2, *[0] * 8, 2]  # two stills; noise moves by 85 of 255
    assert manifest["motion"]["edges"][:2] == [0, 0.1]
    assert manifest["motion"]["edges"][-2:] == [50, 255]


def test_a_count_that_is_not_the_containers_is_reported(tmp_path):
    raw = write_raw(tmp_path, {"a.avi": 40})
    path = tmp_path / "videos" / "a.avi"
    data = bytearray(path.read_bytes())
    length = data.index(b"strh") + 8 + 32
    data[length : length + 4] = (41).to_bytes(4, "little")
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extract(list_raw(raw), tmp_path / "clips", **SMALL)
    manifest = json.loads((tmp_path / "clips" / "manifest.json").read_text())
    assert manifest["warnings"] == ["a.avi: 40 frames decoded, 41 in its header"]


@pytest.mark.parametrize("wrong", [{"size": 0}, {"num_frames": 0}, {"frame_step": 0}, {"clips_per_video": 0}])
def test_numbers_below_1_are_refused(shapes_raw, tmp_path, wrong):
    with pytest.raises(InputError, match="start at 1"):
        extract(shapes_raw, tmp_path / "clips", **SMALL | wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"compression": "gzip"}, "compression 'gzip' is unknown"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "sum below 1"),
    ],
)
def test_what_only_the_end_needs_is_looked_at_before_anything_is_decoded(tmp_path, wrong, words):
    raw = write_raw(tmp_path, {"a.avi": 8})
    with pytest.raises(InputError, match=words):
        extract(raw, tmp_path / "clips", **SMALL | wrong)
    assert not (tmp_path / ".clips.parts").exists()


def test_a_folder_that_was_never_downloaded_says_so(tmp_path):
    with pytest.raises(InputError, match=r"videos\.csv: no list of videos.*run the download stage first"):
        extract(tmp_path, tmp_path / "clips", **SMALL)
