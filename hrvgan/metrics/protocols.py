"""Protocols: what a metric's name stands for. One entry fixes everything that could change the number.

Results may be compared that agree in protocol, extractor, real clips and numbers of clips.
"""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from hrvgan import metrics
from hrvgan.errors import InputError
from hrvgan.features import Features
from hrvgan.files import write_json

LINEAR = "bilinear, corners aligned, to 112x112"  # TGANv2's resize, of its Inception Score and its FID
FOR_DISPLAY = ("title", "meaning", "ends")
# Field of a manifest's protocol entry -> its name in messages. The number of draws is not among them: it sharpens a
# mean and moves none.
COMPARED_FIELDS = {
    "extractor_id": "extractor",
    "real_digest": "real clips",
    "num_real": "number of real clips",
    "num_fake": "number of generated clips",
    "num_features": "D",
    "frames": "frames",
    "start": "start of generated clips",
    "real_start": "start of real clips",
    "real_clips": "choice of real clips",
    "seed": "seed of the real clips",  # set if the clips or their first frames are drawn by it
    "resize": "resize",
    "ddof": "ddof",
    "splits": "splits",
    "eps": "eps",
}


@dataclass(frozen=True)
class Protocol:
    """A score of generated clips: a statistic with all of its settings, and the words that explain it.

    `statistic(real, fake, protocol)` takes ddof, splits and eps from the protocol, so that a manifest records what was
    computed. A statistic that returns several numbers by name is shared by protocols that take one `part` each. With
    the extractor "pixels" it takes frames (N, T, H, W, 3) instead of features and returns numbers (N, T) or (N, 1).
    """

    name: str
    extractor: str
    statistic: Callable[[Features, Features, "Protocol"], float | dict[str, float]]
    context: str  # Name of the value that real clips (or "copy") get in place of generated ones.
    description: str
    lower_is_better: bool = False
    part: str = ""
    needs_labels: bool = False  # Undefined, and left out, where the real clips have no classes.
    asks_labels: bool = False  # Also needs a generator that takes the label.
    uses_real: bool = True  # Compares with real clips, so that the choice of real clips matters.
    num_clips: int | str = "all"  # generated ones
    num_real: int | str = "as many"  # or "all"
    real_clips: str = "any"  # or "one a video", drawn, where a video gave several
    frames: int | str = "all"
    start: str = "the first frame"  # First frame of a generated clip within a longer video.
    real_start: str = "the first frame"
    resize: str = "area, to at most the network's size"
    least_clips: int = 2
    least_of_class: int = 0  # clips of each class, on both sides
    least_size: int = 0  # pixels of a frame each way, and frames of a clip, with the extractor "pixels"
    least_frames: int = 1
    ddof: int | None = None
    splits: int | None = None
    eps: float | None = None
    title: str = ""  # Heading in reports; "": the name.
    meaning: str = ""
    ends: tuple[float | None, float | None] = (0.0, None)  # Range of the score; None: open.

    def measure(self, real: Features, fake: Features, memo: dict | None = None) -> float:
        """The score. `memo` caches what protocols of one statistic share; it must not outlive the features."""
        if not self.part:
            return float(self.statistic(real, fake, self))
        memo = {} if memo is None else memo
        key = (self.statistic, id(real), id(fake))
        if key not in memo:
            memo[key] = self.statistic(real, fake, self)
        return float(memo[key][self.part])

    def lacks(self, real: Features, fake: Features) -> str:
        """Reason why these clips do not suffice; "" if they do."""
        fewest = min(len(fake), len(real) if self.uses_real else len(fake))
        if fewest < self.least_clips:
            return f"{fewest} clips, need at least {self.least_clips}; give more"
        if self.least_of_class:
            present = np.unique(real.labels)
            counts = (np.bincount(side.labels, minlength=present[-1] + 1) for side in (real, fake))
            fewest = min(count[present].min() for count in counts)
            if fewest < self.least_of_class:
                return f"{fewest} clip(s) of a class, need at least {self.least_of_class}; give more"
        return ""

    def text(self) -> dict:
        """The fields that decide the number, for manifests."""
        return {key: value for key, value in asdict(self).items() if key not in ("statistic", *FOR_DISPLAY)}

    def reduced(self, num: int) -> "Protocol":
        """The protocol with `num` generated clips; the name says so if that is fewer than published."""
        if isinstance(self.num_clips, str) or num >= self.num_clips:
            return self
        return replace(self, name=f"{self.name}_n{num}", num_clips=num)

    def unverified(self) -> "Protocol":
        """The protocol with weights of unknown origin: the published name is for the published file."""
        return replace(self, name=f"{self.name}_unverified")

    def of_precomputed_features(self) -> "Protocol":
        """The same statistic of feature files, whose extractor is unknown."""
        return replace(
            self,
            name=self.name.replace("refnet_", "features_"),
            extractor="given",
            num_clips="all",
            num_real="all",
            resize="unknown",
            description=self.description.replace("refnet's", "given").replace("refnet_fd", "features_fd"),
        )


def protocol(name: str) -> Protocol:
    if name not in metrics.PROTOCOLS:
        raise InputError(f"unknown protocol {name!r}; known: {', '.join(metrics.PROTOCOLS)}")
    return metrics.PROTOCOLS[name]


