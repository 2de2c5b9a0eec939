"""The flow on a toy DVC project, and its parts."""

import os
import re
import signal
import subprocess
import sys

import pytest
from dvc.exceptions import DvcException

from flows import child_process, stages
from flows.graph import in_words, plan
from flows.summary import ASKED, FORCED, Outcome, report, verdict
from tests import processes
from tests.flow_project import SENTENCE, alive, schedule, send
from tests.processes import wait_for


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    with schedule(tmp_path_factory.mktemp("toy"), only_server=True) as toy:
        yield toy


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


@pytest.mark.parametrize("left", [
    pytest.param("sleep 60", id="as a dvc leaves its trainer"),
    pytest.param("setsid sleep 60", id="in a session of its own, as a worker leaves its flows",
                 marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")),
    pytest.param("nohup sh -c 'trap : TERM; sleep 60; sleep 60'", id="deaf to SIGTERM"),
])  # fmt: skip
def test_child_process_ends_what_a_killed_command_leaves(left):
    command = ["sh", "-c", f"{left} & echo $!; kill -9 $$"]
    with child_process.running(command, grace=3, stdout=subprocess.PIPE) as process, process.stdout as said:
        orphan = int(said.readline())
        wait_for(lambda: not alive(orphan), "the end of the orphan", 15)
    assert process.returncode != 0


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
