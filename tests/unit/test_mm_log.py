"""The log line and the scalars are MMDetection's [queryinst.md: Run folder and log]."""

import json
import re
from types import SimpleNamespace

import pytest
import torch

from runtime.run.meter import Meter
from runtime.run.mmdetection_log import MMLog, TrainLog, ValidationLog, train_line
from runtime.run.timetable import Timetable


def test_the_line_of_the_original():
    values = {"grad_norm": 123.4567, "loss": 45.6789, "s0.loss_cls": 1.0, "s0.pos_acc": 50.0}
    line = train_line(1, 12, 50, 7330, (5.095e-6, 5.095e-7), 93784.6, 1.2345, 0.0123, 9876, values)
    assert line == (
        "Epoch(train)  [1][  50/7330]  base_lr: 5.0950e-06 lr: 5.0950e-07  eta: 1 day, 2:03:04  "
        "time: 1.2345  data_time: 0.0123  memory: 9876  grad_norm: 123.4567  loss: 45.6789  "
        "s0.loss_cls: 1.0000  s0.pos_acc: 50.0000")
    assert train_line(12, 12, 3, 7, (1, 1), 0, 0, 0, None, {}).startswith(
        "Epoch(train) [12][3/7]  base_lr: 1.0000e+00 lr: 1.0000e+00  eta: 0:00:00  time: 0.0000  "
        "data_time: 0.0000")
    assert train_line(3, 9, 3, 7, (1, 1), 0, 0, 0, None, {}).startswith("Epoch(train) [3][3/7]")


@pytest.fixture
def lines():
    return []


CPU = torch.device("cpu")


def run_of(lines, folded_lines=None):
    def log(text, folded=None):
        lines.append(text)
        if folded_lines is not None:
            folded_lines.append(folded)

    return SimpleNamespace(log=log, device=CPU)


def follow(lines, per_epoch, updates, interval, window=50):
    log = MMLog(run_of(lines), "name", interval)
    meter = Meter(CPU, 1, window, print)
    timetable = Timetable(0, 9 * per_epoch, per_epoch, interval, saves=lambda iteration: False)
    train_log = TrainLog(log, meter, timetable, max_epochs=9)
    for step in range(updates):
        meter.data_ready()
        losses, whole = {"s0.loss_cls": float(step)}, {"grad_norm": 2.0 * step, "loss": float(step)}
        meter.updated(losses, whole)
        count = len(lines)
        has_line = train_log.updated(
            step, (1e-4, 1e-5), {**whole, **losses, "s0.pos_acc": float(step)})
        assert has_line == (len(lines) > count)
    return log


def positions(lines):
    return [re.search(r"\[(\d+)\]\[ *(\d+)/", line).groups() for line in lines if "train" in line]


def test_a_partial_interval_is_left_out(lines):
    follow(lines, per_epoch=5, updates=10, interval=2)
    assert positions(lines) == [("1", "2"), ("1", "4"), ("2", "2"), ("2", "4")]


def test_unless_the_epoch_is_shorter(lines):
    follow(lines, per_epoch=3, updates=6, interval=50)
    assert positions(lines) == [("1", "3"), ("2", "3")]


def test_losses_and_norms_are_means_accuracies_are_not(lines):
    follow(lines, per_epoch=100, updates=10, interval=10, window=4)
    assert "grad_norm: 15.0000  loss: 7.5000  s0.loss_cls: 7.5000  s0.pos_acc: 9.0000" in lines[0]


