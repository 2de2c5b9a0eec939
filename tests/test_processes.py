"""What tests start processes with."""

import os
import signal
import subprocess
import sys

import pytest

from tests import processes

SAYS_SIGNALS = (
    "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, "
    "signal.getsignal(signal.SIGHUP).name, signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
)


@pytest.fixture
def background():
    """This process as a shell's background job below nohup, and with a signal blocked."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_signals_are_the_defaults_wherever_the_tests_were_started(background):
    done = processes.run([sys.executable, "-S", "-c", SAYS_SIGNALS])
    assert done.stdout == "True SIG_DFL set()\n"


def test_input_output_and_status_come_back():
    done = processes.run(["sh", "-c", "tr a b; echo oh >&2; exit 3"], input=b"a\r\n", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "b\n", "oh\n")
    with pytest.raises(AssertionError, match=r"exit status 3 of `sh -c echo oh; exit 3` \(proc.*\noh"):
        processes.run(["sh", "-c", "echo oh; exit 3"])


def test_who_takes_too_long_is_shown_and_killed_with_what_it_detached():
    command = ["sh", "-c", "echo begun; setsid sleep 1000 & sleep 1000"]
    with pytest.raises(AssertionError, match=r"waited 0.2 s in vain for the end of `sh .*\nbegun"):
        processes.run(command, seconds=0.2)
    with processes.start(command) as process:
        processes.wait_for(lambda: len(processes.left(process.mark)) == 3, "the shell and two sleeps")
    assert not processes.left(str(os.getpid()))


def test_who_waits_hears_of_an_end_at_once():
    with processes.start(["sh", "-c", "echo words; exit 3"]) as process:
        assert processes.wait_for(process.output, "words", process=process) == "words\n"
        with pytest.raises(AssertionError, match=r"exit status 3 before the moon: .*\nwords"):
            processes.wait_for(lambda: "moon" in process.output(), "the moon", process=process)
    with pytest.raises(AssertionError, match=r"waited 0\.01 s in vain for the sun"):
        processes.wait_for(lambda: False, "the sun", 0.01)


@pytest.mark.parametrize("name", ["", "dvc daemon analytics"])
def test_a_process_that_a_file_of_tests_leaves_is_found_and_killed(name):
    """As each file is asked at its end; whatever started the process, and whatever its session."""
    process = subprocess.Popen(["sh", "-c", "sleep 1000; :", name], start_new_session=True)
    # A process that has just begun shows no environment yet.
    processes.wait_for(lambda: process.pid in processes.left(str(os.getpid())), "the process's environment")
    with pytest.raises(AssertionError, match=rf"processes are left: .*sleep 1000; : {name}"):
        processes.none_left(60 if name else 0.1)
    assert process.wait(30) == -signal.SIGKILL
    processes.none_left()
