"""Gates of the reference network: four checks, each measured against a bar, before its scores may be trusted."""

from dataclasses import asdict, dataclass

import numpy as np

from hrvgan.evaluation.real_baseline import few_groups, halvings
from hrvgan.features import Features
from hrvgan.features.reference import PERTURBATIONS
from hrvgan.metrics.accuracy import chance_accuracy, label_accuracy, mean_confidence
from hrvgan.metrics.frechet import frechet_distance_from_features
from hrvgan.metrics.kernel import kernel_distance

MANY_CLASSES = 20  # Above, half of the way from chance to perfect is out of a small network's reach.
CONFIDENCE_GAP = 0.1
FAR = 5  # Standard deviations of the real halves.
HALVINGS = 20
MIN_HELD_OUT = 8  # Clips; halves of four.


@dataclass(frozen=True)
class Gate:
    """`value` against `bar`, in numbers and in words; the numbers are None where nothing could be measured."""

    name: str
    passed: bool
    measured: str
    needed: str
    sentence: str
    value: float | None = None
    bar: float | None = None


def check_gates(sets: dict[str, Features], seed: int = 0) -> list[Gate]:
    """All gates on the feature sets of the stage `reference`: splits, "exam" and perturbed val clips."""
    return [group_gate(sets), accuracy_gate(sets["exam"]), calibration_gate(sets["exam"])] + [
        sensitivity_gate(name, sets["val"], sets.get(name), seed) for name in PERTURBATIONS
    ]


def verdict(gates: list[Gate]) -> dict:
    """Entries of a manifest: the verdict, each gate, and a sentence for each that did not pass."""
    failed = [gate for gate in gates if not gate.passed]
    return {
        "gated": not failed,
        "gates": [asdict(gate) for gate in gates],
        "ungated": [f"{gate.name}: {gate.sentence}" for gate in failed],
    }


def group_gate(sets: dict[str, Features]) -> Gate:
    """1. No source video or person is on both sides of a split."""
    name, needed = "group split", "0 groups in two splits"
    held_out = [sets[split] for split in ("val", "test") if len(sets[split])]
    if not held_out:
        remedy = "give the data set more groups (source videos)"
        return _unmeasured(name, needed, f"there are no held-out clips; {remedy}")
    seen = np.concatenate([np.unique(split.groups) for split in (sets["train"], *held_out)])
    shared = len(seen) - len(np.unique(seen))
    sentence = f"{shared} group(s) of source videos straddle the splits"
    return Gate(name, shared == 0, f"{shared} groups", needed, sentence, shared, 0)


def accuracy_gate(exam: Features) -> Gate:
    """2. The network names the classes, or the answers of its pretext task, of held-out clips."""
    name = "accuracy"
    if len(exam) < 2:
        return _unmeasured(name, "half of the way from chance to 1", "there are no val clips to ask it about")
    accuracy, chance = label_accuracy(exam.logits, exam.labels), chance_accuracy(exam.labels)
    bar = accuracy_bar(chance, exam.logits.shape[1])
    needed = f"needed: {bar:.1%}, chance: {chance:.1%}"
    sentence = f"it is right about {accuracy:.1%} of {len(exam)} val clips; {needed}"
    return Gate(name, accuracy >= bar, f"{accuracy:.3f}", f"at least {bar:.3f}", sentence, accuracy, bar)


def accuracy_bar(chance: float, num_answers: int) -> float:
    return max(5 * chance, 0.40) if num_answers > MANY_CLASSES else chance + 0.5 * (1 - chance)


def calibration_gate(exam: Features) -> Gate:
    """3. Its confidence equals its accuracy: the Inception Score rests on that."""
    name, needed = "calibration", f"at most {CONFIDENCE_GAP}"
    if len(exam) < 2:
        return _unmeasured(name, needed, "there are no val clips to calibrate it with")
    gap = abs(mean_confidence(exam.logits) - label_accuracy(exam.logits, exam.labels))
    sentence = f"its confidence and its accuracy on val clips differ by {gap:.3f}"
    return Gate(name, gap <= CONFIDENCE_GAP, f"{gap:.3f}", needed, sentence, gap, CONFIDENCE_GAP)


def sensitivity_gate(kind: str, val: Features, perturbed: Features | None, seed: int) -> Gate:
    """4. Perturbed halves lie far from real ones in KID, and above the floor of the Frechet distance."""
    name, needed = f"sensitivity: {kind}", f"KID {FAR} sd beyond real halves, FD above each of theirs"
    if len(val) < MIN_HELD_OUT:
        numbers = f"{len(val)} val clips, {MIN_HELD_OUT} are needed"
        return _unmeasured(name, needed, f"{numbers} to tell {kind} ones from real ones")
    if perturbed is None:
        return _unmeasured(name, needed, f"it was made before {kind} clips were; run the stage `reference` again")
    if not len(perturbed):
        return Gate(name, True, "not measured", "nothing", f"real clips are {kind} themselves: it is no fault here")
    pairs = halvings(val, HALVINGS, seed)
    floors = np.array([distances(val.take(a), val.take(b)) for a, b in pairs])
    kid, fd = np.mean([distances(val.take(a), perturbed.take(b)) for a, b in pairs], axis=0)
    kid_bar, fd_bar = floors[:, 0].mean() + FAR * floors[:, 0].std(ddof=1), floors[:, 1].max()
    measured, needed = f"KID {kid:.3g}, FD {fd:.3g}", f"KID above {kid_bar:.3g}, FD above {fd_bar:.3g}"
    if few_groups(val):
        needed += " (few groups: all halves are the same few, their spread is unknown)"
    sentence = f"{kind} val clips lie at {measured} from real ones; needed: {needed}"
    passed = bool(kid > kid_bar and fd > fd_bar)
    return Gate(name, passed, measured, needed, sentence, float(kid), float(kid_bar))


def distances(real: Features, other: Features) -> tuple[float, float]:
    pair = real.features, other.features
    return kernel_distance(*pair), frechet_distance_from_features(*pair)


def _unmeasured(name: str, needed: str, reason: str) -> Gate:
    return Gate(name, False, "not measured", needed, reason)
