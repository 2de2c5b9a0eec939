"""Get the best model of a run so far from MLflow's registry, as a released model.

python -m pipeline.champion laptop --out champion/laptop
"""

import argparse
from pathlib import Path

from hrvgan.errors import one_sentence
from pipeline.stage import read_json
from pipeline.tracking.registry import fetch


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.champion", description=__doc__.split("\n\n")[0])
    parser.add_argument("run", help="a name that `runs` of params.yaml has, or had")
    parser.add_argument("--out", type=Path, help="folder to write the released model to: champion/<run>")
    arguments = parser.parse_args()
    out = arguments.out or Path("champion") / arguments.run
    with one_sentence():
        version = fetch(arguments.run, out)
        steps = read_json(out / "model.json")["steps"]
    print(
        f"{out}: version {version} of {arguments.run}, {steps} steps; `hrvgan sample {out} --out clips.mp4`"
    )


if __name__ == "__main__":
    main()
