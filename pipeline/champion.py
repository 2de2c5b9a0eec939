"""Get the best model of a run so far from MLflow's registry, as a released model; or go back to the one before.

python -m pipeline.champion laptop --out champion/laptop
python -m pipeline.champion laptop --version 3 --out champion/laptop-3     # a version, for init_from of a run
python -m pipeline.champion laptop --rollback
"""

import argparse
from pathlib import Path

from hrvgan.errors import one_sentence
from pipeline.stage import read_json
from pipeline.tracking.registry import fetch, roll_back


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.champion", description=__doc__.split("\n\n")[0])
    parser.add_argument("run", help="a name that `runs` of params.yaml has, or had")
    parser.add_argument("--out", type=Path, help="folder to write the released model to: champion/<run>")
    parser.add_argument("--version", default="", help="of the registered model: the champion without")
    parser.add_argument("--rollback", action="store_true", help="make the champion before this one the champion")
    arguments = parser.parse_args()
    if arguments.rollback:
        with one_sentence():
            before, retired = roll_back(arguments.run)
        print(f"{arguments.run}: version {before} is the champion again, and version {retired} no more")
        return
    out = arguments.out or Path("champion") / arguments.run
    with one_sentence():
        version = fetch(arguments.run, out, arguments.version)
        steps = read_json(out / "model.json")["steps"]
    print(f"{out}: version {version} of {arguments.run}, {steps} steps; `hrvgan sample {out} --out clips.mp4`")


if __name__ == "__main__":
    main()
