"""Extracting again: what is known is not decoded, what has not changed is not written, what is damaged is made anew."""

import os
import shutil
import sys

import numpy as np
import pytest

from hrvgan.clipstore.clips import Clips
from hrvgan.datasets import folder
from hrvgan.errors import InputError
from hrvgan.extraction.extract import extract
from hrvgan.extraction.manifest import read_video_rows
from hrvgan.extraction.videos import read_videos_csv, write_videos_csv
from hrvgan.video.io import encode
from tests import processes
from tests.test_extraction import SMALL, list_raw, stored_bytes, write_raw

CLASSES = ("run", "walk")
# Two classes, of groups g01 to g05 each, as in UCF101: another video of a known group moves nothing.
NAMES = {f"{name}/v_{name}_g{group:02d}_c01.avi": 8 for name in CLASSES for group in range(1, 6)}
SPLIT = SMALL | {"val_fraction": 0.2, "test_fraction": 0.2}


@pytest.fixture
def raw(tmp_path):
    return write_raw(tmp_path, NAMES)


def unplug(raw):
    """The list of videos stays, the files become empty: whoever decodes one of them again, fails."""
    for video in read_videos_csv(raw / "videos.csv"):
        video.path.write_bytes(b"")


def inodes(store):
    return {path.name: path.stat().st_ino for path in store.glob("shard-*")}


def add(raw, name="run/v_run_g02_c02.avi", seed=99):
    """A video more, as written by the user, and the new list; the md5 of the others is as it was."""
    frames = np.random.default_rng(seed).integers(256, size=(8, 16, 16, 3), dtype=np.uint8)
    encode(raw / "videos" / name, frames, fps=10, vcodec="huffyuv", pix_fmt="rgb24")
    return list_raw(raw)


def test_a_store_that_is_done_decodes_and_writes_nothing(raw, tmp_path):
    summary = extract(raw, tmp_path / "clips", **SPLIT)
    before, files = stored_bytes(tmp_path / "clips"), inodes(tmp_path / "clips")
    unplug(raw)
    assert extract(raw, tmp_path / "clips", **SPLIT | {"workers": 2}) == summary
    assert stored_bytes(tmp_path / "clips") == before
    assert inodes(tmp_path / "clips") == files


def test_one_video_more_decodes_one_and_writes_one_shard(raw, tmp_path):
    extract(raw, tmp_path / "clips", **SPLIT)
    files = inodes(tmp_path / "clips")
    add(raw)
    shutil.copytree(raw, tmp_path / "copy")
    new = raw / "videos" / "run" / "v_run_g02_c02.avi"
    content = new.read_bytes()
    unplug(raw)
    new.write_bytes(content)
    summary = extract(raw, tmp_path / "clips", **SPLIT)
    assert (summary["videos"], summary["clips"], summary["dropped"]) == (11, 22, 0)
    now = inodes(tmp_path / "clips")
    assert now.keys() == files.keys()
    assert sum(now[name] != files[name] for name in now) == 1
    # The same bytes as if all had been there from the start, in whatever number of processes.
    write_videos_csv(tmp_path / "copy" / "videos.csv", folder.fetch(tmp_path, path=tmp_path / "copy" / "videos"))
    for workers in (1, 2):
        extract(tmp_path / "copy", tmp_path / f"fresh{workers}", **SPLIT | {"workers": workers})
        assert stored_bytes(tmp_path / f"fresh{workers}") == stored_bytes(tmp_path / "clips")


def test_a_renamed_video_is_not_decoded(raw, tmp_path):
    extract(raw, tmp_path / "clips", **SPLIT)
    (raw / "videos/run/v_run_g01_c01.avi").rename(raw / "videos/run/v_run_g01_c07.avi")
    list_raw(raw)
    unplug(raw)
    assert extract(raw, tmp_path / "clips", **SPLIT)["dropped"] == 0
    assert "run/v_run_g01_c07.avi" in Clips(tmp_path / "clips").index["video_id"].to_pylist()


@pytest.mark.parametrize("change", [{"frame_step": 2}, {"size": 8}, {"min_motion": 0.1}, {"clips_per_video": 1}])
def test_other_parameters_decode_all(raw, tmp_path, change):
    extract(raw, tmp_path / "clips", **SPLIT)
    extract(raw, tmp_path / "fresh", **SPLIT | change)
    extract(raw, tmp_path / "clips", **SPLIT | change)
    assert stored_bytes(tmp_path / "clips") == stored_bytes(tmp_path / "fresh")


