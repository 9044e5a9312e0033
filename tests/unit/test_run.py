import json
import logging
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from runtime.errors import SaveError
from runtime.run.files import cut_metrics, json_line

ROOT = Path(__file__).resolve().parents[2]


def events(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def train(i):
    return {"event": "train", "iteration": i, "loss": 1.0}


def test_alone_it_is_rank_zero_of_one(make_run):
    run = make_run()
    assert (run.rank, run.world_size, run.local_rank, run.is_main) == (0, 1, 0, True)
    module = nn.Linear(1, 1)
    assert run.wrap(module) is module
    loss = torch.tensor(2.0, requires_grad=True)
    assert run.read_means({"B": loss}, torch.tensor(7.0)) == ({"B": 2.0}, 7.0)
    assert (run.gather("x"), run.broadcast("y")) == (["x"], "y")
    assert run.barrier() is None


def test_a_terminal_alone_gets_folded_lines(make_run, tmp_path, capsys, monkeypatch):
    run = make_run()
    run.open_folder(tmp_path, "")
    run.log("all of it", folded="short")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    run.log("all of this", folded="brief")
    run.log("plain")
    assert capsys.readouterr().out.splitlines()[-3:] == ["all of it", "brief", "plain"]
    assert (tmp_path / "log.txt").read_text().splitlines()[-3:] == [
        "all of it", "all of this", "plain"]


def test_the_config_takes_one_line(make_run, tmp_path, capsys):
    run = make_run()
    run.describe(config="small", differs_from_recipe={
        "a.lr": [0.5, 0.1], "root": ["/far" * 20, None], **{f"k{i}": [i, 0] for i in range(6)}})
    run.open_folder(tmp_path, "")
    tail = ("/far" * 20)[-40:]
    assert capsys.readouterr().out == (
        f"Config small with a.lr 0.5, root ...{tail}, k0 0, k1 1, k2 2, k3 3 and 2 more; all keys "
        f"are in {tmp_path}/config.yaml\n")
    run.open_folder(tmp_path, "", append=True)
    assert capsys.readouterr().out == ""


def test_start_makes_no_files(make_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = make_run()
    run.log("text")
    run.record(train(0))
    run.close()
    assert not any(tmp_path.iterdir())


def test_the_folder_and_its_log(make_run, tmp_path, capsys):
    run = make_run()
    run.log("before the folder")
    run.open_folder(tmp_path / "a" / "b", "key: 1\n")
    run.log("two\nlines")
    run.warn("slow")
    logging.getLogger("models.any").warning("odd weights")
    logging.getLogger("models.any").info("loaded")
    logging.getLogger("elsewhere").info("not ours")
    out, err = capsys.readouterr()
    assert out == "before the folder\ntwo\nlines\nloaded\n"
    assert err == "warning: slow\nwarning: odd weights\n"
    wanted = "before the folder\ntwo\nlines\nwarning: slow\nwarning: odd weights\nloaded\n"
    assert (run.folder / "log.txt").read_text() == wanted
    assert (run.folder / "config.yaml").read_text() == "key: 1\n"
    environment = json.loads((run.folder / "env.json").read_text())
    assert environment["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert environment["command"] == sys.argv
    assert (environment["world_size"], len(environment["devices"])) == (1, 1)


def test_lines_can_begin_with_the_clock(make_run, tmp_path, capsys):
    run = make_run(clock=True)
    run.open_folder(tmp_path, "")
    run.log("Batch: 0| Loss: 1.000")
    run.warn("odd")
    out, err = capsys.readouterr()
    assert re.fullmatch(r"\[\d\d/\d\d \d\d:\d\d:\d\d\] Batch: 0\| Loss: 1\.000\n", out)
    assert re.fullmatch(r"\[\d\d/\d\d \d\d:\d\d:\d\d\] warning: odd\n", err)
    assert (tmp_path / "log.txt").read_text() == out + err


def test_a_closed_run_leaves_no_handlers(make_run, capsys):
    run = make_run()
    run.close()
    run.close()
    run.log("unheard")
    assert capsys.readouterr().out == ""
    assert not logging.getLogger("models").handlers


def test_unprintable_names_do_not_end_the_run(make_run, tmp_path):
    run = make_run()
    run.open_folder(tmp_path, "")
    run.warn("damaged: \udcff.jpg")
    assert "\\udcff.jpg" in (tmp_path / "log.txt").read_text()


def test_json_lines_keep_every_digit():
    value = torch.tensor(0.1)
    line = json_line(
        {
            "a": value,
            "b": np.float32(0.1),
            "c": 1 / 3,
            "d": [float("nan"), torch.tensor(float("inf"))],
            "e": {"n": np.int64(3), "none": None, "true": True},
            "f": Path("x"),
        }
    )
    back = json.loads(line)
    assert back["a"] == back["b"] == float(value)
    assert back["c"] == 1 / 3
    assert back["d"] == [None, None]
    assert (back["e"], back["f"]) == ({"n": 3, "none": None, "true": True}, "x")


def test_a_resumed_run_cuts_what_lies_beyond_its_checkpoint(make_run, tmp_path):
    run = make_run()
    run.open_folder(tmp_path, "")
    before = [train(0), {"event": "skip", "iteration": 0}, train(1)]
    at_two = [{"event": "eval", "iteration": 2}, {"event": "stop", "iteration": 2}]
    beyond = [{"event": "skip", "iteration": 2}, train(2), {"event": "eval", "iteration": 3}]
    note = {"event": "note"}
    for event in [*before, *at_two, *beyond, note]:
        run.record(event)
    run.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "iteration": 1, "lo')
    again = make_run()
    again.open_folder(tmp_path, "", resume_from=2)
    again.record(train(2))
    went_on = {"event": "resume", "iteration": 2}
    assert events(tmp_path) == [*before, *at_two, note, went_on, train(2)]


def test_a_line_without_its_newline_is_torn(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "train", "iteration": 0}\n{"event": "train", "iteration": 1}')
    cut_metrics(path, 9)
    assert path.read_text() == '{"event": "train", "iteration": 0}\n'


def test_a_fresh_run_keeps_the_old_metrics_aside(make_run, tmp_path):
    for i in range(3):
        run = make_run()
        run.open_folder(tmp_path, f"n: {i}\n")
        run.record(train(i))
        run.close()
    kept = sorted(path.name for path in tmp_path.glob("metrics*"))
    assert kept == ["metrics.jsonl", "metrics_1.jsonl", "metrics_2.jsonl"]
    assert events(tmp_path) == [train(2)]
    assert (tmp_path / "config.yaml").read_text() == "n: 2\n"


def test_an_evaluation_appends_to_the_metrics_it_finds(make_run, tmp_path):
    run = make_run()
    run.open_folder(tmp_path, "n: 1\n")
    run.record(train(50))
    run.close()
    again = make_run()
    again.open_folder(tmp_path, "n: 2\n", append=True)
    again.record({"event": "eval", "iteration": 40})
    assert events(tmp_path) == [train(50), {"event": "eval", "iteration": 40}]
    assert (tmp_path / "config.yaml").read_text() == "n: 1\n"


def test_a_folder_that_cannot_be_made_is_named(make_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match=r"file/run: could not be written: Not a directory"):
        make_run().open_folder(tmp_path / "file" / "run", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always full device")
@pytest.mark.parametrize("name", ["metrics.jsonl", "log.txt"])
def test_a_full_disk_names_the_file(make_run, tmp_path, name):
    (tmp_path / name).symlink_to("/dev/full")
    run = make_run()
    run.open_folder(tmp_path, "")
    with pytest.raises(SaveError, match=f"{name}: could not be written: No space left"):
        run.record(train(0)) if name == "metrics.jsonl" else run.log("text")


def test_step_seeds_depend_on_seed_and_step(make_run):
    run, other = make_run(seed=3), make_run(seed=4)

    def draw(run, step):
        run.seed_step(step)
        return torch.rand(()).item()

    first = draw(run, 7)
    torch.rand(5)
    assert draw(run, 7) == first
    assert len({first, draw(run, 8), draw(other, 7)}) == 3


def test_gradients_of_indexing_repeat_their_bits(make_run):
    make_run()
    rows = torch.randint(0, 10, (20000,))
    factors = torch.randn(20000, 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)

    def gradient():
        table = torch.zeros(10, 64, requires_grad=True)
        (table[rows] * factors).sum().backward()
        return table.grad

    first = gradient()
    assert all(torch.equal(gradient(), first) for _ in range(5))
    torch.set_num_threads(threads)


def test_a_reader_that_leaves_does_not_end_the_run(tmp_path):
    code = f"""
from runtime.run.run import start_run
run = start_run("train_test", "cpu")
run.open_folder({str(tmp_path)!r}, "")
for i in range(2000):
    run.log(f"line {{i}} " + "x" * 100)
run.close()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline().startswith("line 0")
    process.stdout.close()
    assert (process.stderr.read(), process.wait(timeout=120)) == ("", 0)
    process.stderr.close()
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 2000


RANK_CODE = """
import atexit, json, os, signal, sys, time
from runtime.launch.signals import StopSignals
stop = StopSignals("stopping")
import torch
from torch import nn
from runtime import cli
from runtime.errors import SaveError
from common.optim import accumulated
from runtime.run.run import start_run

class Teardown:  # its end in the interpreter's teardown would be seen
    def __del__(self):
        print("TORN DOWN")

teardown = Teardown()
atexit.register(print, "AT EXIT")

def main():
    folder, bad = sys.argv[1:]
    run = start_run("train_test", "cpu", seed=1, stop=stop)
    seen = {"rank": run.rank, "world": run.world_size, "main": run.is_main}
    try:
        run.open_folder(bad, "")
    except SaveError as error:
        seen["fault"] = str(error)
    run.open_folder(folder, "x: 1")
    run.log("hello")
    if run.rank == 1:
        run.warn("odd")
    run.record({"event": "train", "iteration": 0})
    terms = {"B": torch.tensor(float(run.rank)), "C": torch.tensor(3.0)}
    seen["mean"] = run.read_means(terms, torch.tensor(run.rank + 1))
    run.stop_as_read()
    seen["early stop"] = run.stop_requested
    seen["gather"], seen["broadcast"] = run.gather(run.rank * 10), run.broadcast(run.rank + 5)
    run.seed_step(4)
    seen["draw"] = torch.rand(()).item()

    torch.manual_seed(run.rank)  # the replicas begin with rank 0's weights all the same
    net = run.wrap(nn.Linear(2, 1))
    for _ in accumulated(net, range(2)):
        net(torch.full((1, 2), float(run.rank))).sum().backward()
        break  # before the last one
    seen["own_grad"] = net.module.weight.grad.tolist()
    net.zero_grad()
    net(torch.full((1, 2), float(run.rank))).sum().backward()
    seen["weight"] = net.module.weight.tolist()
    seen["grad"] = net.module.weight.grad.tolist()

    norm = run.wrap(nn.BatchNorm1d(1))
    for _ in range(2):
        norm(torch.tensor([[run.rank], [run.rank + 1.0]]))
    seen["statistics"] = [round(norm.module.running_mean.item(), 6)]
    run.share_buffers(norm.module)
    seen["statistics"].append(round(norm.module.running_mean.item(), 6))

    if run.rank == 1:
        os.kill(os.getpid(), signal.SIGUSR1)
        while stop.requested is None:
            time.sleep(0.01)
    calls, all_reduce = [], torch.distributed.all_reduce
    torch.distributed.all_reduce = lambda *args, **kwargs: (
        calls.append(1), all_reduce(*args, **kwargs))
    run.read_means(terms, torch.tensor(0.0))
    run.stop_as_read()
    seen["calls"] = len(calls)
    seen["stop"] = stop.requested, run.stop_requested
    run.close()
    print("SEEN", json.dumps(seen))

cli.run(main, "train_test")
"""


def test_two_processes(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (tmp_path / "file").write_text("")
    folder = tmp_path / "run"
    ranks = []
    for rank in range(2):
        env = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "OMP_NUM_THREADS": 1}
        env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks.append(
            subprocess.Popen(
                [sys.executable, "-c", RANK_CODE, folder, tmp_path / "file" / "run"],
                cwd=ROOT,
                env=os.environ | {key: str(value) for key, value in env.items()},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    texts = [rank.communicate(timeout=180) for rank in ranks]
    failed = [err for rank, (_, err) in zip(ranks, texts, strict=True) if rank.returncode]
    assert not failed, "\n".join(failed)
    first, second = (json.loads(out.split("SEEN ")[1].splitlines()[0]) for out, _ in texts)
    # a thread of gloo's must not meet an interpreter in teardown
    assert all(out.endswith("AT EXIT\n") and "TORN DOWN" not in out for out, _ in texts)

    assert (first["rank"], first["world"], first["main"]) == (0, 2, True)
    assert (second["rank"], second["main"]) == (1, False)
    assert (
        first["fault"]
        == second["fault"]
        == (f"{tmp_path}/file/run: could not be written: Not a directory")
    )
    assert first["mean"] == [{"B": 0.5, "C": 3.0}, 1.0]
    assert second["mean"] == [{"B": 0.5, "C": 3.0}, 2.0]
    assert first["early stop"] is second["early stop"] is None
    assert first["calls"] == second["calls"] == 1  # losses and stop together
    # in training a rank's own, 0.19 of its mean; then rank 0's
    assert (first["statistics"], second["statistics"]) == ([0.095, 0.095], [0.285, 0.095])
    assert (first["gather"], second["gather"]) == ([0, 10], None)
    assert first["broadcast"] == second["broadcast"] == 5
    assert first["draw"] != second["draw"]
    assert first["weight"] == second["weight"]
    assert (first["own_grad"], second["own_grad"]) == ([[0.0, 0.0]], [[1.0, 1.0]])
    assert first["grad"] == second["grad"] == [[0.5, 0.5]]
    # only rank 1 got the signal, both stop for it, and rank 0 says so
    assert (first["stop"], second["stop"]) == ([None, "SIGUSR1"], ["SIGUSR1", "SIGUSR1"])
    assert "hello\nstopping\n" in texts[0][0]
    assert "hello" not in texts[1][0]
    assert texts[1][1] == "rank 1: warning: odd\n"
    assert events(folder) == [{"event": "train", "iteration": 0}]
    environment = json.loads((folder / "env.json").read_text())
    assert (environment["launcher"], len(environment["devices"])) == ("torchrun", 2)
