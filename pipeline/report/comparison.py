"""Comparison of runs whose scores mean the same, with its fairness; on the page, as CSV and as Markdown."""

import csv
import io
from itertools import groupby
from pathlib import Path

from hrvgan.metrics.protocols import flatten_scores
from pipeline.report.run_results import RunResults, fixed, read_scores

SAME_TIME = 1.1  # wall times within a tenth of each other count as equal
NOT_APPLICABLE = "n/a"  # a score that asks for a class, of a model that takes none
ARROWS = {"lower": "\N{DOWNWARDS ARROW}", "higher": "\N{UPWARDS ARROW}"}

# Scores that papers report, by other networks on other data: shown in a table of their own.
PUBLISHED = Path(__file__).parent / "page" / "published.csv"
OTHER_DATA, UNKNOWN = "published, other data", "protocol unknown"
PUBLISHED_COLUMNS = (  # (column of the file, title, status)
    ("is_ucf101", "IS on UCF101 \N{UPWARDS ARROW}", OTHER_DATA),
    ("fvd_ucf101", "FVD on UCF101 \N{DOWNWARDS ARROW}", OTHER_DATA),
    ("fid_golf", "FID on Golf \N{DOWNWARDS ARROW}", UNKNOWN),
    ("fid_aeroplane", "FID on Aeroplane \N{DOWNWARDS ARROW}", UNKNOWN),
)
PUBLISHED_CAPTION = (
    "Published scores, not comparable with those of the runs: they were measured on other data by other networks. The "
    "Inception scores are themselves of more than one protocol (9,984 clips in one split, 2,048 in one or in ten), "
    "and no protocol could be found under which FIDs come out near 100,000."
)


def groups(runs: list[RunResults]) -> list[list[RunResults]]:
    """Runs with scores, grouped by protocol."""
    scored = sorted((run for run in runs if run.shown), key=lambda run: run.protocol_key)  # stable
    return [list(group) for _, group in groupby(scored, key=lambda run: run.protocol_key)]


def tables(runs: list[RunResults]) -> list[dict]:
    """One table for every two or more runs that the same network scored against the same real clips."""
    return [table(group) for group in groups(runs) if len(group) > 1]


def excluded(runs: list[RunResults]) -> list[str]:
    """Sentences that say which runs are in no table, and why."""
    compared = groups(runs)
    alone = [group[0].name for group in compared if len(group) == 1]
    others = "scored against other real clips or by another network than the rest, so in no common table"
    single = "no other run has scores to compare its own with"
    hidden = [run.name for run in runs if run.scores and not run.gated]
    absent = [run.name for run in runs if not run.scores]
    sentences = [
        (alone, others if len(compared) > 1 else single),
        (hidden, "the reference network has not passed its gates, so its scores are hidden"),
        (absent, "not scored yet"),
    ]
    return [f"{', '.join(names)}: {words}." for names, words in sentences if names]


def table(runs: list[RunResults]) -> dict:
    # In the order of the first run; of a score that several runs have, the first run's entry.
    entries = {name: entry for run in (*runs, *reversed(runs)) for name, entry in run.shown.items()}
    heads = read_scores(entries)
    texts = [{score.name: score.with_spread for score in read_scores(run.shown)} for run in runs]
    cells = [[row.get(head.name, NOT_APPLICABLE) for head in heads] for row in texts]
    costs = [list(cost(run).values()) for run in runs]
    return {
        "dataset": runs[0].dataset,
        "caption": caption(runs[0]),
        "fairness": [same_clips(runs), same_time(runs), seeds(runs)],
        "heads": heads,
        "cost_heads": list(cost(runs[0])),
        "rows": list(zip(runs, cells, costs, strict=True)),
        "landmarks": landmarks(runs, [head.name for head in heads]),
    }


def landmarks(runs: list[RunResults], names: list[str]) -> list[tuple[str, list[str]]]:
    """(head, cells) of a row of real clips in the place of generated ones, and one of real clips of classes by chance
    if some of the models take no class."""
    kinds = {}
    for run in runs:
        kinds.setdefault(run.takes_class, run)
    heads = {True: "real clips (floor or ceiling)", False: "the same, classes by chance"}
    rows = []
    for number, takes_class in enumerate(sorted(kinds, reverse=True)):
        scores = {score.name: score for score in read_scores(kinds[takes_class].shown)}
        marks = [scores[name].marks if name in scores else [] for name in names]
        cells = [next((mark.text for mark in own if mark.glyph == "stroke"), "") for own in marks]
        rows.append((heads[takes_class or number == 0], cells))
    return rows


def caption(run: RunResults) -> str:
    same, manifest = "same real clips, same network, same number of clips", run.manifest
    if not manifest:
        return f"Scores on {run.dataset}: {same}."
    counts = f"{manifest['num_fake']} generated clips a draw beside {manifest['num_real']} real ones"
    return f"Scores on {run.dataset}: {same} ({manifest['extractor']:.15}, {counts})."


