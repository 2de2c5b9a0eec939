"""More machines than one: workers in clones that share DVC's remote, MLflow and Prefect's server; and two people."""

import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.repo import Repo
from mlflow import MlflowClient

from hrvgan.training.session import read_state
from tests import processes
from tests.flow_project import PrefectAPI, start_server, wait_until_healthy
from tests.processes import wait_for
from tests.project import NO_TRACKER, ROOT, Project, digests, finished, shrink

pytestmark = pytest.mark.faults
KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
STEPS = 150


@pytest.fixture
def origin(tmp_path):
    """The project with its flows, committed and nothing made."""

    def longer(values: dict) -> None:
        shrink(values)
        values["train"] |= {"steps": STEPS, "log_every": 5, "save_every": 5, "sample_every": STEPS}

    project = Project.new(tmp_path / "origin", longer)
    shutil.copytree(ROOT / "flows", project.root / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("prefect.yaml", "prefect.toml"):
        shutil.copy(ROOT / name, project.root / name)
    return project


def test_a_training_goes_on_from_the_state_on_dvcs_remote(tmp_path, tmp_path_factory):
    """Where it has none of its own, or a shorter one, and not where fewer steps are asked for."""

    def train(steps: int) -> bool:
        shutil.rmtree(project.root / ".state/resume", ignore_errors=True)
        project.edit_params(lambda v: v["train"].update(steps=steps))
        said = project.call("train", "laptop", HRVGAN_REMOTE_STATE="1", **NO_TRACKER)
        assert ("state.pt: from DVC's remote" in said) == ("laptop: going on from" in said)
        return "laptop: going on from" in said

    with finished(tmp_path_factory)[0].copied(tmp_path / "project") as project:
        (project.root / ".dvc/config.local").write_text(
            f"[core]\n    remote = store\n['remote \"store\"']\n    url = {tmp_path / 'store'}\n"
        )
        assert [train(steps) for steps in (4, 6, 2)] == [False, True, False]
        (state,) = tmp_path.glob("store/resume/laptop-*/state.pt")
        assert read_state(state, "step", 0) == 2
        shutil.rmtree(tmp_path / "store")
        (tmp_path / "store").touch()  # DVC's remote is away.
        project.edit_params(lambda v: v["train"].update(steps=8))
        said = project.call("train", "laptop", HRVGAN_REMOTE_STATE="1", **NO_TRACKER)
        assert said.count("warning: DVC's remote does not take the state") == 1


@contextlib.contextmanager
def folder_remote(project: Project, tmp_path: Path) -> Iterator[None]:
    project.run("dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
    yield


@contextlib.contextmanager
def s3_remote(project: Project, tmp_path: Path) -> Iterator[None]:
    """By the server of moto."""
    import boto3

    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    with processes.start([sys.executable, "-m", "moto.server", "-p", str(port)], cwd=tmp_path) as server:
        wait_until_healthy(f"{url}/moto-api/", server)
        credentials = {name.lower(): value for name, value in KEYS.items() if "KEY" in name}
        boto3.client("s3", endpoint_url=url, region_name="us-east-1", **credentials).create_bucket(Bucket="bucket")
        project.run("dvc", "remote", "add", "-d", "store", "s3://bucket/store")
        project.run("dvc", "remote", "modify", "store", "endpointurl", url)
        yield


@contextlib.contextmanager
def sqlite() -> Iterator[dict[str, str]]:
    yield {}


@contextlib.contextmanager
def postgresql() -> Iterator[dict[str, str]]:
    """Variables of a Prefect server on a database of PostgreSQL, which does not run as root."""
    if not (initdb := shutil.which("initdb")):
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    options = {"user": "postgres", "group": "postgres", "cwd": "/"} if os.getuid() == 0 else {"cwd": "/"}
    port, folder = processes.free_port(), tempfile.mkdtemp(dir="/var/tmp")
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    try:
        processes.run([initdb, "-D", folder, "-U", "prefect", "--auth=trust"], **options)
        command = [Path(initdb).resolve().with_name("postgres"), "-D", folder, "-p", str(port), "-k", folder]
        with processes.start(command, **options) as server:
            ready = "database system is ready"
            wait_for(lambda: ready in server.output("stderr"), "PostgreSQL", process=server)
            url = f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
            yield {"PREFECT_API_DATABASE_CONNECTION_URL": url}
            server.send_signal(signal.SIGINT)
            server.finish()
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[processes.Process]:
    folder.mkdir(exist_ok=True)
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *store]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with processes.start(command, cwd=folder, env=env) as server:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", server)
        yield server


def trainings(port: int, run: str) -> tuple:
    """MLflow's client, and its records of a run."""
    client = MlflowClient(f"http://127.0.0.1:{port}")
    experiment = client.get_experiment_by_name("hrvgan").experiment_id
    return client, client.search_runs([experiment], f"tags.run = '{run}'")


class Machine(Project):
    """A clone, with a worker of its own."""

    def __init__(self, root: Path, env: dict[str, str]):
        super().__init__(root)
        self.tree = root / ".state/tree"
        self.env = {**env, "HOME": str(root.parent), "PREFECT_HOME": str(root / ".state/prefect")}

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **self.env}

    def state_on_remote(self) -> bool:
        """True once DVC's remote has the resume state that lies here."""
        with Repo(str(self.root)) as repo:
            remote = repo.cloud.get_remote()
            return any(
                remote.fs.exists(remote.fs.join(remote.path, "resume", state.parent.name, "state.pt"))
                for state in self.root.glob(".state/resume/*/state.pt")
            )

    def worker(self) -> contextlib.AbstractContextManager[processes.Process]:
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "anywhere"]
        env = {**self.environment(), "HRVGAN_CLONE": str(self.root)}
        return processes.start(command, cwd=self.root, env=env)


