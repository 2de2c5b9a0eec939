"""MLflow's UI on the recorded runs."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser

from hrvgan.errors import InputError
from pipeline.tracking import connect, uri

HOST = "127.0.0.1"
START = 120  # seconds that the server may take
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # It starts twice as fast.


def show(port: int) -> None:
    """Serve the UI until Ctrl-C, or where the store has a server already use that one; print the link to the runs,
    and open it where there is a browser."""
    experiment, store = connect()[1], uri()
    if store.startswith("http"):
        open_runs(store, experiment)
        return
    if answers(port):
        raise InputError(f"port {port} is taken, by another `make ui`? Stop it, or `make ui PORT={port + 1}`")
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.default_int_handler)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--port", str(port)]
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
    link = f"{server}/#/experiments/{experiment}/runs?workflowType=machine_learning"
    print(f"\nThe runs: {link}\n", flush=True)
    if sys.platform == "darwin" or {"BROWSER", "DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        webbrowser.open(link)


def wait_until_answers(port: int, server: subprocess.Popen) -> None:
    end = time.monotonic() + START
    while not answers(port):
        if server.poll() is not None or time.monotonic() > end:
            raise InputError("MLflow's server did not start; see above")
        time.sleep(0.1)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
