"""Files from the network, whole and checked, and what is in them: downloads that go on, archives that may lie.

Read `download.py` first. Not pooch (1.9), which checks a hash, says both and tries again: it begins each try at the
first byte (no Range), keeps nothing of a file that was cut, knows one address a file, does not look at the free disk,
and cannot stop in the middle of an archive of 131 GB.
"""