def cost(run: RunResults) -> dict[str, str]:
    """Size and training cost of a run: head of a column -> cell, "" where unknown."""
    manifest, training = run.manifest.get("cost"), run.training
    networks = [manifest[name] for name in ("G", "D")] if manifest else []
    sizes = [f"{fixed(network['parameters'] / 1e6, 2)} M" for network in networks]
    work = [f"{network['gflop']:.3g}" for network in networks]
    seconds, speed = training.get("seconds"), training.get("clips_per_s")
    return {
        "Preset": run.settings["preset"],
        "Width": str(run.model.get("arguments", {}).get("width", "")),
        "Batch": str(run.settings["train"].get("batch_size", "")),
        "Parameters G, D": ", ".join(sizes),
        "GFLOP a clip G, D": ", ".join(work),
        "Clips/s": f"{speed:.3g}" if speed else "",
        "Minutes": f"{seconds / 60:.3g}" if seconds else "",
        "Clips seen": fixed(training["clips_seen"], 0) if training else "",
    }


def same_clips(runs: list[RunResults]) -> str:
    """A sentence on whether all runs were trained on the same clips."""
    trained = {(run.model["data_digest"], *run.model["clip_shape"][:3]) for run in runs if run.model}
    if len(trained) != 1:
        return "Not fair: the models were trained on different clips, or make clips of different shapes."
    _, frames, height, width = trained.pop()
    size = f"{width} \N{MULTIPLICATION SIGN} {height} px"
    return f"Trained on the same clips, {frames} frames of {size}; each by its own recipe."


def same_time(runs: list[RunResults]) -> str:
    """A sentence on whether all runs were trained for the same wall time on the same machine."""
    unknown = [run.name for run in runs if not run.training.get("seconds")]
    if unknown:
        return f"How long these were trained is not known: {', '.join(unknown)}."
    minutes = sorted(run.training["seconds"] / 60 for run in runs)
    machines = sorted({run.training["machine"] for run in runs})
    span = f"{minutes[0]:.3g} to {minutes[-1]:.3g} minutes"
    if len(machines) > 1:
        return f"Not the same wall time: {span} on different machines ({'; '.join(machines)})."
    verdict = "Same" if minutes[-1] <= SAME_TIME * minutes[0] else "Not the same"
    return f"{verdict} wall time: {span} on {machines[0]}."


def seeds(runs: list[RunResults]) -> str:
    return (
        f"{len(runs)} runs, training seeds {', '.join(sorted({str(run.settings['seed']) for run in runs}))}. "
        "± is the spread over draws from one generator; that one model beats another rests on training seeds."
    )


def published() -> list[list[str]]:
    """One row a model: its name, the PUBLISHED_COLUMNS ("" where nothing was published) and the source."""
    keys = ["model", *(key for key, _, _ in PUBLISHED_COLUMNS), "source"]
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        return [[row[key] for key in keys] for row in csv.DictReader(file)]


def csv_text(runs: list[RunResults]) -> str:
    """report/comparison.csv: one row per run whose scores may be shown, scores under MLflow's keys without "metric/".

    Only rows of equal `yardstick`, <data set>/<network>/n<clips on each side>, may be compared; it is numbered where
    protocols differ otherwise (splits, seeds).
    """
    grouped = groups(runs)
    names = [group[0].protocol_name for group in grouped]
    numbered = [f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]
    rows = [
        {"yardstick": name, **csv_settings(run), **flatten_scores(run.shown)}
        for name, group in zip(numbered, grouped, strict=True)
        for run in group
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row)) or ["yardstick", "run"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def csv_settings(run: RunResults) -> dict:
    networks = run.manifest.get("cost", {}).items()
    return {
        "run": run.name,
        **{key: run.settings[key] for key in ("model", "preset", "dataset", "seed")},
        "batch_size": run.settings["train"].get("batch_size"),
        "width": run.model.get("arguments", {}).get("width"),
        **{f"{key}_{name.lower()}": number for name, network in networks for key, number in network.items()},
        **{key: run.training.get(key) for key in ("steps", "clips_seen", "seconds", "clips_per_s", "machine")},
    }


def markdown(runs: list[RunResults]) -> str:
    """report/comparison.md: the tables of the page, the published one last."""
    heads = ["model", *(f"{title} ({status})" for _, title, status in PUBLISHED_COLUMNS), "source"]
    parts = [
        *(markdown_table(table) for table in tables(runs)),
        "\n".join(excluded(runs)),
        f"{PUBLISHED_CAPTION}\n\n{grid(heads, published())}",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def markdown_table(table: dict) -> str:
    scores = [f"`{head.name}` {ARROWS[head.better]}" for head in table["heads"]]
    rows = [[run.name, run.settings["model"], *cells, *costs] for run, cells, costs in table["rows"]]
    blank = [""] * len(table["cost_heads"])
    rows += [[head, "", *cells, *blank] for head, cells in table["landmarks"]]
    sentences = " ".join([table["caption"], *table["fairness"]])
    return f"{sentences}\n\n{grid(['run', 'model', *scores, *table['cost_heads']], rows)}"


def grid(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
