"""Score a trained run against the real clips of its data set: metrics/<run>.json, its manifest, and a picture of
the training clips nearest to its samples."""

from dataclasses import asdict
from pathlib import Path

from hrvgan.clipstore.clips import Clips
from hrvgan.evaluation.evaluate import evaluate_published, table
from hrvgan.evaluation.memorisation import first_predictions, first_samples, write_nearest
from hrvgan.evaluation.prediction import score_prediction
from hrvgan.evaluation.reference_scores import evaluate_networks
from hrvgan.features import load_features
from hrvgan.features.refnet import load_refnet
from hrvgan.files import file_digest
from hrvgan.metrics.protocols import write_result
from hrvgan.models import load
from hrvgan.nn.base import MAX_CLASSES, VideoGAN
from hrvgan.nn.cost import costs
from pipeline import params, stage
from pipeline.tracking import record
from pipeline.tracking.registry import try_promote


def main(run: str) -> None:
    model = Path("models") / run
    config, where = params.run(run), f"evaluate or runs.{run}.evaluate"
    dataset = config["dataset"]
    gan = load(model, params.device(config))
    metrics, manifest = params.call(evaluate_model, gan, dataset, where=where, values=config["evaluate"])
    manifest |= {
        "run": run,
        "model_digest": file_digest(model / "model.safetensors"),
        "nearest": nearest(gan, dataset, config["sample"], Path("metrics") / f"{run}.nearest.png"),
        "cost": {network: asdict(cost) for network, cost in costs(gan).items()},
    }
    write_result(Path("metrics") / f"{run}.json", metrics, manifest)
    print(table(metrics, manifest))
    for reason in manifest.get("ungated", []):
        print(f"not to be believed: {reason}")
    for note in manifest.get("notes", []):
        print(f"note: {note}")
    record(run, "evaluate")

    def rescore(champion: Path) -> tuple[dict, dict]:
        return evaluate_model(load(champion, params.device(config)), dataset, **config["evaluate"])

    try_promote(run, rescore)


def evaluate_model(
    gan: VideoGAN,
    dataset: str,
    *,
    draws: int = 5,
    seed: int = 0,
    num_clips: int | str = "auto",
    num_halvings: int = 10,
    protocols: list[str] | None = None,
    published_clips: int | None = None,
) -> tuple[dict, dict]:
    """(metrics, manifest) of `gan`: by the reference networks with `num_clips` clips a draw, and by published
    `protocols` with `published_clips`, or as many as published. A model that predicts uses `draws` and `seed` alone."""
    clips, reference = Clips(Path("data/clips") / dataset), Path("data/reference") / dataset
    if gan.context:
        metrics, manifest = score_prediction(gan, clips.split("test"), draws=draws, seed=seed)
        manifest["real"]["split"] = "test"
        if len(val := clips.split("val")):  # What the champion is chosen by.
            for name, entry in score_prediction(gan, val, draws=draws, seed=seed)[0].items():
                metrics[name] |= {"val": entry["value"], "val_sd": entry["sd"]}
        return metrics | {"gated": True}, manifest  # No network that needs gates is involved.
    metrics, manifest = evaluate_networks(
        gan, reference, draws=draws, seed=seed, num_clips=num_clips, num_halvings=num_halvings
    )
    if protocols:
        more, published = evaluate_published(
            gan, clips, protocols, weights=Path("data/weights"), device=str(gan.device),
            seed=manifest["seed"], num=published_clips, cache=stage.state_folder() / "features",
        )  # fmt: skip
        metrics |= more
        manifest["protocols"] |= published["protocols"]
        manifest["notes"] += published["left_out"]
        for name, entry in published["protocols"].items():
            manifest["notes"] += [f"{name}: {warning}" for warning in entry["warnings"]]
    return metrics, manifest


def nearest(gan: VideoGAN, dataset: str, shown: dict, picture: Path) -> list[dict]:
    """Write a `picture` of the first sample of each class that stage `sample`, of arguments `shown`, makes, each beside
    its nearest training clip."""
    clips, reference = Clips(Path("data/clips") / dataset), Path("data/reference") / dataset
    seed, most = shown.get("seed", 0), shown.get("max_classes", MAX_CLASSES)
    if gan.context:
        labels, made = first_predictions(gan, clips.split("test"), seed, most)
    else:
        labels = gan.labels_to_show(shown.get("classes") or (), most)
        made = first_samples(gan, labels, seed, shown.get("truncation", 1.0))
    features, net = load_features(reference / "features.npz")["train"], load_refnet(reference)[0]
    head = f"{gan.context} frames given, the rest predicted" if gan.context else "generated"
    return write_nearest(picture, made, gan.titles(labels), net, clips.split("train"), features, head)


if __name__ == "__main__":
    stage.run(main, __doc__, argument="run")
