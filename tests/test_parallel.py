"""Work in processes: in order, and gone when the main process is."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from hrvgan.parallel import ordered_map
from tests import processes
from tests.processes import children


@pytest.mark.parametrize("workers", [1, 2, "auto"])
def test_results_come_in_order(workers):
    items = list(range(-20, 20))
    results = list(ordered_map(abs, items, workers=workers, desc="test", unit="item"))
    assert results == [abs(item) for item in items]
    assert list(ordered_map(abs, [], workers=workers, desc="test", unit="item")) == []


def test_an_error_in_a_worker_ends_the_map():
    with pytest.raises(TypeError, match="bad operand type"):
        list(ordered_map(abs, [1, "one", 2], workers=2, desc="test", unit="item"))


def misbehave(item):
    if item == "die":
        os._exit(7)
    if item == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(600)
    return item


def cause_of(item, cause):
    return item, cause


@pytest.mark.parametrize("workers", [2, 3])
def test_who_dies_or_hangs_is_replaced_and_only_its_item_is_lost(workers):
    items = ["a", "die", "b", "kill", "hang", *"cdefgh", "die", "i"]
    limits = {"hang": 0.5}  # The others are not late on a machine that is busy.
    options = {"workers": workers, "lost": cause_of, "limit": lambda item: limits.get(item, 60)}
    causes = {"die": "its process died (exit code 7)", "kill": "its process died (SIGKILL)", "hang": "took too long"}
    results = list(ordered_map(misbehave, items, **options, desc="test", unit="item"))
    assert results == [(item, causes[item]) if item in causes else item for item in items]
    assert not children()


class KillsItsProcess:
    """When it is sent: as a process ends that runs out of memory with a large result."""

    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)


def answer(item):
    return KillsItsProcess() if item == 3 else item


def test_who_dies_while_it_sends_its_result_takes_no_other_with_it():
    options = {"workers": 2, "lost": cause_of, "desc": "test", "unit": "item"}
    results = list(ordered_map(answer, range(6), **options))
    assert results == [0, 1, 2, (3, "its process died (SIGKILL)"), 4, 5]


def test_without_a_word_for_it_a_lost_process_is_an_error():
    with pytest.raises(RuntimeError, match=r"die: its process died \(exit code 7\)"):
        list(ordered_map(misbehave, ["a", "die", "b"], workers=2, desc="test", unit="item"))
    assert not children()


def test_who_stops_listening_leaves_no_process():
    results = ordered_map(misbehave, list("abcdefgh"), workers=2, desc="test", unit="item")
    assert next(results) == "a"
    results.close()
    assert not children()


@pytest.fixture
def program(tmp_path):
    """A program that says the process ids of its workers; it has no terminal and its own process group."""
    (tmp_path / "main.py").write_text(
        "import os, time\n"
        "from hrvgan.parallel import ordered_map\n"
        "def work(seconds):\n"
        "    time.sleep(seconds)\n"
        "    return os.getpid()\n"
        "if __name__ == '__main__':\n"
        "    for pid in ordered_map(work, [0.1] * 500, workers=2, desc='test', unit='item'):\n"
        "        print(pid, flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with processes.start([sys.executable, tmp_path / "main.py"], env=environment) as process:
        yield process


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_main_process(program, number):
    processes.wait_for(lambda: program.output().count("\n") >= 6, "six results", process=program)
    workers = set(map(int, program.output().split("\n")[:6]))
    assert len(workers) == 2
    os.killpg(program.pid, number) if number == signal.SIGINT else program.kill()
    program.finish(30)
    processes.wait_for(lambda: not any(map(is_alive, workers)), "the end of the workers", 10)
    # The main process's own, if any: workers are silent.
    assert program.output("stderr").count("Traceback") <= 1


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # Dead, and nobody has asked for its exit status.


@pytest.mark.parametrize("workers", [1, 2])
def test_a_script_without_a_guard_is_told_so_and_blames_no_item(tmp_path, workers):
    """Each process imports the script anew, and would start processes in its turn."""
    code = (
        "from hrvgan.parallel import ordered_map\n"
        f"options = dict(workers={workers}, lost=lambda item, cause: item, desc='test', unit='item')\n"
        "print(list(ordered_map(abs, [-1, -2, -3], **options)))\n"
    )
    (tmp_path / "main.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = processes.run([sys.executable, tmp_path / "main.py"], env=environment, check=False)
    if workers == 1:
        assert done.stdout == "[1, 2, 3]\n"
    else:
        assert done.stdout == ""
        assert "its first item (exit code 1); in a script, call it below" in done.stderr.splitlines()[-1]
