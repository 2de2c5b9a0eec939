"""Evaluation of generated clips, and of real clips in their place.

Read `evaluate.py` first. The metrics themselves are in `hrvgan/metrics/`, the networks in `hrvgan/features/`.
"""
