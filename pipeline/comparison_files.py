"""The comparison outside of the page: report/comparison.csv for programs, report/comparison.md for people."""

import csv
import io

from pipeline import published
from pipeline.comparison import apart, groups, tables
from pipeline.findings import Findings

SCORE_KEYS = ("value", "sd", "floor", "ceiling", "real", "chance", "trivial_best", "train")


def csv_text(runs: list[Findings]) -> str:
    """One row a run whose scores may be shown, with plain numbers. Only rows of one `yardstick` may be compared."""
    rows = [
        {"yardstick": number, **_facts(run), **_scores(run)}
        for number, group in enumerate(groups(runs))
        for run in group
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row)) or ["yardstick", "run"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _facts(run: Findings) -> dict:
    cost, took = (run.manifest or {}).get("cost") or {}, run.training or {}
    return {
        "run": run.name,
        **{key: run.settings[key] for key in ("model", "preset", "dataset", "seed")},
        **{f"{key}_{part.lower()}": number for part, each in cost.items() for key, number in each.items()},
        **{key: took.get(key) for key in ("steps", "clips_seen", "seconds", "clips_per_s", "machine")},
    }


def _scores(run: Findings) -> dict[str, float]:
    """ "refnet_fd" -> its value, "refnet_fd/sd", "refnet_fd/floor", ...: the keys of MLflow without "metric/"."""
    return {
        name if key == "value" else f"{name}/{key}": entry[key]
        for name, entry in run.scores.items()
        if isinstance(entry, dict)
        for key in SCORE_KEYS
        if key in entry
    }


def markdown(runs: list[Findings]) -> str:
    """The tables of the page, the published one last."""
    parts = [_table(table) for table in tables(runs)] + ["\n".join(apart(runs))]
    heads = ["model", *(f"{column.title} ({column.status})" for column in published.COLUMNS), "source"]
    keys = ["model", *(column.key for column in published.COLUMNS), "source"]
    rows = [[row[key] for key in keys] for row in published.rows()]
    parts.append(f"{published.CAPTION}\n\n{_grid(heads, rows)}")
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(table: dict) -> str:
    arrows = {"lower": "\N{DOWNWARDS ARROW}", "higher": "\N{UPWARDS ARROW}"}
    heads = ["run", "model", *(f"`{head.name}` {arrows[head.better]}" for head in table["heads"])]
    rows = [[run.name, run.settings["model"], *cells, *costs] for run, cells, costs in table["rows"]]
    blank = [""] * len(table["effort_heads"])
    rows.append(["real clips (floor or ceiling)", "", *table["landmarks"], *blank])
    sentences = " ".join([table["caption"], *table["fairness"]])
    return f"{sentences}\n\n{_grid([*heads, *table['effort_heads']], rows)}"


def _grid(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