@pytest.mark.parametrize("change", [{"num_shards": 7}, {"seed": 5}, {"compression": "zstd"}, {"val_fraction": 0}])
def test_what_does_not_touch_the_pixels_decodes_nothing(raw, tmp_path, change):
    extract(raw, tmp_path / "clips", **SPLIT)
    extract(raw, tmp_path / "fresh", **SPLIT | change)
    unplug(raw)
    extract(raw, tmp_path / "clips", **SPLIT | change)
    assert stored_bytes(tmp_path / "clips") == stored_bytes(tmp_path / "fresh")
    extract(raw, tmp_path / "clips", **SPLIT)  # and back, also out of compressed shards
    assert Clips(tmp_path / "clips").split("val").index.num_rows == 4


def test_damage_is_found_and_only_its_videos_are_decoded(raw, tmp_path):
    extract(raw, tmp_path / "clips", **SPLIT)
    before = stored_bytes(tmp_path / "clips")
    row = Clips(tmp_path / "clips").index.to_pylist()[5]
    shard = tmp_path / "clips" / f"shard-{row['shard']:03d}.parquet"
    data = bytearray(shard.read_bytes())
    data[row["offset"] + 100] ^= 1
    shard.write_bytes(data)
    for video in read_videos_csv(raw / "videos.csv"):
        if video.video_id != row["video_id"]:
            video.path.write_bytes(b"")
    extract(raw, tmp_path / "clips", **SPLIT)
    assert stored_bytes(tmp_path / "clips") == before


def test_bad_videos_are_remembered_too(raw, tmp_path):
    (raw / "videos/run/v_run_g03_c02.avi").write_bytes(b"text")
    list_raw(raw)
    summary = extract(raw, tmp_path / "clips", **SPLIT)
    assert summary["unreadable"] == 1
    before = stored_bytes(tmp_path / "clips")
    add(raw, "run/v_run_g03_c02.avi")  # Put right, it has another md5.
    assert extract(raw, tmp_path / "clips", **SPLIT)["unreadable"] == 0
    (raw / "videos/run/v_run_g03_c02.avi").write_bytes(b"text")
    list_raw(raw)
    extract(raw, tmp_path / "clips", **SPLIT)
    assert stored_bytes(tmp_path / "clips") == before
    assert {row["failure"] for row in read_video_rows(tmp_path / "clips")} == {"", "unreadable"}


def parts(store):
    """What is kept of each video whose clips are not yet in the store."""
    return list(store.with_name(f".{store.name}.parts").glob("*/*.json"))


def program(raw, out, options):
    call = f"extract({str(raw)!r}, {str(out)!r}, **{options})"
    code = f"from hrvgan.extraction.extract import extract\nif __name__ == '__main__': {call}"
    path = out.with_name("main.py")
    path.write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return processes.start([sys.executable, path], env=environment)


@pytest.mark.faults
def test_an_extraction_that_was_killed_goes_on(tmp_path):
    raw = write_raw(tmp_path, {f"{number:03d}.avi": 8 for number in range(150)})
    with program(raw, tmp_path / "clips", SMALL) as process:
        processes.wait_for(lambda: len(parts(tmp_path / "clips")) >= 20, "20 videos", process=process)
        process.kill()
    kept = parts(tmp_path / "clips")
    done = [path.stem for path in kept]
    assert 20 <= len(done) < 150
    extract(raw, tmp_path / "fresh", **SMALL)
    for video in read_videos_csv(raw / "videos.csv"):
        if video.md5 in done[1:]:
            video.path.write_bytes(b"")
    frames = kept[0].with_suffix(".frames")
    frames.write_bytes(frames.read_bytes()[:-1])  # One was not wholly on the disk.
    extract(raw, tmp_path / "clips", **SMALL)
    assert stored_bytes(tmp_path / "clips") == stored_bytes(tmp_path / "fresh")
    assert not kept[0].parent.parent.exists()


@pytest.mark.faults
def test_two_extractions_of_one_store_at_once(tmp_path):
    raw = write_raw(tmp_path, {f"{number:03d}.avi": 8 for number in range(150)})
    with program(raw, tmp_path / "clips", SMALL) as process:
        processes.wait_for(lambda: parts(tmp_path / "clips"), "the first video", process=process)
        with pytest.raises(InputError, match=rf"clips is running already \(process {process.pid}\); wait"):
            extract(raw, tmp_path / "clips", **SMALL)
        assert process.finish() == 0, process
    assert len(Clips(tmp_path / "clips")) == 300
