"""Published networks: their structure, files of their layout with values of our own, and files that are not theirs."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hrvgan.errors import InputError
from hrvgan.features import c3d, i3d, inception_v3
from hrvgan.features.extractors import EXTRACTORS, Extractor, open_extractor
from hrvgan.features.weight_files import WEIGHTS, WeightsMissing, fill, find_weights
from hrvgan.files import file_digest

INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
RNG = np.random.default_rng(0)


def numbers(state):
    return sum(value.numel() for name, value in state.items() if not name.endswith("num_batches_tracked"))


@pytest.fixture(autouse=True)
def no_published_digests(monkeypatch):
    """Files of the published layouts with values of our own have other sizes and digests."""
    for name, file in WEIGHTS.items():
        monkeypatch.setitem(WEIGHTS, name, replace(file, size=None, sha256=""))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with a file of each published layout. C3D's first convolutions are random, the rest is biases."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.device("meta"):
        nets = {"c3d": c3d.C3D(), "i3d": i3d.I3D(), "inception": inception_v3.InceptionV3()}
    arrays = {
        c3d.file_name(name): np.zeros(value.shape, np.float32) for name, value in nets["c3d"].state_dict().items()
    }
    arrays["fc7/b"][:] = np.linspace(-1, 1, 4096)
    arrays["fc8/b"][:] = np.arange(101)
    arrays["fc8/W"][3, 4095] = 1000
    np.savez(folder / "conv3d_deepnetA_ucf.npz", **arrays)
    ramp = np.arange(171, dtype=np.float32) * np.ones((3, 16, 128, 1), np.float32)
    np.savez(folder / "mean2.npz", mean=ramp[None])
    torch.manual_seed(0)
    for name, net in (("i3d_pretrained_400.pt", nets["i3d"]), (INCEPTION, nets["inception"])):
        # The published files were written before batch norms counted batches.
        state = {key: value for key, value in net.state_dict().items() if "num_batches" not in key}
        state = {key: torch.ones(v.shape) if "var" in key else 0.1 * torch.randn(v.shape) for key, v in state.items()}
        torch.save(state, folder / name)
    return folder


def test_networks_have_the_published_numbers_of_parameters():
    with torch.device("meta"):
        nets = c3d.C3D(), i3d.I3D(), inception_v3.InceptionV3()
    assert [sum(p.numel() for p in net.parameters()) for net in nets] == [78_409_573, 12_697_264, 23_850_960]
    # float32 values in the files of 51,235,320 and 95,628,359 bytes, whose rest is names and code.
    assert 51_235_320 - 500_000 < 4 * numbers(nets[1].state_dict()) < 51_235_320
    assert 95_628_359 - 100_000 < 4 * numbers(nets[2].state_dict()) < 95_628_359


def test_parameter_names_of_the_published_files():
    with torch.device("meta"):
        own = {kind: {k: tuple(v.shape) for k, v in net.state_dict().items()} for kind, net in
               (("c3d", c3d.C3D()), ("i3d", i3d.I3D()), ("inception", inception_v3.InceptionV3()))}  # fmt: skip
    layers = ["conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b", "fc6", "fc7", "fc8"]
    assert {c3d.file_name(name) for name in own["c3d"]} == {f"{a}/{b}" for a in layers for b in "Wb"}
    assert own["c3d"]["fc6.weight"] == (4096, 8192)
    assert own["i3d"]["Conv3d_1a_7x7.conv3d.weight"] == (64, 3, 7, 7, 7)
    assert own["i3d"]["Mixed_4d.b2b.bn.running_var"] == (64,)
    assert own["i3d"]["Mixed_5c.b3b.conv3d.weight"] == (128, 832, 1, 1, 1)
    assert own["i3d"]["logits.conv3d.bias"] == (400,)
    assert own["inception"]["Mixed_5b.branch_pool.conv.weight"] == (32, 192, 1, 1)
    assert own["inception"]["Mixed_6c.branch7x7dbl_2.conv.weight"] == (160, 160, 7, 1)
    assert own["inception"]["Mixed_7c.branch3x3_2a.bn.running_mean"] == (384,)
    assert own["inception"]["fc.weight"] == (1008, 2048)
    assert not any("AuxLogits" in name for name in own["inception"])


@pytest.mark.parametrize(
    ("name", "shape", "width", "classes"),
    [
        ("c3d_tgan", (1, 16, 24, 32, 3), 4096, 101),
        ("c3d_tgan_dropout", (1, 16, 24, 32, 3), 4096, 101),
        ("c3d_tganv2", (1, 16, 24, 32, 3), 4096, 101),
        ("i3d_kinetics400", (1, 16, 16, 20, 3), 400, None),
        ("inception_2015_clean", (2, 1, 16, 20, 3), 2048, 1008),
    ],
)
def test_files_of_the_published_layout_load(weights, name, shape, width, classes):
    extractor = open_extractor(name, weights)
    clips = RNG.integers(256, size=shape, dtype=np.uint8)
    (features, logits), (others, _) = extractor.stream([clips, np.zeros(shape, np.uint8)])
    assert features.dtype == np.float32
    assert features.shape == others.shape == (shape[0], width)
    assert shape[1] == extractor.frames
    assert (None if logits is None else logits.shape[1]) == classes
    assert np.isfinite(features).all()
    assert extractor.id.startswith(f"{name}-float32-")
    assert len(extractor.id.split("-")[2].removesuffix("_unverified")) == 64
    assert extractor.id.endswith("_unverified")  # Any file of the layout loads; only the published one has the name.
    assert not extractor.verified
    if name in ("c3d_tgan", "c3d_tganv2"):  # All weights but one are zero: biases come through, rectified.
        np.testing.assert_allclose(features[0], np.linspace(-1, 1, 4096).clip(0), atol=1e-6)
        np.testing.assert_allclose(logits[0], np.arange(101) + 1000 * (np.arange(101) == 3), rtol=1e-6)
    assert set(EXTRACTORS) == {
        "c3d_tgan", "c3d_tgan_dropout", "c3d_tganv2", "i3d_kinetics400", "inception_2015_clean"
    }  # fmt: skip


def test_two_ways_into_c3d():
    clips = np.zeros((1, 16, 20, 20, 3), np.uint8)
    clips[..., 0], clips[..., 2] = 200, 50  # Red, blue.
    mean = torch.arange(171.0).expand(3, 16, 128, 171)
    first, second = (prepare(torch.as_tensor(clips), mean) for prepare in (c3d.prepare_tgan, c3d.prepare_tganv2))
    assert first.shape == second.shape == (1, 3, 16, 112, 112)
    # Constant pictures stay so: what is left is the level, blue first, minus the column of the mean.
    for channel, level in ((0, 50), (1, 0), (2, 200)):
        torch.testing.assert_close(first[0, channel, 5, 7], level - (21.0 + 8 + torch.arange(112)))
        torch.testing.assert_close(second[0, channel, 5, 7], level - (8.0 + torch.arange(112)))


def test_dropout_of_c3d_as_in_the_program_of_tgan(weights):
    """fc7 and with it the logits: half of the values 0, the others doubled, by the clip alone."""
    extractor = open_extractor("c3d_tgan_dropout", weights)
    clips = RNG.integers(256, size=(2, 16, 24, 32, 3), dtype=np.uint8)
    features, logits = extractor(clips)
    alone, _ = extractor(clips[1:])
    np.testing.assert_array_equal(features[1], alone[0])
    assert not np.array_equal(features[0], features[1])
    doubled = 2 * np.linspace(-1, 1, 4096, dtype=np.float32).clip(0)
    assert (np.isclose(features, 0) | np.isclose(features, doubled, rtol=1e-5)).all()
    assert (features[:, 2048:] > 0).mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_allclose(logits[:, 3], 3 + 1000 * features[:, 4095], rtol=1e-5)


def test_dropout_is_of_fc6_and_fc7():
    with torch.device("meta"):
        net = c3d.C3D()
    net.to_empty(device="cpu")
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    nn.init.ones_(net.fc6.bias)
    nn.init.eye_(net.fc7.weight)
    factors = c3d.dropout_factors(torch.zeros(1, 16, 8, 8, 3, dtype=torch.uint8))
    assert factors.unique().tolist() == [0, 2]
    with torch.inference_mode():
        x = torch.zeros(1, 3, 16, 112, 112)
        (plain, _), (dropped, _) = net(x), net(x, factors)
    assert (plain == 1).all()
    assert torch.equal(dropped, factors[:, 0] * factors[:, 1])
    assert (dropped == 4).float().mean() == pytest.approx(0.25, abs=0.03)


def test_i3d_pads_as_tensorflow():
    x = i3d.same(torch.ones(1, 1, 4, 5, 7), (3, 3, 7), (2, 2, 2))
    # 4 with kernel 3, stride 2: one zero behind. 5: one on each side. 7 with kernel 7: 3 on each side.
    assert x.shape == (1, 1, 5, 7, 13)
    assert x[0, 0, :, 3, 6].tolist() == [1, 1, 1, 1, 0]
    assert x[0, 0, 1, :, 6].tolist() == [0, 1, 1, 1, 1, 1, 0]
    torch.testing.assert_close(
        i3d.prepare(torch.full((1, 2, 3, 4, 3), 255, dtype=torch.uint8)), torch.ones(1, 3, 2, 224, 224)
    )


def test_inception_input_is_that_of_clean_fid():
    """Pillow's bicubic in float, clipped to [0, 255]: it overshoots at edges."""
    frames = RNG.integers(256, size=(1, 1, 400, 340, 3), dtype=np.uint8)
    frames[..., :170, :] = np.where(frames[..., :170, :] > 127, 255, 0)
    ours = inception_v3.prepare(torch.as_tensor(frames))[0].permute(1, 2, 0) * 128 + 128
    overshoot = 0
    for channel in range(3):
        image = Image.fromarray(frames[0, 0, :, :, channel].astype(np.float32), mode=None)
        theirs = np.asarray(image.resize((299, 299), Image.Resampling.BICUBIC))
        overshoot = max(overshoot, -theirs.min(), theirs.max() - 255)
        np.testing.assert_allclose(ours[..., channel], theirs.clip(0, 255), atol=0.01)  # Levels of 255.
    assert overshoot > 10