@processes.in_full
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("remote", "database"), [(folder_remote, sqlite), (s3_remote, postgresql)])
def test_a_worker_goes_on_where_another_machine_was_taken_away(origin, tmp_path, monkeypatch, remote, database):
    """With the same bits and in the same record; and what was made elsewhere comes home."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    mlflow_port, api = processes.free_port(), PrefectAPI(processes.free_port())
    shared = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow_port}", "PREFECT_API_URL": api.api}
    with (
        remote(origin, tmp_path),
        database() as variables,
        mlflow_server(tmp_path / "mlflow", mlflow_port),
        start_server(
            api.port, cwd=tmp_path, env={**os.environ, "PREFECT_HOME": str(tmp_path / "prefect"), **variables}
        ),
    ):
        commit = origin.commit()
        first, second = (Machine(tmp_path / name, shared) for name in ("first", "second"))
        for machine in (first, second):
            origin.run("git", "clone", "-q", ".", str(machine.root))
        first.run(sys.executable, "-c", "from flows import serve; serve.provision(); serve.deploy()")
        first_stages = ["upstream@shapes", "download@shapes", "extract@shapes"]
        with first.worker() as api.serve:
            api.start_run("anywhere", commit=commit, targets=[*first_stages, "train@laptop"])
            wait_for(first.state_on_remote, "a state on the remote", 250, pause=0.1, process=api.serve)
        with second.worker() as api.serve:
            run = api.start_run("anywhere", commit=commit, targets=["train@laptop"])
            said = "Changed since the last run: ran train@laptop."
            assert api.end(run, 300) == ("COMPLETED", said), api.serve
        log = api.ask("logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}})
        lines = "\n".join(line["message"] for line in log)
        assert re.search(r"state.pt: from DVC's remote\n(.*\n)*laptop: going on from ", lines), lines
        client, (record,) = trainings(mlflow_port, "laptop")
        assert record.info.status == "FINISHED"
        points = client.get_metric_history(record.info.run_id, "loss/d/adv")
        assert {point.step for point in points} == set(range(5, STEPS + 1, 5))

        model = digests(second.tree / "models/laptop")
        assert record.data.tags["model_digest"] == model["model.safetensors"]
        straight = Machine(first.tree, first.env | NO_TRACKER | {"HRVGAN_STATE": str(tmp_path / "none")})
        straight.run("dvc", "repro", "--single-item", "train@laptop")
        assert digests(first.tree / "models/laptop") == model

        shutil.rmtree(first.tree / "models")
        home = ["flows.train_flow", "train@laptop", "--commit", "HEAD", "--save", "far"]
        said = first.run(sys.executable, "-m", *home)
        name = re.search(r"restored train@laptop\. Saved as the experiment (far-[-\d]+)\.", said)[1]
        assert name in first.run("dvc", "exp", "list", "--name-only").split()
        assert digests(first.tree / "models/laptop") == model


@processes.in_full
@pytest.mark.timeout(600)
def test_two_people_with_one_remote_and_one_mlflow_do_not_clash(tmp_path, tmp_path_factory):
    """They train and score at the same time, with a seed each; a third one gets either model."""
    port, project = processes.free_port(), finished(tmp_path_factory)[0]
    env = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(mlflow_server(tmp_path / "mlflow", port))
        people = [Machine(stack.enter_context(project.copied(tmp_path / name)).root, env) for name in "ab"]
        for seed, person in enumerate(people, 1):
            person.run("dvc", "remote", "add", "-d", "store", str(tmp_path / "store"))
            person.edit_params(lambda v: v["runs"]["laptop"].update(seed=seed))  # noqa: B023
        command = ["sh", "-c", "dvc repro evaluate@laptop && dvc push evaluate@laptop train@laptop"]
        at_work = [
            stack.enter_context(processes.start(command, cwd=person.root, env=person.environment()))
            for person in people
        ]
        for process in at_work:
            assert process.finish(250) == 0, process
        client, records = trainings(port, "laptop")
        runs = {record.data.params["seed"]: record for record in records if "seed" in record.data.params}
        assert {seed: run.info.status for seed, run in runs.items()} == {"1": "FINISHED", "2": "FINISHED"}
        versions = client.search_model_versions("name = 'laptop'")
        assert {version.run_id for version in versions} == {run.info.run_id for run in runs.values()}
        for seed, person in enumerate(people, 1):
            made, run = digests(person.root / "models/laptop"), runs[str(seed)]
            assert run.data.tags["model_digest"] == made["model.safetensors"]
            assert "metric/refnet_fd" in run.data.metrics
            person.commit()
            third = Machine(tmp_path / f"third{seed}", {})
            person.run("git", "clone", "-q", ".", str(third.root))
            third.run("dvc", "pull", "train@laptop", "evaluate@laptop")
            assert digests(third.root / "models/laptop") == made
