"""Print the scores of the active runs, where their videos are, and what to try next."""

import argparse

from hrvgan.errors import one_sentence
from pipeline import params
from pipeline.report.run_results import RunResults, read_runs, read_scores

NEXT = """
what was made     open report/index.html
how it came about make ui                       (MLflow, http://127.0.0.1:5000)
other settings    make exp SET="{settings}"
"""
# Suggestions by the source of the data set; those in use are left out.
OTHERS = {
    "weizmann": "real people       make run CONF=weizmann",
    "folder": "your own videos   make run DATA=path/to/videos",
}


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.summary", description=__doc__).parse_args()
    with one_sentence():
        print("\n".join(lines(read_runs())) + "\n" + what_next())


def what_next() -> str:
    used = {entry["source"] for entry in params.load()["datasets"].values()}
    return NEXT.format(settings=longer()) + "".join(
        f"{words}\n" for source, words in OTHERS.items() if source not in used
    )


def longer() -> str:
    """Settings with which the first active run trains for longer: its own where it overrides section train."""
    name, entry = next(iter(params.load()["runs"].items()))
    steps = 2 * entry["train"]["steps"] if "steps" in entry["train"] else 4000
    wanted = {"steps": steps}
    if params.run(name)["train"].get("lr_decay"):
        wanted["lr_decay"] = steps + 200
    return " ".join(
        f"{f'runs.{name}.' if key in entry['train'] else ''}train.{key}={value}" for key, value in wanted.items()
    )


def lines(runs: list[RunResults]) -> list[str]:
    """Every run with its scores, each beside its landmarks (real clips, chance, ...)."""
    return [line for run in runs for line in ["", f"{run.name} ({run.settings['model']} on {run.dataset})",
                                              *score_table(run), *remarks(run)]]  # fmt: skip


def score_table(run: RunResults) -> list[str]:
    rows = [
        (
            score.name,
            score.with_spread,
            f"{score.better} is better",
            ", ".join(f"{mark.words} {mark.text}" for mark in score.marks),
        )
        for score in read_scores(run.shown)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def remarks(run: RunResults) -> list[str]:
    remarks = [f"{words} `{command}`" for words, command in run.missing]
    if run.samples:
        remarks.append(f"pictures and videos: {run.sample_folder}/")
    if run.scores and not run.gated:
        remarks.append("refnet's scores hidden: the reference network has not passed its gates")
        remarks += [f"  {reason}" for reason in run.ungated]
    return [f"  {remark}" for remark in remarks]


if __name__ == "__main__":
    main()
