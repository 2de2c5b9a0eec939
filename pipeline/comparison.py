"""Several runs in one table, if and only if their scores mean the same."""

from itertools import groupby

from pipeline.findings import Findings
from pipeline.scales import Score, read_scores


def tables(runs: list[Findings]) -> list[dict]:
    """A table for every two or more runs that the same network scored against the same real clips."""
    return [_table(group) for group in _groups(runs) if len(group) > 1]


def apart(runs: list[Findings]) -> list[str]:
    """A sentence for the runs that stand in no table."""
    alone = [group[0].name for group in _groups(runs) if len(group) == 1]
    hidden = [run.name for run in runs if run.scores and not run.gated]
    absent = [run.name for run in runs if not run.scores]
    sentences = [
        (alone, "scored against other real clips or by another network than the rest, so in no common table"),
        (hidden, "scored by a network that has not passed its gates, so hidden"),
        (absent, "not scored yet"),
    ]
    return [f"{', '.join(names)}: {words}." for names, words in sentences if names]


def _groups(runs: list[Findings]) -> list[list[Findings]]:
    shown = sorted(
        (run for run in runs if run.gated), key=lambda run: run.yardstick
    )  # stable: order of params.yaml
    return [list(group) for _, group in groupby(shown, key=lambda run: run.yardstick)]


def _table(runs: list[Findings]) -> dict:
    rows = [{score.name: score for score in read_scores(run.scores)} for run in runs]
    heads = list({name: score for row in rows for name, score in row.items()}.values())
    return {
        "dataset": runs[0].dataset,
        "caption": f"Scores on {runs[0].dataset}: same real clips, same network, same number of clips.",
        "heads": heads,
        "rows": [(run.name, _cells(row, heads)) for run, row in zip(runs, rows, strict=True)],
        "landmarks": [
            next((mark.text for mark in head.marks if mark.glyph == "stroke"), "") for head in heads
        ],
    }


def _cells(row: dict[str, Score], heads: list[Score]) -> list[str]:
    return [row[head.name].with_spread if head.name in row else "not defined" for head in heads]
