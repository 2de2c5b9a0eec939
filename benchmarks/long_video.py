"""Extraction time and memory of long 1080p videos: time grows with the length, memory does not.

    python -m benchmarks.long_video [--minutes 10 60]

64 clips of 16 frames at 64 px, and 128 clips of 32 frames at 256 px, which together would be 0.8 GB.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg

PROGRAM = imageio_ffmpeg.get_ffmpeg_exe()
QUIET = {"check": True, "stdin": subprocess.DEVNULL, "capture_output": True}
SOURCE = "testsrc2=size=1920x1080:rate=25:duration=30,noise=alls=8:allf=t"
# Runs in a separate process and prints its peak memory in kB.
EXTRACT = """
import sys
from pathlib import Path
from hrvgan.datasets import folder
from hrvgan.extraction.videos import write_videos_csv
from hrvgan.extraction.extract import extract
videos, root = map(Path, sys.argv[1:3])
size, num_frames, clips = map(int, sys.argv[3:])
root.mkdir()
write_videos_csv(root / "videos.csv", folder.fetch(root, path=str(videos)))
extract(root, root / "clips", size=size, num_frames=num_frames, clips_per_video=clips, workers=1)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def make_video(path: Path, minutes: int) -> None:
    """Write thirty seconds of noisy frames at 8 Mbit/s, repeated."""
    part, listed = path.parents[2] / "part.mp4", path.parents[2] / "parts.txt"
    if not part.exists():
        options = ["-c:v", "libx264", "-preset", "ultrafast", "-b:v", "8M"]
        subprocess.run([PROGRAM, "-f", "lavfi", "-i", SOURCE, *options, part], **QUIET)
    listed.write_text(f"file '{part}'\n" * (2 * minutes))
    subprocess.run([PROGRAM, "-f", "concat", "-safe", "0", "-i", listed, "-c", "copy", path], **QUIET)


def measure(videos: Path, minutes: int, *sizes: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-c", EXTRACT, videos, Path(root) / "store", *map(str, sizes)]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        took, gib = time.perf_counter() - start, int(done.stdout.split()[-1]) / 2**20
    each = f"{took:6.1f} s, {took / minutes:.2f} s a minute, {gib:.2f} GiB"
    print(f"{minutes:>3} min of 1080p at {sizes[0]:>3} px: {each}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=int, nargs="+", default=[10, 60])
    with tempfile.TemporaryDirectory() as temporary:
        for minutes in parser.parse_args().minutes:
            videos = Path(temporary) / f"{minutes}" / "Long"
            videos.mkdir(parents=True)
            make_video(videos / "v_Long_g01_c01.mp4", minutes)
            for sizes in ((64, 16, 64), (256, 32, 128)):
                measure(videos.parent, minutes, *sizes)


if __name__ == "__main__":
    main()
