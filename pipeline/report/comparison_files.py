"""The comparison outside of the page: report/comparison.csv for programs, report/comparison.md for people."""

import csv
import io

from pipeline.report import literature
from pipeline.report.comparison import apart, groups, tables
from pipeline.report.run_results import Findings
from pipeline.report.score_display import flat


def csv_text(runs: list[Findings]) -> str:
    """One row a run whose scores may be shown, with plain numbers, scores under the keys of MLflow without "metric/".

    Only rows of one `yardstick` may be compared: <data set>/<network>/n<clips on each side>.
    """
    rows = [
        {"yardstick": name, **_facts(run), **flat(run.shown)}
        for name, group in named_groups(runs)
        for run in group
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row)) or ["yardstick", "run"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def named_groups(runs: list[Findings]) -> list[tuple[str, list[Findings]]]:
    """A name for each yardstick; numbered where it does not say what differs (protocols, splits)."""
    found = groups(runs)
    names = [group[0].yardstick_name for group in found]
    numbered = [f"{name} ({i})" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]
    return list(zip(numbered, found, strict=True))


def _facts(run: Findings) -> dict:
    cost, took = (run.manifest or {}).get("cost") or {}, run.training or {}
    return {
        "run": run.name,
        **{key: run.settings[key] for key in ("model", "preset", "dataset", "seed")},
        "batch_size": run.settings["train"].get("batch_size"),
        "width": (run.model or {}).get("arguments", {}).get("width"),
        **{f"{key}_{part.lower()}": number for part, each in cost.items() for key, number in each.items()},
        **{key: took.get(key) for key in ("steps", "clips_seen", "seconds", "clips_per_s", "machine")},
    }


def markdown(runs: list[Findings]) -> str:
    """The tables of the page, the published one last."""
    parts = [_table(table) for table in tables(runs)] + ["\n".join(apart(runs))]
    heads = ["model", *(f"{column.title} ({column.status})" for column in literature.COLUMNS), "source"]
    keys = ["model", *(column.key for column in literature.COLUMNS), "source"]
    rows = [[row[key] for key in keys] for row in literature.rows()]
    parts.append(f"{literature.CAPTION}\n\n{_grid(heads, rows)}")
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
