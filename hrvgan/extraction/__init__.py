"""From videos to a clip store: each file cut once, by many processes, and an account of what was left out and why.

Read `extract.py` first. The store itself is `hrvgan/datasets/`.
"""
