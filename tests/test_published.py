"""Published data sets end to end: small archives of their shape, from a server on loopback down to clips."""

import hashlib
import io
import tarfile
import zipfile
from collections import Counter

import numpy as np
import pytest
import rar_writer
from PIL import Image
from web_server import Site

from hrvgan.clipstore.clips import Clips
from hrvgan.datasets import aeroplane, golf, ucf101
from hrvgan.errors import InputError
from hrvgan.extraction.extract import extract
from hrvgan.extraction.videos import write_videos_csv
from hrvgan.fetching.transfer import Unavailable
from hrvgan.files import PublishedFile
from hrvgan.video.io import encode
from tests.project import Project

CLASSES = ("ApplyEyeMakeup", "HandstandPushups", "YoYo")  # Labels 1 to 3.
TEST_GROUPS = {1: (1, 2), 2: (3, 4), 3: (5, 6)}


def spelled(name: str) -> str:
    """As the lists and the rar write it."""
    return name.replace("HandstandPushups", "HandStandPushups")


@pytest.fixture(scope="module")
def avis(tmp_path_factory):
    """Name -> bytes of 18 real xvid files: three classes, groups g01 to g06."""
    folder, files = tmp_path_factory.mktemp("avis"), {}
    for label, class_name in enumerate(CLASSES):
        for group in range(1, 7):
            name = f"v_{class_name}_g{group:02d}_c01.avi"
            # A picture of its own that drifts: fine noise looks alike from afar, and new noise in each frame is a cut.
            coarse = np.random.default_rng([label, group]).integers(256, size=(3, 4, 3), dtype=np.uint8)
            picture = coarse.repeat(8, axis=0).repeat(8, axis=1)
            frames = np.stack([np.roll(picture, time, axis=1) for time in range(6)])
            encode(folder / name, frames, fps=25, vcodec="mpeg4", vtag="xvid", pix_fmt="yuv420p", bf=2)
            files[name] = (folder / name).read_bytes()
    return files


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def lists(names, label_of=lambda name: 1 + CLASSES.index(name.split("_")[1])) -> bytes:
    files = {"classInd.txt": "".join(f"{label} {name}\r\n" for label, name in enumerate(CLASSES, 1))}
    for split, groups in TEST_GROUPS.items():
        test = [name for name in names if int(name[-10:-8]) in groups]
        lines = {name: f"{name.split('_')[1]}/{spelled(name)}" for name in names}
        train = [f"{lines[name]} {label_of(name)}\r\n" for name in names if name not in test]
        files[f"trainlist{split:02d}.txt"] = "".join(train)
        files[f"testlist{split:02d}.txt"] = "".join(f"{lines[name]}\r\n" for name in test)
    return zipped({f"ucfTrainTestlist/{name}": text.encode() for name, text in files.items()})


def published(site, file: PublishedFile, data: bytes) -> PublishedFile:
    """`file`, as if `site` published `data` under its name."""
    site.files[f"/{file.name}"] = data
    return PublishedFile(file.name, (f"{site.url}/{file.name}",), len(data), hashlib.sha256(data).hexdigest())


@pytest.fixture
def ucf(avis, tmp_path, monkeypatch):
    """A server with a small UCF101; the module's addresses lead to it."""
    mirror = {f"UCF101/{name}": data for name, data in avis.items()} | {"__MACOSX/._v_YoYo_g01_c01.avi": b"?"}
    official = [rar_writer.member(f"UCF-101/{name.split('_')[1]}/{spelled(name)}", data) for name, data in avis.items()]
    monkeypatch.setenv("HRVGAN_DOWNLOADS", str(tmp_path / "downloads"))
    with Site() as site:
        monkeypatch.setattr(ucf101, "ZIP", published(site, ucf101.ZIP, zipped(mirror)))
        monkeypatch.setattr(ucf101, "RAR", published(site, ucf101.RAR, rar_writer.rar(*official)))
        monkeypatch.setattr(ucf101, "LISTS", published(site, ucf101.LISTS, lists(avis)))
        yield site


def described(videos) -> set[tuple]:
    return {(v.video_id, v.class_name, v.group, v.split, v.path.read_bytes()) for v in videos}


