"""Speed of decoding, resizing and extraction, relative to ffmpeg's own program decoding alone.

    python -m benchmarks.decode_speed [folder of videos]

Without a folder it generates videos: 170 frames of 320x240 px, xvid with B-frames, as in UCF101. Medians of 5 in one
run; ratio 1.2 means 1.2 times as fast as `ffmpeg -f null`. That program uses all cores for one video; here a process
has one thread, and extraction one process per core.
"""

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import imageio_ffmpeg

from hrvgan.datasets import folder
from hrvgan.extraction.extract import extract
from hrvgan.extraction.videos import write_videos_csv
from hrvgan.parallel import ordered_map
from hrvgan.video.io import read_frames

PROGRAM, ROUNDS, COPIES = imageio_ffmpeg.get_ffmpeg_exe(), 5, 40
SOURCE = "testsrc2=size=320x240:rate=25:duration=6.8,noise=alls=8:allf=t"  # noise: real cameras have it
QUIET = {"check": True, "stdin": subprocess.DEVNULL, "capture_output": True}


def make_video(path: Path) -> None:
    options = ["-c:v", "mpeg4", "-vtag", "xvid", "-bf", "2", "-q:v", "4"]
    subprocess.run([PROGRAM, "-f", "lavfi", "-i", SOURCE, *options, path], **QUIET)


def by_program(paths: list[Path], threads: int = 0) -> None:
    """Decode with ffmpeg's program; 0 threads are one per core, its default."""
    for path in paths:
        subprocess.run([PROGRAM, "-threads", str(threads), "-i", path, "-f", "null", "-"], **QUIET)


def decode_all(size: int, path: Path) -> int:
    """Decode all frames of a video at `size`; return their number."""
    return len(read_frames(path, size)[0])


def by_hrvgan(paths: list[Path], size: int, workers: int = 1) -> None:
    for _ in ordered_map(partial(decode_all, size), paths, workers=workers, desc=f"{size} px", unit="video"):
        pass


def seconds(work: Callable[[], None]) -> float:
    """Median over ROUNDS, after one that warms the cache."""
    durations = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        work()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations[1:])


def extraction(paths: list[Path], root: Path, workers: int) -> float:
    """Seconds of a whole extraction, two clips of 16 frames at 64 px a video."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    videos = folder.fetch(root, path=paths[0].parent)
    write_videos_csv(root / "videos.csv", videos)
    return seconds(partial(_extract, root, workers))


def _extract(root: Path, workers: int) -> None:
    shutil.rmtree(root / "clips", ignore_errors=True)
    extract(root, root / "clips", workers=workers)


def main(videos: Path, root: Path) -> None:
    paths = sorted(path for path in videos.iterdir() if path.is_file())
    print(f"{len(paths)} videos, seconds are medians of {ROUNDS}")
    floor, alone = (seconds(partial(by_program, paths, threads)) for threads in (0, 1))
    print(f"ffmpeg -f null                    {floor:6.2f} s")
    print(f"ffmpeg -threads 1 -f null         {alone:6.2f} s")
    for size in (64, 256):
        ours = seconds(partial(by_hrvgan, paths, size))
        ratios = f"{floor / ours:.2f} of its speed, {alone / ours:.2f} of that on one thread"
        print(f"decode and resize to {size:3d} px      {ours:6.2f} s   {ratios}")
    one, two = (seconds(partial(by_hrvgan, paths * 4, 64, workers)) for workers in (1, 2))
    print(f"two processes against one         {two:6.2f} s   {one / two:.2f} times as fast")
    whole = extraction(paths, root, workers=1)
    print(f"extraction, 2 clips a video       {whole:6.2f} s   {floor / whole:.2f} of its speed")
    again = seconds(lambda: extract(root, root / "clips", workers=1))
    print(f"the same when it is done already  {again:6.2f} s   {whole / again:.0f} times as fast, all clips checked")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode_speed", description=__doc__.split("\n\n")[0])
    parser.add_argument("videos", type=Path, nargs="?", help="a folder of videos")
    videos = parser.parse_args().videos
    with tempfile.TemporaryDirectory() as temporary:
        if not videos:
            videos = Path(temporary) / "videos"
            videos.mkdir()
            make_video(videos / "000.avi")
            for number in range(1, COPIES):  # Same frames in different files: exact copies would be decoded once.
                title = ["-c", "copy", "-metadata", f"title={number:03d}"]
                subprocess.run([PROGRAM, "-i", videos / "000.avi", *title, videos / f"{number:03d}.avi"], **QUIET)
        main(videos, Path(temporary) / "store")
