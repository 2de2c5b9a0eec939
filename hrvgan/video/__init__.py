"""Video files to and from uint8 frames (T, H, W, 3).

`io` reads and writes whole files; below it are `decode`, `readers` and `hdr`. `grids` tiles clips into one image.
"""
