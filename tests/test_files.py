"""Whole files and folders, or what was there before: whatever kills whom, and when."""

import contextlib
import signal
import subprocess
import sys

import pytest

from hrvgan.errors import InputError
from hrvgan.files import atomic_folder, atomic_path, locked, recover
from hrvgan.models import build_model
from hrvgan.nn.checkpoint import release
from tests import processes

KINDS = {"atomic_folder": "clips", "atomic_path": "clips.json"}


@contextlib.contextmanager
def program(kind, path, then):
    """A process that has begun to write `path`, says so, and then ..."""
    code = (
        "import os, signal, sys, time; from hrvgan.files import *\n"
        f"with {kind}({str(path)!r}) as new:\n"
        "    (new / 'file' if new.is_dir() else new).write_text('new')\n"
        f"    print('begun', flush=True); {then}"
    )
    with processes.start([sys.executable, "-c", code]) as process:
        processes.wait_for(process.output, "it begins", process=process)
        yield process


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_killed_process_left_is_cleared_and_what_a_live_one_makes_is_not(tmp_path, kind):
    path = tmp_path / KINDS[kind]
    (tmp_path / f".{path.name}-other-file").write_text("of somebody else")
    with program(kind, path, "time.sleep(100)"):
        with program(kind, path, "time.sleep(100)"):
            pass  # It is killed.
        assert len(list(tmp_path.iterdir())) == 3
        with {"atomic_folder": atomic_folder, "atomic_path": atomic_path}[kind](path):
            assert len(list(tmp_path.iterdir())) == 3  # somebody else's, the live one's, ours


@pytest.mark.parametrize("renames", [1, 2])
def test_a_kill_while_folders_change_places_loses_none(tmp_path, renames):
    """The old folder goes aside, the new one takes its place: killed before either."""
    path = tmp_path / "clips"
    path.mkdir()
    (path / "file").write_text("old")
    hook = "sys.addaudithook(lambda event, _, n=[]: event == 'os.rename' and (n.append(1) or len(n) == {}) "
    killed = hook.format(renames) + "and os.kill(os.getpid(), signal.SIGKILL))"
    with program("atomic_folder", path, killed) as process:
        assert process.finish() == -signal.SIGKILL
    recover(path)
    assert (path / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_to_a_folder_stays_one(tmp_path):
    """As a user has it whose disk was too small."""
    (tmp_path / "large" / "clips").mkdir(parents=True)
    (tmp_path / "clips").symlink_to(tmp_path / "large" / "clips")
    for content in ("one", "two"):
        with atomic_folder(tmp_path / "clips") as new:
            (new / "file").write_text(content)
    assert (tmp_path / "clips").is_symlink()
    assert (tmp_path / "large" / "clips" / "file").read_text() == "two"
    assert len(list(tmp_path.rglob("*"))) == 4


def test_a_released_model_is_loaded_where_there_is_no_fcntl(tmp_path):
    """As on Windows, where `resource` is missing too."""
    gan = build_model("hrvgan", size=8, width=0.1)
    release(tmp_path / "model", gan, gan.G, [{"step": 1}], {"dataset": "x", "data_digest": "0" * 64})
    code = (
        "import sys; sys.modules |= {'fcntl': None, 'resource': None}\n"
        "import hrvgan.clipstore.clips, hrvgan.clipstore.writer\n"
        f"print(hrvgan.load({str(tmp_path / 'model')!r}).sample(1, seed=0).numpy().shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == f"(1, {gan.num_frames}, 8, 8, 3)\n"


def test_a_folder_takes_no_files_place(tmp_path):
    (tmp_path / "clips").write_text("a file")
    with pytest.raises(NotADirectoryError), atomic_folder(tmp_path / "clips"):
        pass
    assert (tmp_path / "clips").read_text() == "a file"


def test_a_lock_names_its_holder_or_waits_for_it(tmp_path):
    code = (
        "import sys; from hrvgan.files import locked\n"
        "with locked(sys.argv[1], 'work'): print('begun', flush=True); sys.stdin.readline()"
    )
    waits = code.replace("'work'", "'work', wait=True")
    holder, waiter = (
        processes.start([sys.executable, "-c", program, tmp_path / "lock"], stdin=subprocess.PIPE)
        for program in (code, waits)
    )
    with holder as holder:
        processes.wait_for(holder.output, "the lock", process=holder)
        with pytest.raises(InputError, match=rf"work is running already \(process {holder.pid}\); wait"):
            locked(tmp_path / "lock", "work").__enter__()
        with waiter as waiter:
            holder.stdin.close()
            processes.wait_for(waiter.output, "the lock", process=waiter)
            waiter.stdin.close()
            assert waiter.finish() == 0


def test_a_kill_after_folders_have_changed_places_stops_no_later_one(tmp_path):
    path = tmp_path / "clips"
    path.mkdir()
    (path / "file").write_text("old")
    killed = "event == 'shutil.rmtree' and str(args[0]).endswith('.old') and os.kill(os.getpid(), signal.SIGKILL)"
    with program("atomic_folder", path, f"sys.addaudithook(lambda event, args: {killed})") as process:
        assert process.finish() == -signal.SIGKILL
    assert sorted(file.name for file in tmp_path.iterdir()) == [".clips.old", "clips"]
    with atomic_folder(path) as new:
        (new / "file").write_text("newer")
    assert (path / "file").read_text() == "newer"
    assert list(tmp_path.iterdir()) == [path]


def test_ctrl_c_while_folders_change_places_loses_none(tmp_path):
    path = tmp_path / "clips"
    path.mkdir()
    (path / "file").write_text("old")
    code = "def hook(event, _, n=[]):\n        event == 'os.rename' and n.append(1)\n"
    code += "        if len(n) == 2: n.append(1); raise KeyboardInterrupt\n    sys.addaudithook(hook)"
    with program("atomic_folder", path, f"pass\n    {code}") as process:
        assert process.finish()
    assert (path / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
