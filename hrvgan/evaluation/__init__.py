"""Scores of clips, whoever made them, beside what real clips get in the same place.

Read `evaluation.py` first for a generator, `scores.py` for any two sources of clips. The numbers themselves are
`hrvgan/metrics/`; `reference.py` trains the network whose features they take.
"""
