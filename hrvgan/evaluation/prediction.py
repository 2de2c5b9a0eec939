"""Scores of prediction: frames that a model samples after the first frames of real clips, against the true ones.

The landmark is the copy of the last frame seen, which is hard to beat if the camera stands still.
"""

import numpy as np
import torch

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError
from hrvgan.metrics.protocols import of_extractor
from hrvgan.nn.base import VideoGAN
from hrvgan.progress import bar


def score_prediction(gan: VideoGAN, clips: Clips, *, draws: int = 5, seed: int = 0) -> tuple[dict, dict]:
    """(metrics, manifest): by the protocols of "pixels" that suit the size of the frames, over all clips and predicted
    frames, mean and sd over `draws` of z, with "copy", what the last frame seen scores; in the manifest the same for
    each frame ahead."""
    if not len(clips):
        raise InputError(f"{clips.folder}: no clips in this split; extract more or change the splits")
    size, ahead = min(clips.shape[1:3]), gan.num_frames - gan.context
    protocols = [entry for entry in of_extractor("pixels") if size >= entry.least_size and ahead >= entry.least_frames]
    tables = dict.fromkeys((entry.name for entry in protocols), 0)  # each (draws + 1, ahead or 1)
    for first in bar(range(0, len(clips), 32), "predict", unit="batch"):
        rows = range(first, min(first + 32, len(clips)))
        real, labels = clips.read(rows)[:, : gan.num_frames], torch.from_numpy(clips.labels[list(rows)])
        went_on = real[:, gan.context :]
        seeds = np.random.SeedSequence([seed, first]).generate_state(draws)
        tries = [gan.predict(torch.from_numpy(real), labels, int(own)) for own in seeds]
        tries = [clip[:, gan.context :].numpy() for clip in tries]
        tries.append(np.broadcast_to(real[:, gan.context - 1 : gan.context], went_on.shape))
        for entry in protocols:
            scores = [entry.statistic(went_on, guess, entry) for guess in tries]
            tables[entry.name] = tables[entry.name] + np.sum(scores, axis=1) / len(clips)
    metrics = {}
    for name, table in tables.items():
        *each, copy = table.mean(1)  # The last row is that of the copy.
        value, sd = float(np.mean(each)), float(np.std(each, ddof=1))
        metrics[name] = {"value": value, "sd": sd, "copy": float(copy)}
    frames_ahead = {
        name: {"model": table[:-1].mean(0).tolist(), "copy": table[-1].tolist()}
        for name, table in tables.items()
        if table.shape[1] == ahead
    }
    return metrics, {
        "extractor": "none: pixels are compared",
        "real": {"data_digest": clips.digest},
        "num_real": len(clips),
        "num_fake": len(clips),
        "num_draws": draws,
        "seed": seed,
        "context": gan.context,
        "protocols": {entry.name: entry.description for entry in protocols},
        "frames_ahead": frames_ahead,
    }
