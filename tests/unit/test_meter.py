import math

import pytest
import torch

from runtime.run.meter import Meter, peak_memory_mb

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves by hand."""
    now = [100.0]
    monkeypatch.setattr("runtime.run.meter.time.perf_counter", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    return advance


def test_speed_and_data_wait_are_means_since_the_last_event(clock):
    meter = Meter(CPU, images_per_update=8, window=100, warn=print)
    for wait, work in ((1.0, 1.0), (0.0, 2.0)):
        clock(wait)
        meter.data_ready()
        clock(work)
        meter.updated({"B": 1.0})
    event = meter.train_event(1, 0, 1e-3, {"B": 1.0, "C": 2.0}, None)
    assert event["images_per_s"] == pytest.approx(16 / 4)
    assert event["data_s"] == pytest.approx(0.5)
    assert event["loss"] == 3.0
    assert meter.eta(30) == "0:01:00"  # 2 s a step
    clock(2.0)
    meter.updated({"B": 1.0})
    assert meter.train_event(2, 0, 1e-3, {"B": 1.0}, None)["images_per_s"] == pytest.approx(4)


def test_time_spent_elsewhere_does_not_count(clock):
    meter = Meter(CPU, 1, 100, print)
    clock(50.0)
    meter.restart_clock()
    clock(1.0)
    meter.updated({})
    assert meter.elapsed_s == pytest.approx(1.0)


def test_means_are_over_the_window_and_leave_out_what_is_not_finite():
    said = []
    meter = Meter(CPU, 1, window=2, warn=said.append)
    for value in (9.0, 1.0, math.inf, 3.0):
        meter.updated({"C": value})
    assert meter.means() == {"C": 2.0}
    assert said == ["Moving average ignored a value of inf"]


def test_an_update_that_is_not_finite_is_told_once():
    said = []
    meter = Meter(CPU, 1, window=2, warn=said.append)
    meter.updated({"B": math.nan, "C": math.nan, "M": 1.0}, {"loss": math.nan})
    meter.updated({"B": 2.0}, {"grad_norm": math.inf})  # what fp16 tries
    assert said == ["Moving average ignored a value of nan"]
    assert meter.means() == {"B": 2.0, "M": 1.0}


def test_times_are_means_over_the_window(clock):
    meter = Meter(CPU, 1, window=2, warn=print)
    assert meter.times() == (0.0, 0.0)
    for wait, work in ((9.0, 9.0), (1.0, 1.0), (0.0, 2.0)):
        clock(wait)
        meter.data_ready()
        clock(work)
        meter.updated()
    assert meter.times() == pytest.approx((2.0, 0.5))
    assert meter.eta_s(3) == pytest.approx(22.0)  # of all
    assert meter.new_peak_mb() is None


def test_memory_of_this_process():
    assert 10 < peak_memory_mb(CPU) < 100_000


def test_compiling_is_said_before_and_after_the_first_update(clock):
    said = []
    meter = Meter(CPU, 1, 100, print)
    clock(50.0)  # went into building the network
    meter.begin(said.append)
    assert said == ["--compile: the network is compiled in the first update, which may take "
                    "minutes."]
    for seconds in (12.5, 1.0):
        clock(seconds)
        meter.updated({"B": 1.0})
    assert said[1:] == ["--compile: the first update took 12.5 s, the compiling included."]


def test_a_loop_without_compiling_says_nothing_and_begins_its_clock(clock, capsys):
    meter = Meter(CPU, 1, 100, print)
    clock(50.0)
    meter.begin()
    clock(2.0)
    meter.updated({"B": 1.0})
    assert meter.elapsed_s == 2.0
    assert capsys.readouterr().out == ""
