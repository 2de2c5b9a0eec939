"""The average of G: how far it goes, and batch norms with statistics of its own."""

import pytest
import torch
from torch import nn

from hrvgan.clipstore.layout import to_float
from hrvgan.models import build_model
from hrvgan.training import ema
from hrvgan.training.ema import BATCH_SIZE, BATCHES, swapped_generator, update_average, with_batch_norm_statistics
from hrvgan.training.loop import preview, train

NETS = [
    ("hrvgan", {"num_classes": 8, "size": 32, "width": 0.04, "norm_g": "batch"}),
    ("hrvgan", {"num_classes": 8, "size": 32, "width": 0.04, "norm_g": "batch", "task": "predict"}),
    ("vgan", {"size": 32, "width": 0.05}),
    ("mocogan", {"num_classes": 8, "size": 32, "width": 0.05}),
]


def built(name, arguments):
    torch.manual_seed(0)
    return build_model(name, **arguments)


def test_the_average_goes_the_share_that_decay_leaves():
    average, module = nn.Linear(2, 1), nn.Linear(2, 1)
    nn.init.zeros_(average.weight)
    nn.init.ones_(module.weight)
    update_average(average, module, decay=0.75)
    assert average.weight.tolist() == [[0.25, 0.25]]


@pytest.mark.parametrize(("name", "arguments"), NETS, ids=str)
def test_statistics_are_those_of_what_the_average_draws(name, arguments, shapes_clips):
    """The first batch norm after them sees features of mean 0 and variance 1, whatever was in the buffers."""
    gan = built(name, arguments)
    for module in gan.G.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.fill_(7)
    before = {key: value.clone() for key, value in gan.G.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.randn(1)
    torch.manual_seed(5)
    settled = with_batch_norm_statistics(gan, gan.G, shapes_clips)
    assert torch.equal(torch.randn(1), expected)  # No random state was touched.
    assert all(torch.equal(value, before[key]) for key, value in gan.G.state_dict().items())
    assert not settled.training
    again = with_batch_norm_statistics(gan, gan.G, shapes_clips).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in settled.state_dict().items())

    seen = []
    norm = next(m for m in settled.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    assert norm.num_batches_tracked == BATCHES
    norm.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    z, c = gan.latent(BATCHES * BATCH_SIZE, seed=0), gan.cycle_labels(BATCHES * BATCH_SIZE)
    given = [torch.zeros(len(z), 3, gan.context, gan.size, gan.size)] if gan.context else []
    with torch.no_grad(), swapped_generator(gan, settled):
        gan.generate(z, c, *given)
    if not gan.context:  # Which saw other first frames.
        assert seen[0].transpose(0, 1).flatten(1).mean(1).abs().max() < 1e-3
        assert seen[0].transpose(0, 1).flatten(1).var(1).mean().item() == pytest.approx(1, rel=0.1)


def asked_for(gan, monkeypatch):
    """Labels, and first frames, of all that `gan` draws from now on."""
    asked, generate = [], gan.generate
    monkeypatch.setattr(gan, "generate", lambda z, c, *x: asked.append((c, *x)) or generate(z, c, *x))
    return asked


def test_statistics_are_of_all_classes_however_many(shapes_clips, monkeypatch):
    gan = built("hrvgan", {"num_classes": 101, "size": 8, "width": 0.04, "norm_g": "batch"})
    asked = asked_for(gan, monkeypatch)
    with_batch_norm_statistics(gan, gan.G, shapes_clips)
    assert torch.cat([c for (c,) in asked]).unique().tolist() == list(range(101))


def test_a_predictor_is_asked_for_the_classes_of_what_it_goes_on_from(shapes_clips, monkeypatch):
    gan = built(*NETS[1])
    asked = asked_for(gan, monkeypatch)
    with_batch_norm_statistics(gan, gan.G, shapes_clips)
    every = to_float(torch.from_numpy(shapes_clips.read(range(len(shapes_clips)))))[:, :, : gan.context]
    for c, x in asked:
        assert len(c.unique()) >= 6  # In each batch, as training has it.
        for label, frames in zip(c, x, strict=True):
            same = (every == frames).flatten(1).all(1)
            assert label in torch.from_numpy(shapes_clips.labels)[same]


def test_what_is_released_has_them_and_what_goes_on_does_not(shapes_clips, tmp_path, monkeypatch):
    """Looking at samples changes no state, and the released clips are those that batch statistics would give."""
    monkeypatch.setattr(ema, "BATCHES", 4)  # Of however many batches.
    states = {}
    for every in (1, 1000):
        gan = built(*NETS[0])
        states[every] = tmp_path / f"{every}.pt"
        recipe = {"steps": 3, "batch_size": 8, "log_every": 1, "save_every": 1, "precision": "float32"}
        average, _ = train(gan, shapes_clips, states[every], sample_every=every, **recipe)
    first, second = (torch.load(path, weights_only=True) for path in states.values())
    for part in ("gan", "average"):
        assert all(torch.equal(value, second[part][key]) for key, value in first[part].items())
    raw = first["average"]
    assert any(not torch.equal(value, raw[key]) for key, value in average.state_dict().items())
    assert all(torch.equal(value, raw[key]) for key, value in average.named_parameters())
    assert torch.equal(gan.sample(16, seed=0), preview(gan, average, 2, shapes_clips))


def test_without_batch_norms_the_average_is_what_it_is(shapes_clips):
    gan = built("hrvgan", {"num_classes": 8, "size": 32, "width": 0.04})
    assert with_batch_norm_statistics(gan, gan.G, shapes_clips) is gan.G


def test_g_is_back_in_place_also_after_an_error(shapes_clips):
    gan = built("hrvgan", {"size": 8, "width": 0.1})
    trained = gan.G
    with pytest.raises(KeyboardInterrupt), swapped_generator(gan, nn.Identity()):
        raise KeyboardInterrupt
    assert gan.G is trained
