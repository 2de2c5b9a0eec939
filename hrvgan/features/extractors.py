"""Extractors: uint8 clips in, float32 features and logits out, with an id that identifies both.

The id is architecture, preprocessing, dtype and the sha256 of the weights: equal ids, comparable features. It ends in
`_unverified` if that sha256 is not known to be the published one.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hrvgan.errors import InputError
from hrvgan.features import c3d, i3d, inception_v3
from hrvgan.features.weight_files import FOLDER, check_digest, fill, find_weights, read_arrays

UNVERIFIED = "_unverified"
BATCH = 16  # Clips at a time: I3D's first layer alone takes 26 MB a clip.


@dataclass(frozen=True)
class Extractor:
    """`read(clips)` maps uint8 (n, frames, H, W, 3), or what `shrink` makes of them, to features (n, D) and logits
    (n, K) or None. `shrink` makes them float (n, 3, frames, h, w) of the network's size, each frame by itself.

    It runs in full float32, whatever the caller has set for matrix products or autocast.
    """

    id: str
    frames: int | None  # None: all
    read: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    device: str = "cpu"
    classes: list[str] | None = None  # Classes of the logits, if they depend on the data set.
    shrink: Callable[[Tensor], Tensor] | None = None

    @property
    def verified(self) -> bool:
        """True if the weights are known to be the published ones."""
        return not self.id.endswith(UNVERIFIED)

    @torch.inference_mode()
    def __call__(self, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        with full_float32(self.device):
            clips = torch.as_tensor(clips, device=self.device)
            if self.shrink and clips.dtype == torch.uint8:
                clips = self.shrink(clips)
            features, logits = self.read(clips)
        return features.cpu().numpy(), None if logits is None else logits.cpu().numpy()

    @property
    def shrink_frame(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """`shrink` of one frame, uint8 (H, W, 3) -> float (3, 1, h, w), for processes that decode large ones."""
        return self.shrink and partial(_shrink_frame, self.shrink)

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Features of each batch, BATCH clips at a time."""
        for batch in batches:
            for start in range(0, len(batch), BATCH):
                yield self(batch[start : start + BATCH])


def _shrink_frame(shrink: Callable[[Tensor], Tensor], frame: np.ndarray) -> np.ndarray:
    return shrink(torch.as_tensor(frame)[None, None])[0].numpy()


@contextmanager
def full_float32(device: str | torch.device) -> Iterator[None]:
    """Context in which matrix products and convolutions run in float32, without TF32, bfloat16 or autocast.

    An id that says float32 must not stand for TF32 on another GPU.
    """
    backends = torch.backends
    places = backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        with torch.autocast(torch.device(device).type, enabled=False):
            yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def _identity(name: str, *files: Path) -> str:
    digests, published = zip(*map(check_digest, files), strict=True)
    return "-".join([name, "float32", *digests]) + ("" if all(published) else UNVERIFIED)


def _c3d(name: str, folder: Path, device: str) -> Extractor:
    path, mean_path = find_weights(("conv3d_deepnetA_ucf.npz",), folder), find_weights(("mean2.npz",), folder)
    identity = _identity(name, path, mean_path)
    with torch.device("meta"):
        net = c3d.C3D()
    fill(net.to_empty(device="cpu"), path, c3d.file_name).to(device)
    try:
        mean = c3d.mean_cube(read_arrays(mean_path)).to(device)
    except (KeyError, RuntimeError):
        remedy = "fetch the published file"
        raise InputError(f"{mean_path}: no mean cube of 3x16x128x171 in it; {remedy}") from None
    read, shrink = {
        "c3d_tgan": (lambda x: net(c3d.crop_tgan(x, mean)), c3d.shrink_tgan),
        # The whole clip decides on the dropout.
        "c3d_tgan_dropout": (lambda x: net(c3d.prepare_tgan(x, mean), c3d.dropout_factors(x)), None),
        "c3d_tganv2": (lambda x: net(c3d.crop_tganv2(x, mean)), c3d.shrink_tganv2),
    }[name]
    return Extractor(identity, c3d.FRAMES, read, device, shrink=shrink)


def _i3d(name: str, folder: Path, device: str) -> Extractor:
    path = find_weights(("i3d_torchscript.pt", "i3d_pretrained_400.pt"), folder)
    identity = _identity(name, path)
    if path.name == "i3d_torchscript.pt":
        script = torch.jit.load(path, map_location=device).eval()  # Code: run only if its digest is the published one.
        options = {"rescale": False, "resize": False, "return_features": True}
        return Extractor(identity, 16, lambda x: (script(x, **options), None), device, shrink=i3d.prepare)
    net = fill(i3d.I3D(), path).to(device)
    return Extractor(identity, 16, lambda x: (net(x), None), device, shrink=i3d.prepare)


def _inception(name: str, folder: Path, device: str) -> Extractor:
    path = find_weights(("pt_inception-2015-12-05-6726825d.pth",), folder)
    identity = _identity(name, path)
    net = fill(inception_v3.InceptionV3(), path).to(device)
    return Extractor(identity, 1, lambda x: net(inception_v3.prepare(x)), device)


# name -> function of (name, folder, device).
EXTRACTORS = {
    "c3d_tgan": _c3d,
    "c3d_tgan_dropout": _c3d,
    "c3d_tganv2": _c3d,
    "i3d_kinetics400": _i3d,
    "inception_2015_clean": _inception,
}


def open_extractor(name: str, folder: str | Path = FOLDER, device: str = "cpu") -> Extractor:
    """Extractor `name` with the weights in `folder`.

    Raises WeightsMissing if its file is not there, and InputError for a damaged or different file.
    """
    if name not in EXTRACTORS:
        raise InputError(f"unknown extractor {name!r}; known: {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name](name, Path(folder), device)
