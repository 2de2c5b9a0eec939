"""Clip store: Parquet shards of uint8 clips with an index, their reader, batches and writer."""
