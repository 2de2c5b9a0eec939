"""Stage `extract`: cut the videos of a data set into the clip store data/clips/<dataset>/."""

from pathlib import Path

from hrvgan.extraction.extract import extract
from hrvgan.extraction.manifest import VIDEOS, dropped_table
from hrvgan.files import write_json
from hrvgan.video.decode import versions
from pipeline import params, stage
from pipeline.tracking import log_clips


def main(dataset: str) -> None:
    clips = Path("data/clips")
    folders, values = (Path("data/raw") / dataset, clips / dataset), params.dataset(dataset)["clips"]
    summary = params.call(extract, *folders, where=f"extract or datasets.{dataset}.clips", values=values)
    write_json(clips / f"{dataset}.json", summary)
    write_json(clips / f"{dataset}.decoder.json", versions())  # beside the clips: they do not depend on it
    log_clips(dataset, clips / dataset / VIDEOS, summary, dropped_table(clips / dataset))
    print(f"{dataset}: " + ", ".join(f"{count} {name}" for name, count in summary.items() if count))


if __name__ == "__main__":
    stage.run(main, __doc__, argument="dataset")
