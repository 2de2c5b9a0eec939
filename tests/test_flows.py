"""The flow on a toy DVC project, under the server, worker and deployments that `make schedule` starts."""

import contextlib
import csv
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
import urllib3
from dvc.exceptions import DvcException

from flows import child_process, stages
from flows.graph import in_words, plan
from flows.summary import ASKED, FORCED, Outcome, report, verdict
from pipeline import status
from tests import processes
from tests.processes import wait_for
from tests.project import Project
from tests.test_experiment import GRAPH

PROJECT = Path(__file__).resolve().parents[1]
SENTENCE = "params.yaml: runs.toy.width = -3, must be positive; raise it"

# The first stage stands last, so that only DVC's graph can give the order.
DVC_YAML = """
stages:
  score:
    cmd: python stage.py score model.txt score.json
    deps: [model.txt]
    metrics: [score.json]
  fit:
    cmd: python stage.py fit raw.txt model.txt
    deps: [raw.txt]
    params: [temper]
    outs: [model.txt]
  fetch:
    cmd: python stage.py fetch source/data.txt raw.txt
    outs: [raw.txt]
"""
STAGE = f"""
import json, os, pathlib, sys, time, yaml
name, source, out = sys.argv[1:]
temper = yaml.safe_load(open("params.yaml"))["temper"]
with open("ran.txt", "a") as diary:
    diary.write(name + "\\n")
if name == "fit" and temper == "bad":
    sys.exit({SENTENCE!r})
if name == "fit" and temper == "shaky" and not os.path.exists("tried.txt"):
    open("tried.txt", "w").close()
    sys.exit("the network is away")
if name == "fit" and temper == "slow":
    pathlib.Path("pid.tmp").write_text(str(os.getpid()))
    os.rename("pid.tmp", "pid.txt")
    time.sleep(600)
if name == "fit" and temper == "gate":
    pathlib.Path("pid.tmp").write_text(str(os.getpid()))
    os.rename("pid.tmp", "pid.txt")
    while not os.path.exists("open"):
        time.sleep(0.1)
text = pathlib.Path(source).read_text()
pathlib.Path(out).write_text(json.dumps({{"chars": len(text)}}) if name == "score" else text + name)
"""


# What `python -m pipeline.checks` says of the toy.
CHECK = """
import sys
if "typo" in open("params.yaml").read():
    sys.exit("error: params.yaml: unknown key 'typo'")
"""

# Importing Prefect and DVC takes longer than the flows of these tests.
FLOWS = """
import json, sys
from flows.train_flow import train_flow
for line in sys.stdin:
    state = train_flow(**json.loads(line), return_state=True)
    print("END", state.type.value, state.message, flush=True)
"""