def test_ucf101_goes_from_a_server_that_cuts_to_clips_in_the_official_splits(ucf, avis, tmp_path):
    ucf.plan = ["cut:20000", "cut:40000"]
    videos = ucf101.fetch(tmp_path / "raw")
    assert {v.video_id: v.path.read_bytes() for v in videos} == {
        f"{name.split('_')[1]}/{name}": data for name, data in avis.items()
    }
    assert ucf.log[1:3] == [("/UCF101_videos.zip", "bytes=20000-"), ("/UCF101_videos.zip", "bytes=40000-")]
    splits = {video.video_id: video.split for video in videos}
    assert all((splits[v.video_id] == "test") == (v.group in ("g01", "g02")) for v in videos)
    write_videos_csv(tmp_path / "raw/videos.csv", videos)
    extract(tmp_path / "raw", tmp_path / "clips", size=16, num_frames=4, clips_per_video=1, workers=1)
    clips = Clips(tmp_path / "clips")
    assert clips.classes == list(CLASSES)
    assert [len(clips.split(name)) for name in ("train", "val", "test")] == [9, 3, 6]
    of_clips = dict(zip(*(clips.index[key].to_pylist() for key in ("video_id", "split")), strict=True))
    assert all(of_clips[name] == split for name, split in splits.items() if split == "test")
    assert sorted(Counter(clips.labels.tolist()).items()) == [(0, 6), (1, 6), (2, 6)]  # From 0, not from 1.


@pytest.mark.parametrize("split", [1, 2, 3])
def test_every_official_split_is_there(ucf, tmp_path, split):
    videos = ucf101.fetch(tmp_path / "raw", split=split)
    test = {f"g{group:02d}" for group in TEST_GROUPS[split]}
    assert {v.group for v in videos if v.split == "test"} == test
    assert {v.split for v in videos if v.group not in test} == {"train"}


def test_split_0_leaves_it_to_extraction_and_asks_for_no_lists(ucf, tmp_path):
    assert {video.split for video in ucf101.fetch(tmp_path / "raw", split=0)} == {""}
    assert [path for path, _ in ucf.log] == ["/UCF101_videos.zip"]


def test_the_official_rar_is_the_second_source_and_gives_the_same(ucf, tmp_path):
    first = ucf101.fetch(tmp_path / "1")
    (tmp_path / "downloads/UCF101_videos.zip").unlink()
    ucf.plan = ["404"]
    second = ucf101.fetch(tmp_path / "2")
    assert [path for path, _ in ucf.log][-2:] == ["/UCF101_videos.zip", "/UCF101.rar"]
    assert described(first) == described(second)
    ucf101.fetch(tmp_path / "3")
    assert ucf.log[-1][0] == "/UCF101.rar"  # It is at hand now, and used.


def test_both_sources_away_says_what_to_do(ucf, tmp_path):
    ucf.plan = ["404", "404"]
    with pytest.raises(Unavailable, match=r"UCF101_videos\.zip: .*404.*by hand.*UCF101\.rar: .*404.*by hand"):
        ucf101.fetch(tmp_path / "raw")


@pytest.mark.parametrize("kind", ["folder", "zip", "address"])
def test_what_a_user_has_gets_the_official_splits_and_may_be_a_part(ucf, avis, tmp_path, kind):
    some = {name: data for name, data in avis.items() if "YoYo" not in name}
    if kind == "folder":
        path = tmp_path / "mine"
        for name, data in some.items():
            (path / "any").mkdir(parents=True, exist_ok=True)
            (path / "any" / spelled(name)).write_bytes(data)
    else:
        path = tmp_path / "mine.zip"
        path.write_bytes(zipped(some))
    if kind == "address":
        ucf.files["/mine.zip"] = path.read_bytes()
        path = f"{ucf.url}/mine.zip?download=1"
    videos = ucf101.fetch(tmp_path / "raw", path=path)
    assert {v.video_id for v in videos} == {f"{name.split('_')[1]}/{name}" for name in some}
    assert Counter(v.split for v in videos) == {"test": 4, "train": 8}
    assert "/UCF101_videos.zip" not in [name for name, _ in ucf.log]


