"""Train the network that scores on real clips, and keep their features: data/reference/<dataset>/."""

from pathlib import Path

from hrvgan.clipstore.clips import Clips
from hrvgan.features.reference import build_reference
from hrvgan.files import atomic_folder
from pipeline import params, stage


def main(dataset: str) -> None:
    clips = Clips(Path("data/clips") / dataset)
    with atomic_folder(Path("data/reference") / dataset) as folder:
        values = params.load()["reference"]
        info = params.call(build_reference, clips, folder, where="reference", values=values)
    kind = "classes" if info["labelled"] else "pretext answers"
    accuracy = ", ".join(f"{share:.1%} of {split}" for split, share in info["accuracy"].items())
    print(f"{dataset}: the reference network knows {len(info['answers'])} {kind}, those of {accuracy} clips")


if __name__ == "__main__":
    stage.run(main, __doc__, argument="dataset")
