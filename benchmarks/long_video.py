"""Extraction of ten minutes and of an hour of 1080p video: time grows with the length, memory does not.

python -m benchmarks.long_video [--minutes 10 60]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg

PROGRAM, QUIET = (
    imageio_ffmpeg.get_ffmpeg_exe(),
    {"check": True, "stdin": subprocess.DEVNULL, "capture_output": True},
)
SOURCE = "testsrc2=size=1920x1080:rate=25:duration=30,noise=alls=8:allf=t"
# Extracts in a process of its own and prints the most kB that it held.
EXTRACT = """
import sys
from pathlib import Path
from hrvgan.datasets import folder
from hrvgan.datasets.videos import write_videos_csv
from hrvgan.extraction.extract import extract
videos, root = map(Path, sys.argv[1:])
root.mkdir()
write_videos_csv(root / "videos.csv", folder.fetch(root, path=str(videos)))
extract(root, root / "clips", size=64, num_frames=16, clips_per_video=64, workers=1)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def make_video(path: Path, minutes: int) -> None:
    """Thirty seconds of noisy pictures at 8 Mbit/s, over and over."""
    part, listed = path.parents[2] / "part.mp4", path.parents[2] / "parts.txt"
    if not part.exists():
        options = ["-c:v", "libx264", "-preset", "ultrafast", "-b:v", "8M"]
        subprocess.run([PROGRAM, "-f", "lavfi", "-i", SOURCE, *options, part], **QUIET)
    listed.write_text(f"file '{part}'\n" * (2 * minutes))
    subprocess.run([PROGRAM, "-f", "concat", "-safe", "0", "-i", listed, "-c", "copy", path], **QUIET)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=int, nargs="+", default=[10, 60])
    with tempfile.TemporaryDirectory() as temporary:
        for minutes in parser.parse_args().minutes:
            videos = Path(temporary) / f"{minutes}" / "Long"
            videos.mkdir(parents=True)
            make_video(videos / "v_Long_g01_c01.mp4", minutes)
            start, root = time.perf_counter(), Path(temporary) / f"{minutes}-store"
            done = subprocess.run(
                [sys.executable, "-c", EXTRACT, videos.parent, root],
                capture_output=True,
                text=True,
                check=True,
            )
            took, gib = time.perf_counter() - start, int(done.stdout.split()[-1]) / 2**20
            print(
                f"{minutes:>3} min of 1080p: {took:6.1f} s, {took / minutes:.2f} s a minute, {gib:.2f} GiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
