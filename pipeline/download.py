"""Stage `download`: put the videos of a data set, or the list of their paths, into data/raw/<dataset>/."""

import os
from pathlib import Path

from hrvgan.datasets import load_source
from hrvgan.extraction.videos import write_videos_csv
from hrvgan.files import atomic_folder
from pipeline import params, stage


def main(dataset: str) -> None:
    config = params.dataset(dataset)
    # Large archives are downloaded once, also when DVC runs experiments in temporary copies.
    os.environ.setdefault("HRVGAN_DOWNLOADS", str(stage.main_checkout() / "data" / "downloads"))
    with params.blamed(f"datasets.{dataset}.source"):
        source = load_source(config["source"])
    with atomic_folder(Path("data/raw") / dataset) as folder:
        videos = params.call(source.fetch, folder, where=f"datasets.{dataset}.options", values=config["options"])
        write_videos_csv(folder / "videos.csv", videos, config["clips"].get("dask", ""))
    print(f"{dataset}: {len(videos)} videos, {len({video.class_name for video in videos} - {''})} classes")


if __name__ == "__main__":
    stage.run(main, __doc__, argument="dataset")
