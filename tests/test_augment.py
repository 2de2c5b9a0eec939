"""Augmentations of clips: one draw a clip, the same in every frame, and differentiable."""

import pytest
import torch

from hrvgan.errors import InputError
from hrvgan.nn.augment import AUGMENTATIONS, Augment


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_still_clip_stays_still_and_clips_differ(name):
    torch.manual_seed(0)
    clips = torch.rand(1, 3, 1, 8, 8).expand(16, 3, 4, 8, 8) * 2 - 1
    shown = Augment(name)(clips)
    assert shown.shape == clips.shape
    torch.testing.assert_close(shown, shown[:, :, :1].expand_as(shown))
    assert len({tuple(clip.flatten().tolist()) for clip in shown}) > 4


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_gradients_pass(name):
    torch.manual_seed(0)
    clips = torch.rand(4, 3, 2, 8, 8, dtype=torch.float64) - 0.5

    def fixed(x):
        torch.manual_seed(1)
        return Augment(name)(x)

    assert torch.autograd.gradcheck(fixed, clips.requires_grad_(), fast_mode=True)


def test_translation_moves_by_whole_pixels_and_fills_with_black():
    torch.manual_seed(0)
    clips = torch.full((32, 1, 1, 8, 8), -1.0)
    clips[:, :, :, 4, 4] = 1  # One white pixel: it goes to (4 +- 1, 4 +- 1), and no other appears.
    shown = Augment("translation")(clips)
    places = (shown[:, 0, 0] > 0).nonzero()
    assert len(places) == 32
    assert set(places[:, 1].tolist()) == set(places[:, 2].tolist()) == {3, 4, 5}
    assert shown.sum() == clips.sum()


def test_cutout_greys_a_square_of_half_the_size():
    torch.manual_seed(0)
    shown = Augment("cutout")(torch.ones(64, 3, 2, 8, 8))
    assert set(shown.unique().tolist()) == {0.0, 1.0}
    assert max((clip[0, 0] == 0).sum().item() for clip in shown) == 16


def test_colour_of_a_grey_clip_shifts_by_at_most_a_half():
    torch.manual_seed(0)
    shown = Augment("colour")(torch.zeros(256, 3, 1, 2, 2))
    assert shown.abs().max() <= 0.5
    assert shown.min() < -0.4
    assert shown.max() > 0.4


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="unknown 'flop'; known: colour, translation, cutout"):
        Augment("colour,flop")
