"""Note what a data set's publisher says of its files, in data/upstream/<dataset>.json: a change there is new data.

`dvc repro -s -f upstream@<dataset>`, or the nightly flow, asks again; the stage `download` follows if it changed.
"""

import json
from pathlib import Path

from hrvgan.datasets import load_source
from hrvgan.fetching.download import upstream
from hrvgan.files import write_json
from pipeline import params, stage


def main(dataset: str) -> None:
    config, path = params.dataset(dataset), Path("data/upstream") / f"{dataset}.json"
    source = load_source(config["source"])
    files = source.upstream(**config["options"]) if hasattr(source, "upstream") else []
    noted = json.loads(path.read_text()) if path.exists() else {}
    found = {file.name: upstream(file) or noted.get(file.name) for file in files}
    write_json(path, found)
    for name, identity in found.items():
        print(f"{dataset}: {name}: {identity or 'cannot be asked now'}")


if __name__ == "__main__":
    stage.run(main, __doc__, argument="dataset")
