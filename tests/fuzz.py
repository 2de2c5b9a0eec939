"""Real video files, damaged in every way that chance finds, through the whole of extraction.

    python -m tests.fuzz --count 2000 --seed 0 [--seeds folder of real files]

Half of the files are extracted as they are by one process, half resampled by two.
Every file must be accounted for: a clip, or a line that says why not. No crash, no hang, no process left behind.
"""

import argparse
import collections
import shutil
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image

from hrvgan.clipstore.clips import Clips
from hrvgan.datasets import folder
from hrvgan.extraction.extract import extract
from hrvgan.extraction.manifest import read_video_rows
from hrvgan.extraction.videos import write_videos_csv
from hrvgan.video.readers import PICTURE_SUFFIXES
from tests import processes

SOURCE = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=12:duration=1.5"]
SOUND = ["-f", "lavfi", "-i", "sine=duration=1.5"]
FORMATS = {
    "xvid.avi": ["-c:v", "mpeg4", "-vtag", "xvid", "-bf", "2", "-c:a", "mp3"],
    "mjpeg.avi": ["-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-an"],
    "h264.mp4": ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "9"],
    "hevc.mkv": ["-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=none", "-an"],
    "vp9.webm": ["-c:v", "libvpx-vp9", "-cpu-used", "8", "-c:a", "libopus"],
    "prores.mov": ["-c:v", "prores_ks", "-an"],
}


def real_files(root: Path, seeds: Path | None = None) -> list[Path]:
    """A small real file of each kind that is read, strips among them; and those below the folder `seeds`."""
    program = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error"]
    for name, options in FORMATS.items():
        processes.run([*program, *SOURCE, *SOUND, *options, root / name])
    strip = np.random.default_rng(0).integers(256, size=(16, 16 * 12, 3), dtype=np.uint8)
    Image.fromarray(strip).save(root / "strip.png")
    Image.fromarray(strip).save(root / "strip.jpg")
    for number, path in enumerate(sorted(seeds.rglob("*")) if seeds else ()):
        if path.suffix in folder.SUFFIXES:
            shutil.copyfile(path, root / f"seed{number:04d}{path.suffix}")
    return sorted(root.iterdir())


def mutate(data: bytes, other: bytes, draw: np.random.Generator) -> bytes:
    """One of eight kinds of damage: bits, bytes, numbers, a cut, a hole, a gap, a repetition, another file's middle."""
    out, size = bytearray(data), len(data)
    kind = draw.integers(8)
    # Half of the damage goes to the first kilobyte, where headers lie.
    at = int(draw.integers(min(size, 1024) if draw.random() < 0.5 else size))
    end = min(size, at + int(draw.integers(1, 2000)))
    if kind == 0:
        for place in draw.integers(size, size=draw.integers(1, 50)):
            out[place] ^= 1 << draw.integers(8)
    elif kind == 1:
        out[at:end] = draw.bytes(end - at)
    elif kind == 2:
        number = [0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000][draw.integers(5)]
        out[at : at + 4] = number.to_bytes(4, "little")
    elif kind == 3:
        del out[at:]
    elif kind == 4:
        out[at:end] = bytes(end - at)
    elif kind == 5:
        del out[at:end]
    elif kind == 6:
        out[at:at] = out[at:end] * int(draw.integers(1, 4))
    else:
        out[at:end] = other[at % len(other) :][: end - at]
    return bytes(out)


def fuzz(
    root: Path, count: int, seed: int = 0, *, seeds: Path | None = None, workers: int = 2, fps: float = 0
) -> collections.Counter:
    """Extract `count` damaged files below the empty folder `root`, at `fps`; returns how many came to what.

    Raises AssertionError if one is unaccounted for, or a process is left.
    """
    (root / "real").mkdir()
    (root / "videos").mkdir()
    contents = {path.name: path.read_bytes() for path in real_files(root / "real", seeds)}
    draw, kinds = np.random.default_rng(seed), collections.defaultdict(list)
    for name in contents:  # Of many strips no more are drawn than of one video.
        kinds[Path(name).suffix if name.startswith("seed") else name].append(name)
    for number in range(count):
        name, other = (_any(draw, _any(draw, list(kinds.values()))) for _ in range(2))
        damaged = mutate(contents[name], contents[other], draw)
        _place(root, f"{number:05d}-{name}", damaged)
    for name, content in contents.items():  # The sound ones must come through between them.
        _place(root, f"sound-{name}", content)
    write_videos_csv(root / "videos.csv", folder.fetch(root, path=root / "videos"))
    options = {"size": 16, "num_frames": 4, "max_bad_fraction": 1.0, "time_limit": 10, "workers": workers, "fps": fps}
    summary = extract(root, root / "clips", **options)
    rows = read_video_rows(root / "clips")
    files = {path.relative_to(root / "videos").as_posix() for path in (root / "videos").glob("*/*")}
    assert {row["video_id"] for row in rows} == files, "not every file is accounted for"
    assert all((row["failure"] and row["cause"]) or row["clips"] for row in rows), "a file is lost without a cause"
    assert all(row["clips"] for row in rows if "/sound-" in row["video_id"] and row["failure"] != "duplicate")
    clips = Clips(root / "clips")
    assert len(clips) == summary["clips"] == sum(row["clips"] for row in rows)
    assert clips.read(range(len(clips))).shape == (len(clips), 4, 16, 16, 3)
    assert not processes.children(), "processes are left behind"
    return collections.Counter(row["failure"] or "good" for row in rows)


def _place(root: Path, name: str, content: bytes) -> None:
    """Write a file among its like: pictures beside videos would be by-products."""
    kind = "strips" if Path(name).suffix in PICTURE_SUFFIXES else "videos"
    (root / "videos" / kind).mkdir(parents=True, exist_ok=True)
    (root / "videos" / kind / name).write_bytes(content)


def _any(draw: np.random.Generator, things: list):
    return things[draw.integers(len(things))]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=Path, help="a folder of real videos and strips, damaged as well")
    arguments = parser.parse_args()
    for half, (workers, fps) in enumerate(((1, 0), (2, 7.5))):
        start, count = time.monotonic(), (arguments.count + half) // 2
        with tempfile.TemporaryDirectory() as root:
            how = {"seeds": arguments.seeds, "workers": workers, "fps": fps}
            found = fuzz(Path(root), count, arguments.seed + half, **how)
        took = time.monotonic() - start
        said = ", ".join(f"{count} {name}" for name, count in found.most_common())
        print(f"workers {workers}, fps {fps}: {found.total()} files in {took:.0f} s: {said}", flush=True)
    print("every one accounted for, no process left")


if __name__ == "__main__":
    main()
