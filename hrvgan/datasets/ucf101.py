"""UCF101: 13,320 videos of 101 human actions (Soomro, Zamir, Shah 2012, arXiv:1212.0402), with official splits.

The videos come from a mirror as a zip, or as the authors' rar, with the same layout and names. The official lists
assign train and test, stored as `Video.split`; there is no val list, so extraction takes val from train by group
(`splits.assign_splits`).
"""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.extraction.videos import Video
from hrvgan.fetching.archives import sevenzip, unpack
from hrvgan.fetching.download import downloads
from hrvgan.fetching.download import fetch as fetch_file
from hrvgan.fetching.transfer import Unavailable
from hrvgan.files import PublishedFile

HOME = "https://www.crcv.ucf.edu/data/UCF101"
RESEARCH = "for research; videos belong to their makers"
ZIP = PublishedFile(
    "UCF101_videos.zip",
    ("https://storage.googleapis.com/thumos14_files/UCF101_videos.zip",),
    6_960_400_115,
    "dabf56f573cd19c79e096563529fec8126a2a34e18e10c72eb621dd687532b0d",
    RESEARCH,
)
RAR = PublishedFile(
    "UCF101.rar",
    (f"{HOME}/UCF101.rar",),
    sha256="ca8dfadb4c891cb11316f94d52b6b0ac2a11994e67a0cae227180cd160bd8e55",  # as torchvision pins it
    licence=RESEARCH,
)
LISTS = PublishedFile(
    "UCF101TrainTestSplits-RecognitionTask.zip",
    (f"{HOME}/UCF101TrainTestSplits-RecognitionTask.zip",),
    113_943,
    "5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27",
    RESEARCH,
)
MAX_BYTES = 16_000_000_000  # of all videos; they are 7 GB
NAME = re.compile(r"v_(?P<class_name>\w+)_(?P<group>g\d{2})_(?P<clip>c\d{2})(?i:\.avi)")
# The archives and the lists spell this class differently.
SPELLING = {"handstandpushups": "HandstandPushups"}


def fetch(out: Path, *, split: int = 1, path: str | Path = "") -> list[Video]:
    """Download and unpack UCF101, and return its videos, train and test by official list `split`, 1 to 3.

    With `split` 0 extraction assigns all splits by group. `path` is an existing copy, complete or partial, with
    UCF101's file names: a folder, read in place, or the path or address of a zip, tar or rar. Raises InputError if the
    files cannot be obtained or are incomplete.
    """
    if split not in range(4):
        raise InputError(f"ucf101: split {split}; need 1 to 3, or 0 for none")
    if path and Path(path).is_dir():
        videos = find(Path(path))
    else:
        unpack(_archive(path), out, max_bytes=MAX_BYTES, target_path=target_path)
        videos = find(out)
    if not split:
        return videos
    return assign(videos, read_lists(fetch_file(LISTS, downloads()), split), whole=not path)


def upstream(path: str = "", **_) -> list[PublishedFile]:
    """Published files whose change would be new data."""
    return [own(path)] if is_address(path) else [] if path else [ZIP, LISTS]


def _archive(path: str | Path) -> Path:
    if is_address(path):
        return fetch_file(own(str(path)), downloads(), refresh=True)
    if path and not Path(path).is_file():
        raise InputError(f"{path}: no such file or folder; correct the option `path`, or leave it empty")
    return Path(path) if path else first_of((ZIP, RAR), downloads())


def is_address(text: str | Path) -> bool:
    return str(text).startswith(("http://", "https://"))


def own(url: str) -> PublishedFile:
    return PublishedFile(url.partition("?")[0].rpartition("/")[2] or "archive", (url,))


def first_of(files: Sequence[PublishedFile], folder: Path) -> Path:
    """The first of `files` that is in `folder`, otherwise the first that can be downloaded to it."""
    at_hand = [file for file in files if (folder / file.name).exists()]
    causes = []
    for file in at_hand[:1] or files:
        try:
            if file.name.endswith(".rar"):
                sevenzip()  # raises before gigabytes are downloaded in vain
            return fetch_file(file, folder)
        except Unavailable as error:
            causes.append(str(error))
    raise Unavailable("; ".join(causes))


def target_path(name: str) -> str | None:
    """Target path of a member of the archive, `<Class>/v_<Class>_gNN_cNN.avi`, whatever folder it was in."""
    match = NAME.fullmatch(name.rpartition("/")[2])
    if not match:
        return None
    class_name = SPELLING.get(match["class_name"].lower(), match["class_name"])
    return f"{class_name}/v_{class_name}_{match['group']}_{match['clip']}.avi"


def find(root: Path) -> list[Video]:
    """Videos anywhere under `root`, named as by `target_path`, without splits. Raises InputError if there are none."""
    files = (file for file in root.rglob("*") if file.suffix.lower() == ".avi")
    named = ((file, target_path(file.name)) for file in sorted(files))
    videos = [
        Video(file, name.partition("/")[0], NAME.search(name)["group"], video_id=name) for file, name in named if name
    ]
    if not videos:
        raise InputError(f"{root}: holds no video with a name like v_Archery_g01_c01.avi; use another archive")
    return videos


def read_lists(archive: Path, split: int) -> dict[str, str]:
    """Name of each video (as by `target_path`) -> train or test, by the official lists of `split`.

    Raises InputError if a list is missing, or its label of a video contradicts the video's name.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpack(archive, Path(folder), max_bytes=10_000_000, target_path=lambda name: name.rpartition("/")[2])
        lines = {path.name: path.read_text("utf-8").strip().splitlines() for path in Path(folder).glob("*.txt")}
    try:
        # A line is "1 ApplyEyeMakeup" in classInd, "<path> 1" in a train list, "<path>" in a test list.
        classes = dict(line.split() for line in lines["classInd.txt"])
        train = dict(line.split() for line in lines[f"trainlist{split:02d}.txt"])
        test = lines[f"testlist{split:02d}.txt"]
        labels = {name: (label, classes[label]) for name, label in train.items()}
    except (KeyError, ValueError) as error:
        raise InputError(f"{archive}: not the lists of UCF101 ({error!r}); fetch it again") from error
    for name, (label, class_name) in labels.items():
        if class_name.lower() != _video_id(name, archive).partition("/")[0].lower():
            raise InputError(f"{archive}: {name} has label {label}, {class_name}; fetch it again")
    lists = ("train", train), ("test", test)
    return {_video_id(name, archive): split_name for split_name, names in lists for name in names}


def _video_id(name: str, archive: Path) -> str:
    if not (path := target_path(name.strip())):
        raise InputError(f"{archive}: lists {name!r}, not a video of UCF101; fetch it again")
    return path


def assign(videos: list[Video], splits: dict[str, str], whole: bool) -> list[Video]:
    """Set the split of each video. Raises InputError for a video on no list and, if the data set should be `whole`,
    for a missing video."""
    present = {video.video_id for video in videos}
    for problem, names in (("on no list", present - splits.keys()), ("missing", splits.keys() - present)):
        if names and (whole or problem == "on no list"):
            count = f"{len(names)} videos are {problem}, {min(names)} is one"
            raise InputError(f"ucf101: {count}; give another archive or folder")
    return [replace(video, split=splits[video.video_id]) for video in videos]
