"""The reference network refnet: a small 3-D CNN whose pooled features and class probabilities are scored.

It is trained on real clips, as they are and with faults of generators, and calibrated on those as they are. Its id is a
hash of its weights and temperature.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from hrvgan.clipstore.layout import to_float
from hrvgan.errors import InputError
from hrvgan.features.extractors import Extractor, full_float32
from hrvgan.features.perturbations import FAULTS
from hrvgan.files import atomic_path, write_json
from hrvgan.progress import bar

SKETCH = (2, 4, 4)  # Frames, rows and columns of the coarse view.
MOST_DETAIL = 0.25
# Faults in the shares in which they are learnt: two colours are the hardest to find, then warps. Strengths are from a
# tenth, which nobody sees, to four times; what the network has to answer ends at twice, where half of an object has
# wholly another colour.
LESSONS = ("two-coloured", "warped", "checkered", "two-coloured", "warped", "ghosted", "two-coloured")
STRENGTHS, MOST_STRENGTH = (0.1, 4.0), 2.0

# (rng, rows) -> uint8 clips (n, T, H, W, 3) and right answers, int64 (n,).
Task = Callable[[np.random.Generator, np.ndarray], tuple[np.ndarray, np.ndarray]]


class RefNet(nn.Module):
    """uint8 (N, T, H, W, 3) -> features (N, D) and calibrated logits (N, K), float32.

    Larger clips are shrunk to `max_size` pixels and thinned to `max_frames` frames, so that the cost is bounded.
    With `motion` its input has, beside the colours, the frame-to-frame change of brightness times `gain`, so that small
    motion is not lost. With `detail_gain` above 0, what differs from the mean of the neighbours is amplified: a few
    levels of a checkerboard most, and edges little. Features are in units of their root mean square over the real
    training clips.
    """

    def __init__(self, num_classes: int, num_features: int = 32, width: int = 16, max_size: int = 32,
                 max_frames: int = 16, motion: bool = False, detail_gain: float = 0.0):
        super().__init__()
        self.arguments = {"num_classes": num_classes, "num_features": num_features, "width": width,
                          "max_size": max_size, "max_frames": max_frames}
        if motion:
            self.arguments["motion"] = True
        if detail_gain:
            self.arguments["detail_gain"] = detail_gain
        self.detail_gain = detail_gain
        self.max_size, self.max_frames = max_size, max_frames
        # Time is halved only once: motion by a pixel a frame would be lost in coarser steps.
        self.body = nn.Sequential(
            _block(4 if motion else 3, width, (3, 5, 5), stride=(1, 2, 2)),       # (N, w, T, S/2, S/2)
            _block(width, 2 * width, (3, 3, 3), stride=(1, 2, 2)),                # (N, 2w, T, S/4, S/4)
            _block(2 * width, 3 * width, (3, 3, 3), stride=(2, 2, 2)),            # (N, 3w, T/2, S/8, S/8)
            _block(3 * width, num_features, (3, 3, 3), stride=(1, 1, 1)),         # (N, D, T/2, S/8, S/8)
        )
        self.head = nn.Linear(num_features, num_classes)
        self.register_buffer("gain", torch.ones(()) if motion else None)
        self.register_buffer("rms", torch.ones(()))
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        return self.read_out(self.prepare(clips))

    def prepare(self, clips: Tensor) -> Tensor:
        """uint8 (N, T, H, W, 3) -> float (N, 3, T', H', W') in [-1, 1], at most max_frames and max_size."""
        return shrink(clips[:, :: math.ceil(clips.shape[1] / self.max_frames)], self.max_size)

    def read_shrunk(self, video: Tensor) -> tuple[Tensor, Tensor]:
        return self.read_out(video[:, :, :: math.ceil(video.shape[2] / self.max_frames)])

    def read_out(self, video: Tensor) -> tuple[Tensor, Tensor]:
        seen = amplified(video, self.detail_gain) if self.detail_gain else video
        if self.gain is not None:
            # Before the first frame there is no change.
            change = F.pad(changes(video) * self.gain, (0, 0, 0, 0, 1, 0))
            seen = torch.cat([seen, change], dim=1)
        pooled = self.body(seen).mean(dim=(2, 3, 4))
        return pooled / self.rms, self.head(pooled) / self.temperature


def shrink(clips: Tensor, max_size: int) -> Tensor:
    """uint8 (N, T, H, W, 3) -> float (N, 3, T, H', W') in [-1, 1], of at most `max_size` pixels."""
    sides = clips.shape[2:4]
    if max(sides) <= max_size:
        return to_float(clips)
    sides = [max(1, round(side * max_size / max(sides))) for side in sides]
    frames = (to_float(frame) for frame in clips.split(1, dim=1))  # one by one: floats of HD video are large
    return torch.cat([F.interpolate(frame, size=(1, *sides), mode="area") for frame in frames], dim=2)


def changes(video: Tensor) -> Tensor:
    """(N, 3, T, H, W) -> frame-to-frame change of the mean over colours, (N, 1, T - 1, H, W)."""
    return video.mean(dim=1, keepdim=True).diff(dim=2)


def amplified(video: Tensor, gain: float) -> Tensor:
    """(N, 3, T, H, W) with 1 + `gain` times the contrast between neighbouring pixels, where it is low."""
    around = F.avg_pool3d(F.pad(video, (1, 1, 1, 1, 0, 0), mode="replicate"), (1, 3, 3), stride=1)
    return video + ((video - around) * gain).clamp(-MOST_DETAIL, MOST_DETAIL)


def _block(in_channels: int, out_channels: int, kernel: tuple, stride: tuple) -> nn.Sequential:
    padding = tuple(side // 2 for side in kernel)
    conv = nn.Conv3d(in_channels, out_channels, kernel, stride, padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(out_channels), nn.ReLU())


def batch_size_for(shape: tuple[int, ...]) -> int:
    """Number of clips (T, H, W, 3) to featurise at a time: 64, or as many as have 32 million values."""
    return max(1, min(64, 2**25 // math.prod(shape)))


@torch.inference_mode()
def featurise(net: RefNet, batches: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, D) and calibrated logits (N, K), float32, of a stream of uint8 (n, T, H, W, 3) batches.

    Memory grows by the features alone. No batches give no rows.
    """
    device = net.rms.device
    net.eval()
    with full_float32(device):
        pairs = [net(torch.as_tensor(batch, device=device)) for batch in batches]
    widths = net.head.in_features, net.head.out_features
    columns = zip(*pairs, strict=True) if pairs else [[torch.empty(0, width)] for width in widths]
    features, logits = (torch.cat(column).cpu().numpy() for column in columns)
    return features, logits


# Training and calibration.

def fit(net: RefNet, task: Task, num_clips: int, *, steps: int, batch_size: int, lr: float,
        sketch_weight: float, fault_weight: float, most_move: float, seed: int) -> None:
    """Train `net` in place: cross-entropy of `task` over `num_clips` clips, a linear sketch of the clip, and a second
    linear head, which says how strong each fault of generators is in a clip.

    Features move by at most `most_move` of their root mean square for a fault of strength 1.
    Deterministic by `seed` on one machine with one number of threads.
    """
    rng, device = np.random.default_rng(seed), net.rms.device
    sketch = nn.Linear(net.head.in_features, 3 * math.prod(SKETCH), device=device)
    judge = nn.Linear(net.head.in_features, len(FAULTS), device=device)
    parameters = [*net.parameters(), *sketch.parameters(), *judge.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
    rows = _epochs(num_clips, batch_size, rng)
    net.train()
    for _ in (progress := bar(range(steps), "refnet", unit="step")):
        clips, answers = task(rng, next(rows))
        video = augment(net.prepare(torch.as_tensor(clips, device=device)), rng)
        spoilt, strengths = with_faults(video, rng)
        (features, of_spoilt), (logits, _) = (both.chunk(2) for both in net.read_out(torch.cat([video, spoilt])))
        loss = F.cross_entropy(logits, torch.as_tensor(answers, device=device))
        loss = loss + sketch_weight * unexplained(sketch(features), video)
        loss = loss + fault_weight * misjudged(judge, features, of_spoilt, strengths, most_move)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    net.eval()


def with_faults(video: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(each clip of `video` with one fault, the strength of each fault in each, (N, faults))."""
    lessons, spoilt = np.resize(LESSONS, len(video)), video.clone()
    strengths = np.zeros((len(video), len(FAULTS)))
    for number, (name, fault) in enumerate(FAULTS.items()):
        rows = np.flatnonzero(lessons == name)
        if len(rows):
            drawn = np.exp(rng.uniform(*np.log(STRENGTHS), size=len(rows)))
            unit = MOST_STRENGTH if name == "two-coloured" else 1.0
            spoilt[rows] = fault(video[rows], rng, drawn / unit)
            strengths[rows, number] = drawn.clip(max=MOST_STRENGTH)
    return spoilt, torch.as_tensor(strengths).to(video)


def misjudged(judge: nn.Module, real: Tensor, spoilt: Tensor, strengths: Tensor, most_move: float) -> Tensor:
    """Loss of what `judge` says of features (N, D) of clips and of the same with faults of `strengths` (N, faults).

    It has to say how strong a fault is and not whether there is one, and features may move in proportion at most, by
    `most_move` of their root mean square for strength 1. A network that tells clips with faults from real ones holds a
    warp of half a pixel for as bad as one of two, and no generated clip for any good.
    """
    loss = sum(F.smooth_l1_loss(*pair, beta=0.5, reduction="sum") for pair in (
        (judge(real), torch.zeros_like(strengths)), (judge(spoilt), strengths)))  # fmt: skip
    moved = (spoilt - real).square().mean(dim=1).add(1e-8).sqrt() / real.detach().square().mean().sqrt()
    return loss / (2 * len(real)) + F.relu(moved - most_move * strengths.sum(dim=1)).mean()


def unexplained(drawn: Tensor, video: Tensor) -> Tensor:
    """Share of the variance of a coarse view of `video` (N, C, T, H, W) that `drawn` does not explain.

    Class labels alone teach a network to ignore variety within a class, and so not to notice its loss.
    """
    view = F.adaptive_avg_pool3d(video, SKETCH).flatten(1)
    return F.mse_loss(drawn, view) / view.var(correction=0).clamp(min=1e-4)


def _epochs(num_clips: int, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of rows; each clip comes once an epoch."""
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, rng.permutation(num_clips)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def augment(video: Tensor, rng: np.random.Generator) -> Tensor:
    """Shift each clip of float (N, C, T, H, W) by up to an eighth and change its contrast by up to a fifth.

    The same for all its frames, and no flip: direction may be the class.
    """
    n, _, _, height, width = video.shape
    dy, dx = height // 8, width // 8
    padded = F.pad(video, (dx, dx, dy, dy, 0, 0), mode="replicate")
    tops, lefts = rng.integers(2 * dy + 1, size=n), rng.integers(2 * dx + 1, size=n)
    corners = zip(padded, tops, lefts, strict=True)
    shifted = [clip[..., y : y + height, x : x + width] for clip, y, x in corners]
    contrast = torch.as_tensor(rng.uniform(0.8, 1.2, size=(n, 1, 1, 1, 1))).to(video)
    return (torch.stack(shifted) * contrast).clamp(-1, 1)


def calibrate(logits: np.ndarray, answers: np.ndarray) -> float:
    """Temperature that minimises the cross-entropy of held-out logits (N, K) (Guo et al. 2017, eq. 9).

    Targets are smoothed by 1 / (N + 2) (Platt 1999); otherwise N right answers would give certainty.
    """
    logits = torch.as_tensor(logits, dtype=torch.float64)
    truth = F.one_hot(torch.as_tensor(answers), logits.shape[1]).double()
    doubt = 1 / (len(logits) + 2)
    target = (1 - doubt) * truth + doubt * (1 - truth) / max(1, logits.shape[1] - 1)
    return math.exp(golden_section(lambda t: F.cross_entropy(logits / math.exp(t), target).item(), -4.0, 4.0))


def golden_section(
    function: Callable[[float], float], low: float, high: float, tolerance: float = 1e-6
) -> float:
    """Position of the minimum of a function with one minimum in [low, high] (Kiefer 1953)."""
    ratio = (math.sqrt(5) - 1) / 2
    while high - low > tolerance:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if function(left) < function(right) else (left, high)
    return (low + high) / 2


# Files.

def save_refnet(net: RefNet, folder: Path, **facts: object) -> dict:
    """Write refnet.safetensors and refnet.json (id, constructor arguments, `facts`); return the latter."""
    weights = save({name: tensor.cpu().contiguous() for name, tensor in net.state_dict().items()})
    with atomic_path(folder / "refnet.safetensors") as temporary:
        temporary.write_bytes(weights)
    info = {"id": _identity(weights, net.arguments), "arguments": net.arguments, **facts}
    write_json(folder / "refnet.json", info)
    return info


def load_refnet(folder: str | Path) -> tuple[RefNet, dict]:
    """The network, in eval mode on the CPU, and its refnet.json. Raises InputError if they do not belong together."""
    try:
        info = json.loads(Path(folder, "refnet.json").read_text(encoding="utf-8"))
        weights = Path(folder, "refnet.safetensors").read_bytes()
        if _identity(weights, info["arguments"]) != info["id"]:
            raise ValueError("weights and refnet.json are of different networks")
        net = RefNet(**info["arguments"])
        net.load_state_dict(load(weights))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        remedy = "run the stage `reference` again"
        raise InputError(f"{folder}: no usable reference network ({error}); {remedy}") from None
    return net.eval(), info


def refnet_extractor(folder: str | Path, device: str = "cpu") -> Extractor:
    """The reference network in `folder`, made by the stage `reference`, for clips of the length of its training."""
    net, info = load_refnet(folder)
    classes = info["classes"] if info["labelled"] else []
    return Extractor(
        f"refnet-{info['id']}", info["clip_shape"][0], net.to(device).read_shrunk, device, classes,
        partial(shrink, max_size=net.max_size),
    )  # fmt: skip


def _identity(weights: bytes, arguments: dict) -> str:
    """sha256 of the weights (with temperature and scale) and the architecture, which decide the features."""
    return hashlib.sha256(weights + json.dumps(arguments, sort_keys=True).encode()).hexdigest()
