"""A toy DVC project with the flows and their settings, and what `make schedule` starts in it."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import urllib3

from tests import processes
from tests.processes import wait_for
from tests.project import ROOT, WHO

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
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

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


class PrefectAPI:
    """What tests ask of a Prefect server."""

    def __init__(self, port: int):
        self.port, self.api = port, f"http://127.0.0.1:{port}/api"

    def start_run(self, deployment: str, **parameters) -> str:
        """The id of a new run, as `prefect deployment run` and the button of the UI make it."""
        found = self.ask(f"deployments/name/train-flow/{deployment}")
        body = {"state": {"type": "SCHEDULED"}, "parameters": parameters}
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

    def end(self, run: str, seconds: float = processes.LIMIT) -> tuple[str, str]:
        """Type and message of the state in which a flow run ends, while `serve`, server or worker, lives."""
        ended = lambda: self.state(run)["type"] in ENDED  # noqa: E731
        wait_for(ended, f"the end of run {run}", seconds, pause=0.2, process=self.serve)
        return self.state(run)["type"], self.state(run)["message"]


@contextlib.contextmanager
def start_server(port: int, **options) -> Iterator[processes.Process]:
    """Prefect's server alone, for a block; `options` as for Popen."""
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with processes.start(command, **options) as server:
        wait_until_healthy(f"http://127.0.0.1:{port}/api/health", server)
        yield server


def wait_until_healthy(url: str, server: processes.Process) -> None:
    def healthy() -> bool:
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            return urllib3.request("GET", url, retries=False).status == 200
        return False

    wait_for(healthy, f"an answer at {url}", 250, pause=0.1, process=server)


class Toy(PrefectAPI):
    """A copy of the flows and their settings in a small DVC project, and the address of its server."""

    def __init__(self, root: Path, port: int):
        super().__init__(port)
        self.root = root
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
        shutil.copytree(ROOT / "flows", root / "flows", ignore=shutil.ignore_patterns("__pycache__"))
        (root / ".dvc").mkdir()
        for name in ("prefect.yaml", "prefect.toml", ".dvc/config", ".dvc/.gitignore"):
            shutil.copy(ROOT / name, root / name)
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

    @contextlib.contextmanager
    def start_serve(self) -> Iterator[processes.Process]:
        """Server, worker and deployments, for a block."""
        command = [sys.executable, "-m", "flows.serve", "--port", str(self.port)]
        with processes.start(command, cwd=self.root, env=self.env) as self.serve:
            started = "Ctrl-C stops"
            wait_for(lambda: started in self.serve.output(), "a worker", 250, pause=0.1, process=self.serve)
            yield self.serve

    @contextlib.contextmanager
    def start_server(self) -> Iterator[processes.Process]:
        """The server alone, for a block."""
        env = {**self.env, "PREFECT_HOME": str(self.root / ".state/prefect")}
        with start_server(self.port, cwd=self.root, env=env) as self.serve:
            yield self.serve

    def start_night(self, **parameters) -> str:
        """The id of a run of nightly, which works in this folder unless `parameters` name a branch."""
        return self.start_run("nightly", **{"branch": "", "save": "", **parameters})

    def diary(self) -> list[str]:
        """Stages that ran since the last call, in order."""
        path = self.root / "ran.txt"
        names = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return names

    def git(self, *arguments: str) -> str:
        return processes.run(["git", *arguments], cwd=self.root, env={**self.env, **WHO}).stdout

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


@contextlib.contextmanager
def schedule(root: Path, only_server: bool = False) -> Iterator[Toy]:
    """A toy below `root` for the length of a block, with what `make schedule` starts, and a process for flows."""
    toy = Toy(root, processes.free_port())
    with toy.start_server() if only_server else toy.start_serve() as serve:
        with toy.start_flows() as toy.flows:
            yield toy
            toy.flows.stdin.close()
            assert toy.flows.finish() == 0, toy.flows
        serve.terminate()
        assert serve.finish() == 0 or only_server, serve
        assert toy.processes() == []
