"""Results of a run: its settings, the files that the stages have written for it, and its scores for display: value and
spread, direction, and the landmarks on its bar that give it a meaning."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from hrvgan.files import file_digest
from hrvgan.metrics import PROTOCOLS
from hrvgan.metrics.protocols import COMPARED_FIELDS, lower_is_better, protocol_entry, with_scores
from pipeline import params
from pipeline.stage import read_json

# Landmark -> (glyph on the page, words). Floor, ceiling and real: scores of real clips by the same protocol.
LANDMARKS = {
    "floor": ("stroke", "real against real (floor)"),
    "ceiling": ("stroke", "real clips (ceiling)"),
    "real": ("stroke", "real clips"),
    "halves": ("stroke", "two halves of the real clips"),
    "trivial_best": ("dash", "without skill"),
    "copy": ("dash", "copy of the last frame"),
    "chance": ("dash", "chance"),
    "train": ("ring", "against the training clips"),
}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm, not trained


class RunResults:
    """One active run: its settings (params.yaml) and the JSON of each stage, {} where the stage has not run."""

    def __init__(self, name: str):
        self.name = name
        self.settings = params.run(name)
        self.model = read_json(Path("models", name, "model.json"))
        self.samples = read_json(Path("samples", name, "samples.json"))
        self.manifest = read_json(Path("metrics", f"{name}.manifest.json"))
        self.scores = with_scores(read_json(Path("metrics", f"{name}.json")), self.manifest)
        self.training = read_json(Path("metrics", f"{name}.training.json"))  # steps, clips, seconds, machine

    @property
    def dataset(self) -> str:
        return self.settings["dataset"]

    @property
    def folder(self) -> Path:
        return Path("models") / self.name

    @property
    def sample_folder(self) -> Path:
        return Path("samples") / self.name

    @property
    def gated(self) -> bool:
        """True if the reference network has passed its gates, so that its scores may be shown."""
        return bool(self.scores.get("gated"))

    @property
    def shown(self) -> dict:
        """The scores that may be shown; those of published networks do not depend on the gates."""
        entries = {name: entry for name, entry in self.scores.items() if isinstance(entry, dict)}
        return {name: entry for name, entry in entries.items() if self.gated or not name.startswith("refnet_")}

    @property
    def takes_class(self) -> bool:
        """True if the model was scored by the class asked for."""
        return any(protocol.asks_labels for name, protocol in PROTOCOLS.items() if name in self.scores)

    @property
    def ungated(self) -> list[str]:
        """Reasons why the scores of the reference network may not be shown."""
        return self.manifest.get("ungated", [])

    @property
    def protocol_key(self) -> str:
        """Equal for runs whose scores may share a table: the facts by which `hrvgan compare` judges are equal."""
        if not self.manifest:
            return self.name  # Unknown protocols equal no other.
        facts = {name: protocol_entry(name, self.manifest) for name in self.manifest["protocols"]}
        # Models without labels lack the scores that ask for one, and are compared by the others. What is not in
        # COMPARED_FIELDS (warnings, the number of draws) describes the run, not the measurement.
        shared = {
            name: [fact.get(key) for key in COMPARED_FIELDS]
            for name, fact in facts.items()
            if not fact.get("asks_labels")
        }
        keys = ("extractor", "real", "num_real", "num_fake")
        return json.dumps([shared, *(self.manifest[key] for key in keys)], sort_keys=True)

    @property
    def protocol_name(self) -> str:
        """`protocol_key` for readers: data set, network and number of clips on each side."""
        if not self.manifest:
            return self.name
        return "/".join([self.dataset, self.manifest["extractor"], f"n{self.manifest['num_fake']}"])

    @property
    def missing(self) -> list[tuple[str, str]]:
        """(what is missing, command that makes it) in the order of the graph."""
        stages = [
            (self.model, "The model has not been trained.", "train"),
            (self.samples, "No videos have been sampled.", "sample"),
            (self.scores, "The scores have not been computed.", "evaluate"),
        ]
        return [(words, f"dvc repro {stage}@{self.name}") for part, words, stage in stages if not part]

    @property
    def num_parameters(self) -> dict[str, int]:
        """Trained parameters of each network of the released model."""
        files = {"Generator": "model.safetensors", "Discriminator": "discriminator.safetensors"}
        paths = {network: self.folder / file for network, file in files.items()}
        return {network: count_parameters(path) for network, path in paths.items() if path.is_file()}

    @property
    def nearest_picture(self) -> Path | None:
        """Picture of samples beside the training clips nearest to them, if stage `evaluate` has made it."""
        path = Path("metrics") / f"{self.name}.nearest.png"
        return path if path.is_file() and self.manifest else None

    @property
    def weights_digest(self) -> str:
        """sha256 of the released generator, "" before the training."""
        path = self.folder / "model.safetensors"
        return file_digest(path) if path.is_file() else ""


def count_parameters(path: Path) -> int:
    """Numbers in a safetensors file except the statistics of batch norm; reads only the header."""
    with safe_open(path, "np") as file:
        names = file.keys()  # No dict: it cannot be iterated over.
        trained = [name for name in names if name.rpartition(".")[2] not in STATISTICS]
        return sum(math.prod(file.get_slice(name).get_shape()) for name in trained)


def read_runs() -> list[RunResults]:
    """All active runs, in the order of params.yaml."""
    return [RunResults(name) for name in params.load()["runs"]]


@dataclass(frozen=True)
class Mark:
    glyph: str
    words: str
    text: str
    at: float  # percent of the bar


class Score:
    """A score, {"value": ...} of a metrics JSON, as text and as positions (percent) on its bar."""

    def __init__(self, name: str, entry: dict):
        value, sd = entry["value"], entry.get("sd")
        places, (low, high) = decimals(value, sd), (value - (sd or 0), value + (sd or 0))
        numbers = {key: entry[key] for key in LANDMARKS if key in entry}
        protocol = PROTOCOLS.get(name)
        place = _bar(protocol.ends if protocol else (0.0, None), [low, high, *numbers.values()])
        self.name, self.title = name, title_of(name)
        self.meaning = protocol.meaning if protocol else ""
        self.better = "lower" if lower_is_better(name) else "higher"
        self.text = fixed(value, places)
        self.spread = None if sd is None else fixed(sd, places)
        self.at, self.band = place(value), (place(low), place(high))
        # A landmark of fewer clips than the score says of how many.
        sizes = {key: f" (n = {entry[key + '_n']:.0f})" for key in numbers if f"{key}_n" in entry}
        self.marks = [
            Mark(glyph, words + sizes.get(key, ""), fixed(numbers[key], decimals(numbers[key])), place(numbers[key]))
            for key, (glyph, words) in LANDMARKS.items()
            if key in numbers
        ]

    @property
    def with_spread(self) -> str:
        return f"{self.text} ± {self.spread}" if self.spread else self.text


def read_scores(scores: dict) -> list[Score]:
    """The scores of a metrics JSON: first those with a title, in the order of the registry."""
    names = [name for name, entry in scores.items() if isinstance(entry, dict) and "value" in entry]
    order = [name for name, protocol in PROTOCOLS.items() if protocol.title]
    names.sort(key=lambda name: order.index(name) if name in order else len(order))
    return [Score(name, scores[name]) for name in names]


def title_of(name: str) -> str:
    protocol = PROTOCOLS.get(name)
    return protocol.title or name if protocol else name


def _bar(ends: tuple[float | None, float | None], numbers: list[float]) -> Callable[[float], float]:
    """Function number -> percent of a bar that holds all `numbers` and ends at the protocol's own `ends`."""
    margin = 0.08 * (max(numbers) - min(numbers))
    low = min(numbers) - margin if ends[0] is None else min(ends[0], *numbers)
    high = max(numbers) + margin if ends[1] is None else max(ends[1], *numbers)
    return lambda number: round(100 * (number - low) / ((high - low) or 1), 2)


def decimals(value: float, sd: float | None = None) -> int:
    """Number of decimals that shows three digits of the value and at least one of its spread."""
    wanted = [2 - _magnitude(value)] + ([-_magnitude(sd)] if sd else [])
    return min(max(0, *wanted), 6)


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 2


def fixed(value: float, places: int) -> str:
    """`value` with a typographic minus sign and thin spaces between thousands."""
    return f"{value:,.{places}f}".replace("-", "\N{MINUS SIGN}").replace(",", "\u202f")
