"""`hrvgan score` and `hrvgan compare`: metrics for any two sets of clips, and for what came of them."""

import json
import sys
from functools import partial
from pathlib import Path

from hrvgan.errors import InputError
from hrvgan.files import user_cache, write_json


def add_score(commands) -> None:
    parser = commands.add_parser(
        "score", help="score clips, whoever made them, against real ones", description=score.__doc__
    )
    parser.add_argument("--real", type=Path, required=True, help="clip store, folder of videos, .npz or .npy")
    parser.add_argument("--fake", type=Path, required=True, help="the same")
    parser.add_argument(
        "--protocol", nargs="+", default=[], metavar="NAME", help="e.g. fvd2048_16f refnet_fd"
    )
    parser.add_argument("--split", default="", help="of the real clips, where they are a clip store")
    parser.add_argument("--reference", type=Path, help="data/reference/<data set>, for the refnet protocols")
    parser.add_argument("--weights", type=Path, default=Path("data/weights"), help="folder of weight files")
    parser.add_argument("--cache", type=Path, help="keeps the features of real clips; else the user's own")
    parser.add_argument("--num", type=int, help="generated clips a draw; as published where there are enough")
    parser.add_argument("--seed", type=int, default=0, help="of the frames at which real clips start")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="a .json to write; its manifest is written beside it")
    parser.set_defaults(command=score)


def score(
    real: Path, fake: Path, *, protocol: list[str], split: str, reference: Path | None, weights: Path,
    cache: Path | None, num: int | None, seed: int, device: str, out: Path | None,
) -> None:  # fmt: skip
    """Score FAKE against REAL: two clip stores, folders of videos, uint8 clips (N, T, H, W, 3) in .npz or .npy, or
    features (N, D) of any extractor. Without --protocol: all whose networks are at hand."""
    from hrvgan.evaluation.feature_files import holds_features
    from hrvgan.evaluation.scores import score_all
    from hrvgan.evaluation.source_files import open_source

    if out and (out.suffix != ".json" or out.is_dir()):
        raise InputError(f"--out {out}: need the name of a .json file; its manifest is written beside it")
    given = [holds_features(path) for path in (real, fake)]
    if split and given[0]:
        raise InputError(f"{real}: features have no splits; leave out --split")
    if all(given):
        wanted, sources, opener = of_features(real, fake, protocol)
    elif any(given):
        raise InputError(f"{real} and {fake}: one holds features, the other clips; give two of a kind")
    else:
        wanted, sources = of_clips(protocol, reference), (open_source(real, split), open_source(fake))
        opener = partial(open_any, reference=reference, weights=weights, device=device)
        cache = cache or user_cache() / "features"
    metrics, manifest = score_all(wanted, *sources, opener, seed=seed, num=num, cache=cache)
    if any(about["extractor"] == "refnet" for about in manifest["protocols"].values()) and reference:
        manifest |= gates_of(reference)
    tell(metrics, manifest)
    if out:
        write_json(out.with_suffix(".manifest.json"), manifest)
        write_json(out, metrics)


def of_clips(names: list[str], reference: Path | None) -> list:
    """The protocols asked for; without any, those of published networks, and of refnet where there is one."""
    from hrvgan.metrics.protocols import PROTOCOLS, protocol

    without = ("given",) if reference else ("given", "refnet")
    wanted = [protocol(name) for name in names]
    if any(entry.extractor == "given" for entry in wanted):
        raise InputError("the features_ protocols are for files of features; these are clips")
    return wanted or [entry for entry in PROTOCOLS.values() if entry.extractor not in without]


def of_features(real: Path, fake: Path, names: list[str]) -> tuple:
    """(protocols, sources, opener): features_*, or those asked for of the extractor that both files name."""
    from hrvgan.evaluation.precomputed_features import given_extractor, open_given
    from hrvgan.metrics.protocols import of_extractor, protocol

    sources = open_given(real, fake)
    wanted, by = [protocol(name) for name in names] or of_extractor("given"), sources[0].extractor
    for entry in wanted:
        if entry.extractor not in ("given", by.partition("-")[0]):
            raise InputError(
                f"{entry.name} needs features of {entry.extractor}; these are of {by or 'unnamed'}"
            )
        if entry.asks_labels and not all(source.labelled for source in sources):
            raise InputError(
                f"{entry.name} needs the classes asked for; write them as `labels` into both files"
            )
    return wanted, sources, lambda name: given_extractor(sources[0])


