"""What `make schedule` starts, on a toy DVC project: deployments, schedule, automations; loopback behind proxies."""

import http.server
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from pipeline import status
from tests import processes
from tests.flow_project import schedule
from tests.processes import wait_for
from tests.project import ROOT

pytestmark = pytest.mark.faults  # for their time, of which the server takes most


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    with schedule(tmp_path_factory.mktemp("toy")) as toy:
        yield toy


def test_deployment_runs_every_stage_in_the_order_of_the_graph(toy):
    names = re.search(r"export (NO_PROXY=\S+)", toy.serve.output())[1]  # what the welcome says behind a proxy
    command = ["env", names, sys.executable, "-m", "prefect", "deployment", "run", "train-flow/train-flow"]
    said = processes.run(command, cwd=toy.root, env=toy.env).stdout
    run = re.search(r"UUID: (\S+)", said)[1]
    assert toy.end(run) == ("COMPLETED", "Changed since the last run: ran fetch, fit, score.")
    assert toy.diary() == ["fetch", "fit", "score"]
    assert json.loads((toy.root / "score.json").read_text()) == {"chars": len("firstfetchfit")}
    page = toy.ask("artifacts/latest/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})[0]["data"]
    assert "| fit | ran |" in page
    assert f"| chars | {len('firstfetchfit')} |" in page


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Variables by which a Python finds this project as its editable install does: entry points, and a path."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    with tempfile.TemporaryDirectory() as source:  # setuptools writes beside the code
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        shutil.copytree(ROOT / "hrvgan", Path(source, "hrvgan"))
        processes.run([*command, folder, source])
    (wheel,) = folder.glob("*.whl")
    shutil.unpack_archive(wheel, folder / "site", "zip")
    return {"PYTHONPATH": f"{ROOT}:{folder / 'site'}"}


def test_a_bare_name_is_a_deployment_of_the_flow(toy, installed):
    names = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
    for name, deployment in (("nightly", "nightly"), ("train-flow/train-flow", "train-flow")):
        command = [Path(sys.executable).with_name("prefect"), "deployment", "run", name, "--start-in", "9 hours"]
        said = processes.run(command, cwd=toy.root, env={**toy.env, **installed, **names}).stdout
        run = re.search(r"UUID: (\S+)", said)[1]
        found = toy.ask(f"deployments/{toy.ask(f'flow_runs/{run}')['deployment_id']}")
        assert found["name"] == deployment
        toy.ask(f"flow_runs/{run}", method="DELETE")


def test_nightly_is_scheduled(toy):
    nightly = {"deployments": {"name": {"any_": ["nightly"]}}}
    scheduled = {**nightly, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    # With SQLAlchemy 2.1 it stays empty for ever.
    wait_for(lambda: toy.ask("flow_runs/filter", scheduled), "a scheduled run", pause=0.2, process=toy.serve)
    assert all("T02:00:00" in run["expected_start_time"] for run in toy.ask("flow_runs/filter", scheduled))


def test_status_tells_of_the_last_and_the_next_night(toy, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", toy.api)
    toy.up_to_date()
    assert toy.end(toy.start_night())[0] == "COMPLETED"
    last, following = status.nights()
    assert re.fullmatch(r"[-\d]+ [:\d]+ UTC: Completed, No new data upstream: nothing to do\.", last)
    assert re.fullmatch(r"next [-\d]+ 02:00 UTC", following)


def test_silent_runs_are_marked_crashed_by_an_automation(toy):
    (automation,) = toy.ask("automations/filter", {})
    assert automation["enabled"]
    assert automation["actions"][0]["state"] == "CRASHED"


def test_what_was_paused_stays_paused_at_the_next_start(toy):
    def nightly() -> dict:
        return toy.ask("deployments/name/train-flow/nightly")

    def deploy() -> str:
        return toy.python("-c", "from flows import serve; serve.deploy()")

    def change(body: dict) -> None:
        schedule = f"deployments/{nightly()['id']}/schedules/{nightly()['schedules'][0]['id']}"
        toy.ask(schedule, body, method="PATCH")

    change({"active": False})  # as the switch of the UI does
    assert deploy() == "nightly: its schedule (cron 0 2 * * *, timezone UTC) stays paused\n"
    assert [schedule["active"] for schedule in nightly()["schedules"]] == [False]
    change({"active": True, "schedule": {"cron": "0 3 * * *", "timezone": "UTC"}})
    assert deploy() == "nightly: the server's schedule (cron 0 3 * * *, timezone UTC) gives way to prefect.yaml's\n"
    assert [schedule["active"] for schedule in nightly()["schedules"]] == [True]
    assert deploy() == ""


@pytest.mark.parametrize(("theirs", "ours"), [("", ""), ("intranet", "intranet,")])
def test_loopback_needs_no_proxy_in_any_target_of_the_makefile(theirs, ours):
    recipe = "probe: ; @echo $$NO_PROXY $$no_proxy"
    clean = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    command = ["make", "--no-print-directory", "-f", "Makefile", "--eval", recipe, "probe"]
    done = processes.run(command, cwd=ROOT, env=clean | ({"NO_PROXY": theirs} if theirs else {}))
    assert done.stdout.split() == [f"{ours}127.0.0.1,localhost"] * 2


def test_flows_reach_loopback_behind_a_proxy():
    program = "import sys, urllib.request, {}; print(urllib.request.urlopen(sys.argv[1]).status)"
    clean = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}  # nobody listens
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        command = [sys.executable, "-c"]
        direct = {"cwd": ROOT, "env": clean | proxy, "check": False}
        through_proxy = processes.run([*command, program.format("os"), url], **direct)
        around_it = processes.run([*command, program.format("flows"), url], **direct)
        server.shutdown()
    assert (through_proxy.returncode, around_it.stdout) == (1, "200\n"), around_it.stderr


def test_without_a_server_the_flow_says_how_to_start_one():
    with socket.socket() as taken:  # Bound and not listening: nobody answers there.
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/api"
        command = [sys.executable, "-m", "flows.train_flow"]
        done = processes.run(command, cwd=ROOT, env={**os.environ, "PREFECT_API_URL": url}, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: no Prefect server at {url}")
    assert "Traceback" not in done.stderr
