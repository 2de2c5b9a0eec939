"""What writer and readers of a clip store agree on."""

import pyarrow as pa

INDEX = "index.parquet"
FORMAT = "hrvgan-clips-2"
COLUMNS = {
    "clip_id": pa.string(),
    "video_id": pa.string(),
    "class_name": pa.string(),
    "source_md5": pa.string(),
    "split": pa.string(),
    "group": pa.string(),
    "label": pa.int16(),
    "start_frame": pa.int32(),
    "frame_step": pa.int32(),
    "fps": pa.float64(),
    "motion": pa.float32(),
}
# Where the index says a clip lies: the row group of its shard, and the first byte of its frames in that file (-1 where
# they are compressed); and the sha256 of its frames.
PLACES = {"shard": pa.int16(), "row": pa.int32(), "offset": pa.int64(), "digest": pa.string()}


def shard_name(shard: int) -> str:
    return f"shard-{shard:03d}.parquet"
