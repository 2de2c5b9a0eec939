"""One loop for every model: when to step, in how many processes, and from where to go on.

Read `loop.py` first, then `iteration.py`. What is minimised is said in `hrvgan/models/`.
"""
