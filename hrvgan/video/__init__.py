"""Between video files and arrays of frames, uint8 (T, H, W, 3): decoding, encoding, strips of frames, grids of clips.

Read `files.py` first: probe, read, write. `decoding.py` is the one pass over a file that reading and extraction share.
"""
