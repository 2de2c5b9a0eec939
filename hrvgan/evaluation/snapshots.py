"""The score of a generator while it is trained: a few clips against real ones that the claims do not rest on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hrvgan.errors import InputError
from hrvgan.evaluation.real_baseline import shares
from hrvgan.evaluation.reference_scores import check_classes
from hrvgan.evaluation.sources import sample_chunks
from hrvgan.features import load_features
from hrvgan.features.refnet import featurise, load_refnet
from hrvgan.metrics.frechet import frechet_distance_from_features
from hrvgan.nn.base import VideoGAN

NUM_CLIPS = 256


def snapshot_score(
    gan: VideoGAN, reference: str | Path, num_clips: int = NUM_CLIPS, seed: int = 0
) -> Callable[[VideoGAN], dict[str, float]]:
    """A function that returns {"refnet_fd": ...} of `gan` as it is at each call, with the same latents each time.

    By the first network in the folder `reference` of stage `reference`; against val clips, or where they are no more
    than the network has features, against training clips. Raises InputError for clips of another shape or other
    classes than the network knows, and for a model that predicts.
    """
    net, info = load_refnet(reference)
    sets = load_features(Path(reference) / "features.npz")
    if gan.context:
        raise InputError("train.score_every: a model that predicts is scored by stage `evaluate` alone; set it to 0")
    check_classes(gan, info)
    shape = [gan.num_frames, gan.size, gan.size, 3]
    if list(info["clip_shape"]) != shape:
        raise InputError(f"{reference}: knows clips of {tuple(info['clip_shape'])}, the model makes {tuple(shape)}")
    real = sets["val"] if len(sets["val"]) > info["arguments"]["num_features"] else sets["train"]
    asked = shares(real.labels, num_clips)

    def score(gan: VideoGAN) -> dict[str, float]:
        features = [featurise(net, [videos])[0] for videos in sample_chunks(gan, asked, [seed])]
        return {"refnet_fd": frechet_distance_from_features(real.features, np.concatenate(features))}

    return score
