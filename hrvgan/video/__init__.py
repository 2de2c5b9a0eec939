"""Video files to and from uint8 frames (T, H, W, 3).

`io` reads and writes whole files, `decode` and `readers` are the decoder below it, `grids` tiles clips into one image.
"""
