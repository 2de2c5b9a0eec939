"""What writer and readers of a clip store agree on."""

import pyarrow as pa

INDEX = "index.parquet"
FORMAT = "hrvgan-clips-1"
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


def shard_name(shard: int) -> str:
    return f"shard-{shard:03d}.parquet"
