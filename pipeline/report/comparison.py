"""Several runs in one table, if and only if their scores mean the same; and whether the comparison is fair."""

from itertools import groupby

from pipeline.report.run_results import Findings
from pipeline.report.score_display import Score, fixed, read_scores

ABOUT_THE_SAME = 1.1  # wall times within a tenth of each other count as equal
NOT_APPLICABLE = "n/a"  # a score that asks for a class, of a model that takes none


def tables(runs: list[Findings]) -> list[dict]:
    """A table for every two or more runs that the same network scored against the same real clips."""
    return [_table(group) for group in groups(runs) if len(group) > 1]


def apart(runs: list[Findings]) -> list[str]:
    """A sentence for the runs that stand in no table."""
    alone = [group[0].name for group in groups(runs) if len(group) == 1]
    hidden = [run.name for run in runs if run.scores and not run.gated]
    absent = [run.name for run in runs if not run.scores]
    sentences = [
        (alone, "scored against other real clips or by another network than the rest, so in no common table"),
        (hidden, "the reference network has not passed its gates, so its scores are hidden"),
        (absent, "not scored yet"),
    ]
    return [f"{', '.join(names)}: {words}." for names, words in sentences if names]


def groups(runs: list[Findings]) -> list[list[Findings]]:
    """Runs whose scores may be compared, group by group."""
    shown = sorted(
        (run for run in runs if run.shown), key=lambda run: run.yardstick
    )  # stable: order of params.yaml
    return [list(group) for _, group in groupby(shown, key=lambda run: run.yardstick)]


def _table(runs: list[Findings]) -> dict:
    rows = [{score.name: score for score in read_scores(run.shown)} for run in runs]
    names = [score.name for score in read_scores({k: v for run in runs for k, v in run.shown.items()})]
    heads = [next(row[name] for row in rows if name in row) for name in names]
    return {
        "dataset": runs[0].dataset,
        "caption": caption(runs[0]),
        "fairness": fairness(runs),
        "heads": heads,
        "effort_heads": list(effort(runs[0])),
        "rows": [
            (run, _cells(row, heads), list(effort(run).values())) for run, row in zip(runs, rows, strict=True)
        ],
        "landmarks": [
            next((mark.text for mark in head.marks if mark.glyph == "stroke"), "") for head in heads
        ],
        "runs": runs,
    }


def caption(run: Findings) -> str:
    """What the scores of a table have in common."""
    same, about = "same real clips, same network, same number of clips", run.manifest
    if about is None:
        return f"Scores on {run.dataset}: {same}."
    counts = f"{about['num_fake']} generated clips a draw beside {about['num_real']} real ones"
    return f"Scores on {run.dataset}: {same} ({about['extractor']:.15}, {counts})."


def _cells(row: dict[str, Score], heads: list[Score]) -> list[str]:
    return [row[head.name].with_spread if head.name in row else NOT_APPLICABLE for head in heads]


def effort(run: Findings) -> dict[str, str]:
    """What the run cost, in words: head of a column -> cell, "" where it is not known."""
    cost, took = (run.manifest or {}).get("cost"), run.training or {}
    size = [f"{fixed(cost[part]['parameters'] / 1e6, 2)} M" for part in ("G", "D")] if cost else []
    work = [f"{cost[part]['gflop']:.3g}" for part in ("G", "D")] if cost else []
    seconds, speed = took.get("seconds"), took.get("clips_per_s")
    arguments = (run.model or {}).get("arguments", {})
    return {
        "Preset": run.settings["preset"],
        "Width": str(arguments.get("width", "")),
        "Batch": str(run.settings["train"].get("batch_size", "")),
        "Parameters G, D": ", ".join(size),
        "GFLOP a clip G, D": ", ".join(work),
        "Clips/s": f"{speed:.3g}" if speed else "",
        "Minutes": f"{seconds / 60:.3g}" if seconds else "",
        "Clips seen": fixed(took["clips_seen"], 0) if took else "",
    }


def fairness(runs: list[Findings]) -> list[str]:
    """What was the same for all, and what was not."""
    return [_same_clips(runs), _same_time(runs), _seeds(runs)]


def _same_clips(runs: list[Findings]) -> str:
    digests = {run.model["data_digest"] for run in runs if run.model}
    shapes = {tuple(run.model["clip_shape"][:3]) for run in runs if run.model}
    if len(digests) == len(shapes) == 1:
        frames, height, width = shapes.pop()
        times = "\N{MULTIPLICATION SIGN}"
        return f"Trained on the same clips, {frames} frames of {width} {times} {height} px; each by its own recipe."
    return "Not fair: the models were trained on different clips, or make clips of different shapes."


def _same_time(runs: list[Findings]) -> str:
    took = {run.name: run.training for run in runs if run.training and run.training["seconds"]}
    unknown = [run.name for run in runs if run.name not in took]
    if unknown:
        return f"How long these were trained is not known: {', '.join(unknown)}."
    minutes = sorted(about["seconds"] / 60 for about in took.values())
    machines = sorted({about["machine"] for about in took.values()})
    span = f"{minutes[0]:.3g} to {minutes[-1]:.3g} minutes"
    where = f"on {machines[0]}" if len(machines) == 1 else f"on different machines ({'; '.join(machines)})"
    if minutes[-1] <= ABOUT_THE_SAME * minutes[0] and len(machines) == 1:
        return f"Same wall time: {span} {where}."
    return f"Not the same wall time: {span} {where}."


def _seeds(runs: list[Findings]) -> str:
    return (
        f"{len(runs)} runs, training seeds {', '.join(sorted({str(run.settings['seed']) for run in runs}))}. "
        "± is the spread over draws from one generator; that one model beats another rests on training seeds."
    )