@pytest.mark.parametrize(("change", "message"), [
    (lambda names: lists(names[1:]), "1 videos are on no list"),
    (lambda names: lists([*names, "v_YoYo_g06_c02.avi"]), r"1 videos are missing, YoYo/v_YoYo_g06_c02\.avi"),
    (lambda names: lists(names, lambda name: 1), "has label 1, ApplyEyeMakeup"),
    (lambda names: lists(names, lambda name: CLASSES.index(name.split("_")[1])), "not the lists.*'0'"),
    (lambda names: zipped({"readme.txt": b"?"}), "not the lists of UCF101"),
    (lambda names: b"<html>", "broken archive"),
])  # fmt: skip
def test_lists_that_do_not_fit_are_refused(ucf, avis, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(ucf101, "LISTS", published(ucf, ucf101.LISTS, change(list(avis))))
    with pytest.raises(InputError, match=message):
        ucf101.fetch(tmp_path / "raw")


@pytest.mark.parametrize(("options", "message"), [
    ({"split": 4}, "split 4; need 1 to 3, or 0 for none"),
    ({"path": "nowhere.zip"}, r"nowhere\.zip: no such file or folder; correct the option `path`"),
])  # fmt: skip
def test_ucf101_refuses(ucf, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        ucf101.fetch(tmp_path / "raw", **options)


# Golf


def strip(seed: int, frames: int) -> bytes:
    buffer, draw = io.BytesIO(), np.random.default_rng(seed)
    Image.fromarray(draw.integers(256, size=(frames * 128, 128, 3), dtype=np.uint8)).save(buffer, "jpeg")
    return buffer.getvalue()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A server with an archive of Golf's shape: 12 clips of 4 videos, and lists between them."""
    monkeypatch.setenv("HRVGAN_DOWNLOADS", str(tmp_path / "downloads"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as archive:
        for number in range(16):
            name = "list.txt" if number % 4 == 3 else f"{number % 4:04d}.jpg"
            data = strip(number, 16 + number % 4)
            info = tarfile.TarInfo(f"frames-stable-many/{number // 4}.mp4/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with Site() as site:
        site.files["/golf.tar.bz2"] = buffer.getvalue()
        yield site


def test_golf_is_streamed_as_far_as_it_is_wanted(site, tmp_path):
    size = len(site.files["/golf.tar.bz2"])
    assert size > 2_500_000
    site.plan = ["cut:100000"]
    videos = golf.fetch(tmp_path / "1", max_clips=4, url=f"{site.url}/golf.tar.bz2")
    names = ["0.mp4/0000.jpg", "0.mp4/0001.jpg", "0.mp4/0002.jpg", "1.mp4/0000.jpg"]
    assert [v.video_id for v in videos] == [f"frames-stable-many/{name}" for name in names]
    assert [v.group[-5:] for v in videos] == ["0.mp4", "0.mp4", "0.mp4", "1.mp4"]
    assert {v.class_name for v in videos} == {""}
    with Image.open(videos[1].path) as opened:
        assert opened.size == (128, 17 * 128)
    (part,) = (tmp_path / "downloads").glob("*.part")
    have = part.stat().st_size
    assert have < 0.8 * size  # Never the whole archive, neither on disk nor through the network.
    more = golf.fetch(tmp_path / "2", max_clips=12, url=f"{site.url}/golf.tar.bz2")
    assert len(more) == 12
    assert site.ranges == ["", "bytes=100000-", f"bytes={have}-"]
    assert [v.path.read_bytes() for v in more[:4]] == [v.path.read_bytes() for v in videos]


def test_golf_goes_down_to_clips_by_video(site, tmp_path):
    videos = golf.fetch(tmp_path / "raw", max_clips=12, url=f"{site.url}/golf.tar.bz2")
    write_videos_csv(tmp_path / "raw/videos.csv", videos)
    extract(tmp_path / "raw", tmp_path / "clips", size=16, num_frames=16, clips_per_video=1, workers=1)
    clips = Clips(tmp_path / "clips")
    assert (len(clips), clips.shape, clips.num_classes) == (12, (16, 16, 16, 3), 0)
    assert len(clips.split("val")) == len(clips.split("test")) == 3


def test_golf_refuses(site, tmp_path):
    site.files["/none.tar"] = b"no archive at all" * 99
    with pytest.raises(InputError, match="max_clips 0; need at least 1"):
        golf.fetch(tmp_path, max_clips=0)
    with pytest.raises(InputError, match="a broken archive"):
        golf.fetch(tmp_path, url=f"{site.url}/none.tar")
    with pytest.raises(Unavailable, match=r"golf\.tar\.bz2: the server answers 404"):
        golf.fetch(tmp_path, url=f"{site.url}/elsewhere/golf.tar.bz2")


def test_golf_names_the_broken_file_that_has_to_go(site, tmp_path):
    url, part = f"{site.url}/golf.tar.bz2", tmp_path / "downloads" / "golf.tar.bz2.part"
    golf.fetch(tmp_path / "1", max_clips=4, url=url)
    data = bytearray(part.read_bytes())
    data[50_000:50_100] = bytes(100)
    part.write_bytes(data)
    for again in "23":
        with pytest.raises(InputError, match=r"golf\.tar\.bz2\.part: a broken archive .*; delete it and fetch it"):
            golf.fetch(tmp_path / again, max_clips=4, url=url)
    part.unlink()
    assert len(golf.fetch(tmp_path / "4", max_clips=4, url=url)) == 4


# Aeroplane


def test_aeroplane_says_why_it_cannot_be_downloaded(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such folder; the Aeroplane set was never published.*`path`"):
        aeroplane.fetch(tmp_path, path=tmp_path / "nowhere")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a.avi").write_bytes(b"?")
    with pytest.raises(InputError, match=r"a\.avi: not a strip"):
        aeroplane.fetch(tmp_path, path=tmp_path / "mine")


def test_aeroplane_lists_strips_without_classes_by_folder(tmp_path):
    for name in ("x/1.jpg", "x/2.jpg", "y/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(strip(1, 16))
    found = aeroplane.fetch(tmp_path / "out", path=tmp_path)
    assert [(v.video_id, v.class_name, v.group) for v in found] == [
        ("x/1.jpg", "", "x"), ("x/2.jpg", "", "x"), ("y/1.png", "", "y"),
    ]  # fmt: skip


# New data upstream, through DVC.


def use(values: dict, url: str) -> None:
    """Params with one data set, at an address of your own."""
    options, watch = {"split": 0, "path": url}, "hrvgan/datasets/ucf101.py"
    values["datasets"] = {"mine": {"source": "ucf101", "watch": watch, "options": options, "clips": {}}}
    values["runs"]["laptop"]["dataset"] = "mine"


def test_new_data_upstream_is_noticed_and_nothing_else_runs(avis, tmp_path):
    with Site() as site:
        site.files["/mine.zip"] = zipped(dict(list(avis.items())[:12]))
        project = Project.new(tmp_path, lambda v: use(v, f"{site.url}/mine.zip"))
        assert project.repro("download@mine") == {"upstream@mine", "download@mine"}
        assert len(list((tmp_path / "data/raw/mine").rglob("*.avi"))) == 12
        assert (tmp_path / "data/downloads/mine.zip").exists()
        asked = len(site.log)
        assert project.repro("download@mine") == set()
        assert len(site.log) == asked
        assert project.repro("--single-item", "--force", "upstream@mine") == {"upstream@mine"}  # As every night.
        assert len(site.log) == asked + 1
        assert project.repro("download@mine") == set()
        site.files["/mine.zip"] = zipped(avis)
        project.repro("--single-item", "--force", "upstream@mine")
        assert project.repro("download@mine") == {"download@mine"}
        assert len(list((tmp_path / "data/raw/mine").rglob("*.avi"))) == 18
    # The server is gone: what was noted stays, and so does the data set.
    project.repro("--single-item", "--force", "upstream@mine")
    assert project.repro("download@mine") == set()


def test_a_suffix_in_capitals_is_a_video_too(tmp_path):
    (tmp_path / "v_YoYo_g01_c01.AVI").touch()
    (video,) = ucf101.find(tmp_path)
    assert (video.class_name, video.video_id) == ("YoYo", "YoYo/v_YoYo_g01_c01.avi")
