"""Comparability of results: same protocol, extractor, real clips and numbers of clips; rank stability over networks."""

from itertools import combinations

import numpy as np

from hrvgan.errors import InputError

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


def check_comparable(name: str, first: dict, second: dict) -> None:
    """Raises InputError unless protocol `name` is the same statistic in the manifests `first` and `second`."""
    if reasons := differences(name, first, second):
        raise InputError(f"{name} cannot be compared: {'; '.join(reasons)}")


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
    shared = {
        "extractor_id": manifest.get("extractor"),
        "real_digest": str(manifest.get("real")),
        "frames": entry,
    }
    return shared | {key: manifest.get(key) for key in ("num_real", "num_fake")}


def compare(results: list[tuple[dict, dict]]) -> dict[str, list[dict]]:
    """The entries of several (metrics, manifest) by protocol. Raises InputError if a shared protocol differs or there
    is none."""
    manifests = [manifest for _, manifest in results]
    first = manifests[0]
    names = [manifest.get("protocols", {}) for manifest in manifests]
    shared = [name for name in names[0] if all(name in other for other in names)]
    for other in manifests[1:]:
        if not shared:
            raise InputError(f"cannot be compared: {differences('', first, other)[0]}")
        for name in shared:
            check_comparable(name, first, other)
    return {name: [metrics[name] for metrics, _ in results] for name in shared}


def ranks_of(manifests: dict[str, dict]) -> dict[str, float]:
    """Rank stability of each protocol over the networks that passed their gates and scored all models; {} with fewer
    than two networks or models."""
    networks = [manifest.get("networks", {}) for manifest in manifests.values()]
    ungated = {network for manifest in manifests.values() for network in manifest.get("ungated_networks", ())}
    shared = [network for network in networks[0] if all(network in other for other in networks)]
    shared = [network for network in shared if network not in ungated]
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
    return float(
        np.mean([(signs[:, a] * signs[:, b]).mean() for a, b in combinations(range(values.shape[1]), 2)])
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 60 else f"{text[:34]}…{text[-8:]}"
