"""Prefect flows: when and where stages run, and retries. Dependencies are DVC's; nothing here imports `pipeline`."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Prefect reads these at import. prefect.toml cannot hold them: a relative `home` there depends on the current
# folder, and the client's telemetry has no setting.
os.environ.setdefault("PREFECT_HOME", str(ROOT / ".state" / "prefect"))
(ROOT / ".state").mkdir(exist_ok=True)  # Prefect makes the last folder of that path alone.
os.environ.setdefault("DO_NOT_TRACK", "true")

# Server, worker and flows talk over loopback, which no proxy of the company can reach. The lower case wins in Python.
LOOPBACK = "127.0.0.1,localhost"
others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"{others},{LOOPBACK}" if others else LOOPBACK
