"""Scores of predictions: a model that copies scores as the copy, and one that knows scores better."""

import json

import numpy as np
import pytest
import torch

from hrvgan.clipstore.clips import Clips
from hrvgan.clipstore.writer import Clip, write_clips
from hrvgan.errors import InputError
from hrvgan.evaluation.prediction import score_prediction
from hrvgan.metrics import msssim, strred
from hrvgan.metrics.psnr_ssim import MOST_PSNR
from hrvgan.models import build_model
from hrvgan.sampling.samples import write_predictions
from hrvgan.video.io import probe
from pipeline.evaluate import evaluate_model
from pipeline.train import require_test_clips


def predictor(clips):
    torch.manual_seed(0)
    gan = build_model("hrvgan", num_classes=8, size=clips.shape[1], width=0.04, task="predict", context=4)
    gan.classes = clips.classes
    return gan


def test_an_untrained_predictor_is_about_as_good_as_the_copy(shapes_clips):
    metrics, manifest = score_prediction(predictor(shapes_clips), shapes_clips.split("train"), draws=2)
    assert list(metrics) == ["predict_psnr", "predict_ssim"]  # of 32 px
    for name in metrics:
        assert metrics[name]["value"] == pytest.approx(metrics[name]["copy"], rel=0.02)
        assert len(manifest["frames_ahead"][name]["copy"]) == 4
    ahead = manifest["frames_ahead"]["predict_psnr"]["copy"]
    assert ahead == sorted(ahead, reverse=True)  # Shapes move on: the copy gets worse.


def test_large_frames_have_spatio_temporal_scores_too(tmp_path):
    draw = np.random.default_rng(0)
    frames = draw.integers(256, size=(2, 4, 44, 44, 3), dtype=np.uint8).repeat(4, 2).repeat(4, 3)
    clips = (Clip(f"v{n}@0", f"v{n}", "", "f" * 32, "test", f"g{n}", 0, 1, 25.0, 1.0, clip)
             for n, clip in enumerate(frames))  # fmt: skip
    write_clips(tmp_path / "clips", clips, shape=frames.shape[1:], classes=[])

    class Copy:
        context, num_frames = 2, 4

        def predict(self, seen, c, seed):
            return seen[:, [0, 1, 1, 1]]

    metrics, manifest = score_prediction(Copy(), Clips(tmp_path / "clips"), draws=2)
    assert list(metrics) == ["predict_psnr", "predict_ssim", "predict_strred", "predict_msssim"]
    assert all(entry["value"] == pytest.approx(entry["copy"]) for entry in metrics.values())
    last, coming = frames[:, 1:2].repeat(2, axis=1), frames[:, 2:]
    assert metrics["predict_strred"]["copy"] == pytest.approx(strred(coming, last).mean())
    ahead = manifest["frames_ahead"]
    assert ahead["predict_msssim"]["copy"] == pytest.approx(msssim(coming, last).mean(0))
    assert "predict_strred" not in ahead  # of a clip as a whole


def test_one_that_knows_the_clips_scores_best(shapes_clips):
    clips = shapes_clips.split("train")
    whole = torch.from_numpy(clips.read(range(len(clips))))

    class Oracle:
        context, num_frames = 4, 8

        def predict(self, seen, c, seed):
            apart = (whole[:, None, :4].float() - seen[None, :, :4]).abs().flatten(2).mean(2)
            return whole[apart.argmin(0)]

    metrics, _ = score_prediction(Oracle(), clips, draws=2)
    assert metrics["predict_psnr"]["value"] == pytest.approx(MOST_PSNR)
    assert metrics["predict_ssim"]["value"] == pytest.approx(1)
    assert metrics["predict_ssim"]["copy"] < 0.95


def test_pictures_show_the_clip_above_its_predictions(shapes_clips, tmp_path):
    write_predictions(predictor(shapes_clips), shapes_clips, tmp_path, num_clips=2)
    (kind,) = json.loads((tmp_path / "samples.json").read_text())["kinds"]
    assert [title.rpartition(", ")[2] for title in kind["rows"]] == ["real", "predicted", "predicted again"] * 2
    assert probe(tmp_path / kind["mp4"]).num_frames == 8


def test_training_without_clips_to_predict_is_refused(shapes_clips):
    gan = predictor(shapes_clips)
    require_test_clips(gan, shapes_clips)
    with pytest.raises(InputError, match=r"no test clips, by which a model that predicts is scored; raise extract"):
        require_test_clips(gan, shapes_clips.split("train"))


def test_a_prediction_is_also_scored_on_val_by_which_the_champion_is_chosen(shapes_clips, tmp_path, monkeypatch):
    folder = tmp_path / "data/clips"
    folder.mkdir(parents=True)
    (folder / "shapes").symlink_to(shapes_clips.folder)
    monkeypatch.chdir(tmp_path)
    gan = predictor(shapes_clips)
    metrics, _ = evaluate_model(gan, "shapes", draws=2)
    for split, value, sd in (("test", "value", "sd"), ("val", "val", "val_sd")):
        scores, _ = score_prediction(gan, shapes_clips.split(split), draws=2)
        for name, entry in scores.items():
            assert (metrics[name][value], metrics[name][sd]) == (entry["value"], entry["sd"])
