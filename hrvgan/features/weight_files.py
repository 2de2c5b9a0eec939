"""Weight files of the published networks: their registry, and how they are found, verified and read.

No file is part of this project, and nothing is fetched here: `hrvgan weights NAME` does that. Files are read without
unpickling code.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrvgan.errors import InputError
from hrvgan.files import PublishedFile, file_digest

FOLDER = Path("data/weights")


@dataclass(frozen=True)
class WeightFile(PublishedFile):
    """Weights of a published network; `size` and `sha256` are set if several projects state the same ones."""

    network: str = ""


TGANV2 = "https://github.com/rezoo/tgan2/releases/download/v1.0"
KINETICS = "Apache-2.0 (the TF-Hub weights); Kinetics for research"
C3D = "none stated; for research"
FILES = [
    WeightFile(
        name="i3d_torchscript.pt",
        network="I3D, Kinetics-400, as StyleGAN-V's TorchScript",
        urls=(
            "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
            "https://huggingface.co/flateon/FVD-I3D-torchscript/resolve/1c2d61711c52571ad617a1063e6fa691b212e184/"
            "i3d_torchscript.pt",
        ),
        size=51_235_320,
        sha256="bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
        licence=KINETICS,
    ),
    WeightFile(
        name="i3d_pretrained_400.pt",
        network="I3D, Kinetics-400, as VideoGPT and TATS converted it",
        urls=(
            "https://huggingface.co/spaces/LanguageBind/Open-Sora-Plan-v1.0.0/resolve/"
            "810fa8c4bdb3a4c8eec9bd57375c29bde6fb46de/opensora/eval/fvd/videogpt/i3d_pretrained_400.pt",
            "https://drive.google.com/uc?id=1mQK8KD8G6UWRa5t87SRMm5PVXtlpneJT&export=download",
        ),
        licence=KINETICS,
    ),
    WeightFile(
        name="conv3d_deepnetA_ucf.npz",
        network="C3D, Sports-1M then UCF101 split 1, 101 classes",
        urls=(f"{TGANV2}/conv3d_deepnetA_ucf.npz",), licence=C3D,
    ),
    WeightFile(
        name="mean2.npz", network="the mean cube of C3D", urls=(f"{TGANV2}/mean2.npz",), licence=C3D,
    ),
    WeightFile(
        name="pt_inception-2015-12-05-6726825d.pth",
        network="Inception-v3 as FID has it",
        urls=(
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        ),
        size=95_628_359,
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        licence="Apache-2.0",
    ),
]
WEIGHTS = {file.name: file for file in FILES}


class WeightsMissing(InputError):
    """A weight file is missing; scores that do not need it go on."""


def find_weights(names: tuple[str, ...], folder: str | Path = FOLDER) -> Path:
    """Path of the first of the interchangeable files `names` that is in `folder`; raises WeightsMissing if none is."""
    for name in names:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    file = WEIGHTS[names[0]]
    others = f" (or {', '.join(names[1:])})" if names[1:] else ""
    raise WeightsMissing(
        f"{file.name}{others} is not in {folder}: `hrvgan weights {file.name}` gets the weights of {file.network}, "
        f"or put them there from {file.urls[0]}"
    )


def check_digest(path: Path) -> tuple[str, bool]:
    """sha256 of the file, and whether it is known to be the published one. Raises InputError if it is known not to be,
    or if the size differs."""
    published, size = WEIGHTS[path.name], path.stat().st_size
    if published.size and size != published.size:
        raise InputError(f"{path}: {size:,} bytes, the published file has {published.size:,}; fetch it again")
    digest = file_digest(path)
    if published.sha256 and digest != published.sha256:
        digests = f"sha256 {digest[:12]}…, the published file's is {published.sha256[:12]}…"
        raise InputError(f"{path}: {digests}; it is damaged or other weights: fetch it again")
    return digest, bool(published.sha256)


def read_arrays(path: Path) -> dict:
    """Name -> tensor of an npz without pickles, or of a state dict, read with `weights_only`."""
    import torch  # Here, so that `hrvgan weights` starts at once.

    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                return {name: torch.from_numpy(stored[name]) for name in stored.files}
        arrays = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged file can raise anything in numpy's and torch's readers.
        reason = str(error).split("\n")[0].split(". ")[0][:160] or type(error).__name__
        wrong = f"damaged, or holds more than weights ({reason}); it was not run"
        raise InputError(f"{path}: {wrong}: fetch the published file again") from None
    if not isinstance(arrays, dict) or not all(isinstance(value, torch.Tensor) for value in arrays.values()):
        raise InputError(f"{path}: no table of named arrays; fetch the published file again")
    return arrays


def fill(net, path: Path, file_name=lambda parameter: parameter):
    """Load every parameter and running statistic of `net` from a file; `file_name` maps their names to the file's.

    Returns `net` in eval mode. Raises InputError if the file is of another network.
    """
    arrays, counter = read_arrays(path), "num_batches_tracked"  # which the published files lack
    own = {name: tuple(value.shape) for name, value in net.state_dict().items() if not name.endswith(counter)}
    wanted = {file_name(name): shape for name, shape in own.items()}
    stored = {name: tuple(array.shape) for name, array in arrays.items() if not name.endswith(counter)}
    title = f"{path}: weights of another network than {WEIGHTS[path.name].network}"
    for name in wanted:
        if stored.get(name) != wanted[name]:
            has = f"is {stored[name]}" if name in stored else "is missing"
            raise InputError(f"{title}: {name} {has}, need {wanted[name]}; fetch the published file")
    if extra := sorted(stored.keys() - wanted.keys()):
        raise InputError(f"{title}: it also holds {extra[0]}; fetch the published file")
    net.load_state_dict({name: arrays[file_name(name)] for name in own}, strict=False)
    return net.eval()
