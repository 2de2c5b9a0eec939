"""`hrvgan weights`: the files of the published networks that scores are named after."""

from hrvgan.errors import InputError


def add_weights(commands) -> None:
    parser = commands.add_parser(
        "weights", help="files of the published networks behind scores", description=weights.__doc__
    )
    parser.add_argument("names", nargs="*", help="files to get; none lists them all")
    parser.set_defaults(command=weights)


def weights(names: list[str]) -> None:
    """Get the files NAMES into data/weights, or list what is known and what is there."""
    from hrvgan.fetching.download import fetch
    from hrvgan.fetching.weights import FOLDER, WEIGHTS

    for name in names:
        if name not in WEIGHTS:
            raise InputError(f"unknown weights {name!r}; known: {', '.join(WEIGHTS)}")
        print(fetch(WEIGHTS[name], FOLDER))
    for file in () if names else WEIGHTS.values():
        here = f"in {FOLDER}" if (FOLDER / file.name).exists() else file.urls[0]
        print(f"{file.name}: {file.network}; {here}")
