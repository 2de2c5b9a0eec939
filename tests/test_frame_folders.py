"""Folders of pictures, one a frame, are videos; strips stay strips."""

import json

import numpy as np
import pytest
from PIL import Image

from hrvgan.clipstore.clips import Clips
from hrvgan.datasets import folder
from hrvgan.errors import VideoError
from hrvgan.evaluation.source_files import FolderSource
from hrvgan.extraction.extract import extract
from hrvgan.extraction.videos import read_videos_csv, write_videos_csv
from hrvgan.video.decode import expected_frames
from hrvgan.video.io import encode, probe, read_frames
from tests.test_extraction import SMALL
from tests.test_video import noise


def write_frames(path, frames, name="frame_{}.png", first=0):
    path.mkdir(parents=True)
    for number, frame in enumerate(frames, first):
        Image.fromarray(frame).save(path / name.format(number))


def test_a_folder_of_frames_is_read_in_the_order_of_its_numbers(tmp_path):
    frames = noise(12, 24, 32, 3)
    write_frames(tmp_path / "a", frames)  # frame_10 comes after frame_9
    read, fps = read_frames(tmp_path / "a")
    np.testing.assert_array_equal(read, frames)
    assert (fps, expected_frames(tmp_path / "a"), expected_frames(tmp_path / "a", 12.5)) == (25, 12, 6)
    assert probe(tmp_path / "a") == (32, 24, 25, 12)


def test_frames_are_resized_as_those_of_a_lossless_video(tmp_path):
    frames = noise(4, 48, 64, 3)
    write_frames(tmp_path / "a", frames)
    encode(tmp_path / "a.avi", frames, fps=25, vcodec="huffyuv", pix_fmt="rgb24")
    np.testing.assert_array_equal(read_frames(tmp_path / "a", 16)[0], read_frames(tmp_path / "a.avi", 16)[0])


@pytest.mark.parametrize("classes", [("run", "walk"), ("", "")])
def test_folders_of_frames_and_strips_become_clips(tmp_path, classes):
    videos = {f"{name}/v{number}".strip("/"): noise(8, 16, 20, 3, seed=number) for number, name in enumerate(classes)}
    for name, frames in videos.items():
        write_frames(tmp_path / "videos" / name, frames, "{:04d}.png", first=1)
    strip = noise(8, 16, 16, 3, seed=9)
    if classes[0]:
        Image.fromarray(np.concatenate(list(strip), axis=1)).save(tmp_path / "videos" / "walk" / "strip.png")
        videos["walk/strip.png"] = strip
    write_videos_csv(tmp_path / "videos.csv", folder.fetch(tmp_path, path=tmp_path / "videos"))
    extract(tmp_path, tmp_path / "clips", **SMALL | {"num_frames": 8})
    clips = Clips(tmp_path / "clips")
    assert clips.classes == sorted({*classes} - {""})
    for row, clip in zip(clips.index.to_pylist(), clips.read(range(len(clips))), strict=True):
        offset = (videos[row["video_id"]].shape[2] - 16) // 2
        np.testing.assert_array_equal(clip, videos.pop(row["video_id"])[:, :, offset : offset + 16])
    assert not videos
    assert len(FolderSource(tmp_path / "videos").digest) == 64


def test_extract_fps_resamples_frames_and_gaps_are_said(tmp_path):
    frames = noise(16, 16, 16, 3)
    write_frames(tmp_path / "videos" / "a", frames, "{:05d}.png")
    for number in (5, 6):
        (tmp_path / "videos" / "a" / f"{number:05d}.png").unlink()
    write_videos_csv(tmp_path / "videos.csv", folder.fetch(tmp_path, path=tmp_path / "videos"))
    extract(tmp_path, tmp_path / "clips", **SMALL | {"num_frames": 7, "fps": 12.5})
    clips = Clips(tmp_path / "clips")
    assert clips.fps == 12.5
    np.testing.assert_array_equal(clips[0], np.delete(frames, (5, 6), axis=0)[::2])
    assert json.loads((tmp_path / "clips" / "manifest.json").read_text())["warnings"] == [
        "a: 2 frames are missing in its numbers, the first after 00004.png"
    ]


def test_frames_that_count_in_steps_have_no_gap(tmp_path):
    path = tmp_path / "videos" / "a"
    write_frames(path, noise(8, 16, 16, 3), "{}.png")
    for number in range(8)[::-1]:
        (path / f"{number}.png").rename(path / f"{5 * number}.png")
    write_videos_csv(tmp_path / "videos.csv", folder.fetch(tmp_path, path=tmp_path / "videos"))
    extract(tmp_path, tmp_path / "clips", **SMALL)
    assert json.loads((tmp_path / "clips" / "manifest.json").read_text())["warnings"] == []


def test_a_changed_frame_changes_the_list(tmp_path):
    write_frames(tmp_path / "videos" / "a", noise(4, 16, 16, 3))
    digests = []
    for shade in (0, 1):
        Image.new("RGB", (16, 16), (shade,) * 3).save(tmp_path / "videos" / "a" / "frame_2.png")
        write_videos_csv(tmp_path / "videos.csv", folder.fetch(tmp_path, path=tmp_path / "videos"))
        digests.append(read_videos_csv(tmp_path / "videos.csv")[0].md5)
    assert len(set(digests)) == 2
    assert all(digests)


def test_damaged_frames_are_an_error_that_counts(tmp_path):
    write_frames(tmp_path / "a", noise(8, 16, 16, 3))
    for number in (2, 3):
        (tmp_path / "a" / f"frame_{number}.png").write_bytes(b"no picture")
    with pytest.raises(VideoError, match="a: 6 of 8 frames decode"):
        read_frames(tmp_path / "a")
