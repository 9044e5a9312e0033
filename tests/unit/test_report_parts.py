"""The parts of report.html: curves, history, warnings, commands, pictures, markup."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.report.commands import command_lines, without
from runtime.report.curve import Curve
from runtime.report.families import term_of
from runtime.report.history import PARSED_BYTES, History, number
from runtime.report.log_lines import Warnings
from runtime.report.markup import duration, element, escaped, shown, size, table
from runtime.report.pictures import MOST_BYTES, WHOLE_BYTES, Pictures


def train(i, loss=1.0, **more):
    return {"event": "train", "iteration": i, "epoch": 0, "lr": 0.1, "loss": loss,
            "losses": {"B": loss}, **more}


def scored(i, value, **more):
    return {"event": "eval", "iteration": i, "epoch": 0, "metrics": {"top1": value}, **more}


def write_lines(path, events, mode="w"):
    with open(path, mode) as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


# --- curves


@pytest.mark.parametrize("piece", [1, 7, 5000])
def test_a_long_curve_keeps_its_peaks_and_means(piece):
    rng = np.random.RandomState(0)
    values = rng.rand(30_011)
    values[12_345], values[20_000] = 50.0, -9.0
    curve = Curve(100)
    for i in range(0, len(values), piece if piece > 1 else 1000):
        part = values[i:i + (piece if piece > 1 else 1000)]
        curve.add(range(i, i + len(part)), part)
    points = curve.points()
    assert 40 <= len(points) <= 101
    first, last, mean, low, high = points.T
    assert (first[0], last[-1]) == (0, 30_010)
    assert (first[1:] == last[:-1] + 1).all()  # none is lost, none counts twice
    counts = last - first + 1
    assert math.isclose((mean * counts).sum() / counts.sum(), values.mean(), rel_tol=1e-12)
    assert (high.max(), low.min()) == (50.0, -9.0)
    at = int(np.argmax(high))
    assert first[at] <= 12_345 <= last[at]


def test_a_short_curve_is_left_as_it_is():
    curve = Curve()
    curve.add([0, 10, 20], [3.0, math.nan, 1.0])
    points = curve.points()
    assert points[:, 0].tolist() == points[:, 1].tolist() == [0, 10, 20]
    assert points[[0, 2], 2].tolist() == [3.0, 1.0]
    assert np.isnan(points[1, 2:]).all()
    assert len(Curve().points()) == 0


def test_missing_values_do_not_spoil_their_neighbours():
    curve = Curve(2)
    curve.add(range(8), [1.0, math.nan, 3.0, math.inf, math.nan, math.nan, 1e308, 1.5e308])
    first, _, mean, low, high = curve.points().T
    assert first.tolist() == [0, 4]
    assert mean.tolist() == [2.0, 1.25e308]  # their sum would be no number
    assert (low.tolist(), high.tolist()) == ([1.0, 1e308], [3.0, 1.5e308])


# --- metrics.jsonl


def test_a_history_reads_only_what_has_come(tmp_path):
    path = tmp_path / "metrics.jsonl"
    history = History(path, "top1")
    history.read()  # there is no file yet
    assert (history.updates, history.best) == (0, None)
    write_lines(path, [train(0, 2.0), train(1), scored(2, 40.0)])
    history.read()
    with open(path, "a") as file:
        file.write('{"event": "train", "iteration": 2, "loss": 0.5')
    history.read()
    assert (history.updates, len(history.others["loss"].points())) == (2, 2)
    with open(path, "a") as file:
        file.write(', "losses": {"B": 0.5}}\n')
    write_lines(path, [scored(3, 30.0), {"event": "skip", "iteration": 3},
                       {"event": "resume", "iteration": 3}], "a")
    history.read()
    assert history.others["loss"].points()[:, 2].tolist() == [2.0, 1.0, 0.5]
    assert history.losses["B"].points()[:, 2].tolist() == [2.0, 1.0, 0.5]
    assert (history.best["iteration"], history.last["iteration"]) == (2, 3)
    assert (history.skips, history.num_evals, history.updates) == (1, 2, 3)
    assert history.events == type(history.events)([{"event": "resume", "iteration": 3}])


def test_a_history_begins_anew_with_another_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_lines(path, [train(i) for i in range(9)])
    history = History(path)
    history.read()
    path.rename(tmp_path / "metrics_1.jsonl")
    write_lines(path, [train(0, 7.0)])
    history.read()
    assert history.others["loss"].points()[:, 2].tolist() == [7.0]


def test_odd_lines_are_no_harm(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        'null\n[1]\n"x"\n{"event": 3, "iteration": 1}\n{"event": "train"}\nnot json\n'
        + "[" * 100_000 + "\n"
        '{"event": "train", "iteration": -1, "loss": 1}\n'
        '{"event": "train", "iteration": true, "loss": 1}\n'
        '{"event": "train", "iteration": 1e400, "loss": 1}\n'
        f'{{"event": "train", "iteration": {10**30}, "loss": 1}}\n'
        f'{{"event": "train", "iteration": 0, "loss": {10**400}, "losses": [1]}}\n'
        '{"event": "train", "iteration": 1, "loss": NaN, "losses": {"B": "x"}, "lr": Infinity}\n'
        '{"event": "train", "iteration": 2, "loss": 4, "losses": {"B": null}, "lr": null}\n'
        '{"event": "eval", "iteration": 2, "metrics": [1]}\n'
        '{"event": "eval", "iteration": 2, "metrics": {"top1": NaN}, "classes": [1]}\n'
        '{"event": "eval", "iteration": 3, "metrics": {"top1": 1}}\n')
    history = History(path, "top1")
    history.read()
    values = history.others["loss"].points()[:, 2]
    assert values[-1] == 4
    assert np.isnan(values[:-1]).all()
    assert (history.best["iteration"], history.num_evals, history.losses) == (3, 3, {})


def test_stages_are_added_up():
    assert term_of("s0.loss_cls") == term_of("s5.loss_cls") == "loss_cls of all stages"
    assert term_of("semantic.x") == "semantic.x"


def test_of_a_very_long_history_some_train_lines_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("runtime.report.history.PARSED_BYTES", 10_000)
    path = tmp_path / "metrics.jsonl"
    write_lines(path, [event for i in range(2000) for event in
                       ([train(i), scored(i, i)] if i % 100 == 99 else [train(i)])])
    history = History(path, "top1")
    history.read()
    assert PARSED_BYTES > 10_000 < path.stat().st_size / 10
    assert history.is_sampled
    assert len(history.others["loss"].points()) < 400
    assert (history.num_evals, history.best["iteration"]) == (20, 1999)


@pytest.mark.parametrize("value", [None, "1", True, math.nan, -math.inf, 10**400, [1]])
def test_what_is_no_number(value):
    assert math.isnan(number(value))


# --- log.txt


def test_warnings_are_counted_once_each(tmp_path):
    path = tmp_path / "log.txt"
    earlier = "warning: of an earlier run\n"
    path.write_text(
        earlier + "warning: odd <b>\nno warning: here\n[01/02 03:04:05] warning: slow\n")
    found = Warnings(path, len(earlier))
    found.read()
    assert found.counts == {"odd <b>": 1, "slow": 1}
    with open(path, "a") as file:
        file.write("warning: odd <b>\nwarning: not yet who")
    found.read()
    assert found.counts == {"odd <b>": 2, "slow": 1}
    with open(path, "a") as file:
        file.write("le\n" + "".join(f"warning: {i}\n" for i in range(200)))
    found.read()
    assert found.counts["not yet whole"] == 1
    assert (len(found.counts), found.left_out) == (100, 103)


def test_no_log_is_no_warning(tmp_path):
    found = Warnings(tmp_path / "log.txt")
    found.read()
    assert found.counts == {}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device without an end")
def test_a_file_without_an_end_is_left_alone():
    History(Path("/dev/full")).read()
    Warnings(Path("/dev/full")).read()


# --- commands


def texts(words, starter=("python",), is_done=False):
    return [line.text for line in command_lines(["t.py", *words], list(starter), is_done)]


def test_lines_go_on_from_the_command_of_the_run():
    words = ["--cfg", "a b.yaml", "--resume", "--max_iters=9", "TRAIN.lr", "-0.1"]
    resume, evaluate, predict, export = texts(words, starter=["torchrun", "--nproc-per-node", "2"])
    base = "'a b.yaml' --max_iters=9 TRAIN.lr -0.1"
    assert resume == f"torchrun --nproc-per-node 2 t.py --cfg {base} --resume latest"
    assert evaluate == f"python t.py --cfg {base} --eval-only"
    assert predict == f"python t.py --cfg {base} --predict photos/"
    assert export == f"python t.py --cfg {base} --export trained.pt2"


def test_a_run_that_is_done_goes_on_without_its_limit():
    assert texts(["c", "--max-iters", "9"], is_done=True)[0] == "python t.py c --resume latest"
    assert texts(["c", "--max-iters", "9"])[0] == "python t.py c --max-iters 9 --resume latest"
    first = command_lines(["t.py", "c"], ["python"], True)[0]
    assert "raise its number" in first.purpose


def test_what_is_applied_is_what_the_run_trained():
    resume, *applying = texts(["c", "--pretrained", "start.pth"])
    assert resume == "python t.py c --pretrained start.pth --resume latest"
    assert [line for line in applying if "pretrained" in line] == []


def test_flags_come_before_the_end_of_flags():
    assert texts(["--amp", "bf16", "--", "KEY", "--x"])[1] == (
        "python t.py --amp bf16 --eval-only -- KEY --x")


@pytest.mark.parametrize("words, left", [
    (["--resume", "latest", "x"], ["x"]), (["--resume", "--ema", "1"], ["--ema", "1"]),
    (["--resume=a", "x"], ["x"]), (["--resume"], []), (["--export", "a.onnx", "x"], ["x"]),
    (["--eval_only", "x"], ["x"]), (["--predict=a"], []), (["--", "--resume"], ["--", "--resume"]),
    (["--resumed"], ["--resumed"]),
])
def test_what_a_run_was_to_do_goes(words, left):
    flags = {"--resume": "optional", "--export": "one", "--predict": "one", "--eval-only": "none"}
    assert without(words, flags) == left


# --- pictures


def test_pictures_are_put_in_once_and_in_order(tmp_path, monkeypatch):
    for name in ("zebra.png", "train_samples.png", "curves.png", "predictions.png"):
        Image.new("RGB", (40, 30), "red").save(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no more")
    found = Pictures(tmp_path)
    first = found.read()
    assert [each.name for each in first] == ["predictions.png", "train_samples.png", "broken.png",
                                             "zebra.png"]
    assert [each.uri[:22] for each in first] == [
        "data:image/png;base64,", "data:image/png;base64,", "", "data:image/png;base64,"]
    assert (first[0].width, first[0].height) == (40, 30)
    monkeypatch.setattr("base64.b64encode", None)  # nothing has changed: nothing is encoded
    assert found.read() == first
    monkeypatch.undo()
    Image.new("RGB", (50, 30), "red").save(tmp_path / "predictions.png")
    assert found.read()[0].width == 50


def test_large_pictures_are_made_smaller_and_their_sum_is_bounded(tmp_path, monkeypatch):
    noise = np.random.RandomState(0).randint(0, 255, (1200, 3000, 3), np.uint8)
    monkeypatch.setattr("runtime.report.pictures.MOST_BYTES", MOST_BYTES // 2)
    for i in range(4):
        Image.fromarray(np.roll(noise, i)).save(tmp_path / f"{i:02d}.png", compress_level=0)
    assert (tmp_path / "00.png").stat().st_size > 10 * WHOLE_BYTES
    found = Pictures(tmp_path).read()
    assert (found[0].width, found[0].height) == (2400, 960)
    assert found[0].uri.startswith("data:image/jpeg;base64,")
    assert sum(len(each.uri) for each in found) <= MOST_BYTES // 2
    assert (found[-1].name, found[-1].uri) == ("03.png", "")


# --- markup


def test_everything_is_escaped():
    text = element("td", "<script>alert('&')</script>", title='"><b>')
    assert text == ('<td title="&quot;&gt;&lt;b&gt;">&lt;script&gt;alert(&#x27;&amp;&#x27;)'
                    "&lt;/script&gt;</td>")
    assert escaped("a\x00\ud800\u202eb") == "a\ufffd\ufffd\ufffdb"
    assert len(escaped("x" * 10**6)) < 5000


def test_a_table_has_headings_and_keys_to_sort_by():
    text = table(["class", "n"], [["<i>", 1234567], ["b", None]], "all", sorts=True)
    assert '<th scope="row">&lt;i&gt;</th>' in text
    assert '<td class="number" data-value="1234567">1 234 567</td>' in text
    assert '<th scope="col" class="number"><button type="button">n</button></th>' in text
    assert "<caption>all</caption>" in text


@pytest.mark.parametrize("value, text", [
    (0.123456, "0.1235"), (12345.678, "12 346"), (1e-7, "1e-07"), (math.nan, "nan"), (True, "yes"),
    (None, "\u2013"), ([1, "a"], "[1, a]"), ([7] * 80, "[" + "7, " * 20 + "... 80 in all]"),
    (10**20, "1.000e+20"), (math.inf, "inf"),
])
def test_numbers_are_short(value, text):
    assert shown(value) == text


def test_durations_and_sizes():
    assert [duration(each) for each in (4.21, 200, 3725, 400_000, math.nan, "x", None)] == [
        "4.2 s", "3 min 20 s", "1 h 02 min", "4 d 15 h", "\u2013", "\u2013", "\u2013"]
    assert [size(each) for each in (812, 3.4e6, 2e9)] == ["812 B", "3.4 MB", "2.0 GB"]
