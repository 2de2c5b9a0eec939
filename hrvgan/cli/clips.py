"""Command `hrvgan clips`: show, check, export or import a clip store."""

from pathlib import Path

from hrvgan.errors import InputError


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
