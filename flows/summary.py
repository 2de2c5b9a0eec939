"""Summary of a run of the flow: one sentence, and a page of Markdown for the UI."""

from dataclasses import dataclass

FORCED, ASKED = "forced", "asked for new data"  # reasons to run a stage that DVC calls unchanged
ELSEWHERE = "made on another machine"


@dataclass(frozen=True)
class Outcome:
    """Result of one stage."""

    stage: str
    state: str  # "unchanged", "ran", or "restored" from DVC's cache of earlier runs
    why: str  # DVC's list of changes, FORCED, ASKED, or ""
    seconds: float | None  # None of an experiment, which DVC runs as a whole
    new: bool  # its outputs differ from those recorded before


def verdict(outcomes: list[Outcome], experiment: str = "") -> str:
    """One sentence: the reason for the work, or the `experiment` that it was, and the stages that ran."""
    asked = [outcome for outcome in outcomes if outcome.why == ASKED]
    others = [outcome for outcome in outcomes if outcome.why != ASKED and outcome.state != "unchanged"]
    fresh = [outcome.stage for outcome in asked if outcome.new]
    stages = {state: [o.stage for o in others if o.state == state] for state in ("ran", "restored")}
    done = "; ".join(f"{state} {', '.join(names)}" for state, names in stages.items() if names)
    if experiment:
        reason = experiment
    elif fresh:
        reason = f"New data upstream ({', '.join(fresh)})"
    elif asked:
        reason = "No new data upstream, but other changes" if done else "No new data upstream"
    elif any(outcome.why == FORCED for outcome in others):
        reason = "Forced"
    else:
        reason = "Changed since the last run" if done else "Nothing changed"
    return f"{reason}: {done or 'nothing to do'}."


def report(sentence: str, outcomes: list[Outcome], metrics: dict[str, dict]) -> str:
    """The stages with their times, then every metrics file, as Markdown tables."""
    lines = [sentence, "", "| stage | state | seconds | why |", "|---|---|---:|---|"]
    times = ["" if o.seconds is None else f"{o.seconds:.1f}" for o in outcomes]
    lines += [f"| {o.stage} | {o.state} | {t} | {o.why} |" for o, t in zip(outcomes, times, strict=True)]
    for path, values in metrics.items():
        lines += ["", f"### {path}", "", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {in_figures(value)} |" for name, value in values.items()]
    return "\n".join(lines)


def in_figures(value: object) -> str:
    """Numbers to four digits; {"value": 3.14159, "sd": 0.2} becomes "value 3.142, sd 0.2"."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {in_figures(part)}" for name, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