class Toy:
    """A copy of the flows and their settings in a small DVC project, and the address of its server."""

    def __init__(self, root: Path, port: int):
        self.root, self.port, self.api = root, port, f"http://127.0.0.1:{port}/api"
        self.kept: dict[Path, bytes] = {}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
        self.env = {**clean, "HOME": str(root / "home"), "PREFECT_API_URL": self.api}
        self.env["PREFECT_TASKS_DEFAULT_RETRY_DELAY_SECONDS"] = "0"
        # Nobody listens at this proxy: what goes to the server through it fails.
        self.env |= {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
        for name in ("NO_PROXY", "no_proxy"):
            self.env.pop(name, None)
        self.env["DVC_SITE_CACHE_DIR"] = str(root / ".dvc/tmp/site")
        for name in ("home", "source"):
            (root / name).mkdir()
        shutil.copytree(PROJECT / "flows", root / "flows", ignore=shutil.ignore_patterns("__pycache__"))
        (root / ".dvc").mkdir()
        for name in ("prefect.yaml", "prefect.toml", ".dvc/config", ".dvc/.gitignore"):
            shutil.copy(PROJECT / name, root / name)
        (root / "dvc.yaml").write_text(DVC_YAML)
        (root / "stage.py").write_text(STAGE)
        (root / "pipeline").mkdir()
        (root / "pipeline/checks.py").write_text(CHECK)
        (root / "pipeline/__init__.py").touch()
        self.source("first"), self.temper("mild")
        (root / ".gitignore").write_text("/.state/\n/home/\nran.txt\n__pycache__/\n")
        processes.run(["git", "init", "--quiet", "--initial-branch=main", root])

    def source(self, text: str) -> None:
        (self.root / "source/data.txt").write_text(text)

    def temper(self, temper: str) -> None:
        (self.root / "params.yaml").write_text(f"temper: {temper}\n")

    def python(self, *arguments: str) -> str:
        return processes.run([sys.executable, *arguments], cwd=self.root, env=self.env).stdout

    @contextlib.contextmanager
    def start_flows(self) -> Iterator[processes.Process]:
        """A process that runs the flow, without a deployment, for each line of parameters that it is sent."""
        command = [sys.executable, "-c", FLOWS]
        with processes.start(command, cwd=self.root, env=self.env, stdin=subprocess.PIPE) as flows:
            yield flows

    def flow(self, **parameters) -> str:
        """Type and message of the state in which a run of the flow ends."""

        def ends() -> list[str]:
            return re.findall("^END (.*)\n", self.flows.output(), re.MULTILINE)

        before = len(ends())
        send(self.flows, parameters)
        wait_for(lambda: len(ends()) > before, "the end of a flow", process=self.flows)
        return ends()[before]

    def diary(self) -> list[str]:
        """Stages that ran since the last call, in order."""
        path = self.root / "ran.txt"
        names = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return names

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@t"]
        return processes.run(["git", *who, *arguments], cwd=self.root, env=self.env).stdout

    def up_to_date(self) -> None:
        """All files as `dvc repro` left them the first time, and an empty diary."""
        if not self.kept:
            self.python("-m", "dvc", "repro", "--quiet")
            names = (
                "dvc.yaml",
                "dvc.lock",
                "stage.py",
                "source/data.txt",
                "params.yaml",
                "raw.txt",
                "model.txt",
                "score.json",
            )
            self.kept = {self.root / name: (self.root / name).read_bytes() for name in names}
        for path, data in self.kept.items():
            path.write_bytes(data)
        self.diary()

    def start_run(self, deployment: str, **parameters) -> str:
        """The id of a new run, as `prefect deployment run` and the button of the UI make it. A night works in this
        folder unless `parameters` name a branch."""
        found = self.ask(f"deployments/name/train-flow/{deployment}")
        body = {"state": {"type": "SCHEDULED"}, "parameters": {"branch": "", "save": "", **parameters}}
        return self.ask(f"deployments/{found['id']}/create_flow_run", body)["id"]

    def ask(self, path: str, body: dict | None = None, method: str = ""):
        # Prefect's own client tries again, too, where the server says 503 because its sqlite is busy.
        retries = urllib3.Retry(6, backoff_factor=0.2, status_forcelist=[503], allowed_methods=None)
        method = method or ("GET" if body is None else "POST")
        answer = urllib3.request(method, f"{self.api}/{path}", json=body, timeout=30, retries=retries)
        if answer.status >= 400:
            raise RuntimeError(f"{path}: {answer.status} {answer.data.decode()}")
        return answer.json() if answer.data else None

    def state(self, run: str) -> dict:
        return self.ask(f"flow_runs/{run}")["state"]

    def end(self, run: str) -> tuple[str, str]:
        """Type and message of the state in which a flow run ends."""
        final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        wait_for(
            lambda: self.state(run)["type"] in final, f"the end of run {run}", pause=0.2, process=self.serve
        )
        return self.state(run)["type"], self.state(run)["message"]

    def slow_stage(self) -> int:
        """The pid of the sleeping stage, once it sleeps."""
        path = self.root / "pid.txt"

        def sleeps() -> bool:  # The file may be that of a stage of another test.
            return path.exists() and path.read_text().isdigit() and psutil.pid_exists(int(path.read_text()))

        wait_for(sleeps, "the slow stage", process=self.serve)
        pid = int(path.read_text())
        path.unlink()
        return pid

    def processes(self) -> list[str]:
        """Command lines of all processes that work in this folder."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if Path(os.readlink(process / "cwd")).is_relative_to(self.root):
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue  # ended meanwhile, or not ours
        return found


def send(flows: processes.Process, parameters: dict) -> None:
    flows.stdin.write(json.dumps(parameters).encode() + b"\n")
    flows.stdin.flush()


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    port = processes.free_port()
    toy = Toy(tmp_path_factory.mktemp("toy"), port)
    command = [sys.executable, "-m", "flows.serve", "--port", str(port)]
    with processes.start(command, cwd=toy.root, env=toy.env) as toy.serve:
        started = "Ctrl-C stops"
        wait_for(lambda: started in toy.serve.output(), "a worker", 250, pause=0.1, process=toy.serve)
        with toy.start_flows() as toy.flows:
            yield toy
            toy.flows.stdin.close()
            assert toy.flows.finish() == 0, toy.flows
        toy.serve.terminate()
        assert toy.serve.finish() == 0, toy.serve
        assert toy.processes() == []


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
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
    ]
    with tempfile.TemporaryDirectory() as source:  # setuptools writes beside the code
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(PROJECT / name, source)
        shutil.copytree(PROJECT / "hrvgan", Path(source, "hrvgan"))
        processes.run([*command, folder, source])
    (wheel,) = folder.glob("*.whl")
    shutil.unpack_archive(wheel, folder / "site", "zip")
    return {"PYTHONPATH": f"{PROJECT}:{folder / 'site'}"}


def test_a_bare_name_is_a_deployment_of_the_flow(toy, installed):
    names = dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
    for name, deployment in (("nightly", "nightly"), ("train-flow/train-flow", "train-flow")):
        command = [
            Path(sys.executable).with_name("prefect"),
            "deployment",
            "run",
            name,
            "--start-in",
            "9 hours",
        ]
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
    assert toy.end(toy.start_run("nightly"))[0] == "COMPLETED"
    last, following = status.nights()
    assert re.fullmatch(r"[-\d]+ [:\d]+ UTC: Completed, No new data upstream: nothing to do\.", last)
    assert re.fullmatch(r"next [-\d]+ 02:00 UTC", following)


def test_silent_runs_are_marked_crashed_by_an_automation(toy):
    (automation,) = toy.ask("automations/filter", {})
    assert automation["enabled"]
    assert automation["actions"][0]["state"] == "CRASHED"


def test_unchanged_stages_do_not_run(toy):
    toy.up_to_date()
    assert toy.flow() == "COMPLETED Nothing changed: nothing to do."
    assert toy.diary() == []


def test_refresh_notices_new_data_and_says_where_there_is_none(toy):
    toy.up_to_date()
    assert toy.flow(refresh=True) == "COMPLETED No new data upstream: nothing to do."
    assert toy.diary() == ["fetch"]
    toy.source("second")
    assert toy.flow(refresh=True) == "COMPLETED New data upstream (fetch): ran fit, score."
    assert toy.diary() == ["fetch", "fit", "score"]


@pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")  # DVC's use of pygtrie
def test_targets_take_what_they_need_and_no_more(toy):
    toy.up_to_date()
    assert toy.flow(targets=["fit"], force=True) == "COMPLETED Forced: ran fetch, fit."
    assert toy.diary() == ["fetch", "fit"]
    with pytest.raises(DvcException, match="'nonsense' not found"):
        plan(toy.root, ["nonsense"])


def test_a_failing_stage_fails_the_run_with_its_own_sentence(toy):
    toy.up_to_date()
    toy.temper("bad")
    assert re.match(rf"FAILED .*fit: {re.escape(SENTENCE)}", toy.flow())
    assert toy.diary() == ["fit"]  # and score did not run


def test_wrong_params_fail_the_run_before_any_stage(toy):
    toy.up_to_date()
    toy.temper("typo")
    assert toy.flow(force=True).endswith("error: params.yaml: unknown key 'typo'")
    assert toy.diary() == []


def test_retries_are_of_the_stage(toy):
    toy.up_to_date()
    toy.temper("shaky")
    assert toy.flow(retries=1) == "COMPLETED Changed since the last run: ran fit."
    assert toy.diary() == ["fit", "fit"]


@pytest.mark.faults
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


RUNS = """
stages:
  fit:
    foreach: ${runs}
    do:
      cmd: python meet.py ${key}
      params: [temper]
      outs: ["${key}.txt"]
  report:
    cmd: cat a.txt b.txt > report.txt
    deps: [a.txt, b.txt]
    outs: [report.txt]
"""
# Ends once both runs are at work.
MEET = """
import os, pathlib, sys, time
if sys.argv[1] == "b" and "bad" in open("params.yaml").read():
    sys.exit("b is no good")
pathlib.Path(sys.argv[1] + ".here").touch()
while len(list(pathlib.Path(".").glob("*.here"))) < 2 and "alone" not in open("params.yaml").read():
    time.sleep(0.01)
pathlib.Path(sys.argv[1] + ".txt").write_text(os.environ["OMP_NUM_THREADS"])
"""


def test_runs_that_do_not_need_each_other_train_at_the_same_time(toy):
    toy.up_to_date()
    (toy.root / "dvc.yaml").write_text(RUNS)
    (toy.root / "meet.py").write_text(MEET)
    toy.temper("mild\nruns: {a: {}, b: {}}")
    share = str(max(1, len(os.sched_getaffinity(0)) // 2))
    said = toy.flow(parallel=2, runs=["a", "b"])
    assert said in ("COMPLETED Changed since the last run: ran fit@a, fit@b.",
                    "COMPLETED Changed since the last run: ran fit@b, fit@a.")  # fmt: skip
    assert [(toy.root / f"{run}.txt").read_text() for run in "ab"] == [share, share]
    assert not (toy.root / "report.txt").exists()
    assert "no stage of 'c' in dvc.yaml; of: a, b" in toy.flow(runs=["a", "c"])
    toy.temper("bad alone\nruns: {a: {}, b: {}}")
    assert re.match("FAILED .*fit@b: b is no good", toy.flow())
    assert toy.flow(runs=["a"]) == "COMPLETED Nothing changed: nothing to do."  # a did not suffer
    for name in ("a.txt", "b.txt", "a.here", "b.here", "meet.py"):
        (toy.root / name).unlink(missing_ok=True)


def test_each_of_several_stages_has_a_gpu_or_a_share_of_the_cores(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    slots = stages.devices(0)
    assert [slots.get() for _ in range(slots.qsize())] == [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in "47"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert stages.devices(0).get() == {}
    half = {"OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // 2))}
    slots = stages.devices(2)
    assert [slots.get() for _ in range(slots.qsize())] == [half, half]


@pytest.mark.faults
def test_cancelling_ends_the_stage_and_a_second_nightly_does_not_pile_up(toy):
    toy.up_to_date()
    toy.temper("slow")
    run = toy.start_run("nightly")
    stage = toy.slow_stage()
    missed = [toy.start_run("nightly") for _ in range(2)]  # such as those of nights when the machine was off
    assert [toy.end(run)[0] for run in missed] == ["CANCELLED", "CANCELLED"]
    assert alive(stage)
    toy.ask(
        f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}}
    )  # as `prefect flow-run cancel` does
    assert toy.end(run)[0] == "CANCELLED"
    wait_for(lambda: not alive(stage), "the end of the stage", 15)


HOLD = """
import sys
from dvc.repo import Repo
with Repo(".") as repo, repo.lock:
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_the_flow_waits_for_whoever_holds_the_lock_of_dvc(toy):
    toy.up_to_date()
    toy.temper("sharp")
    command = [sys.executable, "-c", HOLD]
    with processes.start(command, cwd=toy.root, env=toy.env, stdin=subprocess.PIPE) as holder:
        wait_for(lambda: "held" in holder.output(), "the lock", process=holder)
        before = toy.flows.output().count("END ")
        send(toy.flows, {})
        words = f"(process {holder.pid}, since "
        wait_for(lambda: words in toy.flows.output("stderr"), "a line of the log", process=toy.flows)
        assert toy.diary() == []
        holder.stdin.write(b"go\n")
        holder.stdin.flush()
        assert holder.finish() == 0
    wait_for(lambda: toy.flows.output().count("END ") > before, "the end of a flow", process=toy.flows)
    assert toy.flows.output().splitlines()[-1].endswith("COMPLETED Changed since the last run: ran fit.")


def test_the_flow_does_not_wait_for_ever(toy):
    toy.up_to_date()
    command, toy_env = [sys.executable, "-c", HOLD], toy.env
    toy.env = {**toy_env, "HRVGAN_DVC_LOCK_WAIT": "0"}
    with (
        processes.start(command, cwd=toy.root, env=toy_env, stdin=subprocess.PIPE) as holder,
        toy.start_flows() as flows,
    ):
        toy.env = toy_env
        wait_for(lambda: "held" in holder.output(), "the lock", process=holder)
        send(flows, {})
        wait_for(lambda: "END " in flows.output(), "the end of a flow", process=flows)
        assert re.search(rf"END FAILED .*process {holder.pid}, .*end that process", flows.output())


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
    assert (
        deploy()
        == "nightly: the server's schedule (cron 0 3 * * *, timezone UTC) gives way to prefect.yaml's\n"
    )
    assert [schedule["active"] for schedule in nightly()["schedules"]] == [True]
    assert deploy() == ""


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


@pytest.mark.faults
@processes.in_full
def test_a_block_that_is_named_hears_of_failed_and_missing_nights(toy):
    """By Prefect's own automations, on the real server; without a name they are gone."""

    def provision(notify: str) -> str:
        text = (PROJECT / "prefect.yaml").read_text()
        (toy.root / "prefect.yaml").write_text(text.replace('notify: ""', f'notify: "{notify}"'))
        soon = (
            "from datetime import timedelta; from flows import serve; serve.provision(timedelta(seconds=15))"
        )
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
            wait_for(
                lambda: told("No night: nightly has not ended for 0:00:15"), "a missing night", pause=0.2
            )
            toy.temper("bad")
            assert toy.end(toy.start_run("nightly"))[0] == "FAILED"
            (text,) = wait_for(lambda: told("A night failed"), "a failed night", pause=0.2)
            assert f"fit: {SENTENCE}" in text
            assert names() == {
                "silent runs have crashed",
                "failed nights are told",
                "missing nights are told",
            }
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


@pytest.mark.faults
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


@pytest.mark.faults
@processes.in_full
def test_overrides_and_a_seed_make_an_experiment(toy, tmp_path):
    """On the programs of this project and a graph of one stage."""
    project = Project.new(tmp_path / "project", lambda values: None)
    (project.root / "dvc.yaml").write_text(GRAPH)
    shutil.copytree(PROJECT / "flows", project.root / "flows")
    project.run("git", "add", "--all")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start")
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


@pytest.mark.faults
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


@pytest.mark.faults
def test_a_flow_that_is_killed_outright_takes_its_stage_along(toy):
    toy.up_to_date()
    toy.temper("slow")
    with toy.start_flows() as flows:
        send(flows, {})
        stage = toy.slow_stage()
        flows.kill()
        wait_for(lambda: not alive(stage), "the end of the stage", 20)  # and not by the end of this block


@pytest.mark.parametrize(("theirs", "ours"), [("", ""), ("intranet", "intranet,")])
def test_loopback_needs_no_proxy_in_any_target_of_the_makefile(theirs, ours):
    recipe = "probe: ; @echo $$NO_PROXY $$no_proxy"
    clean = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    command = ["make", "--no-print-directory", "-f", "Makefile", "--eval", recipe, "probe"]
    done = processes.run(command, cwd=PROJECT, env=clean | ({"NO_PROXY": theirs} if theirs else {}))
    assert done.stdout.split() == [f"{ours}127.0.0.1,localhost"] * 2


def test_flows_reach_loopback_behind_a_proxy():
    program = "import sys, urllib.request, {}; print(urllib.request.urlopen(sys.argv[1]).status)"
    clean = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}  # nobody listens
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        command = [sys.executable, "-c"]
        direct = {"cwd": PROJECT, "env": clean | proxy, "check": False}
        through_proxy = processes.run([*command, program.format("os"), url], **direct)
        around_it = processes.run([*command, program.format("flows"), url], **direct)
        server.shutdown()
    assert (through_proxy.returncode, around_it.stdout) == (1, "200\n"), around_it.stderr


