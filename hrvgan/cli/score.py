"""`hrvgan score`, `compare` and `weights`: metrics for any two sets of clips, results side by side, weight files."""

import json
import re
import sys
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from hrvgan.errors import InputError
from hrvgan.files import user_cache


def score(
    *, real: Path, fake: Path, protocol: list[str], split: str = "", reference: Path | None = None,
    weights: Path = Path("data/weights"), cache: Path | None = None, num: int | None = None, seed: int = 0,
    device: str = "auto", max_bad_fraction: float = 0.1, out: Path | None = None,
) -> None:  # fmt: skip
    """Score FAKE against REAL: two clip stores, folders of videos, uint8 clips (N, T, H, W, 3) in .npz or .npy, or
    features (N, D) of any extractor. Without --protocol: all whose networks are at hand."""
    from hrvgan.evaluation.evaluate import score_sources
    from hrvgan.evaluation.source_files import holds_features, open_source
    from hrvgan.metrics.protocols import write_result

    if out and (out.suffix != ".json" or out.is_dir()):
        raise InputError(f"--out {out}: need the name of a .json file; its manifest is written beside it")
    precomputed = [holds_features(path) for path in (real, fake)]
    if split and precomputed[0]:
        raise InputError(f"{real}: features have no splits; leave out --split")
    if all(precomputed):
        protocols, sources, opener = of_features(real, fake, protocol)
    elif any(precomputed):
        raise InputError(f"{real} and {fake}: one holds features, the other clips; give two of a kind")
    else:
        protocols = of_clips(protocol, reference)
        sources = [open_source(path, part, max_bad_fraction) for path, part in ((real, split), (fake, ""))]
        opener = partial(open_any, reference=reference, weights=weights, device=device)
        cache = cache or user_cache() / "features"
    metrics, manifest = score_sources(protocols, *sources, opener, seed=seed, num=num, cache=cache)
    if any(entry["extractor"] == "refnet" for entry in manifest["protocols"].values()) and reference:
        manifest |= gates_of(reference, real)
    tell(metrics, manifest)
    if out:
        write_result(out, metrics, manifest)


def of_clips(names: list[str], reference: Path | None) -> list:
    """The protocols asked for; without any, those of published networks, and of refnet where there is one."""
    from hrvgan.features.extractors import EXTRACTORS
    from hrvgan.metrics.protocols import of_extractor, protocol

    protocols = [protocol(name) for name in names]
    for entry in protocols:
        if entry.extractor == "given":
            raise InputError("the features_ protocols are for files of features; these are clips")
        if entry.extractor == "pixels":
            raise InputError(f"{entry.name} is of predicted clips, which the stage `evaluate` scores")
    return protocols or of_extractor(*(["refnet"] if reference else []), *EXTRACTORS)


def of_features(real: Path, fake: Path, names: list[str]) -> tuple:
    """(protocols, sources, opener): features_*, or those asked for of the extractor that both files name."""
    from hrvgan.evaluation.source_files import open_precomputed, precomputed_extractor
    from hrvgan.metrics.protocols import of_extractor, protocol

    sources = open_precomputed(real, fake)
    protocols, by = [protocol(name) for name in names] or of_extractor("given"), sources[0].extractor
    for entry in protocols:
        if entry.extractor not in ("given", by.partition("-")[0]):
            raise InputError(f"{entry.name} needs features of {entry.extractor}; these are of {by or 'unnamed'}")
        if entry.asks_labels and not all(source.labelled for source in sources):
            raise InputError(f"{entry.name} needs the classes asked for; write them as `labels` into both files")
    return protocols, sources, lambda name: precomputed_extractor(sources[0])


def open_any(name: str, *, reference: Path | None, weights: Path, device: str):
    """An extractor by name: a published network out of `weights`, or the refnet of the folder `reference`."""
    from hrvgan.features.extractors import open_extractor
    from hrvgan.features.refnet import refnet_extractor

    if name != "refnet":
        return open_extractor(name, weights, device)
    if reference is None:
        raise InputError("the refnet protocols need --reference, such as data/reference/shapes")
    return refnet_extractor(reference, device)


def gates_of(reference: Path, real: Path) -> dict:
    """Verdict of the gates on the network of `reference`, for a manifest: they say nothing of other clips `real`."""
    from hrvgan.clipstore.clips import INDEX, Clips
    from hrvgan.evaluation.gates import check_gates, verdict
    from hrvgan.features import load_features

    examined = json.loads((reference / "refnet.json").read_text(encoding="utf-8"))["data_digest"]
    if not (real / INDEX).exists():
        reason = f"whether {reference} was trained and examined on those of {real} is unknown; give their clip store"
    elif Clips(real).digest != examined:
        reason = f"{reference} was trained and examined on other clips than {real}; score by their own reference"
    else:
        return verdict(check_gates(load_features(reference / "features.npz")))
    return {"gated": False, "ungated": [f"clips: {reason}"]}


