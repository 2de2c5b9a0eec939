"""The nights of a toy DVC project: what is killed, cancelled, stopped, locked or missed, and who hears of it."""

import contextlib
import csv
import http.server
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from typing import ClassVar

import psutil
import pytest

from tests import processes
from tests.flow_project import FLOWS, SENTENCE, Toy, alive, schedule, send
from tests.processes import wait_for
from tests.project import ROOT, Project
from tests.test_experiment import GRAPH

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    with schedule(tmp_path_factory.mktemp("toy")) as toy:
        yield toy


def test_a_night_works_at_its_branch_beside_what_somebody_edits(toy):
    toy.up_to_date()
    night = {"refresh": True, "branch": "main", "save": "nightly"}
    assert "Git has no branch other here; name one in prefect.yaml" in toy.flow(branch="other")
    toy.git("add", "--all")
    toy.git("commit", "--quiet", "-m", "state")
    today = datetime.now(UTC).date()
    toy.temper("sharp")
    refused = toy.flow(**night)
    assert "params.yaml: changed or unknown to Git" in refused
    assert "`git add params.yaml && git commit -m state` keeps the change" in refused
    toy.temper("mild")
    (toy.root / "stage.py").write_text("half an ed")
    assert toy.flow(**night) == "COMPLETED No new data upstream: nothing to do."
    (toy.root / ".state/tree/source/data.txt").write_text("dirt")  # of a night that was killed
    for name, text in (("", "second"), ("-2", "third one")):
        toy.source(text)
        toy.git("commit", "--quiet", "-m", text, "source")
        said = f"New data upstream (fetch): ran fit, score. Saved as the experiment nightly-{today}{name}."
        assert toy.flow(**night) == f"COMPLETED {said}"
        assert (toy.root / ".state/tree/model.txt").read_text() == f"{text}fetchfit"
    assert (toy.root / "model.txt").read_text() == "firstfetchfit"
    shown = toy.python("-m", "dvc", "exp", "show", "--csv", "--all-commits").splitlines()
    chars = {row["Experiment"]: row["chars"] for row in csv.DictReader(shown) if row["Experiment"]}
    assert chars == {f"nightly-{today}": "14", f"nightly-{today}-2": "17"}


def test_of_three_missed_nights_one_runs_and_cancelling_ends_its_stage(toy):
    """They come at once, when the machine is on again."""
    toy.up_to_date()
    toy.temper("slow")
    nights = [toy.start_night() for _ in range(3)]
    stage = toy.slow_stage()
    types = lambda: sorted(toy.state(night)["type"] for night in nights)  # noqa: E731
    wait_for(lambda: types() == ["CANCELLED", "CANCELLED", "RUNNING"], "the end of two nights", pause=0.2)
    assert alive(stage)
    (night,) = [night for night in nights if toy.state(night)["type"] == "RUNNING"]
    # as `prefect flow-run cancel` does
    toy.ask(f"flow_runs/{night}/set_state", {"state": {"type": "CANCELLING"}})
    assert toy.end(night)[0] == "CANCELLED"
    wait_for(lambda: not alive(stage), "the end of the stage", 15)


def test_a_locked_database_of_the_server_delays_a_flow_and_no_more(toy):
    toy.up_to_date()
    toy.temper("sharp")
    ends = lambda: re.findall("^END (.*)", toy.flows.output(), re.MULTILINE)  # noqa: E731
    before = len(ends())
    with contextlib.closing(sqlite3.connect(toy.root / ".state/prefect/prefect.db")) as database:
        database.execute("BEGIN EXCLUSIVE")
        send(toy.flows, {})
        time.sleep(5)
        assert toy.diary() == []
        database.rollback()
    wait_for(lambda: len(ends()) > before, "the end of a flow", process=toy.flows)
    assert ends()[-1] == "COMPLETED Changed since the last run: ran fit."


