"""HRVGAN's latents, tasks and terms: what each argument changes, on the smallest clips."""

import pytest
import torch
import torch.nn.functional as F

from hrvgan.errors import InputError
from hrvgan.models import build_model
from hrvgan.models.hrvgan import Spans
from hrvgan.nn.base import Batch


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
        {"rgb_skips": True},
        {"code_bits": 1},
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
    torch.testing.assert_close(equalised.G.seed.weight, plain.G.seed.weight)
    for network in (equalised.G, equalised.D):
        for name, stored in network.named_parameters():
            if name.endswith("parametrizations.weight.original"):
                assert stored.std(correction=0).item() == pytest.approx(1), name  # Adam moves all layers alike


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


def listened_to(gan, name):
    """The arguments of every call of a method, from now on."""
    heard, method = [], getattr(gan, name)

    def listening(*arguments):
        heard.append(arguments)
        return method(*arguments)

    setattr(gan, name, listening)
    return heard


def test_fakes_are_held_against_real_clips_of_their_own_class():
    """With mode seeking, neighbours share the class of the first; D is shown no pair of two classes."""
    gan = tiny(ms_weight=0.1)
    shown, drawn = listened_to(gan, "judge"), listened_to(gan, "draw_fake")
    batch = batch_for(gan)
    gan.g_terms(batch)
    (real, real_c), (_, fake_c) = shown
    assert real_c.tolist() == fake_c.tolist() == drawn[0][1].tolist() == [0, 0, 2, 2]
    torch.testing.assert_close(real, batch.real[[0, 0, 2, 2]])


def test_d_sees_real_and_generated_clips_through_the_same_treatment():
    gan = tiny()
    gan.augment = lambda clips: torch.full_like(clips, 0.3)
    shown = listened_to(gan, "judge")
    for phase in gan.phases():
        phase.loss(batch_for(gan))
    assert len(shown) == 4
    assert all((clips == 0.3).all() for clips, _ in shown)


def by_hand(gan, batch):
    """Of the terms that D's real logits alone decide, by the argument that weighs each."""
    real = batch.real.clone().requires_grad_()
    logits = gan.judge(real, batch.c)
    (slope,) = torch.autograd.grad(logits.sum(), real)
    return {"r1_gamma": slope.square().sum().item() / 4, "drift": logits.square().mean().item()}


@pytest.mark.parametrize(
    ("argument", "term", "arguments", "factor"),
    [
        ("r1_gamma", "r1", {"r1_gamma": 3.0, "r1_every": 4}, 3 / 2 * 4 * (8 * 8 * 8) / (8 * 32 * 32)),
        ("drift", "drift", {"drift": 0.2}, 0.2),
    ],
)
def test_terms_on_real_clips_by_hand(argument, term, arguments, factor):
    gan = tiny(**arguments)
    batch = batch_for(gan)
    expected = factor * by_hand(gan, batch)[argument]
    assert gan.d_terms(batch)[term].item() == pytest.approx(expected, rel=1e-4)


def test_a_gamma_means_the_same_at_every_size():
    """D's logit is the mean of a clip: at n times as many pixels each has 1/n of the gradient."""
    found = []
    for size in (8, 64):
        gan = tiny(size=size, width=0.02)
        gan.judge = lambda clips, c: 100 * clips.mean(dim=(1, 2, 3, 4))
        terms = gan.d_terms(batch_for(gan))
        found.append([terms["r1"].item(), terms["r2"].item()])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0] == pytest.approx([3 / 2 * 8 * 100**2 / 3 / (8 * 32 * 32)] * 2, rel=1e-4)


@pytest.mark.parametrize(
    ("argument", "phase", "term"),
    [("alpha", "g", "adv"), ("gp_weight", "d", "gp"), ("r2_gamma", "d", "r2"), ("ms_weight", "g", "ms"),
     ("r1_every", "d", "r2"), ("beta", "g", "mse")],
)  # fmt: skip
def test_terms_are_in_proportion_to_their_weights(argument, phase, term):
    found = []
    for weight in (1, 4):
        gan = tiny(**{"r2_gamma": 1.0, "ms_weight": 1.0, "beta": 1.0, argument: weight})
        batch = batch_for(gan)
        torch.manual_seed(1)
        found.append({"d": gan.d_terms, "g": gan.g_terms}[phase](batch)[term].item())
    assert found[0] != 0
    assert found[1] == pytest.approx(4 * found[0], rel=1e-4)


@pytest.mark.parametrize(("objective", "chance"), [("relativistic", 0.693), ("logistic", 1.386)])
def test_a_training_says_that_d_has_won_or_cannot_tell(objective, chance):
    def said(*losses):
        return tiny(objective=objective).imbalance([{"loss/d/adv": loss} for loss in losses])

    assert "D tells all generated clips from real ones" in said(0.01, 0.03, 0.0)
    assert "D tells no generated clip from a real one" in said(chance, chance + 0.01, chance - 0.01)
    assert said(0.01, 0.03, 0.2) == said(chance, 0.6, chance) == ""
    assert tiny(objective="wasserstein").imbalance([{"loss/d/adv": 0.0}]) == ""  # no loss by chance


def test_projection_by_hand():
    gan, features = tiny(), []
    gan.D.out.register_forward_hook(lambda module, inputs, output: features.append(inputs[0]))
    clips, c = batch_for(gan).real, torch.tensor([0, 1, 2, 0])
    logits = gan.judge(clips, c)
    h = features[0]
    projected = torch.stack([h[n] @ gan.D.embed.weight[c[n]] for n in range(4)]) / 128**0.5
    torch.testing.assert_close(logits, h @ gan.D.out.weight[0] + gan.D.out.bias + projected)
    assert projected.abs().min() > 1e-4


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
    with pytest.raises(InputError, match="context 0, need 1 to 7 of 8 frames"):
        tiny(task="predict", context=0)
    with pytest.raises(InputError, match="latent 'list' is not known; choose one of vector, sequence"):
        tiny(latent="list")
