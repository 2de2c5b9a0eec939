"""What each metric's name means: one entry fixes everything that could change the number."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np

from hrvgan.errors import InputError
from hrvgan.metrics.accuracy import label_accuracy, softmax
from hrvgan.metrics.features import Features
from hrvgan.metrics.frechet import frechet_distance_from_features
from hrvgan.metrics.frechet_infinity import frechet_distance_infinity
from hrvgan.metrics.inception import inception_score
from hrvgan.metrics.kernel import kernel_distance, kernel_distance_within_classes
from hrvgan.metrics.prdc import prdc

NEIGHBOURS = 5


@dataclass(frozen=True)
class Protocol:
    """A score of generated clips. `statistic(real, fake, protocol)` of two real halves is its yardstick, `context`;
    it takes ddof, splits and eps from here, so that what is written down is what was computed.

    A statistic that gives several numbers at once is shared by protocols that take one `part` each.
    """

    name: str
    extractor: str
    statistic: Callable[[Features, Features, "Protocol"], float | dict[str, float]]
    context: str  # What real clips score in place of generated ones: "floor", "ceiling" or "real".
    description: str
    lower_is_better: bool = False
    part: str = ""
    needs_labels: bool = False  # Meaningless, and left out, where the real clips have no classes.
    asks_labels: bool = False  # Also needs a generator that takes the label.
    uses_real: bool = (
        True  # Compares with real clips, so that it matters which (test, or train as published).
    )
    num_clips: int | str = "half of the real split, real and generated alike"
    num_real: int | str = "as many"
    real_clips: str = "any"  # or "one a video", drawn, where a video gave several
    frames: int | str = "all"
    start: str = "the first frame"  # Where in a longer video a clip begins, real or generated.
    real_start: str = "the first frame"
    resize: str = "area, to at most the network's size"
    least_clips: int = 2
    least_of_class: int = 0  # clips of each class, on both sides
    ddof: int | None = None
    splits: int | None = None
    eps: float | None = None

    def measure(self, real: Features, fake: Features, memo: dict | None = None) -> float:
        """The number. `memo` keeps what protocols of one statistic share; it must not outlive the features."""
        if not self.part:
            return float(self.statistic(real, fake, self))
        memo = {} if memo is None else memo
        key = (self.statistic, id(real), id(fake))
        if key not in memo:
            memo[key] = self.statistic(real, fake, self)
        return float(memo[key][self.part])

    def lacks(self, real: Features, fake: Features) -> str:
        """What these clips lack for it, in words; "" where it can be computed."""
        fewest = min(len(fake), len(real) if self.uses_real else len(fake))
        if fewest < self.least_clips:
            return f"{fewest} clips, need at least {self.least_clips}; give more"
        if self.least_of_class:
            present = np.unique(real.labels)
            counts = (np.bincount(side.labels, minlength=present[-1] + 1) for side in (real, fake))
            fewest = min(count[present].min() for count in counts)
            if fewest < self.least_of_class:
                return f"{fewest} clip(s) of a class, need at least {self.least_of_class}; give more"
        return ""

    def text(self) -> dict:
        """Everything but the function, for manifests."""
        return {key: value for key, value in asdict(self).items() if key != "statistic"}

    def reduced(self, num: int) -> "Protocol":
        """The same with `num` generated clips; where that is fewer than published, the name says so."""
        if isinstance(self.num_clips, str) or num >= self.num_clips:
            return self
        return replace(self, name=f"{self.name}_n{num}", num_clips=num)

    def unverified(self) -> "Protocol":
        """The same by weights that nobody has vouched for: the published name is for the published file."""
        return replace(self, name=f"{self.name}_unverified")


def _distance(real: Features, fake: Features, how: Protocol) -> float:
    return frechet_distance_from_features(real.features, fake.features, how.ddof)


def _extrapolated(real: Features, fake: Features, how: Protocol) -> float:
    return frechet_distance_infinity(real.features, fake.features, ddof=how.ddof)


def _kernel(real: Features, fake: Features, how: Protocol) -> float:
    return kernel_distance(real.features, fake.features)


def _within_classes(real: Features, fake: Features, how: Protocol) -> float:
    return kernel_distance_within_classes(real.features, real.labels, fake.features, fake.labels)


def _neighbours(real: Features, fake: Features, how: Protocol) -> dict[str, float]:
    return prdc(real.features, fake.features, NEIGHBOURS)


def _score(real: Features, fake: Features, how: Protocol) -> float:
    return inception_score(softmax(fake.logits), how.splits, how.eps)


def _accuracy(real: Features, fake: Features, how: Protocol) -> float:
    return label_accuracy(fake.logits, fake.labels)


_REFNET = [
    Protocol(
        name="refnet_fd",
        extractor="refnet",
        statistic=_distance,
        context="floor",
        lower_is_better=True,
        ddof=1,
        description="Frechet distance of refnet's pooled features (Heusel et al. 2017, eq. 6)",
    ),
    Protocol(
        name="refnet_kid",
        extractor="refnet",
        statistic=_kernel,
        context="floor",
        lower_is_better=True,
        description="kernel distance of the same features, unbiased (Binkowski et al. 2018, eq. 4)",
    ),
    Protocol(
        name="refnet_is",
        extractor="refnet",
        statistic=_score,
        context="ceiling",
        needs_labels=True,
        uses_real=False,
        splits=1,
        eps=0.0,
        description="Inception Score of refnet's calibrated class probabilities (Salimans et al. 2016)",
    ),
    Protocol(
        name="refnet_acc",
        extractor="refnet",
        statistic=_accuracy,
        context="real",
        needs_labels=True,
        asks_labels=True,
        uses_real=False,
        description="share of clips that refnet takes for the class asked for (GAN-test, Shmelkov et al. 2018)",
    ),
    Protocol(
        name="refnet_intra_kid",
        extractor="refnet",
        statistic=_within_classes,
        context="floor",
        lower_is_better=True,
        needs_labels=True,
        asks_labels=True,
        least_of_class=2,
        description="refnet_kid between real clips and those asked for as their class, mean over classes",
    ),
    Protocol(
        name="refnet_fd_inf",
        extractor="refnet",
        statistic=_extrapolated,
        context="floor",
        lower_is_better=True,
        least_clips=500,  # With fewer a straight line is no model of the bias: floors of -1 were seen with 120.
        ddof=1,
        description="refnet_fd extrapolated to infinitely many clips (Chong and Forsyth 2020)",
    ),
]
_PRDC = {
    "precision": "share of generated clips that lie among real ones, k = 5 (Kynkaanniemi et al. 2019)",
    "recall": "share of real clips that lie among generated ones, k = 5 (Kynkaanniemi et al. 2019)",
    "density": "in how many real neighbourhoods a generated clip lies, over k = 5 (Naeem et al. 2020)",
    "coverage": "share of real neighbourhoods that hold a generated clip, k = 5 (Naeem et al. 2020)",
}
_REFNET += [
    Protocol(
        name=f"refnet_{part}",
        extractor="refnet",
        statistic=_neighbours,
        part=part,
        context="real",
        least_clips=NEIGHBOURS + 1,
        description=words,
    )
    for part, words in _PRDC.items()
]
_CUBIC = "bicubic (a = -0.75, no antialiasing) to 128x128, crop 8:120"
_LINEAR = "bilinear, corners aligned, to 112x112"
_PUBLISHED = [
    Protocol(
        name="isv9984_c3d",
        extractor="c3d_tgan",
        statistic=_score,
        context="ceiling",
        needs_labels=True,
        uses_real=False,
        num_clips=9984,
        frames=16,
        resize=_CUBIC,
        splits=1,
        eps=1e-7,
        description="Inception Score of TGAN (Saito et al. 2017): C3D, one split",
    ),
    Protocol(
        name="isv2048_c3d",
        extractor="c3d_tganv2",
        statistic=_score,
        context="ceiling",
        needs_labels=True,
        uses_real=False,
        num_clips=2048,
        frames=16,
        resize=_LINEAR,
        splits=1,
        eps=1e-20,
        description="Inception Score of TGANv2 (Saito et al. 2020): C3D, one split",
    ),
    Protocol(
        name="fid_c3d_fc7",
        extractor="c3d_tganv2",
        statistic=_distance,
        context="floor",
        lower_is_better=True,
        num_clips=2048,
        num_real="all",
        frames=16,
        real_start="drawn",
        resize=_LINEAR,
        ddof=1,
        description="Frechet distance of TGANv2 (Saito et al. 2020): C3D's fc7 after ReLU",
    ),
    Protocol(
        name="fvd2048_16f",
        extractor="i3d_kinetics400",
        statistic=_distance,
        context="floor",
        lower_is_better=True,
        num_clips=2048,
        num_real=2048,
        real_clips="one a video",
        frames=16,
        real_start="drawn",
        resize="bilinear (no antialiasing, squashed) to 224x224",
        ddof=1,
        description="Frechet Video Distance (Unterthiner et al. 2018): I3D's logits, averaged over time",
    ),
    Protocol(
        name="fid_frame_clean",
        extractor="inception_2015",
        statistic=_distance,
        context="floor",
        lower_is_better=True,
        num_clips=10_000,
        num_real=10_000,
        frames=1,
        start="drawn",
        real_start="drawn",
        resize="Pillow's bicubic, antialiased, in float, to 299x299 (clean-fid, Parmar et al. 2022)",
        ddof=1,
        description="Frechet Inception Distance of one frame a clip (Heusel et al. 2017)",
    ),
]
# The same statistics of features that somebody else has computed.
_GIVEN = [
    replace(
        entry,
        name=entry.name.replace("refnet_", "features_"),
        extractor="given",
        num_clips="all",
        num_real="all",
        resize="unknown",
        description=entry.description.replace("refnet's", "given").replace("refnet_fd", "features_fd"),
    )
    for entry in _REFNET
    if not entry.asks_labels
]
PROTOCOLS = {protocol.name: protocol for protocol in [*_REFNET, *_PUBLISHED, *_GIVEN]}


def protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise InputError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def of_extractor(extractor: str) -> list[Protocol]:
    """The protocols that are computed from the features of `extractor`."""
    return [entry for entry in PROTOCOLS.values() if entry.extractor == extractor]


def lower_is_better(name: str) -> bool:
    """Direction of a protocol, also under its names with fewer clips or unverified weights; False for unknown ones."""
    protocol = PROTOCOLS.get(re.sub(r"(_n\d+)?(_unverified)?$", "", name, count=1))
    return protocol is not None and protocol.lower_is_better


def flatten_scores(metrics: dict) -> dict[str, float]:
    """Scores of a metrics JSON as {"refnet_fd": value, "refnet_fd/sd": ..., "refnet_fd/floor": ...}."""
    return {
        name if key == "value" else f"{name}/{key}": number
        for name, entry in metrics.items()
        if isinstance(entry, dict)
        for key, number in entry.items()
    }