def test_absent_weights_are_one_sentence(tmp_path):
    for name in EXTRACTORS:
        with pytest.raises(WeightsMissing) as caught:
            open_extractor(name, tmp_path)
        assert "\n" not in str(caught.value)
        assert str(tmp_path) in str(caught.value)
        assert "https://" in str(caught.value)
    with pytest.raises(InputError, match="unknown extractor 'vgg'; known: c3d_tgan"):
        open_extractor("vgg", tmp_path)
    (tmp_path / "i3d_pretrained_400.pt").write_bytes(b"")
    assert find_weights(("i3d_torchscript.pt", "i3d_pretrained_400.pt"), tmp_path).name == "i3d_pretrained_400.pt"


class Payload:
    def __reduce__(self):
        return (open, ("stolen", "w"))


def broken(weights, folder, how):
    """A file of Inception's name that is not Inception's."""
    path = folder / INCEPTION
    good = (weights / INCEPTION).read_bytes()
    if how == "torn":
        path.write_bytes(good[: len(good) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("<html>404</html>")
    elif how == "another network":
        path.write_bytes((weights / "i3d_pretrained_400.pt").read_bytes())
    elif how == "a code pickle":
        path.write_bytes(pickle.dumps(Payload()))
    elif how == "a torch file with code":
        torch.save({"fc.weight": Payload()}, path)
    elif how == "a list":
        torch.save([torch.zeros(2)], path)
    return folder


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("torn", "damaged"),
        ("empty", "damaged"),
        ("text", "damaged"),
        ("another network", "weights of another network than Inception-v3"),
        ("a code pickle", "was not run"),
        ("a torch file with code", "was not run"),
        ("a list", "no table of named arrays"),
    ],
)
def test_files_that_are_not_the_weights(weights, tmp_path, how, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        open_extractor("inception_2015_clean", broken(weights, tmp_path, how))
    assert "\n" not in str(caught.value)
    assert INCEPTION in str(caught.value)
    assert not (tmp_path / "stolen").exists()


def test_npz_files_that_are_not_the_weights(weights, tmp_path):
    path = tmp_path / "conv3d_deepnetA_ucf.npz"
    (tmp_path / "mean2.npz").write_bytes((weights / "mean2.npz").read_bytes())
    np.savez(path, **{"conv1a/W": np.array([Payload()], dtype=object)})
    with pytest.raises(InputError, match="was not run"):
        open_extractor("c3d_tgan", tmp_path)
    np.savez(path, **{"conv1a/W": np.zeros((64, 3, 3, 3, 3), np.float32)})
    with pytest.raises(InputError, match=r"another network than C3D.*conv1a/b is missing"):
        open_extractor("c3d_tgan", tmp_path)
    np.savez(path, **{"conv1a/W": np.zeros((64, 3, 3, 3), np.float32)})
    with pytest.raises(InputError, match=r"conv1a/W is \(64, 3, 3, 3\), need \(64, 3, 3, 3, 3\)"):
        open_extractor("c3d_tgan", tmp_path)


def test_a_file_that_holds_more_is_of_another_network(tmp_path):
    net = torch.nn.Linear(2, 1)
    arrays = {**net.state_dict(), "AuxLogits.fc.weight": torch.zeros(3)}
    torch.save(arrays, tmp_path / INCEPTION)
    with pytest.raises(InputError, match=r"also holds AuxLogits\.fc\.weight"):
        fill(net, tmp_path / INCEPTION)


def test_published_digests_are_checked(weights, monkeypatch):
    known = WEIGHTS[INCEPTION]
    size = (weights / INCEPTION).stat().st_size
    monkeypatch.setitem(WEIGHTS, INCEPTION, replace(known, size=size + 1))
    with pytest.raises(InputError, match=f"{size:,} bytes, the published file has {size + 1:,}"):
        open_extractor("inception_2015_clean", weights)
    monkeypatch.setitem(WEIGHTS, INCEPTION, replace(known, size=size, sha256="0" * 64))
    with pytest.raises(InputError, match="damaged or other weights"):
        open_extractor("inception_2015_clean", weights)


def test_a_published_digest_is_a_name(weights, monkeypatch):
    digest = file_digest(weights / INCEPTION)
    monkeypatch.setitem(WEIGHTS, INCEPTION, replace(WEIGHTS[INCEPTION], sha256=digest))
    extractor = open_extractor("inception_2015_clean", weights)
    assert extractor.id == f"inception_2015_clean-float32-{digest}"
    assert extractor.verified


@pytest.fixture
def coarse():
    torch.set_float32_matmul_precision("medium")
    yield
    torch.set_float32_matmul_precision("highest")


def test_extraction_is_float32_whatever_the_caller_has_set(coarse):
    seen = []

    def read(clips):
        seen.append(torch.backends.mkldnn.matmul.fp32_precision)
        seen.append(torch.backends.cudnn.conv.fp32_precision)
        return torch.ones(2, 2) @ torch.ones(2, 2), None

    with torch.autocast("cpu", torch.bfloat16):
        features, _ = Extractor("x-float32-0", 1, read)(np.zeros((2, 1, 4, 4, 3), np.uint8))
        assert torch.is_autocast_enabled("cpu")
    assert seen == ["ieee", "ieee"]
    assert features.dtype == np.float32
    assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"  # Torch's own default.


def test_torchscript_is_run_only_by_its_digest(tmp_path, monkeypatch):
    name = "i3d_torchscript.pt"
    (tmp_path / name).write_bytes(b"PK\x03\x04 a program")
    monkeypatch.setitem(WEIGHTS, name, replace(WEIGHTS[name], sha256="0" * 64))
    with pytest.raises(InputError, match="damaged or other weights"):
        open_extractor("i3d_kinetics400", tmp_path)
