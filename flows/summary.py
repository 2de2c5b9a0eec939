"""What a run of the flow says at its end: one sentence, and a page of Markdown for the UI."""

from dataclasses import dataclass

FORCED, ASKED = "forced", "asked for new data"  # reasons to run a stage that DVC calls unchanged


@dataclass(frozen=True)
class Outcome:
    """What became of one stage."""

    stage: str
    state: str  # "unchanged", "ran", or "restored" from DVC's cache of earlier runs
    why: str  # DVC's account of what changed, FORCED, ASKED, or "" for nothing
    seconds: float
    new: bool  # its outputs differ from those recorded before


def verdict(outcomes: list[Outcome]) -> str:
    """One sentence: what was the reason for work, and what was done."""
    asked = [outcome for outcome in outcomes if outcome.why == ASKED]
    fresh = [outcome.stage for outcome in asked if outcome.new]
    others = [outcome for outcome in outcomes if outcome.state != "unchanged" and outcome not in asked]
    done = "; ".join(filter(None, (deeds(state, others) for state in ("ran", "restored"))))
    if fresh:
        reason = f"New data upstream ({', '.join(fresh)})"
    elif asked:
        reason = "No new data upstream, but other changes" if done else "No new data upstream"
    elif any(outcome.why == FORCED for outcome in others):
        reason = "Forced"
    else:
        reason = "Changed since the last run" if done else "Nothing changed"
    return f"{reason}: {done or 'nothing to do'}."


def deeds(state: str, outcomes: list[Outcome]) -> str:
    """ "ran extract@shapes, train@laptop", or "" """
    stages = [outcome.stage for outcome in outcomes if outcome.state == state]
    return f"{state} {', '.join(stages)}" if stages else ""


def report(sentence: str, outcomes: list[Outcome], metrics: dict[str, dict]) -> str:
    """The stages with their times, then every metrics file, as Markdown tables."""
    lines = [sentence, "", "| stage | state | seconds | why |", "|---|---|---:|---|"]
    lines += [f"| {o.stage} | {o.state} | {o.seconds:.1f} | {o.why} |" for o in outcomes]
    for path, values in metrics.items():
        lines += ["", f"### {path}", "", "| metric | value |", "|---|---|"]
        lines += [f"| {name} | {in_figures(value)} |" for name, value in values.items()]
    return "\n".join(lines)


def in_figures(value: object) -> str:
    """Numbers to four digits; {"value": 3.14159, "sd": 0.2} becomes "value 3.142, sd 0.2"."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {in_figures(part)}" for name, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