def tell(metrics: dict, manifest: dict) -> None:
    """Print the scores; on stderr what was left out, and warnings. Raises InputError if there is no score."""
    from hrvgan.evaluation.evaluate import table

    left_out = networks_in_one_line(manifest["left_out"])
    if not metrics:
        raise InputError("nothing could be scored: " + "; ".join(left_out))
    for sentence in left_out:
        sys.stderr.write(f"left out: {sentence}\n")
    for name, entry in manifest["protocols"].items():
        for sentence in entry["warnings"]:
            sys.stderr.write(f"warning: {name}: {sentence}\n")
    print(table(metrics, manifest))
    if "gated" in manifest:
        print("refnet: gated" if manifest["gated"] else "refnet: ungated, its scores are not to be believed")
        for reason in manifest["ungated"]:
            print(f"  {reason}")


def networks_in_one_line(left_out: list[str]) -> list[str]:
    """The sentences, those on missing weights of networks as one, with the command that gets all of them."""
    absent = {text: re.match(r"(\S+): .*`hrvgan weights (\S+)`", text) for text in left_out}
    others = [text for text, match in absent.items() if not match]
    if not (matches := [match for match in absent.values() if match]):
        return others
    names, files = (", ".join(match[1] for match in matches), dict.fromkeys(match[2] for match in matches))
    return [f"{names}: `hrvgan weights {' '.join(files)}` gets the networks behind them", *others]


def compare(results: list[Path]) -> None:
    """Print RESULTS side by side; refuse, and say why, where protocol, extractor or real clips differ."""
    from hrvgan.metrics import protocols

    pairs = [read_result(path) for path in results]
    rows = protocols.compare(pairs)
    names = names_of(results)
    manifests = {name: manifest for name, (_, manifest) in zip(names, pairs, strict=True)}
    ranks = protocols.ranks_of(manifests)
    widths = [max(16, len(name) + 2) for name in names]
    columns = "".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    print(f"{'':<24}{columns}" + ("   rank stability" if ranks else ""))
    for name, entries in rows.items():
        stability = f"{ranks[name]:>17.2f}" if name in ranks else ""
        values = "".join(f"{entry['value']:>{width}.4g}" for entry, width in zip(entries, widths, strict=True))
        print(f"{name:<24}{values}{stability}")
    ungated = [name for name, manifest in manifests.items() if manifest.get("ungated")]
    if ungated and any(name.startswith("refnet_") for name in rows):
        print(f"refnet: ungated, its scores are not to be believed: {', '.join(ungated)}")


def names_of(results: list[Path]) -> list[str]:
    """Column heads: names of the files, or whole paths if two have the same name."""
    names = [path.stem for path in results]
    return names if len(set(names)) == len(names) else list(map(str, results))


def read_result(path: Path) -> tuple[dict, dict]:
    """(metrics, manifest) of a metrics JSON."""
    from hrvgan.metrics.protocols import with_scores

    files = path, path.with_suffix(".manifest.json")
    try:
        values, manifest = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no result with its manifest beside it ({error}); score it again") from None
    return with_scores(values, manifest), manifest


def weights(names: list[str]) -> None:
    """Get the files NAMES into data/weights, or list all of them and where they are."""
    from hrvgan.features.weight_files import FOLDER, WEIGHTS
    from hrvgan.fetching.download import fetch

    for name in names:
        if name not in WEIGHTS:
            raise InputError(f"unknown weights {name!r}; known: {', '.join(WEIGHTS)}")
        if not (FOLDER / name).exists():
            told = f"{name}: asking {urlsplit(WEIGHTS[name].urls[0]).hostname}; offline this takes a minute"
            print(told, file=sys.stderr)
        print(fetch(WEIGHTS[name], FOLDER))
    for file in () if names else WEIGHTS.values():
        here = f"is in {FOLDER}" if (FOLDER / file.name).exists() else f"missing, from {file.urls[0]}"
        print(f"{file.name}: {file.network}; {here}")


COMMANDS = {
    score: ("score clips, whoever made them, against real ones", {
        "real": "clip store, folder of videos, .npz or .npy",
        "fake": "the same",
        "protocol": {"nargs": "+", "metavar": "NAME", "help": "e.g. fvd2048_16f refnet_fd"},
        "split": "of the real clips, where they are a clip store",
        "reference": "data/reference/<data set>, for the refnet protocols",
        "weights": "folder of weight files",
        "cache": "keeps the features of real clips; else the user's own",
        "num": "generated clips a draw; as published where there are enough",
        "seed": "of the frames at which real clips start",
        "max_bad_fraction": "of the videos of a folder that may be too short or broken; they are left out and counted",
        "out": "a .json to write; its manifest is written beside it",
    }),
    compare: ("hold results against each other, if they may be", {
        "results": {"nargs": "+", "help": "metrics .json files with manifests beside them"},
    }),
    weights: ("files of the published networks behind scores", {
        "names": {"nargs": "*", "help": "files to get; none lists them all"},
    }),
}  # fmt: skip
