"""HRVGAN's latents, tasks and terms: what each argument changes, on the smallest clips."""

import pytest
import torch
import torch.nn.functional as F

from hrvgan.errors import InputError
from hrvgan.models import build_model
from hrvgan.models.base import Batch
from hrvgan.models.hrvgan import Spans


def tiny(**arguments):
    torch.manual_seed(0)
    return build_model("hrvgan", **{"num_classes": 3, "size": 8, "width": 0.1, **arguments})


def batch_for(gan, n=4, step=0):
    real = torch.rand(n, 3, gan.num_frames, gan.size, gan.size) * 1.8 - 0.9
    return Batch(real, torch.arange(n) % 3, step)


@pytest.mark.parametrize(
    "arguments",
    [
        {"latent": "sequence"},
        {"beta": 0.5},
        {"beta": 0.5, "latent": "sequence"},
        {"task": "predict", "context": 3, "beta": 0.5},
        {"task": "predict", "context": 3, "beta": 0.5, "latent": "sequence", "ms_weight": 0.0},
        {"modulate": False},
        {"equalised": True, "norm_g": "instance", "norm_d": "instance", "gp_weight": 10.0, "drift": 1e-3},
        {"objective": "bce", "k": 0.5, "norm_g": "batch", "num_classes": 0},
        {"augment": "colour,translation,cutout", "instance_noise": 0.1},
        {"optimizer": "sgd"},
    ],
    ids=str,
)
def test_every_term_is_finite_and_trains_every_parameter(arguments):
    gan = tiny(**{"objective": "logistic", **arguments})  # In a relativistic loss, a bias of D cancels.
    batch = batch_for(gan)
    with torch.no_grad():  # Away from the start, where some layers of a predictor are zero.
        for parameter in gan.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    for phase in gan.phases():
        gan.requires_grad_(False)
        phase.module.requires_grad_(True)
        terms = phase.loss(batch)
        assert all(term.isfinite() for term in terms.values())
        sum(terms.values()).backward()
        for name, parameter in phase.module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name
        phase.optimizer.step()


def test_spans_begin_as_the_mean_of_their_frames_at_unit_variance():
    z = torch.arange(8.0).view(1, 8, 1)
    mixed = Spans(8)(z).flatten()
    torch.testing.assert_close(mixed, torch.tensor([1.0, 5.0, 9.0, 13.0]) / 2**0.5)


def test_a_later_latent_of_a_sequence_changes_the_end_more_than_the_beginning():
    gan = tiny(latent="sequence", width=0.2).eval()
    z = gan.latent(1, seed=0)
    assert z.shape == (1, 8, 128)
    other = z.clone()
    other[:, 7] = -other[:, 7]
    with torch.no_grad():
        change = (gan.generate(z, torch.tensor([0])) - gan.generate(other, torch.tensor([0]))).abs()
    per_frame = change.mean((0, 1, 3, 4))
    assert per_frame[7] > 10 * per_frame[0]


def test_equalised_learning_rate_changes_the_steps_and_not_the_function():
    plain, equalised = tiny(), tiny(equalised=True)
    z, c = plain.latent(2, seed=0), torch.tensor([0, 1])
    torch.testing.assert_close(equalised.generate(z, c), plain.generate(z, c), rtol=1e-4, atol=1e-5)
    stored = equalised.G.seed.parametrizations.weight.original
    torch.testing.assert_close(stored * (2 / 128) ** 0.5, plain.G.seed.weight)


def test_modulation_lets_z_reach_the_last_level():
    gan = tiny().eval()
    with torch.no_grad():
        gan.G.seed.weight.zero_()  # Now z can act through modulation alone.
        first, second = gan.generate(gan.latent(2, seed=0), torch.tensor([0, 0]))
    assert (first - second).abs().max() > 0.01


def test_a_predictor_begins_with_what_it_saw_and_starts_as_a_copy_of_the_last_frame():
    gan = tiny(task="predict", context=3)
    real = batch_for(gan).real
    clips = gan.generate(gan.latent(4, seed=0), torch.zeros(4, dtype=torch.int64), real[:, :, :3])
    torch.testing.assert_close(clips[:, :, :3], real[:, :, :3])
    last = real[:, :, 2:3].expand(-1, -1, 5, -1, -1)
    torch.testing.assert_close(clips[:, :, 3:], 0.98 * last, rtol=0, atol=1e-5)


def test_prediction_error_leaves_out_the_frames_that_were_seen():
    gan = tiny(task="predict", context=3, beta=2.0, ms_weight=0.0)
    batch = batch_for(gan)
    last = 0.98 * batch.real[:, :, 2:3].expand(-1, -1, 5, -1, -1)
    by_hand = 2.0 * F.mse_loss(last, batch.real[:, :, 3:])
    assert gan.g_terms(batch)["mse"].item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_the_reconstruction_network_learns_to_give_back_two_clips():
    gan = tiny(beta=1.0, alpha=0.0, ms_weight=0.0, num_classes=0, width=0.2, lr_g=3e-3)
    real = torch.tensor([-0.7, 0.7]).view(2, 1, 1, 1, 1).expand(2, 3, 8, 8, 8)
    batch = Batch(real, torch.zeros(2, dtype=torch.int64), 0)
    (_, phase), errors = gan.phases(), []
    for _ in range(40):
        terms = phase.loss(batch)
        errors.append(terms["mse"].item())
        terms["mse"].backward()
        phase.optimizer.step()
        phase.optimizer.zero_grad()
    assert errors[-1] < 0.1 * errors[0]
    assert gan.encode(batch.real).shape == (2, 1, 128)


def test_fakes_are_held_against_real_clips_of_their_own_class():
    """With mode seeking, neighbours share the class of the first; D is shown no pair of two classes."""
    gan, shown = tiny(ms_weight=0.1), []
    judge = gan.judge

    def listening(clips, c):
        shown.append((clips, c))
        return judge(clips, c)

    gan.judge = listening
    batch = batch_for(gan)
    gan.g_terms(batch)
    (real, real_c), (_, fake_c) = shown
    assert real_c.tolist() == fake_c.tolist() == [0, 0, 2, 2]
    torch.testing.assert_close(real, batch.real[[0, 0, 2, 2]])


def test_logits_are_not_rounded_under_autocast():
    gan = tiny(num_classes=0)
    clips = batch_for(gan).real
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        gan.D.out.bias.fill_(1 + 2**-12)  # Between two numbers of bfloat16.
        gan.D.out.weight.zero_()
        logits = gan.judge(clips, gan.cycle_labels(4))
    assert logits.dtype == torch.float32
    assert logits.tolist() == [1 + 2**-12] * 4


def test_what_a_model_cannot_do_is_said():
    with pytest.raises(InputError, match="no encoder; train one with beta > 0"):
        tiny().encode(torch.zeros(1, 3, 8, 8, 8))
    with pytest.raises(InputError, match="from first frames"):
        tiny(task="predict").sample(2)
    with pytest.raises(InputError, match="context 8, need 1 to 7 of 8 frames"):
        tiny(task="predict", context=8)
    with pytest.raises(InputError, match="latent 'list' is not known; choose one of vector, sequence"):
        tiny(latent="list")