def of_extractor(*extractors: str) -> list[Protocol]:
    """The protocols that are computed from the features of `extractors`, in their order."""
    entries = metrics.PROTOCOLS.values()
    return [entry for extractor in extractors for entry in entries if entry.extractor == extractor]


def lower_is_better(name: str) -> bool:
    """Direction of a protocol, also under its names with fewer clips or unverified weights; False for unknown ones."""
    protocol = metrics.PROTOCOLS.get(re.sub(r"(_n\d+)?(_unverified)?$", "", name, count=1))
    return protocol is not None and protocol.lower_is_better


def write_result(path: Path, metrics: dict, manifest: dict) -> None:
    """Write a metrics JSON, <name>.json, which holds values alone, as DVC and MLflow show one column each; beside it
    <name>.manifest.json, whose "scores" hold their spread and landmarks too."""
    scores = {name: entry for name, entry in metrics.items() if isinstance(entry, dict)}
    values = {name: entry["value"] for name, entry in scores.items()}
    write_json(path.with_suffix(".manifest.json"), manifest | {"scores": scores})
    write_json(path, metrics | values)


def with_scores(values: dict, manifest: dict) -> dict:
    """Metrics as the evaluator returns them, of a metrics JSON and its manifest."""
    scores = manifest.get("scores", {})
    return {name: scores.get(name, value) for name, value in values.items()}


def flatten_scores(metrics: dict) -> dict[str, float]:
    """Scores of metrics as {"refnet_fd": value, "refnet_fd/sd": ..., "refnet_fd/floor": ...}."""
    return {
        name if key == "value" else f"{name}/{key}": number
        for name, entry in metrics.items()
        if isinstance(entry, dict)
        for key, number in entry.items()
    }


def differences(name: str, first: dict, second: dict) -> list[str]:
    """Differences of two manifests in protocol `name`, in words; [] if the results may be compared."""
    entries = [protocol_entry(name, manifest) for manifest in (first, second)]
    if None in entries:
        names = [", ".join(manifest.get("protocols", {})) or "nothing" for manifest in (first, second)]
        return [f"they were not scored by the same protocol (one has {names[0]}, the other {names[1]})"]
    return [
        f"different {words} ({_short(entries[0].get(key))} and {_short(entries[1].get(key))})"
        for key, words in COMPARED_FIELDS.items()
        if entries[0].get(key) != entries[1].get(key)
    ]


def protocol_entry(name: str, manifest: dict) -> dict | None:
    """Entry of protocol `name` in `manifest`, or None; for scores without a network, built from the manifest itself."""
    entry = manifest.get("protocols", {}).get(name)
    if not isinstance(entry, str):
        return entry
    numbers = {key: manifest.get(key) for key in ("num_real", "num_fake")}
    real = str(manifest.get("real"))
    return {"extractor_id": manifest.get("extractor"), "real_digest": real, "frames": entry} | numbers


def compare(results: list[tuple[dict, dict]]) -> dict[str, list[dict]]:
    """The entries of several (metrics, manifest) by protocol. Raises InputError if a shared protocol differs or there
    is none."""
    first, *others = [manifest for _, manifest in results]
    names = [manifest.get("protocols", {}) for manifest in (first, *others)]
    shared = [name for name in names[0] if all(name in other for other in names)]
    for other in others:
        if not shared:
            raise InputError(f"cannot be compared: {differences('', first, other)[0]}")
        for name in shared:
            if reasons := differences(name, first, other):
                raise InputError(f"{name} cannot be compared: {'; '.join(reasons)}")
    return {name: [metrics[name] for metrics, _ in results] for name in shared}


def ranks_of(manifests: dict[str, dict]) -> dict[str, float]:
    """Rank stability of each protocol over the networks that passed their gates and scored all models; {} with fewer
    than two networks or models."""
    networks = [manifest.get("networks", {}) for manifest in manifests.values()]
    ungated = {network for manifest in manifests.values() for network in manifest.get("ungated_networks", ())}
    gated = [network for network in networks[0] if network not in ungated]
    shared = [network for network in gated if all(network in other for other in networks)]
    stabilities = {}
    for name in networks[0][shared[0]] if shared else ():
        scores = {model: [other[network].get(name) for network in shared]
                  for model, other in zip(manifests, networks, strict=True)}  # fmt: skip
        if any(None in values for values in scores.values()):
            continue  # Not defined for one of the models.
        if (stability := rank_stability(scores)) is not None:
            stabilities[name] = stability
    return stabilities


def rank_stability(scores: dict[str, list[float]]) -> float | None:
    """Mean Kendall tau over the pairs of networks: 1, all rank the models alike, to -1; about 0 is chance.

    `scores` holds each model's value by each network. None with fewer than two models or two networks.
    """
    values = np.array(list(scores.values()))  # (models, networks)
    if len(values) < 2 or values.shape[1] < 2:
        return None
    first, second = np.array(list(combinations(range(len(values)), 2))).T
    signs = np.sign(values[first] - values[second])  # (pairs of models, networks)
    pairs = combinations(range(values.shape[1]), 2)
    return float(np.mean([(signs[:, a] * signs[:, b]).mean() for a, b in pairs]))


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 60 else f"{text[:34]}…{text[-8:]}"
