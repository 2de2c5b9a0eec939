"""What prefect.yaml cannot say: that its work pool exists, and that a silent run has crashed. Safe to repeat;
PREFECT_API_URL says on which server."""

import argparse
from datetime import timedelta

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.settings import get_current_settings
from prefect.workers.process import ProcessWorker

FINAL = ("Completed", "Failed", "Cancelled", "Crashed")


def create_work_pool(name: str) -> None:
    template = ProcessWorker.get_default_base_job_template()
    pool = WorkPoolCreate(name=name, type=ProcessWorker.type, base_job_template=template)
    with get_client(sync_client=True) as client:
        client.create_work_pool(pool, overwrite=True)


def crash_silent_runs() -> None:
    """Without this, a run whose machine went down stays Running for ever."""
    heartbeat, run = "prefect.flow-run.heartbeat", "prefect.flow-run.*"
    automation = Automation(
        name="silent runs have crashed",
        trigger=EventTrigger(
            match={"prefect.resource.id": run},
            for_each={"prefect.resource.id"},
            after={heartbeat},
            expect={heartbeat, *(f"prefect.flow-run.{state}" for state in FINAL)},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=3 * get_current_settings().flows.heartbeat_frequency),
        ),
        actions=[
            ChangeFlowRunState(state=StateType.CRASHED, message="No heartbeat: worker or machine stopped")
        ],
    )
    with get_client(sync_client=True) as client:
        known = client.read_automations_by_name(automation.name)
    if not known:
        automation.create()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.provision", description=__doc__)
    parser.add_argument("pool", help="the work pool that prefect.yaml names")
    create_work_pool(parser.parse_args().pool)
    crash_silent_runs()
