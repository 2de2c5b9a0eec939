"""Whether two results may stand in one column: the same protocol, extractor, real clips, and numbers of them."""

from hrvgan.errors import InputError
from hrvgan.metrics.ranks import rank_stability

# What a manifest says of a protocol, and how a reader calls it. The number of draws is not among them: it sharpens a
# mean and moves none.
FACTS = {
    "extractor_id": "extractor",
    "real_digest": "real clips",
    "num_real": "number of real clips",
    "num_fake": "number of generated clips",
    "num_features": "D",
    "frames": "frames",
    "start": "start of generated clips",
    "real_start": "start of real clips",
    "real_clips": "choice of real clips",
    "seed": "seed of the real clips",  # where they, or where they start, are drawn by it
    "resize": "resize",
    "ddof": "ddof",
    "splits": "splits",
    "eps": "eps",
}


def check_comparable(name: str, first: dict, second: dict) -> None:
    """`first` and `second` are manifests. Raises InputError that says why their `name` is not the same statistic."""
    differences = why_not(name, first, second)
    if differences:
        raise InputError(f"{name} cannot be compared: {'; '.join(differences)}")


def why_not(name: str, first: dict, second: dict) -> list[str]:
    """What differs, in words; [] where the two may be compared."""
    entries = [facts_of(name, manifest) for manifest in (first, second)]
    if None in entries:
        found = [", ".join(manifest.get("protocols", {})) or "nothing" for manifest in (first, second)]
        return [f"they were not scored by the same protocol (one has {found[0]}, the other {found[1]})"]
    return [
        f"different {words} ({_short(entries[0].get(key))} and {_short(entries[1].get(key))})"
        for key, words in FACTS.items()
        if entries[0].get(key) != entries[1].get(key)
    ]


def facts_of(name: str, manifest: dict) -> dict | None:
    """What `manifest` says of protocol `name`; scores without a network have their facts beside the protocols."""
    entry = manifest.get("protocols", {}).get(name)
    if not isinstance(entry, str):
        return entry
    facts = {
        "extractor_id": manifest.get("extractor"),
        "real_digest": str(manifest.get("real")),
        "frames": entry,
    }
    return facts | {key: manifest.get(key) for key in ("num_real", "num_fake")}


def compare(results: list[tuple[dict, dict]]) -> dict[str, list[dict]]:
    """The entries of several (metrics, manifest) by protocol. InputError if any shared one differs, or none is."""
    manifests = [manifest for _, manifest in results]
    first = manifests[0]
    names = [manifest.get("protocols", {}) for manifest in manifests]
    shared = [name for name in names[0] if all(name in other for other in names)]
    for other in manifests[1:]:
        if not shared:
            raise InputError(f"cannot be compared: {why_not('', first, other)[0]}")
        for name in shared:
            check_comparable(name, first, other)
    return {name: [metrics[name] for metrics, _ in results] for name in shared}


def ranks_of(manifests: dict[str, dict]) -> dict[str, float]:
    """Rank stability of each protocol over the networks that passed their gates and scored all of the models; {} where
    fewer than two did."""
    networks = [manifest.get("networks", {}) for manifest in manifests.values()]
    ungated = {network for manifest in manifests.values() for network in manifest.get("ungated_networks", ())}
    shared = [network for network in networks[0] if all(network in other for other in networks)]
    shared = [network for network in shared if network not in ungated]
    found = {}
    for name in networks[0][shared[0]] if shared else ():
        scores = {model: [other[network].get(name) for network in shared]
                  for model, other in zip(manifests, networks, strict=True)}  # fmt: skip
        if any(None in values for values in scores.values()):
            continue  # Not defined for one of the models.
        if (stability := rank_stability(scores)) is not None:
            found[name] = stability
    return found


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 60 else f"{text[:34]}…{text[-8:]}"
