"""How well a model predicts: what it draws after the first frames of real clips, against how they went on.

The floor is the copy of the last frame seen, which is hard to beat where a camera stands still.
"""

import numpy as np
import torch

from hrvgan.clipstore.clips import Clips
from hrvgan.errors import InputError
from hrvgan.metrics.psnr_ssim import frame_psnr, frame_ssim
from hrvgan.nn.base import VideoGAN
from hrvgan.progress import bar

SCORES = {"predict_psnr": frame_psnr, "predict_ssim": frame_ssim}
MOST_PSNR = 60.0  # dB: frames that are the same score this, since a mean of infinities says nothing


def score_prediction(gan: VideoGAN, clips: Clips, *, draws: int = 5, seed: int = 0) -> tuple[dict, dict]:
    """(metrics, manifest): PSNR and SSIM of the luminance over all clips and predicted frames, mean and sd over
    `draws` of z, with "copy", what the last frame seen scores; in the manifest the same for each frame ahead."""
    if not len(clips):
        raise InputError(f"{clips.folder}: no clips in this split; extract more or change the splits")
    tables = {name: np.zeros((draws + 1, gan.num_frames - gan.context)) for name in SCORES}
    for first in bar(range(0, len(clips), 32), "predict", unit="batch"):
        rows = range(first, min(first + 32, len(clips)))
        real, labels = clips.read(rows)[:, : gan.num_frames], torch.from_numpy(clips.labels[list(rows)])
        went_on = real[:, gan.context :]
        seeds = np.random.SeedSequence([seed, first]).generate_state(draws)
        tries = [gan.predict(torch.from_numpy(real), labels, int(own)) for own in seeds]
        tries = [clip[:, gan.context :].numpy() for clip in tries]
        tries.append(np.broadcast_to(real[:, gan.context - 1 : gan.context], went_on.shape))
        for name, score in SCORES.items():
            sums = [np.minimum(score(went_on, guess), MOST_PSNR).sum(0) for guess in tries]
            tables[name] += np.array(sums) / len(clips)
    metrics = {name: summary(table) for name, table in tables.items()}
    ahead = {name: {"model": t[:-1].mean(0).tolist(), "copy": t[-1].tolist()} for name, t in tables.items()}
    return metrics, {
        "extractor": "none: pixels are compared",
        "real": {"data_digest": clips.digest},
        "num_real": len(clips),
        "num_fake": len(clips),
        "num_draws": draws,
        "seed": seed,
        "context": gan.context,
        "protocols": {name: score.__doc__.split("\n")[0] for name, score in SCORES.items()},
        "frames_ahead": ahead,
    }


def summary(table: np.ndarray) -> dict[str, float]:
    """Of scores (draws + 1, frames ahead), the last row those of the copy."""
    each = table.mean(1)
    return {"value": float(each[:-1].mean()), "sd": float(each[:-1].std(ddof=1)), "copy": float(each[-1])}
