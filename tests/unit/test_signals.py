"""Each case runs in a process of its own: signal handlers belong to a whole process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

WAITER = """
import sys, time
from runtime.launch.signals import ECHO_S, StopSignals
stop = StopSignals("stopping")
print("ready", flush=True)
while stop.requested is None:
    time.sleep(0.01)
print(stop.requested, flush=True)
{rest}
"""

# Holds the main thread in C code, as a hanging collective does: waiting for a mutex that it has
# itself, it is not woken by signals and runs no Python handler.
HANG = """
import ctypes
mutex = ctypes.create_string_buffer(256)  # zeroes are an unlocked pthread mutex
ctypes.CDLL(None).pthread_mutex_lock(mutex)
ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""


def start(code, **env):
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")} | env
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_first_signal_is_noted_with_one_line(name):
    process = start(WAITER.format(rest=""))
    process.send_signal(signal.Signals[name])
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == (f"{name}\n", "stopping\n", 0)


HOURS = """
import time
from runtime.launch.signals import Stopped, StopSignals, name_of
stop = StopSignals("stopping", max_hours={hours})
print("ready", flush=True)
before = stop.number
time.sleep(0.5)
print(before, stop.number and name_of(stop.number), stop.requested, flush=True)
{rest}
"""


@pytest.mark.parametrize("hours, said", [("None", "0 0 None"), ("1.0", "0 0 None"),
                                         ("0.3 / 3600", "0 --max-hours None")])
def test_the_hours_stop_as_a_signal_does(hours, said):
    process = start(HOURS.format(hours=hours, rest=""))
    assert process.communicate(timeout=60) == (f"{said}\n", "")


def test_a_signal_after_the_hours_is_a_first_one_and_counts_more():
    process = start(HOURS.format(hours="0.1 / 3600", rest="""
while stop.requested is None:
    time.sleep(0.01)
print(name_of(stop.number), stop.number > 1, Stopped("--max-hours").status)
"""))
    assert process.stdout.readline() == "0 --max-hours None\n"
    process.send_signal(signal.SIGUSR1)
    assert process.communicate(timeout=60) == ("SIGUSR1 True 75\n", "stopping\n")


def test_other_ranks_are_quiet():
    process = start(WAITER.format(rest=""), RANK="1", WORLD_SIZE="2")
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == ("SIGTERM\n", "")


def test_an_echo_of_the_first_signal_does_not_end_the_process():
    process = start(WAITER.format(rest="time.sleep(ECHO_S / 2); print('saved')"))
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "SIGINT\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("saved\n", "stopping\n", 0)


def test_second_signal_ends_at_once_even_while_the_main_thread_hangs():
    process = start(WAITER.format(rest="time.sleep(ECHO_S); print('late', flush=True)" + HANG))
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "SIGINT\n"
    assert process.stdout.readline() == "late\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    process.communicate()


def test_exit_statuses():
    from runtime.launch.signals import Stopped

    assert [Stopped(n).status for n in ("SIGINT", "SIGTERM", "SIGUSR1")] == [130, 75, 75]


def test_a_child_dies_with_a_killed_parent():
    code = """
import os, signal, time
from runtime.launch.signals import die_with_parent
parent = os.getpid()
child = os.fork()
if child == 0:
    die_with_parent(signal.SIGKILL, parent)
    print("ready", flush=True)
    print(os.getpid(), flush=True)
    time.sleep(60)
os.waitpid(child, 0)
"""
    process = start(code)
    child = int(process.stdout.readline())
    process.kill()
    # the pipe is closed when its last writer, the child, is gone
    assert process.stdout.read() == ""
    process.communicate()
    deadline = time.monotonic() + 30
    while is_alive(child):
        assert time.monotonic() < deadline


def test_the_module_does_not_import_torch():
    code = "import sys, runtime.launch.signals, common.schedulers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def is_alive(pid):
    # a killed child of a killed parent may stay listed as a zombie
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
