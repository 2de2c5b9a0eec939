"""Print the address of the MLflow store, or complete a record.

python -m pipeline.tracking uri                 # for `mlflow ui --backend-store-uri`
python -m pipeline.tracking record laptop       # when the tracker was unreachable during training
"""

import argparse
from pathlib import Path

from hrvgan.errors import InputError, one_sentence
from pipeline import params
from pipeline.tracking import errors_as_input_error, record_all, uri


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
    run = arguments.run
    with one_sentence():
        params.run(run)  # An error if it is not active.
        if not (Path("models") / run / "model.safetensors").is_file():
            raise InputError(f"models/{run}: no released model; train it with `dvc repro train@{run}`")
        with errors_as_input_error("the same command tries again"):
            record_all(run)
    print(f"{run}: recorded in MLflow at {uri()}")


main()
