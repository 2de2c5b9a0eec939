"""Videos to a clip store: cut what is new, join near-duplicates, assign splits, rewrite changed shards only.

`extract` is the entry point and runs the steps in this order.
"""