def open_any(name: str, *, reference: Path | None, weights: Path, device: str):
    """An extractor by name: a published network out of `weights`, or the refnet of the folder `reference`."""
    from hrvgan.features.extractors import open_extractor, refnet_extractor

    if name != "refnet":
        return open_extractor(name, weights, device)
    if reference is None:
        raise InputError("the refnet protocols need --reference, such as data/reference/shapes")
    return refnet_extractor(reference, device)


def gates_of(reference: Path) -> dict:
    """Whether the network of `reference` may be believed, for a manifest."""
    from hrvgan.evaluation.gates import check_gates, verdict
    from hrvgan.metrics.features import load_features

    return verdict(check_gates(load_features(reference / "features.npz")))


def tell(metrics: dict, manifest: dict) -> None:
    """Print the scores; on stderr what was left out and what to beware of. InputError where there is no score."""
    if not metrics:
        raise InputError("nothing could be scored: " + "; ".join(manifest["left_out"]))
    for sentence in manifest["left_out"]:
        sys.stderr.write(f"left out: {sentence}\n")
    for name, about in manifest["protocols"].items():
        for sentence in about["warnings"]:
            sys.stderr.write(f"warning: {name}: {sentence}\n")
    print(table(metrics, manifest))
    if "gated" in manifest:
        print("refnet: gated" if manifest["gated"] else "refnet: ungated, its scores are not to be believed")
        for reason in manifest["ungated"]:
            print(f"  {reason}")


def table(metrics: dict, manifest: dict) -> str:
    """A line a score: value, spread, what real clips get, and how many clips."""
    lines = []
    for name, entry in metrics.items():
        about = manifest["protocols"][name]
        better = "lower" if about["lower_is_better"] else "higher"
        context = f"{about['context']} {entry[about['context']]:.4g}" if about["context"] in entry else ""
        if f"{about['context']}_n" in entry:
            context += f" (of {entry[about['context'] + '_n']} clips)"
        sd = f" ± {entry['sd']:.2g}" if "sd" in entry else ""
        numbers = f"N {about['num_real']} real, {about['num_fake']} fake"
        lines.append(
            f"{name:<24} {entry['value']:>9.4g}{sd:<10} {better} is better   {context}   {numbers}".rstrip()
        )
    return "\n".join(lines)


def add_compare(commands) -> None:
    parser = commands.add_parser(
        "compare", help="hold results against each other, if they may be", description=compare.__doc__
    )
    parser.add_argument(
        "results", type=Path, nargs="+", help="metrics .json files with manifests beside them"
    )
    parser.set_defaults(command=compare)


def compare(results: list[Path]) -> None:
    """Print RESULTS side by side; refuse, and say why, where protocol, extractor or real clips differ."""
    from hrvgan.evaluation.comparability import compare as compare_results
    from hrvgan.evaluation.comparability import ranks_of

    found = [read_result(path) for path in results]
    rows = compare_results(found)
    names = names_of(results)
    ranks = ranks_of({name: manifest for name, (_, manifest) in zip(names, found, strict=True)})
    widths = [max(16, len(name) + 2) for name in names]
    columns = "".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    print(f"{'':<24}{columns}" + ("   rank stability" if ranks else ""))
    for name, entries in rows.items():
        stability = f"{ranks[name]:>17.2f}" if name in ranks else ""
        values = "".join(
            f"{entry['value']:>{width}.4g}" for entry, width in zip(entries, widths, strict=True)
        )
        print(f"{name:<24}{values}{stability}")
    ungated = [name for name, (_, about) in zip(names, found, strict=True) if about.get("ungated")]
    if ungated and any(name.startswith("refnet_") for name in rows):
        print(f"refnet: ungated, its scores are not to be believed: {', '.join(ungated)}")


def names_of(results: list[Path]) -> list[str]:
    """What each file is called in a table: by its name, or by all of its path where two have the same name."""
    names = [path.stem for path in results]
    return names if len(set(names)) == len(names) else list(map(str, results))


def read_result(path: Path) -> tuple[dict, dict]:
    """(metrics, manifest) of a metrics JSON."""
    files = path, path.with_suffix(".manifest.json")
    try:
        return tuple(json.loads(file.read_text(encoding="utf-8")) for file in files)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no result with its manifest beside it ({error}); score it again") from None
