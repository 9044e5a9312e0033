"""Who is lost, silent or behind, and what a process may still do before it is ended for it."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from runtime.launch import peers
from runtime.launch.peers import FAILED, GAVE_UP, LEFT, Heartbeats, Place, Watch, held

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 2**22 + 1  # above Linux's largest process id
HERE = "here"


class Group:
    """Ranks whose hearts beat when the test says so; `done` collectives each, a clock by hand."""

    def __init__(self, monkeypatch, count, places=None):
        self.store = dist.HashStore()
        self.now = 0.0
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(peers, "time", clock)
        monkeypatch.setattr(Heartbeats, "refresh", lambda beats, within_s: beats.turn())
        self.done = [0] * count
        places = places or [Place(HERE, os.getpid())] * count
        self.beats = [Heartbeats(rank, count, self.store, lambda rank=rank: self.done[rank])
                      for rank in range(count)]
        for rank in range(count):
            self.store.set(f"beat/{rank}", "")
            self.store.set(f"word/{rank}", "")
        self.watches = [Watch("t", rank, places, beats, 60) for rank, beats in
                        enumerate(self.beats)]

    def pass_s(self, seconds, *alive):
        for _ in range(seconds):
            self.now += 1
            for rank in alive:
                self.beats[rank].turn()


@pytest.fixture
def group(monkeypatch):
    return lambda *arguments: Group(monkeypatch, *arguments)


def test_a_lost_peer_is_one_that_left_no_word(group):
    three = group(3, [Place(HERE, 1), Place(HERE, NOBODY), Place("there", NOBODY)])
    watch = three.watches[0]
    assert watch.lost() == [1]  # another machine's process ids mean nothing here
    assert "rank 1 ended without a word" in watch.fault().text
    three.beats[1].say(FAILED + "ValueError: odd")
    three.pass_s(1, 0)
    assert watch.fault().text == "cannot go on, rank 1 failed: ValueError: odd"
    assert watch.fault().is_told
    three.beats[1].say(GAVE_UP + "rank 2 did not answer for 60 s")
    three.pass_s(1, 0)
    assert watch.lost() == []
    assert watch.fault().text == "cannot go on, rank 2 did not answer for 60 s"
    three.beats[1].say(LEFT)
    three.pass_s(1, 0)
    assert watch.lost() == []
    assert watch.fault() is None


def test_a_silent_rank_is_named_with_its_machine(group):
    three = group(3, [Place(HERE, os.getpid()), Place(HERE, os.getpid()), Place("there", 1)])
    three.pass_s(3, 0, 1, 2)
    three.pass_s(5, 0, 1)
    assert three.watches[0].fault() is None
    three.pass_s(2, 0, 1)
    for rank in (0, 1):
        fault = three.watches[rank].fault()
        assert fault.text.startswith("cannot go on, rank 2 on there did not answer for 6 s")
        assert not fault.is_told
    assert three.watches[0].fault(60) is None
    three.pass_s(1, 2, 0)
    assert three.watches[0].fault() is None


def test_a_job_that_was_stopped_as_a_whole_blames_nobody(group):
    two = group(2)
    two.pass_s(3, 0, 1)
    two.now += 3600
    two.pass_s(1, 0)
    assert two.watches[0].fault() is None


def test_the_rank_that_all_wait_for_is_named(group):
    three = group(3)
    three.done = [7, 7, 6]
    three.pass_s(9, 0, 1, 2)
    assert three.watches[0].fault() is None  # their hearts beat
    text = three.watches[0].laggard(5).text
    assert text.startswith("cannot go on, rank 2 held up the others for")
    assert three.watches[2].laggard(5) is None
    three.done[2] = 7
    three.pass_s(2, 0, 1, 2)
    assert three.watches[0].laggard(1) is None
    three.beats[2].say(LEFT)
    three.done[0] = 8
    three.pass_s(9, 0)
    assert three.watches[0].laggard(5) is not None  # rank 1
    assert "rank 2" not in three.watches[0].laggard(5).text


def test_a_store_that_never_answers_holds_up_nobody():
    class Hanging(dict):
        set = dict.__setitem__

        def multi_get(self, keys):
            threading.Event().wait()

    beats = Heartbeats(1, 2, Hanging(), lambda: 0)
    beats.start()
    watch = Watch("t", 1, [Place("there", 1), Place(HERE, os.getpid())], beats, 60)
    watch.say(FAILED + "odd")
    watch._cut_off_s = 7.0
    assert watch.fault().text.startswith("cannot go on, rank 0 on there did not answer for 7 s")


def test_a_store_that_is_gone_ends_only_ranks_that_it_should_outlive(group):
    two = group(2, [Place(HERE, NOBODY), Place(HERE, 1)])
    two.beats[1].is_cut_off = True
    assert two.watches[1].lost() == [0]
    own = Watch("t", 1, [Place(HERE, NOBODY), Place(HERE, 1)], two.beats[1], 60, outlived=False)
    assert own.lost() == []  # it may have left in good order


PROGRAM = f"""
import os, sys, threading, time
sys.path.insert(0, {str(ROOT)!r})
from runtime.launch import peers
peers.GRACE_S, peers.POLL_S, peers.LAST_CALL_S = 0.3, 0.05, 0.5
class Store(dict):  # torch takes seconds to import
    set = dict.__setitem__
    def multi_get(self, keys):
        return [self[key].encode() for key in keys]
store = Store()
gone = peers.Place("here", {NOBODY})
beats = peers.Heartbeats(1, 2, store, lambda: 0)
for kind in ("beat", "word"):
    store.set(kind + "/0", "")
    store.set(kind + "/1", "")
peers.Watch("t", 1, [gone, peers.Place("here", os.getpid())], beats, 60).start()
beats.start()
"""


def end(rest):
    """(status, what it said) of a process whose peer is gone, and that does `rest`."""
    environment = {name: value for name, value in os.environ.items() if name != peers.NOTES_FOLDER}
    done = subprocess.run([sys.executable, "-c", PROGRAM + rest], env=environment, text=True,
                          capture_output=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_a_process_that_saves_is_not_ended():
    status, said = end("""
with peers.held():
    time.sleep(1.5)
    print("saved", flush=True)
os._exit(7)
""")
    assert (status, said) == (7, "saved\n")


def test_one_that_hangs_makes_its_last_call():
    line = "t: rank 1: cannot go on, rank 0 ended without a word: killed from outside, or by the "
    line += "system because memory ran out"
    status, said = end("""
peers.before_exit(lambda: "The state after 26 updates is saved: FILE")
time.sleep(30)
""")
    assert (status, said) == (1, f"{line}. The state after 26 updates is saved: FILE\n")
    status, said = end("""
def save():
    with peers.held():
        return "saved: FILE"
peers.before_exit(save)
time.sleep(30)
""")
    assert (status, said) == (1, f"{line}. saved: FILE\n")
    status, said = end("peers.before_exit(lambda: 1 / 0)\ntime.sleep(30)")
    assert said == f"{line}. The state could not be saved: ZeroDivisionError: division by zero\n"
    status, said = end("peers.before_exit(lambda: time.sleep(30))\ntime.sleep(30)")
    assert said == f"{line}. Saving the state took more than 0.5 s and was given up\n"


def test_held_may_be_nested_and_used_by_another_thread():
    with held(), held():
        pass
    entered = threading.Event()

    def other():
        with held():
            entered.set()

    with held():
        thread = threading.Thread(target=other)
        thread.start()
        assert not entered.wait(0.05)
    thread.join(5)
    assert entered.is_set()
