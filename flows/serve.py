"""Start Prefect's server, deploy prefect.yaml and run a worker, until Ctrl-C. State: .state/prefect."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import timedelta
from pathlib import Path

import yaml

from flows import ROOT
from flows.child_process import running

PREFECT = [sys.executable, "-m", "prefect"]
START = 180  # seconds a server may take: the first start writes the database
NIGHTLY = "nightly"
ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")}
FAILED_NIGHT = "{{ flow_run.name }} is {{ flow_run.state.name }}: {{ flow_run.state.message }}\n{{ flow_run|ui_url }}"
STOP = 60  # seconds a server or worker may take; a worker first ends its runs, each within 30


def main(port: int) -> None:
    url = f"http://127.0.0.1:{port}"
    os.environ["PREFECT_API_URL"] = f"{url}/api"
    log_path = Path(os.environ["PREFECT_HOME"]) / "server.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    require_free(port)
    print(f"Starting the server (log: {log_path}) ...", flush=True)
    # Leaving the blocks ends the worker first, while its runs can still tell the server of their end.
    with open(log_path, "wb") as log:
        command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        with running(command, grace=STOP, cwd=ROOT, stdout=log, stderr=log) as server:
            wait_until_healthy(url, server, log_path)
            print(setup("from flows import serve; serve.provision()"), end="", flush=True)
            print(setup("from flows import serve; serve.deploy()"), end="", flush=True)
            worker_command = [*PREFECT, "worker", "start", "--pool", settings()["definitions"]["work_pool"]["name"]]
            with running(worker_command, grace=STOP, cwd=ROOT) as worker:
                print(welcome(url), flush=True)
                wait_for_either({"server": server, "worker": worker}, log_path)


def require_free(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            sys.exit(f"port {port} is taken, by another `make schedule`? Stop it, or `make schedule PORT={port + 1}`")


def wait_until_healthy(url: str, server: subprocess.Popen, log_path: Path) -> None:
    for _ in range(START * 4):
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{url}/api/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.25)
    sys.exit(f"the server did not start; {log_path} says why")


def setup(code: str) -> str:
    """Run Python code quietly in a process of its own, for Prefect reads PREFECT_API_URL at import, and return its
    stdout; all its output is shown if it fails."""
    step = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    if step.returncode:
        sys.exit(f"{step.stdout}{step.stderr}\n`python -c {code}` failed; see above")
    return step.stdout


def provision(no_night: timedelta = timedelta(hours=26)) -> None:
    """Create on the server what prefect.yaml cannot declare: its work pools; an automation that marks a run as crashed
    whose heartbeat stops, since a run whose machine went down would stay Running for ever; and two that tell the block
    `notify` of a night that failed, and of the time `no_night` without one."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState, SendNotification
    from prefect.events.schemas.automations import Posture
    from prefect.settings import get_current_settings
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    heartbeat = "prefect.flow-run.heartbeat"
    silence = timedelta(seconds=3 * get_current_settings().flows.heartbeat_frequency)
    crash = ChangeFlowRunState(state=StateType.CRASHED, message="No heartbeat: worker or machine stopped")
    nights = {"match_related": {"prefect.resource.role": "deployment", "prefect.resource.name": NIGHTLY}}
    with get_client(sync_client=True) as client:
        for name in work_pools() - {pool.name for pool in client.read_work_pools()}:
            client.create_work_pool(WorkPoolCreate(name=name, type=ProcessWorker.type, base_job_template=template))
        automate(client, "silent runs have crashed", crash, posture=Posture.Proactive, within=silence,
                 for_each={"prefect.resource.id"}, after={heartbeat}, expect={heartbeat, *ENDS})  # fmt: skip
        block = notification_block(client)
        tell = block and SendNotification(block_document_id=block, subject="A night failed", body=FAILED_NIGHT)
        automate(client, "failed nights are told", tell, posture=Posture.Reactive,
                 expect={ends for ends in ENDS if ends.endswith(("Failed", "Crashed"))}, **nights)  # fmt: skip
        body = f"{NIGHTLY} has not ended for {no_night}: are server and worker up, is its schedule paused?"
        tell = block and SendNotification(block_document_id=block, subject="No night", body=body)
        automate(client, "missing nights are told", tell, posture=Posture.Proactive, within=no_night,
                 expect=ENDS, **nights)  # fmt: skip


