"""Manifest of an extraction: outcome of every video, counts, and what a later extraction can reuse."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hrvgan.clipstore.clips import SAME_RATE, SPLITS, common_rate
from hrvgan.errors import InputError, first_few
from hrvgan.extraction.cut import Record
from hrvgan.extraction.near_duplicates import hardly_changes
from hrvgan.extraction.videos import Video

VIDEOS, MANIFEST = "videos.parquet", "manifest.json"
FAILURES = ("unreadable", "small", "short", "static", "duplicate", "twin")
MOTION_EDGES = (0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 255)  # levels
COLUMNS = {
    "video_id": pa.string(), "source_md5": pa.string(), "class_name": pa.string(), "split": pa.string(),
    "group": pa.string(), "num_frames": pa.int32(), "fps": pa.float64(), "clips": pa.int32(),
    "failure": pa.string(), "cause": pa.string(), "warning": pa.string(), "lasting": pa.bool_(),
    "fingerprint": pa.binary(), "stills": pa.list_(pa.float64()),
}  # fmt: skip
SUMMARY = ("video_id", "class_name", "failure", "cause")  # columns that a person asks about first


class Manifest:
    """Every listed video with its record, and the reason if none of its clips are in the store."""

    def __init__(self, videos: Sequence[Video], records: Sequence[Record], left_out: dict[int, tuple[str, str]]):
        """`left_out`: index of a video -> failure and cause that are not in its record. `notes` may be added to."""
        self.notes, self.rows = [], []
        for number, (video, record) in enumerate(zip(videos, records, strict=True)):
            failure, cause = left_out.get(number, (record.failure, record.cause))
            self.rows.append(asdict(record) | {
                "video_id": video.video_id, "source_md5": video.md5, "class_name": video.class_name,
                "split": "" if failure else video.split, "group": video.group,
                "clips": 0 if failure else len(record.clips), "failure": failure, "cause": cause,
            })  # fmt: skip
        self.warnings = [f"{row['video_id']}: {row['warning']}" for row in self.rows if row["warning"]]
        self.motions = [motion for record in records for motion in record.stills]
        self.motions += [clip["motion"] for record in records for clip in record.clips]

    def counts(self) -> dict[str, int]:
        """Number of videos, of clips in total and in each split, and of videos dropped for each reason."""
        clips, failures = Counter(), Counter(row["failure"] for row in self.rows)
        for row in self.rows:
            clips[row["split"]] += row["clips"]
        return {
            "videos": len(self.rows), "clips": clips.total(), **{name: clips[name] for name in SPLITS},
            "dropped": len(self.rows) - failures[""], **{name: failures[name] for name in FAILURES},
        }  # fmt: skip

    def check(self, most: int) -> None:
        """Warn of classes without clips. Raises InputError, with the causes, if more than `most` videos are in such
        classes, or there are no clips at all."""
        clips, empty = Counter(), {}
        for row in self.rows:
            clips[row["class_name"]] += row["clips"]
        for name in sorted(name for name, count in clips.items() if not count):
            causes = [f"{row['video_id']}: {row['cause']}" for row in self.rows if row["class_name"] == name]
            empty[f"class {name!r} has no clips" if name else "no clips"] = causes
        lost = sum(map(len, empty.values()))
        for title, causes in empty.items():
            if lost > most or not clips.total():
                raise InputError(f"{title}: {first_few(causes)}")
            self._warn(f"{title} and is left out: {first_few(causes)}")

    def check_rates(self) -> None:
        """Warn if the frame rates of the videos in the store differ by more than SAME_RATE."""
        rates = np.array([row["fps"] for row in self.rows if row["clips"]])
        common = common_rate(rates)
        others = rates[abs(rates - common) > SAME_RATE * common]
        if len(others):
            span = f"{others.min():.4g} to {others.max():.4g}" if np.ptp(others) else f"{others[0]:.4g}"
            self._warn(
                f"{len(rates) - len(others)} videos have about {common:.4g} frames a second, {len(others)} have {span};"
                f" all count as {common:.4g}: set extract.fps, for example to {common:.4g}, to resample them"
            )

    def check_near_duplicates(self, pairs: Sequence[tuple[Video, Video]]) -> None:
        """Note how many videos are near-duplicates or hardly change; warn if some of one group differ in class."""
        if pairs:
            count, example = len({video.video_id for pair in pairs for video in pair}), _names(pairs[0])
            self.notes.append(f"{count} videos show the same as others and share their groups, as {example}")
        if still := [row["video_id"] for row in self.rows if row["clips"] and hardly_changes(row["fingerprint"])]:
            self.notes.append(
                f"{len(still)} videos hardly change, as {still[0]}: among them only equal files are known as copies"
            )
        if apart := [pair for pair in pairs if pair[0].class_name != pair[1].class_name]:
            self._warn(f"{len(apart)} pairs show the same in two classes, as {_names(apart[0])}; look at their labels")

    def _warn(self, warning: str) -> None:
        self.warnings.insert(0, warning)
        sys.stderr.write(f"warning: {warning}\n")

    def write(self, folder: Path) -> None:
        """Write videos.parquet, a row per video, and manifest.json, a summary to read."""
        counts = np.histogram(self.motions, MOTION_EDGES)[0].tolist()
        manifest = {
            "counts": self.counts(),
            "dropped": [{key: row[key] for key in SUMMARY} for row in self.rows if row["failure"]],
            "warnings": self.warnings,
            "motion": {"edges": list(MOTION_EDGES), "clips": counts},
        }
        if self.notes:
            manifest["notes"] = self.notes
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        table = pa.Table.from_pylist(self.rows, pa.schema(list(COLUMNS.items())))
        pq.write_table(table, folder / VIDEOS, compression="none", use_dictionary=False)


def _names(pair: tuple[Video, Video]) -> str:
    return " and ".join(video.video_id for video in pair)


def read_video_rows(store: Path) -> list[dict]:
    """Rows of a store's videos.parquet; [] if it cannot be read."""
    try:
        table = pq.read_table(store / VIDEOS)
    except (OSError, pa.ArrowException):
        return []
    return table.to_pylist() if set(table.column_names) == set(COLUMNS) else []


def dropped_table(store: str | Path) -> dict[str, list[str]]:
    """Dropped videos of a store as columns, for a table of the tracker: video_id, class_name, failure, cause."""
    rows = [row for row in read_video_rows(Path(store)) if row["failure"]]
    return {key: [row[key] for row in rows] for key in SUMMARY}
