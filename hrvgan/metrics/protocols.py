"""What each metric's name means: one entry fixes everything that could change the number."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from hrvgan.errors import InputError
from hrvgan.metrics.accuracy import label_accuracy, softmax
from hrvgan.metrics.features import Features
from hrvgan.metrics.frechet import frechet_distance_from_features
from hrvgan.metrics.inception import inception_score
from hrvgan.metrics.kernel import kernel_distance


@dataclass(frozen=True)
class Protocol:
    """A score of generated clips. `statistic(real, fake)` of two real halves is its yardstick, `context`."""

    name: str
    extractor: str
    statistic: Callable[[Features, Features], float]
    context: str  # What real clips score in place of generated ones: "floor", "ceiling" or "real".
    lower_is_better: bool
    needs_labels: bool  # Meaningless, and left out, where the real clips have no classes.
    asks_labels: bool  # Also needs a generator that takes the label.
    uses_real: bool  # Compares with real clips, so that it matters which (test, or train as published).
    num_clips: str
    ddof: int | None
    splits: int | None
    description: str

    def text(self) -> dict:
        """Everything but the function, for manifests."""
        return {key: value for key, value in asdict(self).items() if key != "statistic"}


_REFNET = {"extractor": "refnet", "num_clips": "half of the real split, real and generated alike"}
_PROTOCOLS = [
    Protocol(
        name="refnet_fd",
        statistic=lambda real, fake: frechet_distance_from_features(real.features, fake.features),
        context="floor",
        lower_is_better=True,
        needs_labels=False,
        asks_labels=False,
        uses_real=True,
        ddof=1,
        splits=None,
        description="Frechet distance of refnet's pooled features (Heusel et al. 2017, eq. 6)",
        **_REFNET,
    ),
    Protocol(
        name="refnet_kid",
        statistic=lambda real, fake: kernel_distance(real.features, fake.features),
        context="floor",
        lower_is_better=True,
        needs_labels=False,
        asks_labels=False,
        uses_real=True,
        ddof=None,
        splits=None,
        description="kernel distance of the same features, unbiased (Binkowski et al. 2018, eq. 4)",
        **_REFNET,
    ),
    Protocol(
        name="refnet_is",
        statistic=lambda real, fake: inception_score(softmax(fake.logits), splits=1),
        context="ceiling",
        lower_is_better=False,
        needs_labels=True,
        asks_labels=False,
        uses_real=False,
        ddof=None,
        splits=1,
        description="Inception Score of refnet's calibrated class probabilities (Salimans et al. 2016)",
        **_REFNET,
    ),
    Protocol(
        name="refnet_acc",
        statistic=lambda real, fake: label_accuracy(fake.logits, fake.labels),
        context="real",
        lower_is_better=False,
        needs_labels=True,
        asks_labels=True,
        uses_real=False,
        ddof=None,
        splits=None,
        description="share of clips that refnet takes for the class asked for (GAN-test, Shmelkov et al. 2018)",
        **_REFNET,
    ),
]
PROTOCOLS = {protocol.name: protocol for protocol in _PROTOCOLS}


def protocol(name: str) -> Protocol:
    if name not in PROTOCOLS:
        raise InputError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
