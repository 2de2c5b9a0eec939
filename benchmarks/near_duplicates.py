"""Near-duplicates of real videos: how many are found, and how many different videos are taken for them.

    python -m benchmarks.near_duplicates FOLDER ... [--num 40] [--every 1]

Of at most `num` videos of each folder: encoded anew, mirrored, at half the size, without the first or the last second.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from hrvgan.datasets import folder
from hrvgan.extraction.cut import ClipSpec, Record, cut_video
from hrvgan.extraction.near_duplicates import find_near_duplicates
from hrvgan.video.io import encode, read_frames

SPEC = ClipSpec(
    size=32, num_frames=8, frame_step=1, clips_per_video=2, crop=True, min_motion=0, fps=0, scene_cut=0,
    enlarge=True,
)  # fmt: skip
X264 = {"vcodec": "libx264", "pix_fmt": "yuv420p", "preset": "veryfast"}
COPIES = {
    "encoded anew": (lambda frames, rate: frames, {**X264, "crf": 28}),
    "mirrored": (lambda frames, rate: frames[:, :, ::-1], {"vcodec": "mpeg4", "q:v": 5, "pix_fmt": "yuv420p"}),
    "at half the size": (lambda frames, rate: frames, {**X264, "crf": 20, "vf": "scale=iw/2:ih/2"}),
    "without the first second": (lambda frames, rate: frames[rate:], {**X264, "crf": 23}),
    "without the last second": (lambda frames, rate: frames[:-rate], {**X264, "crf": 23}),
}


def record_of(path: Path) -> Record:
    return cut_video(path, SPEC, lambda number, clip: None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--num", type=int, default=40)
    parser.add_argument(
        "--every", type=int, default=1, help="2 for weizmann, where every other video is a mirror image"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        records, kinds = [], []  # kind: number of the original, how it was changed
        videos = [v for source in args.folders for v in folder.find(source)[0][:: args.every][: args.num]]
        for original, video in enumerate(videos):
            frames, fps = read_frames(video.path)
            frames = frames[:, : frames.shape[1] // 4 * 4, : frames.shape[2] // 4 * 4]
            records.append(record_of(video.path))
            kinds.append((original, "original"))
            for kind, (change, options) in COPIES.items():
                copy = np.ascontiguousarray(change(frames, round(fps)))
                if len(copy) < SPEC.span:
                    continue
                encode(path := Path(temporary) / "copy.mp4", copy, fps=fps, **options)
                records.append(record_of(path))
                kinds.append((original, kind))
        report(find_near_duplicates([r.num_frames for r in records], [r.fingerprint for r in records]), kinds)


def report(pairs: list[tuple[int, int]], kinds: list[tuple[int, str]]) -> None:
    wrong = [(one, other) for one, other in pairs if kinds[one][0] != kinds[other][0]]
    found = {number for pair in pairs for number in pair}
    print(f"{len(set(number for number, _ in kinds))} videos; pairs of different ones: {len(wrong)}")
    for one, other in wrong:
        print(f"  {kinds[one]} and {kinds[other]}")
    for kind in COPIES:
        numbers = [number for number, (_, name) in enumerate(kinds) if name == kind]
        print(f"  {kind}: {sum(number in found for number in numbers)} of {len(numbers)} found")


if __name__ == "__main__":
    main()
