"""What papers report, to stand beside what was measured here, never among it: other data, other networks."""

import csv
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).parent / "page" / "published.csv"
OTHER_DATA, UNKNOWN = "published, other data", "protocol unknown"


@dataclass(frozen=True)
class Column:
    key: str  # in the file
    title: str
    status: str


COLUMNS = (
    Column("is_ucf101", "IS on UCF101 \N{UPWARDS ARROW}", OTHER_DATA),
    Column("fvd_ucf101", "FVD on UCF101 \N{DOWNWARDS ARROW}", OTHER_DATA),
    Column("fid_golf", "FID on Golf \N{DOWNWARDS ARROW}", UNKNOWN),
    Column("fid_aeroplane", "FID on Aeroplane \N{DOWNWARDS ARROW}", UNKNOWN),
)
CAPTION = (
    "Published scores, not comparable with those above: they were measured on other data by other networks. The "
    "Inception scores are themselves of more than one protocol (9,984 clips in one split, 2,048 in one or in ten), "
    "and no protocol could be found under which FIDs come out near 100,000."
)


def rows() -> list[dict[str, str]]:
    """One a model: "model", the keys of COLUMNS ("" where nothing was published) and "source"."""
    with FILE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
