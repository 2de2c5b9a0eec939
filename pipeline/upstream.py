"""Stage `upstream`: write the identities of a data set's published files to data/upstream/<dataset>.json.

A change there is new data: `dvc repro -s -f upstream@<dataset>`, or the nightly flow, asks the servers again, and the
stage `download` runs if the file has changed.
"""

from pathlib import Path

from hrvgan.datasets import load_source
from hrvgan.fetching.download import upstream
from hrvgan.files import write_json
from pipeline import params, stage


def main(dataset: str) -> None:
    config, path = params.dataset(dataset), Path("data/upstream") / f"{dataset}.json"
    source = load_source(config["source"])
    files = source.upstream(**config["options"]) if hasattr(source, "upstream") else []
    answers = stage.state_folder() / "upstream" / path.name  # No output: it may change while the data do not.
    noted, known = stage.read_json(path), stage.read_json(answers)
    for file in files:
        answer = upstream(file)
        noted[file.name] = note(noted, known, file.name, answer)
        known[file.name] = answer or known.get(file.name)
        print(f"{dataset}: {file.name}: {answer or 'cannot be asked now'}")
    write_json(path, {file.name: noted[file.name] for file in files})
    write_json(answers, known)


def note(noted: dict, known: dict, name: str, answer: dict | None) -> dict | None:
    """Identity to record for file `name`.

    If no server responded at first, null was recorded. The first response, kept in `known`, describes the same data, so
    null stays until a later response differs from it.
    """
    if name not in noted:
        return answer
    if noted[name] is None and known.get(name) in (None, answer):
        return None
    return answer or noted[name]


if __name__ == "__main__":
    stage.run(main, __doc__, argument="dataset")
