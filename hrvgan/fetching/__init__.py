"""Files from the network, whole and checked, and what is in them: downloads that go on, archives that may lie.

Read `download.py` first.
"""