def test_validations(lines, tmp_path):
    log = follow(lines, per_epoch=4, updates=0, interval=2)
    log.open_folder(tmp_path, "20260101_000000", "a: 1\n")
    meter = Meter(CPU, 1, 5, print)
    val = ValidationLog(log, meter, 3, 5)
    for _ in range(5):
        meter.data_ready()
        meter.updated()
        val.done()
    val.finished({"coco/segm_mAP": 0.25})
    heads = [line.partition("INFO - ")[2] for line in lines]
    assert heads[0].startswith("Epoch(val) [3][2/5]    eta: 0:00:00  time: 0.0")
    assert heads[1].startswith("Epoch(val) [3][4/5]    eta: ")
    assert heads[2].startswith("Epoch(val) [3][5/5]    coco/segm_mAP: 0.2500  data_time: 0.0")
    data = tmp_path / "20260101_000000" / "vis_data"
    assert (data / "config.yaml").read_text() == "a: 1\n"
    for name in ("scalars.json", "20260101_000000.json"):
        (line,) = map(json.loads, (data / name).open())
        assert (line["coco/segm_mAP"], line["step"]) == (0.25, 3)
        assert line["time"] >= line["data_time"] >= 0


def test_times_and_eta_are_the_meters(lines, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("runtime.run.meter.time.perf_counter", lambda: now[0])
    log, meter = MMLog(run_of(lines), "name", 1), Meter(CPU, 1, 2, print)
    train_log = TrainLog(log, meter, Timetable(0, 100, 10, 1, saves=lambda iteration: False), 10)
    for step, (wait, work) in enumerate(((7.0, 1.0), (1.0, 1.0), (1.0, 3.0))):
        now[0] += wait
        meter.data_ready()
        now[0] += work
        meter.updated({"loss_a": 1.0})
        train_log.updated(step, (1e-4, 1e-5), {"loss_a": 1.0})
    # the ETA of all three updates: 14 s; the times of the last two
    assert f"eta: 0:07:32  time: {(2 + 4) / 2:.4f}  data_time: 1.0000  loss_a: 1.0000" in lines[-1]


def test_a_value_without_a_mean_is_shown_as_it_is(lines):
    log, meter = MMLog(run_of(lines), "name", 1), Meter(CPU, 1, 2, print)
    train_log = TrainLog(log, meter, Timetable(0, 9, 9, 1, saves=lambda iteration: False), 1)
    for step, value in enumerate((float("nan"), 4.0)):
        meter.updated({"loss_a": value}, {"loss": value})
        train_log.updated(step, (1, 1), {"loss": value, "loss_a": value})
    assert lines[0].endswith("loss: nan  loss_a: nan")
    assert lines[1].endswith("loss: 4.0000  loss_a: 4.0000")


def test_a_terminal_gets_lines_that_fit_it(lines):
    short = []
    log, meter = MMLog(run_of(lines, short), "name", 1), Meter(CPU, 1, 2, print)
    train_log = TrainLog(log, meter, Timetable(0, 9, 9, 1, saves=lambda iteration: False), 1)
    losses = {f"s{i}.loss_{kind}": i + 0.5 for i in range(6) for kind in ("cls", "bbox", "mask")}
    whole = {"grad_norm": 2.0, "loss": 54.0}
    meter.updated(losses, whole)
    train_log.updated(0, (1e-4, 1e-5), {**whole, **losses, "s4.pos_acc": 1.0, "s5.pos_acc": 2.0})
    tail = "grad_norm: 2.0000  loss: 54.0000  loss_cls: 18.0000  loss_bbox: 18.0000  "
    assert short[0].endswith(tail + "loss_mask: 18.0000  pos_acc: 2.0000")
    assert "s5.loss_mask: 5.5000" in lines[0]
    val = ValidationLog(log, meter, 3, 5)
    val.finished({"coco/bbox_mAP": 0.5, "coco/bbox_mAP_50": 0.75, "coco/segm_mAP": 0.25})
    head, *rows = short[-1].split("\n")
    assert re.search(r"Epoch\(val\) \[3\]\[5/5\]    data_time: [\d.]+  time: [\d.]+$", head)
    assert rows == ["    coco/bbox  mAP: 0.5000  mAP_50: 0.7500", "    coco/segm  mAP: 0.2500"]
    assert "\n" not in lines[-1]
