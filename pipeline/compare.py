"""Print the scores of the active runs and of DVC's experiments, beside the settings in which they differ."""

import argparse
import contextlib
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from hrvgan.errors import one_sentence
from pipeline import params
from pipeline.experiment import recorded
from pipeline.report.comparison import ARROWS, NOT_APPLICABLE, caption, groups
from pipeline.report.run_results import RunResults, Score, decimals, fixed, read_runs, read_scores
from pipeline.summary import remarks

NOW = "now"  # the state of the folder, beside the names of experiments
Named = list[tuple[str, RunResults]]  # (name of the experiment, one of its runs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.compare", description=__doc__)
    parser.add_argument("--active", action="store_true", help="leave out the experiments")
    with_experiments = not parser.parse_args().active
    with one_sentence():
        runs = read_runs()
        named = [*experiments(), *((NOW, run) for run in runs)] if with_experiments else []
        print("\n".join(tables(named or [("", run) for run in runs])))
        print("\n".join(line for run in runs if not run.shown for line in [f"{run.name}:", *remarks(run)]))


def experiments() -> Named:
    """The runs of each experiment, as far as Git and DVC's cache hold them."""
    return [(name, run) for name, revision in recorded().items() for run in runs_of(revision)]


def runs_of(revision: str) -> list[RunResults]:
    """The runs of a Git revision, by their settings and scores alone."""
    from dvc.fs import DVCFileSystem

    files = DVCFileSystem(rev=revision)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "metrics").mkdir()
        for name in [str(params.FILE), *files.glob("metrics/*.json")]:
            with contextlib.suppress(FileNotFoundError):  # no longer in DVC's cache
                files.get_file(name, f"{folder}/{name}")
        with contextlib.chdir(folder):
            return read_runs()


def tables(named: Named) -> list[str]:
    """A table for each set of runs that may be compared, with a row for each state that a run had."""
    states: dict[tuple, Named] = {}
    for name, run in named:
        states.setdefault((run.name, run.manifest.get("model_digest"), str(run.scores)), []).append((name, run))
    # Of equal states the first one tells the settings: an experiment's are those that it was made with.
    titles = {same[0][1]: ", ".join(filter(None, [name for name, _ in same])) for same in states.values()}
    width = shutil.get_terminal_size((120, 24)).columns
    return [
        line
        for group in groups(list(titles))
        for line in (caption(group[0]), table(group, titles).to_string(line_width=width), "")
    ]


def table(runs: list[RunResults], titles: dict[RunResults, str]) -> pd.DataFrame:
    """Settings in which the runs differ, then scores with their spread, and means over training seeds below."""
    settings = differing([settings_of(run) for run in runs])
    rows = {}
    for run, own in zip(runs, settings, strict=True):
        title = f"{run.name}: {titles[run]}" if titles[run] else run.name
        rows[title] = own | {head(score): score.with_spread for score in read_scores(run.shown)}
    rows |= means_over_seeds(runs)
    keys = list(dict.fromkeys(key for own in settings for key in own))
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame = frame[keys + [name for name in frame if name not in keys]]
    return frame.fillna({name: "" if name in keys else NOT_APPLICABLE for name in frame})


def head(score: Score) -> str:
    return f"{score.name} {ARROWS[score.better]}"


def settings_of(run: RunResults) -> dict[str, str]:
    return pd.json_normalize(run.settings).astype(str).iloc[0].to_dict()


def differing(settings: list[dict[str, str]]) -> list[dict[str, str]]:
    """Those of each that are not the same in all."""
    keys = dict.fromkeys(key for own in settings for key in own)
    changed = [key for key in keys if len({own.get(key) for own in settings}) > 1]
    return [{key: own[key] for key in changed if key in own} for own in settings]


def means_over_seeds(runs: list[RunResults]) -> dict[str, dict[str, str]]:
    """Title -> scores, mean ± sd, of each set of runs that differ in their training seed alone."""
    alike: dict[str, dict[str, RunResults]] = {}
    for run in runs:
        alike.setdefault(f"{run.name} {settings_of(run) | {'seed': ''}}", {})[str(run.settings["seed"])] = run
    return {
        f"{next(iter(by_seed.values())).name}: mean ± sd of seeds {', '.join(sorted(by_seed))}":
            {head(score): mean_and_sd([run.shown[score.name]["value"] for run in by_seed.values()])
             for score in read_scores(next(iter(by_seed.values())).shown)}
        for by_seed in alike.values() if len(by_seed) > 1
    }  # fmt: skip


def mean_and_sd(values: list[float]) -> str:
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    places = decimals(mean, sd)
    return f"{fixed(mean, places)} ± {fixed(sd, places)}"


if __name__ == "__main__":
    main()
