"""HRVGAN: conditional spatio-temporal GANs that generate video.

gan = hrvgan.load("models/laptop")
videos = gan.sample(16, seed=0)     # uint8 (16, T, H, W, 3)
"""

import os

# libgomp reads this when torch is imported. By default, threads that wait for the slowest of them spin; where another
# process needs a core too, that is the core that the slowest waits for (benchmarks/beside.py).
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

__version__ = "0.1.0"
__all__ = ["build_model", "load"]


def __getattr__(name: str):
    # Imported when asked for: reading clips needs no networks.
    if name in __all__:
        from hrvgan import hub, models

        return {"build_model": models.build_model, "load": hub.load}[name]
    raise AttributeError(f"module 'hrvgan' has no attribute {name!r}")