@processes.in_full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("victim", ["server", "worker", "all"])
def test_after_a_kill_and_a_new_start_the_run_has_crashed_and_the_next_night_runs(tmp_path, victim):
    """Of server or worker, upon which `make schedule` ends and systemd starts it again; of all at once, as a reboot."""
    toy = Toy(tmp_path, processes.free_port())
    toy.env["PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION"] = "60"  # seconds; it is 300
    with toy.start_serve() as serve:
        toy.up_to_date()
        toy.temper("slow")
        night = toy.start_night()
        stage = toy.slow_stage()
        if victim != "all":
            below = psutil.Process(serve.pid).children(recursive=True)
            (process,) = [p for p in below if p.cmdline()[2:5] == ["prefect", victim, "start"]]
            process.kill()
            assert serve.finish() == 1
            assert f"the {victim} ended by itself" in serve.output("stderr")
            wait_for(lambda: not alive(stage), "the end of the stage", 15)
    assert not alive(stage)
    assert toy.processes() == []
    toy.temper("mild")
    toy.diary()
    with toy.start_serve():
        assert toy.end(night, 300)[0] == "CRASHED"
        completed = lambda: toy.end(toy.start_night())[0] == "COMPLETED"  # noqa: E731
        wait_for(completed, "a night whose slot is free", 400, pause=5)
        assert toy.diary() == ["fetch"]


class Desk(http.server.BaseHTTPRequestHandler):
    """Who is told of nights: keeps what is posted."""

    told: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.told.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments) -> None:
        pass


BLOCK = """
import flows, sys
from prefect.blocks.notifications import CustomWebhookNotificationBlock as Webhook
Webhook(name="desk", url=sys.argv[1], json_data={"text": "{{subject}}: {{body}}"}).save("desk")
"""


@processes.in_full
def test_a_block_that_is_named_hears_of_failed_and_missing_nights(toy):
    """By Prefect's own automations, on the real server; without a name they are gone."""

    def provision(notify: str) -> str:
        text = (ROOT / "prefect.yaml").read_text()
        (toy.root / "prefect.yaml").write_text(text.replace('notify: ""', f'notify: "{notify}"'))
        soon = "from datetime import timedelta; from flows import serve; serve.provision(timedelta(seconds=15))"
        return toy.python("-c", soon)

    def names() -> set[str]:
        return {automation["name"] for automation in toy.ask("automations/filter", {})}

    toy.up_to_date()
    assert "custom-webhook/desk: the server has no such block" in provision("custom-webhook/desk")
    assert names() == {"silent runs have crashed"}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Desk) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            toy.python("-c", BLOCK, f"http://127.0.0.1:{server.server_port}")
            assert provision("custom-webhook/desk") == ""
            told = lambda words: [text for text in Desk.told if words in text]  # noqa: E731
            wait_for(lambda: told("No night: nightly has not ended for 0:00:15"), "a missing night", pause=0.2)
            toy.temper("bad")
            assert toy.end(toy.start_night())[0] == "FAILED"
            (text,) = wait_for(lambda: told("A night failed"), "a failed night", pause=0.2)
            assert f"fit: {SENTENCE}" in text
            assert names() == {"silent runs have crashed", "failed nights are told", "missing nights are told"}
            ids = {automation["id"] for automation in toy.ask("automations/filter", {})}
            assert provision("custom-webhook/desk") == ""  # The next start lets them wait on.
            assert {automation["id"] for automation in toy.ask("automations/filter", {})} == ids
            assert provision("") == ""
            assert names() == {"silent runs have crashed"}
        finally:
            server.shutdown()


GRID = """
stages:
  score:
    cmd: python product.py ${a} ${b}
    params: [a, b]
    metrics: [score.json]
"""

PRODUCT = """
import json, sys
json.dump({"product": int(sys.argv[1]) * int(sys.argv[2])}, open("score.json", "w"))
"""

COMPARE = "from flows.compare_flow import compare_flow; compare_flow({})"