def automate(client, name: str, action, **trigger) -> None:
    """Create an automation on events of flow runs, or without an `action` delete it. One that has the same action
    stays, and so does what it waits for."""
    from prefect.automations import Automation
    from prefect.events.schemas.automations import EventTrigger

    old = client.read_automations_by_name(name)
    if [automation.actions for automation in old] == [[action]]:
        return
    for automation in old:
        client.delete_automation(automation.id)
    if action:
        event = EventTrigger(match={"prefect.resource.id": "prefect.flow-run.*"}, threshold=1, **trigger)
        Automation(name=name, trigger=event, actions=[action]).create()


def notification_block(client):
    """Id of the block that prefect.yaml names in `notify`; None, which is said, where the server has no such block."""
    from prefect.exceptions import ObjectNotFound

    name = settings()["definitions"]["notify"]
    kind, _, own_name = name.partition("/")
    try:
        return client.read_block_document_by_name(own_name, kind).id if name else None
    except ObjectNotFound:
        print(f"prefect.yaml: notify {name}: the server has no such block, so nobody hears of a failed night; make it "
              "in the UI under Blocks, and start `make schedule` again")  # fmt: skip


def deploy() -> None:
    """Deploy prefect.yaml, which starts every schedule anew. What people have paused is paused again, and a schedule
    that they have changed is named."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        before = {deployment.name: deployment for deployment in client.read_deployments()}
        subprocess.run([*PREFECT, "--no-prompt", "deploy", "--all"], stdout=sys.stderr, check=True)
        for deployment in client.read_deployments():
            if deployment.name in before:
                keep_paused(client, before[deployment.name], deployment)


def keep_paused(client, old, new) -> None:
    """Pause in the deployment `new` what was paused in its state before, `old`."""
    paused = [schedule.schedule for schedule in old.schedules if not schedule.active]
    for schedule in new.schedules:
        if schedule.schedule in paused or (paused and len(paused) == len(old.schedules)):
            client.update_deployment_schedule(new.id, schedule.id, active=False)
            print(f"{new.name}: its schedule ({in_words(schedule.schedule)}) stays paused")
    if old.paused:
        client.pause_deployment(new.id)
        print(f"{new.name}: stays paused")
    for schedule in old.schedules:
        if schedule.schedule not in [other.schedule for other in new.schedules]:
            print(f"{new.name}: the server's schedule ({in_words(schedule.schedule)}) gives way to prefect.yaml's")


def in_words(schedule) -> str:
    return ", ".join(f"{key} {value}" for key, value in schedule.model_dump(exclude_defaults=True).items())


def settings() -> dict:
    return yaml.safe_load((ROOT / "prefect.yaml").read_text())


def work_pools() -> set[str]:
    """Names of the work pools of prefect.yaml's deployments."""
    return {deployment["work_pool"]["name"] for deployment in settings()["deployments"]}


def wait_for_either(processes: dict[str, subprocess.Popen], log_path: Path) -> None:
    while True:
        for name, process in processes.items():
            if process.poll() is not None:
                sys.exit(f"the {name} ended by itself; see above and {log_path}")
        time.sleep(0.5)


def welcome(url: str) -> str:
    prefect = Path(sys.executable).with_name("prefect")
    prefect = prefect.relative_to(ROOT) if prefect.is_relative_to(ROOT) else prefect
    behind_proxy = os.environ.get("http_proxy") or os.environ.get("HTTP_PROXY")
    no_proxy = (
        f"\n    export NO_PROXY={os.environ['NO_PROXY']} no_proxy={os.environ['NO_PROXY']}" if behind_proxy else ""
    )
    return f"""
Prefect is at {url}. From another terminal, in this folder:

    export PREFECT_API_URL={url}/api{no_proxy}
    {prefect} deployment run train-flow    # bring every stage up to date, now
    {prefect} deployment run nightly       # ask for new data first, as every night
    {prefect} flow-run ls

Ctrl-C stops server and worker. Nothing is scheduled while they are down.
"""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.serve", description=__doc__)
    parser.add_argument("--port", type=int, default=4200, help="of server and UI (default %(default)s)")
    # A shell that starts this program in the background has it ignore SIGINT.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.default_int_handler)
    try:
        main(parser.parse_args().port)
    except KeyboardInterrupt:
        print("\nStopped.")