@pytest.mark.parametrize("code", [0, 3])
def test_child_process_passes_the_exit_code(code):
    with child_process.running([sys.executable, "-c", f"raise SystemExit({code})"], grace=5) as process:
        assert process.wait(timeout=30) == code


def test_child_process_kills_what_ignores_the_interrupt():
    deaf = "import time, signal as s; s.signal(s.SIGINT, s.SIG_IGN); print(1, flush=True); time.sleep(60)"
    with (
        child_process.running([sys.executable, "-c", deaf], grace=0.5, stdout=subprocess.PIPE) as process,
        process.stdout as said,
    ):
        said.readline()
    assert process.returncode == -signal.SIGKILL


def outcome(stage, state, why="changed deps: x modified", new=True):
    return Outcome(stage, state, why, seconds=1.0, new=new)


@pytest.mark.parametrize(
    ("outcomes", "sentence"),
    [
        ([outcome("a", "unchanged", "")], "Nothing changed: nothing to do."),
        ([outcome("a", "ran"), outcome("b", "restored")], "Changed since the last run: ran a; restored b."),
        ([outcome("a", "ran", FORCED)], "Forced: ran a."),
        ([outcome("a", "ran", ASKED, new=False)], "No new data upstream: nothing to do."),
        (
            [outcome("a", "ran", ASKED, new=False), outcome("b", "ran")],
            "No new data upstream, but other changes: ran b.",
        ),
        ([outcome("a", "ran", ASKED), outcome("b", "ran")], "New data upstream (a): ran b."),
    ],
)
def test_verdict(outcomes, sentence):
    assert verdict(outcomes) == sentence


def test_report_shows_numbers_to_four_digits():
    page = report("Done.", [outcome("a", "ran")], {"m.json": {"fd": {"value": 3.14159, "sd": 0.25}, "n": 7}})
    assert "| a | ran | 1.0 | changed deps: x modified |" in page
    assert "| fd | value 3.142, sd 0.25 |" in page
    assert "| n | 7 |" in page


def test_reasons_are_put_in_words():
    assert in_words("changed command") == "changed command"
    change = {"changed deps": {"raw.txt": "deleted", "params.yaml": {"train.lr": "modified"}}}
    assert in_words(change) == "changed deps: raw.txt deleted, train.lr modified"


def test_without_a_server_the_flow_says_how_to_start_one():
    with socket.socket() as taken:  # Bound and not listening: nobody answers there.
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/api"
        command = [sys.executable, "-m", "flows.train_flow"]
        done = processes.run(command, cwd=PROJECT, env={**os.environ, "PREFECT_API_URL": url}, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: no Prefect server at {url}")
    assert "Traceback" not in done.stderr