@processes.in_full
def test_a_grid_and_a_set_of_runs_are_compared_in_a_table(toy):
    def table() -> list[dict]:
        return json.loads(toy.ask("artifacts/compare-flow/latest")["data"])

    toy.up_to_date()
    (toy.root / "dvc.yaml").write_text(GRID)
    (toy.root / "product.py").write_text(PRODUCT)
    (toy.root / "params.yaml").write_text("a: 1\nb: 1\n")
    toy.git("add", "--all")
    toy.git("commit", "--quiet", "-m", "grid")
    toy.python("-c", COMPARE.format('grid={"a": [2, 3], "b": [5, 7]}'))
    products = {(row["a"], row["b"]): row["product"] for row in table()}
    assert products == {(2, 5): "10", (2, 7): "14", (3, 5): "15", (3, 7): "21"}
    assert len({row["experiment"] for row in table()}) == 4
    assert (toy.root / "params.yaml").read_text() == "a: 1\nb: 1\n"
    toy.python("-c", COMPARE.format(""))
    assert table() == [{"run": "score", "product": "1"}]


@processes.in_full
def test_overrides_and_a_seed_make_an_experiment(toy, tmp_path):
    """On the programs of this project and a graph of one stage."""
    project = Project.new(tmp_path / "project", lambda values: None)
    (project.root / "dvc.yaml").write_text(GRAPH)
    shutil.copytree(ROOT / "flows", project.root / "flows")
    project.commit()
    (project.root / ".state/prefect").mkdir(parents=True)
    before = (project.root / "params.yaml").read_text()
    env = {**project.environment(), "HOME": toy.env["HOME"], "PREFECT_API_URL": toy.api}
    command = [sys.executable, "-c", FLOWS]
    with processes.start(command, cwd=project.root, env=env, stdin=subprocess.PIPE) as flows:
        for overrides in (["train.steps=many"], ["train.batch_size=8"]):
            send(flows, {"runs": ["laptop"], "seed": 7, "overrides": overrides})
        wait_for(lambda: flows.output().count("END ") == 2, "the end of two flows", 250, process=flows)
        wrong, right = re.findall("^END (.*)\n", flows.output(), re.MULTILINE)
    assert re.match("FAILED .*error: params.yaml: .*steps 'many': need a whole number", wrong)
    said = r"COMPLETED Experiment [\w-]+ \(train.batch_size=8 runs.laptop.seed=7\): ran train@laptop, evaluate@laptop\."
    assert re.fullmatch(said, right)
    shown = csv.DictReader(project.run("dvc", "exp", "show", "--csv").splitlines())
    rows = [row for row in shown if row["Experiment"]]
    assert [(row["train.batch_size"], row["runs.laptop.seed"]) for row in rows] == [("8", "7")]
    assert (project.root / "params.yaml").read_text() != before


@pytest.mark.timeout(processes.faults(300, 600))
def test_a_run_that_was_called_crashed_and_goes_on_ends_as_it_ends(toy):
    """As after a sleep of the machine; with all faults the flow is stopped, and the automation calls it so."""
    toy.up_to_date()
    toy.temper("gate")
    run = toy.start_run("train-flow")
    stage = toy.slow_stage()
    above = psutil.Process(stage).parents()
    flow = next(process for process in above if "prefect.engine" in process.cmdline())
    if processes.faults(False, True):
        flow.suspend()
    else:
        toy.ask(f"flow_runs/{run}/set_state", {"state": {"type": "CRASHED"}})
    wait_for(lambda: toy.state(run)["type"] == "CRASHED", "the crash", 400, pause=1)
    assert alive(stage)
    flow.resume()
    (toy.root / "open").touch()
    wait_for(lambda: toy.state(run)["type"] == "COMPLETED", "the end of the run", pause=0.5)
    (toy.root / "open").unlink()
    assert toy.state(run)["message"] == "Changed since the last run: ran fit."
    assert not alive(stage)


def test_a_flow_that_is_killed_outright_takes_its_stage_along(toy):
    toy.up_to_date()
    toy.temper("slow")
    with toy.start_flows() as flows:
        send(flows, {})
        stage = toy.slow_stage()
        flows.kill()
        wait_for(lambda: not alive(stage), "the end of the stage", 20)  # and not by the end of this block
