"""Print the address of the MLflow store, or complete a record.

python -m pipeline.tracking uri                 # for `mlflow ui --backend-store-uri`
python -m pipeline.tracking record laptop       # when the tracker was unreachable during training
"""

import argparse
import sys
from pathlib import Path

from hrvgan.errors import InputError, first_line, one_sentence
from pipeline import params
from pipeline.tracking.client import record_all, uri


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking", description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("uri", help="print the address of the store")
    again = commands.add_parser("record", help="complete the record of a released model")
    again.add_argument("run", help="a name of the section `runs` of params.yaml")
    arguments = parser.parse_args()
    if arguments.command == "uri":
        print(uri())
        return
    with one_sentence():
        complete(arguments.run)
    print(f"{arguments.run}: recorded in MLflow at {uri()}")


def complete(run: str) -> None:
    params.run(run)
    if not (Path("models") / run / "model.safetensors").is_file():
        raise InputError(f"models/{run}: no released model; train it with `dvc repro train@{run}`")
    try:
        record_all(run)
    except Exception as error:
        sys.exit(
            f"error: MLflow at {uri()} does not answer ({first_line(error)}); the same command tries again"
        )


main()
