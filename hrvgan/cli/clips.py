"""Commands `hrvgan extract` and `clips`: make a clip store; show, check, export or import one."""

import tempfile
from pathlib import Path

from hrvgan.config import check_values, yaml_dict
from hrvgan.errors import InputError


def add_extract(commands) -> None:
    parser = commands.add_parser(
        "extract", help="cut a folder of videos into a clip store", description=extract.__doc__
    )
    parser.add_argument("folder", type=Path, help="videos; their folders are classes, or splits and classes")
    parser.add_argument(
        "store", type=Path, help="clip store to write; the same command again continues or updates it"
    )
    parser.add_argument(
        "--extract",
        default={},
        type=yaml_dict,
        help="arguments of extraction, e.g. '{size: 64, num_frames: 16}'",
    )
    parser.set_defaults(command=extract)


def extract(folder: Path, store: Path, extract: dict) -> None:
    """Cut the videos in FOLDER, which stays as it is, into clips and write the clip store STORE. The arguments are
    those of section `extract` of params.yaml; without them clips are 16 frames of 64 px."""
    from hrvgan.clipstore.clips import INDEX
    from hrvgan.datasets.folder import fetch
    from hrvgan.extraction import extract as extraction
    from hrvgan.extraction.videos import write_videos_csv

    for key in extract:
        if key not in (known := extraction.extract.__kwdefaults__):
            raise InputError(f"--extract: no argument {key!r}; known: {', '.join(known)}")
    check_values("--extract: ", extraction.extract, extract)
    if store.exists() and not (store / INDEX).exists() and (store.is_file() or any(store.iterdir())):
        raise InputError(f"{store}: is there already and no clip store; name a new folder, or remove it")
    with tempfile.TemporaryDirectory() as raw:  # The list of videos; it is made anew each time.
        write_videos_csv(Path(raw) / "videos.csv", fetch(Path(raw), folder))
        counts = extraction.extract(raw, store, **extract)
    print(f"{store}: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count))


def add_clips(commands) -> None:
    parser = commands.add_parser(
        "clips", help="look at a clip store, check it, or convert it", description=clips.__doc__
    )
    parser.add_argument("how", choices=["show", "check", "export", "import"])
    parser.add_argument("store", type=Path, help="a clip store, such as data/clips/shapes")
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        help="show: a picture to write, <store>.png by default; export, import: the .npz",
    )
    parser.set_defaults(command=clips)


def clips(how: str, store: Path, file: Path | None) -> None:
    """Print a summary of STORE and write a contact sheet to FILE; or verify every clip; or export STORE to, or import
    it from, an npz FILE."""
    from hrvgan.clipstore.clips import Clips
    from hrvgan.clipstore.contact_sheet import contact_sheet, summary
    from hrvgan.clipstore.writer import export_npz, import_npz

    if how in ("export", "import") and not file:
        raise InputError(f"{how}: names no file; give the .npz after {store}")
    if how == "import":
        import_npz(file, store)
        print(store)
        return
    opened = Clips(store)
    if how == "check":
        if damaged := opened.damaged():
            raise InputError(
                f"{store}: {len(damaged)} damaged clips, {damaged[0]} first; extract the data set again"
            )
        print(f"{store}: {len(opened)} clips are as they were written")
    elif how == "export":
        export_npz(opened, file)
        print(file)
    else:
        file = file or Path(f"{store.name}.png")
        print(summary(opened))
        contact_sheet(opened, file)
        print(file)
