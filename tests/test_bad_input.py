"""Everything bad that a folder of videos may hold, in one folder, between good ones."""

import json
import os
import sys
import tempfile
from pathlib import Path

import pytest

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError
from hrvgan.extraction.extract import extract
from hrvgan.extraction.manifest import dropped_table
from tests import processes
from tests.fuzz import fuzz
from tests.processes import children
from tests.test_decoding import make, run
from tests.test_extraction import SMALL, list_raw, stored_bytes, write_raw

NAMES = [
    "with space.avi",
    "quote'\".avi",
    "new\nline.avi",
    "carriage\rreturn.avi",
    "-dash.avi",
    "ünï-日本.avi",
    "per%03dcent.avi",
    "a:b.avi",
]
LATIN = b"byte\xff.avi"  # as old cameras and archives name files
NOBODY = 65534


@pytest.fixture(scope="module")
def battery(tmp_path_factory):
    """Store and causes by name, of a folder with all of it."""
    root = tmp_path_factory.mktemp("battery")
    videos = root / "videos"
    write_raw(root, {name: 8 for name in ["good.avi", "latin.avi", *NAMES]} | {"one.avi": 1, "short.avi": 3})
    (videos / "latin.avi").rename(videos / os.fsdecode(LATIN))
    whole = (videos / "good.avi").read_bytes()
    (videos / "empty.avi").write_bytes(b"")
    (videos / "text.avi").write_text("this is no video\n" * 100)
    (videos / "half.avi").write_bytes(whole[: len(whole) // 2])
    xvid = make(root / "x.avi", "-c:v", "mpeg4", "-vtag", "xvid", "-bf", "2", source="testsrc2=duration=2:rate=25")
    flipped = bytearray(xvid.read_bytes())
    for place in range(len(flipped) // 3, len(flipped) // 3 + 400):
        flipped[place] ^= 0x55
    (videos / "flipped.avi").write_bytes(flipped)
    run("-f", "lavfi", "-i", "testsrc2=size=32x32", "-frames:v", "0", "-c:v", "mpeg4", videos / "zero.avi")
    run("-f", "lavfi", "-i", "sine=duration=0.3", videos / "sound.mp4")
    make(videos / "8k.avi", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", source="testsrc2=size=7680x4320:rate=5:duration=1")
    (videos / "folder.avi").mkdir()
    (videos / "loop.avi").symlink_to("loop.avi")
    (videos / "gone.avi").symlink_to("nowhere.avi")
    (videos / "folder.avi" / "up").symlink_to(videos)
    summary = extract(list_raw(root), root / "clips", **SMALL | {"max_bad_fraction": 1.0, "workers": 2})
    table = dropped_table(root / "clips")
    return (
        summary,
        dict(zip(table["video_id"], zip(table["failure"], table["cause"], strict=True), strict=True)),
        root,
    )


def test_each_bad_file_is_listed_with_its_cause(battery):
    _, dropped, _ = battery
    causes = {
        "empty.avi": "cannot be decoded", "text.avi": "cannot be decoded", "half.avi": "of 8 frames decode",
        "zero.avi": "0 of its frames decode", "sound.mp4": "no video stream", "loop.avi": "symbolic link",
        "gone.avi": "No such file",
    }  # fmt: skip
    for name, cause in causes.items():
        failure, said = dropped.pop(name)
        assert failure == "unreadable"
        assert cause in said
        assert str(Path(tempfile.gettempdir())) not in said  # The report is the same wherever the files lie.
    assert dropped.pop("one.avi") == ("short", "1 frames, need 4; lower extract.num_frames or drop the video")
    assert dropped.pop("short.avi")[0] == "short"
    assert not dropped


def test_each_good_file_comes_through(battery):
    summary, _, root = battery
    stored = set(Clips(root / "clips").index["video_id"].to_pylist())
    # The decoder mends 400 bytes that are flipped; what it cannot mend is in tests/test_video.py.
    assert {"good.avi", "8k.avi", "flipped.avi", "byte\\xff.avi", *NAMES} <= stored
    assert summary["videos"] == len(stored) + summary["dropped"] == 21
    assert not children()


@pytest.mark.parametrize("readable", [True, False])
def test_a_file_without_permission_is_left_out(readable):
    """As another user, because root may read everything."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        raw = write_raw(root, {f"{name}.avi": 8 for name in "abc"})
        if not readable:
            (root / "videos" / "b.avi").chmod(0)
        for path in (root, root / "videos"):
            path.chmod(0o777)
        code = (
            "import json, os, tests.test_extraction as t\n"
            "from hrvgan.extraction.extract import extract; from pathlib import Path\n"
            f"raw = Path({str(raw)!r}); options = t.SMALL | {{'max_bad_fraction': 0.5}}\n"
            "extract(raw, raw / 'warm', **options)  # imports what another user may not be able to read\n"
            f"if os.geteuid() == 0: os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
            "os.remove(raw / 'videos.csv')\n"
            "print(json.dumps(extract(t.list_raw(raw), raw / 'clips', **options)))"
        )
        summary = json.loads(processes.run([sys.executable, "-B", "-c", code]).stdout)
        assert (summary["unreadable"], summary["clips"]) == ((0, 6) if readable else (1, 4))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 100 kB; mounting one takes privileges."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = processes.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", folder], check=False)
    if done.returncode:
        pytest.skip("mounting a small disk is not permitted here; the next test limits the size of files instead")
    yield folder
    processes.run(["umount", folder])


@pytest.mark.parametrize("num_videos", [20, 8])  # too many for the clips on their way; for those and the shards
def test_a_full_disk_is_one_sentence_and_leaves_the_old_store(small_disk, tmp_path, num_videos):
    lengths = {f"{number}.avi": 8 for number in range(num_videos)}
    raw = write_raw(tmp_path, dict(list(lengths.items())[:1]))
    extract(raw, small_disk / "clips", **SMALL)
    before = stored_bytes(small_disk / "clips")
    write_raw(tmp_path, lengths)
    with pytest.raises(InputError, match=r"cannot be written \(.*No space left on device.*make room"):
        extract(raw, small_disk / "clips", **SMALL)
    assert stored_bytes(small_disk / "clips") == before
    assert {path.name for path in small_disk.iterdir()} <= {"clips", ".clips.parts"}


def test_a_file_that_cannot_grow_is_one_sentence(tmp_path):
    """The limit on file sizes stands in for a full disk where none can be mounted: writes really fail."""
    raw = write_raw(tmp_path, {f"{number}.avi": 8 for number in range(4)})
    code = (
        "import resource, signal, sys; from hrvgan.extraction.extract import extract\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"extract({str(raw)!r}, {str(tmp_path / 'clips')!r}, **{SMALL})"
    )
    done = processes.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 1
    assert "InputError" in done.stderr.splitlines()[-1]
    assert "cannot be written (File too large); make room" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "clips").exists()


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path):
    raw = write_raw(tmp_path, {"a.avi": 8})
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot be written"):
        extract(raw, tmp_path / "file" / "clips", **SMALL)


@pytest.mark.faults
@pytest.mark.timeout(processes.faults(300, 1800))
def test_damaged_files_are_all_accounted_for(tmp_path):
    """The fast part of `make fuzz`."""
    count = processes.faults(150, 2000)
    found = fuzz(tmp_path, count=count, seed=1)
    assert found.total() == count + 8
    assert found["good"] > 20
    assert found["unreadable"] > 20


@pytest.mark.faults
def test_memory_stays_flat_in_a_long_video_and_with_many_clips(tmp_path):
    """Half a minute and five minutes of the same, in fresh processes: the longer one may take a few megabytes more, and
    so may a hundred clips of it."""
    loop = make(tmp_path / "loop.mp4", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p",
                source="testsrc2=size=384x288:rate=30:duration=3")  # fmt: skip
    peaks = []
    for repeats, clips in ((9, 4), (99, 4), (99, 100)):
        video = tmp_path / f"{repeats}.mp4"
        run("-stream_loop", repeats, "-i", loop, "-c", "copy", "-y", video)
        code = (
            "import resource, sys; from hrvgan.extraction.cut import ClipSpec, cut_video\n"
            f"cut_video(sys.argv[1], ClipSpec(256, 16, 4, {clips}, True, 0.0, 0.0, 10.0), lambda n, clip: None)\n"
            # Not getrusage's, which begins with what the process that starts this one holds.
            "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
        )
        peaks.append(int(processes.run([sys.executable, "-c", code, video]).stdout) / 1024)
    assert peaks[1] < 600  # MB, most of it libraries; all of its 9,000 frames would be 1,770.
    assert max(peaks[1:]) < peaks[0] + 30  # The clips would be 315.
