"""Clips out of a trained model for people to look at: grids, walks between clips, long videos, latents of real clips.

Read `samples.py` first.
"""
