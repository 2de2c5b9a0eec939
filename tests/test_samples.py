"""What is drawn for people to look at, by every model and from both kinds of latents."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from hrvgan.cli import sample as cli_sample
from hrvgan.errors import InputError
from hrvgan.models import MODELS, build_model, model_class
from hrvgan.sampling.samples import strips, walk, write_samples
from hrvgan.training.loop import preview
from hrvgan.video.grids import BAND, GAP, drawable, labelled_columns, labelled_rows
from hrvgan.video.io import probe

SMALL = {name: {"size": 32, "width": 0.1} for name in MODELS} | {"hrvgan": {"size": 8, "width": 0.1}}
KINDS = [*((name, {}) for name in MODELS), ("hrvgan", {"latent": "sequence"}), ("hrvgan", {"num_classes": 0})]
every_kind = pytest.mark.parametrize(("name", "arguments"), KINDS, ids=str)


def small(name, arguments):
    torch.manual_seed(0)
    gan = build_model(name, **{"num_classes": 3, **SMALL[name], **arguments}).eval()
    gan.classes = ["a", "b", "c"] if gan.num_classes else []
    return gan


@every_kind
def test_every_kind_of_model_fills_the_folder(name, arguments, tmp_path):
    gan = small(name, arguments)
    write_samples(gan, tmp_path, clips_per_class=2, interpolation_steps=3, truncation=0.7)
    about = json.loads((tmp_path / "samples.json").read_text())
    assert [kind["kind"] for kind in about["kinds"]] == ["classes", "interpolation"]
    assert len(about["clips"]) == max(gan.num_classes, 1)
    for entry in (*about["kinds"], *about["clips"]):
        assert probe(tmp_path / entry["mp4"]).num_frames == gan.num_frames


def test_classes_of_nearly_the_same_name_have_files_of_their_own(tmp_path):
    gan = small("hrvgan", {})
    gan.classes = ["a b", "a_b", "a/b"]
    write_samples(gan, tmp_path, clips_per_class=1, interpolation_steps=2)
    assert len(list((tmp_path / "clips").iterdir())) == 3


@every_kind
def test_variety_falls_with_psi_and_psi_1_changes_nothing(name, arguments):
    gan = small(name, arguments)
    z, c = gan.latent(6, seed=0), torch.zeros(6, dtype=torch.int64)
    with torch.no_grad():
        whole = gan.generate(z, c)
        drawn = {psi: gan.generate(z, c, psi=psi) for psi in (1.0, 0.5, 0.0)}
    assert torch.equal(drawn[1.0], whole)
    variety = {psi: clips.std(0).mean().item() for psi, clips in drawn.items()}
    assert variety[0.0] < 1e-6  # All at the centre.
    assert variety[0.5] < 0.8 * variety[1.0]


@pytest.mark.parametrize("bits", [0, 2])
def test_truncation_goes_to_the_centre_of_the_class_and_the_code(bits):
    gan = small("hrvgan", {"code_bits": bits})
    z = torch.ones(3, gan.z_dim) * torch.tensor([1, -1, 1])[:, None]
    latents = gan.latent(512, seed=0)
    latents[:, :bits] = -latents[:, :bits].abs()
    with torch.no_grad():
        centres = gan.centre(z, torch.tensor([0, 2, 1]))
        torch.testing.assert_close(centres, gan.centre(z, torch.eye(3)[[0, 2, 1]]))
        w = gan.G.mix(latents, torch.full((512,), 2), None).mean(0)
    torch.testing.assert_close(centres[1], w)
    assert (centres[0] - centres[1]).abs().max() > 0.01


def test_a_discrete_code_is_the_signs_of_the_first_values():
    gan = small("hrvgan", {"code_bits": 2})
    z = torch.tensor([[-1.0, -1], [1, -1], [-0.1, 2], [3, 0.1]])
    z = torch.cat([z, torch.zeros(4, gan.z_dim - 2)], 1)
    assert gan.G.code(z[:, None]).tolist() == [0, 1, 2, 3]
    with torch.no_grad():  # The same code and another one, at nearly the same z.
        near, far = z[:1] + 0.01, torch.cat([-z[:1, :1] * 0.01, z[:1, 1:]], 1)
        w, w_near, w_far = (gan.G.mix(each, torch.tensor([0]), None) for each in (z[:1], near, far))
    assert (w_near - w).norm() < 0.1 * (w_far - w).norm()


@pytest.mark.parametrize("name", [name for name in MODELS if model_class(name).conditional])
def test_a_walk_between_classes_begins_and_ends_at_them(name):
    gan = small(name, {})
    z = gan.latent(2, seed=0)
    steps = walk(gan, (z[0], 2), (z[1], 0), 3)
    ends = gan.draw(z, torch.tensor([2, 0])).numpy()
    assert abs(steps[[0, -1]].astype(int) - ends).max() <= 1
    assert abs(steps[1].astype(int) - steps[0]).max() > 1


def test_classes_are_shown_that_are_named(tmp_path):
    gan = small("hrvgan", {})
    write_samples(gan, tmp_path, classes=["c", "a"], clips_per_class=1, interpolation_steps=2)
    about = json.loads((tmp_path / "samples.json").read_text())
    assert [kind["rows"] for kind in about["kinds"]] == [["c", "a"], ["c", "a"]]
    assert [clip["class"] for clip in about["clips"]] == ["c", "a"]
    assert sorted(path.name for path in (tmp_path / "clips").iterdir()) == ["000-a.mp4", "002-c.mp4"]
    with pytest.raises(InputError, match="the model knows no class 'd'; known: a, b, c"):
        write_samples(gan, tmp_path, classes=["d"])


def test_classes_that_no_font_can_write_are_numbered(tmp_path, capsys):
    """As those of the private use area."""
    written = {}
    for name in ("\ue001", "class 1"):
        gan, folder = small("hrvgan", {}), tmp_path / str(len(written))
        gan.classes = ["a", name, "c"]
        write_samples(gan, folder, clips_per_class=1, interpolation_steps=2)
        clips = gan.draw(gan.latent(2, 0), torch.tensor([1, 0])).numpy()
        shown = drawable([name, "a"], gan.classes)
        cli_sample.write(folder / "two.png", clips, gan, np.array([1, 0]), shown, {0: "generated"})
        pictures = [(folder / f"{picture}.png").read_bytes() for picture in ("classes", "two")]
        written[name] = pictures, json.loads((folder / "samples.json").read_text())["kinds"][0]["rows"]
    assert written["\ue001"][0] == written["class 1"][0]
    assert written["\ue001"][1] == ["a", "class 1: \ue001", "c"]
    assert (tmp_path / "0" / "two.txt").read_text(encoding="utf-8") == "class 1: \ue001\n"
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in ("0/two.png", "0/two.txt", "1/two.png")]


def test_pictures_say_how_many_classes_they_show(tmp_path):
    gan = small("hrvgan", {})
    write_samples(gan, tmp_path, classes=["c", "a"], clips_per_class=1, interpolation_steps=2)
    for kind in ("classes", "interpolation"):
        with Image.open(tmp_path / f"{kind}.png") as image:
            picture = np.asarray(image)
        title = labelled_columns(picture, ["generated, 2 of 3 classes"])[:BAND]
        assert np.array_equal(picture[:BAND], title)


def test_strips_of_long_clips_are_wrapped():
    clips = np.random.default_rng(0).integers(0, 256, (2, 18, 96, 96, 3), np.uint8)
    picture = strips(clips, ["BarUp", "DiscUp"], {0: "generated"})
    cell = 96 + GAP
    assert picture.shape[0] == BAND + 4 * cell
    margin = picture.shape[1] - 16 * cell
    for row, clip in ((0, clips[0]), (2, clips[1])):
        top = BAND + row * cell
        line = picture[top : top + cell, margin:].reshape(cell, 16, cell, 3).swapaxes(0, 1)[:, :96, :96]
        assert np.array_equal(line, clip[:16])
        rest = picture[top + cell : top + 2 * cell, margin:].reshape(cell, 16, cell, 3).swapaxes(0, 1)[:, :96, :96]
        assert np.array_equal(rest[:2], clip[16:])
        assert rest[2:].max() == 0
    labels = labelled_rows(picture[BAND:, margin:], ["BarUp", "frame 17", "DiscUp", "frame 17"])
    assert np.array_equal(picture[BAND:, :margin], labels[:, :margin])


def test_of_many_classes_the_first_are_shown():
    gan = small("hrvgan", {"num_classes": 20})
    assert gan.labels_to_show() == list(range(12))
    assert gan.labels_to_show(most=3) == [0, 1, 2]
    assert preview(gan, gan.G, 2, None).shape == (24, gan.num_frames, 8, 8, 3)
