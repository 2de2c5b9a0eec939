"""`hrvgan score` and `hrvgan compare`: metrics for any two sets of clips, and for what came of them."""

import json
import sys
from pathlib import Path

from hrvgan.errors import InputError


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
    parser.add_argument("--cache", type=Path, help="folder that keeps the features of real clips")
    parser.add_argument("--num", type=int, help="generated clips a draw; as published where there are enough")
    parser.add_argument("--seed", type=int, default=0, help="of the frames at which real clips start")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="a .json to write; its manifest is written beside it")
    parser.set_defaults(command=score)


def score(
    real: Path, fake: Path, protocol: list[str], split: str, reference: Path | None, weights: Path,
    cache: Path | None, num: int | None, seed: int, device: str, out: Path | None,
) -> None:  # fmt: skip
    """Score FAKE against REAL: two clip stores, folders of videos, uint8 clips (N, T, H, W, 3) in .npz or .npy, or
    features (N, D) of any extractor. Without --protocol: all whose networks are at hand."""
    from hrvgan.files import write_json
    from hrvgan.metrics.given import holds_features

    if holds_features(real) and holds_features(fake):
        metrics, manifest = score_features(real, fake, protocol, num, seed)
    elif holds_features(real) or holds_features(fake):
        raise InputError(f"{real} and {fake}: one holds features, the other clips; give two of a kind")
    else:
        metrics, manifest = score_clips(
            real, fake, protocol, split, reference, weights, cache, num, seed, device
        )
    if not metrics:
        raise InputError("nothing could be scored: " + "; ".join(manifest["left_out"]))
    for sentence in manifest["left_out"]:
        sys.stderr.write(f"left out: {sentence}\n")
    for name, about in manifest["protocols"].items():
        for sentence in about["warnings"]:
            sys.stderr.write(f"warning: {name}: {sentence}\n")
    print(table(metrics, manifest))
    if out:
        write_json(out.with_suffix(".manifest.json"), manifest)
        write_json(out, metrics)


def score_clips(real, fake, names, split, reference, weights, cache, num, seed, device) -> tuple[dict, dict]:
    from functools import partial

    from hrvgan.metrics.protocols import PROTOCOLS, protocol
    from hrvgan.scoring.scores import score_all
    from hrvgan.scoring.source_files import open_source

    wanted = [protocol(name) for name in names] or [
        entry
        for entry in PROTOCOLS.values()
        if entry.extractor not in ("given", *([] if reference else ["refnet"]))
    ]
    if any(entry.extractor == "given" for entry in wanted):
        raise InputError("the features_ protocols are for files of features; these are clips")
    opener = partial(open_any, reference=reference, weights=weights, device=device)
    sources = open_source(real, split), open_source(fake)
    return score_all(wanted, *sources, opener, seed=seed, num=num, cache=cache)


def open_any(name: str, *, reference: Path | None, weights: Path, device: str):
    """An extractor by name: a published network out of `weights`, or the refnet of the folder `reference`."""
    from hrvgan.metrics.extractors import open_extractor, refnet_extractor

    if name != "refnet":
        return open_extractor(name, weights, device)
    if reference is None:
        raise InputError("the refnet protocols need --reference, such as data/reference/shapes")
    return refnet_extractor(reference, device)


def score_features(real: Path, fake: Path, names: list[str], num: int | None, seed: int) -> tuple[dict, dict]:
    """Features of any extractor, by the protocols features_*, or by those of the extractor that both files name."""
    from hrvgan.metrics.given import read_given
    from hrvgan.metrics.protocols import of_extractor, protocol
    from hrvgan.scoring.scores import make_sets, plan
    from hrvgan.scoring.scores import score as score_one

    (reals, by, digest), (fakes, fake_by, _) = read_given(real), read_given(fake)
    if by != fake_by:
        raise InputError(f"{real} has features of {by or 'an unnamed extractor'}, {fake} of {fake_by or 'one'}; "
                         "scores across extractors mean nothing")  # fmt: skip
    metrics, about, left_out = {}, {}, []
    for entry in [protocol(name) for name in names] or of_extractor("given"):
        if entry.extractor not in ("given", by.partition("-")[0]):
            raise InputError(
                f"{entry.name} needs features of {entry.extractor}; these are of {by or 'unnamed'}"
            )
        if (entry.needs_labels and fakes.logits.shape[1] < 2) or entry.asks_labels:
            left_out.append(f"{entry.name}: the files hold no class probabilities")
            continue
        num_real, n, draws = plan(entry, len(reals), len(fakes), num)
        if n < entry.least_clips:
            left_out.append(f"{entry.name}: {n} clips, need at least {entry.least_clips}")
            continue
        some = [fakes.take(range(draw, draws * n, draws)) for draw in range(draws)]
        sets = make_sets(entry, reals.take(range(num_real)), some, digest, by or "given", seed)
        named, metrics[entry.name], text = score_one(entry, sets)
        metrics[named.name], about[named.name] = metrics.pop(entry.name), text
    manifest = {"real": {"name": str(real), "digest": digest, "num_clips": len(reals)}, "fake": {"name": str(fake)},
                "seed": seed, "protocols": about, "left_out": left_out}  # fmt: skip
    return metrics, manifest


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
            f"{name:<24}{entry['value']:>10.4g}{sd:<10} {better} is better   {context}   {numbers}".rstrip()
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
    from hrvgan.metrics.comparing import compare as compare_results
    from hrvgan.metrics.comparing import ranks_of

    found = [read_result(path) for path in results]
    rows = compare_results(found)
    ranks = ranks_of({path.stem: manifest for path, (_, manifest) in zip(results, found, strict=True)})
    print(
        f"{'':<24}" + "".join(f"{path.stem:>16}" for path in results) + ("   rank stability" if ranks else "")
    )
    for name, entries in rows.items():
        stability = f"{ranks[name]:>17.2f}" if name in ranks else ""
        print(f"{name:<24}" + "".join(f"{entry['value']:>16.4g}" for entry in entries) + stability)


def read_result(path: Path) -> tuple[dict, dict]:
    """(metrics, manifest) of a metrics JSON."""
    files = path, path.with_suffix(".manifest.json")
    try:
        return tuple(json.loads(file.read_text(encoding="utf-8")) for file in files)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: no result with its manifest beside it ({error}); score it again") from None
