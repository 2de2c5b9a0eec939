"""What the graph has made of a run so far, read from its files; what is missing is named with its command."""

import json
from dataclasses import dataclass
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.metrics.comparability import COMPARED_FIELDS, protocol_entry
from pipeline import params


@dataclass(frozen=True)
class Findings:
    """One active run: its settings (params.yaml) and what each stage has left of it."""

    name: str
    settings: dict
    model: dict | None
    samples: dict | None
    scores: dict | None
    manifest: dict | None
    training: dict | None = None  # steps, clips seen, seconds, machine

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
        """Whether all scores may be shown: the reference network has passed the gates of its protocol."""
        return bool(self.scores and self.scores.get("gated"))

    @property
    def shown(self) -> dict:
        """The scores that may be shown: those of published networks also where the reference network has failed."""
        entries = {name: entry for name, entry in (self.scores or {}).items() if isinstance(entry, dict)}
        return entries if self.gated else {k: v for k, v in entries.items() if not k.startswith("refnet_")}

    @property
    def gates(self) -> list[dict]:
        """The gates of the reference network, each with "name", "measured", "needed" and "passed"."""
        return (self.manifest or {}).get("gates", [])

    @property
    def ungated(self) -> list[str]:
        """Why those of the reference network may not be shown."""
        return (self.manifest or {}).get("ungated", [])

    @property
    def notes(self) -> list[str]:
        """What a reader of the scores should know about this data set."""
        return (self.manifest or {}).get("notes", [])

    @property
    def yardstick(self) -> str:
        """Equal for runs whose scores may share a column: the facts by which `hrvgan compare` judges are the same."""
        if self.manifest is None:
            return self.name  # What is not known is like nothing else.
        keys = ("extractor", "real", "num_real", "num_fake")
        facts = {name: protocol_entry(name, self.manifest) for name in self.manifest["protocols"]}
        # A model that takes no label lacks such scores, and is compared by the others. What is no fact (warnings, the
        # number of draws) says how good a run is, not what was measured.
        shared = {
            name: [about.get(fact) for fact in COMPARED_FIELDS]
            for name, about in facts.items()
            if not about.get("asks_labels")
        }
        return json.dumps([shared, *(self.manifest[key] for key in keys)], sort_keys=True)

    @property
    def yardstick_name(self) -> str:
        """The same for a reader: data set, network and number of clips on each side."""
        if self.manifest is None:
            return self.name
        return "/".join([self.dataset, self.manifest["extractor"], f"n{self.manifest['num_fake']}"])

    @property
    def missing(self) -> list[tuple[str, str]]:
        """(what is not there, the command that makes it) in the order of the graph."""
        stages = [
            (self.model, "The model has not been trained.", "train"),
            (self.samples, "No videos have been sampled.", "sample"),
            (self.scores, "The scores have not been computed.", "evaluate"),
        ]
        return [(words, f"dvc repro {stage}@{self.name}") for part, words, stage in stages if part is None]


def find_all() -> list[Findings]:
    """The active runs, in the order of params.yaml."""
    return [find(name, params.run(name)) for name in params.load()["runs"]]


def find(name: str, settings: dict) -> Findings:
    """Read what there is of run `name` below the current folder."""
    return Findings(
        name=name,
        settings=settings,
        model=_read(Path("models", name, "model.json")),
        samples=_read(Path("samples", name, "samples.json")),
        scores=_read(Path("metrics", f"{name}.json")),
        manifest=_read(Path("metrics", f"{name}.manifest.json")),
        training=_read(Path("metrics", f"{name}.training.json")),
    )


def _read(path: Path) -> dict | None:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON ({error}); remove it and run `dvc repro`") from None
