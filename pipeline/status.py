"""Print on one screen: champions, the last and the next night, what is out of date, what runs now.

python -m pipeline.status
"""

import argparse
import base64
import json
import os
import tomllib
import urllib.request
from pathlib import Path

from filelock import FileLock, Timeout

from hrvgan.errors import InputError, one_sentence
from pipeline import params
from pipeline.tracking import DECISIVE, LOCAL, champion_of, connect, errors_as_input_error, uri

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.status", description=__doc__.split("\n\n")[0]).parse_args()
    with one_sentence():
        for title, lines in (
            ("champions", champions()), ("nights", nights()), ("out of date", stale()), ("runs now", at_work())
        ):  # fmt: skip
            print(title.ljust(13) + f"\n{'':13}".join(lines))


def champions() -> list[str]:
    """Version and score of the champion of each active run."""
    if not is_there():
        return ["none yet"]
    try:
        with errors_as_input_error("start it, or name yours in MLFLOW_TRACKING_URI"):
            client, _ = connect()
            return [champion(client, run) for run in params.load()["runs"]]
    except InputError as error:
        return [str(error)]


def is_there() -> bool:
    """False where the MLflow store is a local file that nothing was recorded in yet."""
    return not uri().startswith(LOCAL) or Path(uri().removeprefix(LOCAL)).exists()


def champion(client, run: str) -> str:
    if not (version := champion_of(client, run)):
        return f"{run}: none yet"
    scores = client.get_run(version.run_id).data.metrics
    score = next((f", {name} {scores[f'metric/{name}']:.3g}" for name in DECISIVE if f"metric/{name}" in scores), "")
    return f"{run}: version {version.version}{score}"


def nights() -> list[str]:
    """How the last night ended, and when the next one begins; also which flow runs are at work."""
    url = os.environ.get("PREFECT_API_URL") or tomllib.loads(Path("prefect.toml").read_text())["api"]["url"]

    def flow_runs(states: tuple[str, ...], sort: str, **more) -> list[dict]:
        body = {"flow_runs": {"state": {"type": {"any_": states}}}, "sort": sort, "limit": 1, **more}
        headers = {"Content-Type": "application/json"}
        if password := os.environ.get("PREFECT_API_AUTH_STRING"):
            headers["Authorization"] = f"Basic {base64.b64encode(password.encode()).decode()}"
        request = urllib.request.Request(f"{url}/flow_runs/filter", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=2) as answer:
            return json.load(answer)

    nightly = {"deployments": {"name": {"any_": ["nightly"]}}}
    try:
        last = flow_runs(ENDED, "END_TIME_DESC", **nightly)
        following = flow_runs(("SCHEDULED",), "EXPECTED_START_TIME_ASC", **nightly)
        running = flow_runs(("RUNNING",), "START_TIME_DESC")
    except OSError as error:
        return [f"no Prefect server at {url} ({getattr(error, 'reason', error)}); `make schedule` starts one"]
    lines = [f"{at(run['end_time'])}: {run['state']['name']}, {run['state']['message']}" for run in last] or [
        "none yet"
    ]
    lines += [f"next {at(run['expected_start_time'])}" for run in following] or ["none is scheduled: it is paused"]
    return lines + [f"flow run {run['name']} at work since {at(run['start_time'])}" for run in running]


def at(time: str) -> str:
    return f"{time[:16].replace('T', ' ')} UTC"


def stale() -> list[str]:
    """Stages of which something has changed since they ran."""
    from dvc.lock import LockError
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            changed = list(repo.status())
    except LockError as error:
        return [f"DVC is at work: {' '.join(str(error).split())}"]
    return [f"{', '.join(changed)} (`make run`)"] if changed else ["nothing"]


def at_work() -> list[str]:
    """Stages that run now, and the process of each."""
    running = []
    for tree in (Path(), Path(".state/tree")):  # the second one is that of a branch, in which nights work
        for path in sorted((tree / ".state/locks").glob("*.lock")):
            try:
                with FileLock(path, timeout=0):
                    pass
            except Timeout:
                running.append(f"{path.stem}{f' in {tree}' if tree.name else ''} (process {path.read_text()})")
    return running or ["nothing"]


if __name__ == "__main__":
    main()
