"""MLflow's UI on the recorded runs."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser

from hrvgan.errors import InputError
from hrvgan.metrics import PROTOCOLS
from pipeline.tracking import connect, uri

HOST = "127.0.0.1"
VIEW = "hrvgan"  # name of the shared view of the runs
SCORES = [name for name, protocol in PROTOCOLS.items() if protocol.title and protocol.extractor in ("refnet", "pixels")]
# Of charts, in this order; the names of the later ones are how names of metrics begin.
SECTIONS = ["Settings and scores", "metric", "loss/d", "loss/g", "logits", "grad"]
WIDTH = 170  # pixels of a column: names of scores are long
SETTINGS = ["dataset", "model", "seed", "train.steps", "train.batch_size", "net.width"]
AXES = ["train.batch_size", "train.steps", "seed"]  # of parallel coordinates: numbers that every training has
START = 120  # seconds that the server may take
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # It starts twice as fast.


def show(port: int) -> None:
    """Serve the UI until Ctrl-C, or where the store has a server already use that one; print the link to the runs,
    and open it where there is a browser."""
    (client, experiment), store = connect(), uri()
    share_view(client, experiment)
    if store.startswith("http"):
        open_runs(store, experiment)
        return
    if answers(port):
        raise InputError(f"port {port} is taken, by another `make ui`? Stop it, or `make ui PORT={port + 1}`")
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.default_int_handler)
    # One process: of several, those that do not answer within five seconds are killed, as on a busy machine.
    options = ["--backend-store-uri", store, "--port", str(port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "ui", *options]
    with contextlib.suppress(KeyboardInterrupt), subprocess.Popen(command, start_new_session=True) as server:
        try:
            wait_until_answers(port, server)
            open_runs(f"http://{HOST}:{port}", experiment)
            server.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGINT)  # its workers, too
            server.wait()


def open_runs(server: str, experiment: str) -> None:
    # Without workflowType the UI opens on the traces of language models.
    link = f"{server}/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}"
    print(f"\nThe runs: {link}\nas charts: {link}&compareRunsMode=CHART\n", flush=True)
    if sys.platform == "darwin" or {"BROWSER", "DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        webbrowser.open(link)


def share_view(client, experiment: str) -> None:
    """Store the view that the link names as MLflow's UI stores those that are shared: scores and settings as columns,
    the chart of settings against the first score, and the last samples side by side; the UI makes those of curves."""
    columns = [f"metrics.`metric/{name}`" for name in SCORES] + [f"params.`{name}`" for name in SETTINGS]
    sections = [{"uuid": f"{VIEW}-{name}", "name": name, "display": True, "isReordered": True} for name in SECTIONS]
    sections[0]["columns"] = 1  # The charts take the whole width.
    charts = [
        {"type": "PARALLEL", "selectedParams": AXES, "selectedMetrics": ["metric/refnet_fd"], "showAllRuns": False},
        {"type": "IMAGE", "imageKeys": ["samples"], "step": last_samples(client, experiment), "showRunParams": False},
    ]  # fmt: skip
    for chart in charts:
        chart |= {"uuid": f"{VIEW}-{chart['type']}", "metricSectionId": sections[0]["uuid"],
                  "deleted": False, "isGenerated": False}  # fmt: skip
    view = {
        "selectedColumns": columns, "columnOrder": columns, "columnWidths": dict.fromkeys(columns, WIDTH),
        "compareRunSections": sections, "compareRunCharts": charts, "isAccordionReordered": True,
        # Best first. In the order of time, the UI's own, runs of several seeds would be folded into their parent.
        "orderByKey": columns[0], "orderByAsc": True,
    }  # fmt: skip
    client.set_experiment_tag(experiment, f"mlflow.sharedViewState.{VIEW}", json.dumps(view))


def last_samples(client, experiment: str) -> int:
    """The step of the last samples of the newest training; 0 before there is one."""
    newest = client.search_runs(
        [experiment], "params.`train.steps` != ''", order_by=["attributes.start_time DESC"], max_results=1
    )
    return int(newest[0].data.params["train.steps"]) if newest else 0


def wait_until_answers(port: int, server: subprocess.Popen) -> None:
    end = time.monotonic() + START
    while not answers(port):
        if server.poll() is not None or time.monotonic() > end:
            raise InputError("MLflow's server did not start; see above")
        time.sleep(0.1)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
