"""Results of a run: its settings and the files that the stages have written for it."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from hrvgan.files import file_digest
from hrvgan.metrics.protocols import COMPARED_FIELDS, protocol_entry
from pipeline import params
from pipeline.stage import read_json

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm, not trained


@dataclass(frozen=True)
class RunResults:
    """One active run: its settings (params.yaml) and the JSON of each stage, {} where the stage has not run."""

    name: str
    settings: dict
    model: dict
    samples: dict
    scores: dict
    manifest: dict
    training: dict  # steps, clips seen, seconds, machine

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
        return {
            name: entry for name, entry in entries.items() if self.gated or not name.startswith("refnet_")
        }

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
    return [read_run(name) for name in params.load()["runs"]]


def read_run(name: str) -> RunResults:
    return RunResults(
        name=name,
        settings=params.run(name),
        model=read_json(Path("models", name, "model.json")),
        samples=read_json(Path("samples", name, "samples.json")),
        scores=read_json(Path("metrics", f"{name}.json")),
        manifest=read_json(Path("metrics", f"{name}.manifest.json")),
        training=read_json(Path("metrics", f"{name}.training.json")),
    )
