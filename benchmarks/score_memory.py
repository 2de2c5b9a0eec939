"""Time and memory of `hrvgan score` on large videos: memory grows neither with their number nor with their size.

    python -m benchmarks.score_memory [--videos 40 400] [--size 1920x1080]

As many videos of one second on either side, scored by the reference network of a few shapes; memory is that of all
processes together, what they share counted once (PSS).
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg
import psutil

from hrvgan.clipstore.clips import Clips
from hrvgan.datasets import shapes
from hrvgan.extraction.extract import extract
from hrvgan.extraction.videos import write_videos_csv
from hrvgan.features.reference import build_reference

DIFFERENT = 10  # The others are links to these.


def make_reference(folder: Path) -> Path:
    raw = folder / "raw"
    write_videos_csv(raw / "videos.csv", shapes.fetch(raw, num_groups=6, videos_per_group=1))
    extract(raw, folder / "clips", size=32, num_frames=12, workers=1)
    build_reference(Clips(folder / "clips"), folder / "reference", steps=20)
    return folder / "reference"


def make_videos(folder: Path, count: int, size: str) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        path = folder / f"{number:04d}.mp4"
        if number >= DIFFERENT:
            path.hardlink_to(folder / f"{number % DIFFERENT:04d}.mp4")
            continue
        source = f"testsrc2=size={size}:rate=25:duration=1,hue=h={36 * number},noise=alls=8:allf=t"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-f", "lavfi", "-i", source, "-preset", "ultrafast", path]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return folder


def watch(command: list) -> tuple[float, float, float]:
    """Seconds that a command takes, those of CPUs, and the most GB that it and its children hold at a time."""
    start, most, before = time.perf_counter(), 0, os.times()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        tree = psutil.Process(running.pid)
        while running.poll() is None:
            most = max(most, held(tree))
            time.sleep(0.2)
    if running.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: exit code {running.returncode}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, cpu, most / 1e9


def held(tree: psutil.Process) -> int:
    total = 0
    for process in (tree, *tree.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # It has ended.
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--videos", type=int, nargs="+", default=[40, 400])
    parser.add_argument("--size", default="1920x1080")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        reference = make_reference(folder)
        for count in args.videos:
            real, fake = (make_videos(folder / f"{side}-{count}", count, args.size) for side in ("real", "fake"))
            command = [sys.executable, "-m", "hrvgan.cli", "score", "--real", real, "--fake", fake,
                       "--reference", reference, "--protocol", "refnet_fd", "--cache", folder / f"{count}"]  # fmt: skip
            seconds, cpu, gigabytes = watch(command)
            times = f"{seconds:6.1f} s, {cpu:6.1f} s of CPUs"
            print(f"{count:>4} and {count} videos of {args.size}: {times}, {gigabytes:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
