"""Weizmann actions as distributed with MoCoGAN: four classes of strips, nine people, read in place.

Gorelick et al. 2007, "Actions as Space-Time Shapes"; Tulyakov et al. 2018. The number of a file gives
the person (number // 8), and every odd file is the mirror image of the even one before it: both are of one person and
therefore in one split.
"""

from pathlib import Path

from hrvgan.datasets import folder
from hrvgan.errors import InputError
from hrvgan.extraction.videos import Video

# By person, fixed so that all scores are on the same test persons: 48 strips train, 8 val, 16 test. Each fold shifts
# the nine persons by three, which gives other test persons.
VAL, TEST = {6}, {7, 8}
STRIPS_PER_PERSON, NUM_PERSONS, SHIFT = 8, 9, 3
HELP = "put MoCoGAN's data/actions there (class folders of numbered .jpg strips) or change the option `path`"


def fetch(out: Path, *, path: str | Path = "data/weizmann", fold: int = 0) -> list[Video]:
    """List the strips under `path`; the test persons of `fold` 0, 1 and 2 are 7 and 8, 4 and 5, 1 and 2.

    Raises InputError if the folder is missing or contains other files.
    """
    if not Path(path).is_dir():
        raise InputError(f"{path}: no such folder; {HELP}; data/README.md says where they come from")
    return [_assign(video, fold) for video in folder.fetch(out, path=path)]


def class_names(path: str | Path = "data/weizmann", fold: int = 0) -> list[str]:
    return folder.class_names(path)


def _assign(video: Video, fold: int) -> Video:
    if not (video.class_name and video.path.stem.isdecimal()):
        raise InputError(f"{video.path}: not a numbered strip in a class folder; {HELP}")
    person = int(video.path.stem) // STRIPS_PER_PERSON
    shifted = (person + SHIFT * fold) % NUM_PERSONS
    split = "test" if shifted in TEST else "val" if shifted in VAL else "train"
    return Video(video.path, video.class_name, f"person{person}", split, video.video_id)
