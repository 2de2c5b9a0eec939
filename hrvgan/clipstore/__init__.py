"""Clip stores: Parquet shards of uint8 clips, an index, and readers of single clips and of batches."""
