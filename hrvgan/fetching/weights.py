"""The files of the published networks that scores are named after: where they are, and which file is the right one.

None is part of this project. `fetching.download.fetch(WEIGHTS[name], FOLDER)` gets one, or finds the one at hand.
"""

from dataclasses import dataclass
from pathlib import Path

from hrvgan.files import PublishedFile

FOLDER = Path("data/weights")


@dataclass(frozen=True)
class WeightFile(PublishedFile):
    """`size` and `sha256` are given where several projects have written down the same ones."""

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
        urls=(f"{TGANV2}/conv3d_deepnetA_ucf.npz",),
        licence=C3D,
    ),
    WeightFile(
        name="mean2.npz",
        network="the mean cube of C3D",
        urls=(f"{TGANV2}/mean2.npz",),
        licence=C3D,
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
