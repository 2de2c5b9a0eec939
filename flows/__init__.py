"""Prefect: when, where, again. DVC owns what depends on what; nothing here imports `pipeline` or `hrvgan`."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Prefect reads these at import. They cannot stand in prefect.toml: a relative `home` there depends on the
# current folder, and the client's telemetry has no setting.
os.environ.setdefault("PREFECT_HOME", str(ROOT / ".state" / "prefect"))
os.environ.setdefault("DO_NOT_TRACK", "true")
