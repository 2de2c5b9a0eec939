"""Show the recorded runs in MLflow's UI, or complete a record.

python -m pipeline.tracking ui                  # what `make ui` does
python -m pipeline.tracking record laptop       # when the tracker was unreachable during training
"""

import argparse
from pathlib import Path

from hrvgan.errors import InputError, one_sentence
from pipeline import params
from pipeline.tracking import errors_as_input_error, record_all, ui, uri


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.tracking", description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("ui", help="serve the UI until Ctrl-C, and open it on the runs")
    show.add_argument("--port", type=int, default=5000, help="of the server (default %(default)s)")
    again = commands.add_parser("record", help="complete the record of a released model")
    again.add_argument("run", help="a name of the section `runs` of params.yaml")
    arguments = parser.parse_args()
    if arguments.command == "ui":
        with one_sentence():
            ui.show(arguments.port)
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
