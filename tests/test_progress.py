"""Progress bars: whole lines in a log, redrawn in place on a terminal, nothing where they are disabled."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Half a second of steps, and an interval that a test can wait for in place of 30 s.
PROGRAM = """
import sys, time
from hrvgan import progress
progress.LOG_INTERVAL = 0.1
for step in progress.bar(range(50), "train", unit="step", hidden="hidden" in sys.argv):
    time.sleep(0.01)
    if "fail" in sys.argv and step == 30:
        sys.exit("error: no such file")
with progress.bar(desc="unpack", total=2, unit="file", hidden="hidden" in sys.argv) as files:
    files.update()
    files.update()
"""


def log_of(tmp_path, *arguments: str, **environment: str) -> str:
    """All that PROGRAM writes to a log file."""
    log = tmp_path / "log"
    with log.open("w") as file:
        command = [sys.executable, "-c", PROGRAM, *arguments]
        subprocess.run(command, cwd=ROOT, stderr=file, env={**os.environ, **environment}, check=False)
    return log.read_bytes().decode()  # as bytes: reading as text would hide carriage returns


def test_a_log_has_one_line_an_interval_and_one_at_the_end(tmp_path):
    text = log_of(tmp_path)
    assert "\r" not in text
    *lines, unpacked = text.splitlines()
    assert 2 <= len(lines) <= 6
    assert all(line.startswith("train: ") for line in lines)
    assert "50/50" in lines[-1]
    assert unpacked.startswith("unpack: 100%")


def test_after_an_error_nothing_follows_its_message(tmp_path):
    assert log_of(tmp_path, "fail").splitlines()[-1] == "error: no such file"


@pytest.mark.parametrize(("arguments", "environment"), [(["hidden"], {}), ([], {"TQDM_DISABLE": "1"})])
def test_nothing_is_written_where_bars_are_disabled(tmp_path, arguments, environment):
    assert log_of(tmp_path, *arguments, **environment) == ""


def test_a_terminal_has_a_bar_that_is_redrawn_in_place(tmp_path):
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (24, 80))
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, stderr=child, check=True)
    os.close(child)
    text = os.read(parent, 100_000).decode()
    os.close(parent)
    assert text.count("\rtrain: ") >= 3
    assert text.count("\n") == 2


def test_every_bar_of_the_project_is_made_there():
    files = [file for room in ("hrvgan", "pipeline", "flows") for file in (ROOT / room).rglob("*.py")]
    assert [file.name for file in files if "import tqdm" in file.read_text()] == ["progress.py"]
