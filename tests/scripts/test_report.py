"""report.html of a real run, in a real browser, and the lines that it offers to copy."""

import importlib
import json
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from rooms import SCRIPTS

from runtime import cli
from runtime.report.commands import command_lines
from runtime.report.writer import Report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
               None)
SWITCHES = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--enable-logging=stderr", "--v=0", "--hide-scrollbars", "--virtual-time-budget=4000")
needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="needs Chromium (Debian's package chromium)")
CLASSES = {"cat": {"precision": 0.5}, "<b>ox</b>": {"precision": 0.75}, "ant": {"precision": None}}

# A run's command line by script, with a flag of each kind.
COMMANDS = {
    "train_seg": ["--cfg", "configs/seg/shapes.yaml", "--resume", "--max-iters", "4",
                  "TRAIN.lr_encoder", "0.1", "DIR", "a b"],
    "train_yolact": ["--config=yolact_shapes", "--resume=latest", "--cuda=False",
                     "--cfg-options", "lr=0.1", "max_iter=9"],
    "train_resnest": ["--config-file", "shapes", "--outdir", "o", "--amp", "bf16",
                      "TRAINING.EPOCHS", "3"],
    "train_queryinst": ["queryinst_shapes", "--work-dir", "w", "--resume", "--amp"],
}


def run_browser(page, profile, *switches):
    """(stdout, lines of the page's console)."""
    done = subprocess.run(
        [BROWSER, *SWITCHES, f"--user-data-dir={profile}", *switches, page.as_uri()],
        capture_output=True, text=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture
def page(tmp_path):
    """The page of a run of 1500 updates with 5 evaluations, as a browser opens it from the disk."""
    folder = tmp_path / "run"
    folder.mkdir()
    with open(folder / "metrics.jsonl", "w") as file:
        for i in range(0, 1500):
            loss = 4 / (1 + i / 100)
            file.write(json.dumps({"event": "train", "iteration": i, "epoch": i // 300, "lr": 0.1,
                                   "loss": loss, "losses": {"cross_entropy": loss}}) + "\n")
            if i % 300 == 299:
                file.write(json.dumps({"event": "eval", "iteration": i + 1, "epoch": i // 300,
                                       "metrics": {"top1": i / 20, "top5": 90.0},
                                       "classes": CLASSES}) + "\n")
    Image.fromarray(np.zeros((300, 900, 3), np.uint8)).save(folder / "mistakes.png")
    facts = {"script": "train_resnest", "command": ["train_resnest.py"], "starter": ["python"],
             "sessions": [{"status": "done", "seconds": 70.0, "start": 0}]}
    Report(folder, facts, pytest.fail).write()
    return folder / "report.html"


def with_script(page, code):
    """A copy of the page that also runs `code`, and shows what goes wrong in its title."""
    before = "<script>window.onerror = (text) => { document.title = 'ERROR ' + text; };</script>"
    text = page.read_text(encoding="utf-8")
    text = text.replace("<body>", "<body>" + before, 1).replace(
        "</body>", f"<script>{code}</script></body>", 1)
    copy = page.with_name("probed.html")
    copy.write_text(text, encoding="utf-8")
    return copy


def title_of(dom):
    return re.search(r"<title>(.*?)</title>", dom, re.S)[1]


@needs_browser
def test_it_opens_from_the_disk_without_an_error(page, tmp_path):
    dom, console = run_browser(page, tmp_path / "profile", "--dump-dom")
    assert console == []
    assert dom.count("<svg") == 3  # loss, scores, learning rate
    assert title_of(dom) == "train_resnest: run"


@needs_browser
def test_pointing_at_a_curve_shows_its_value(page, tmp_path):
    code = """
      const svg = document.querySelector(".plot svg"), box = svg.getBoundingClientRect();
      const tip = () => document.querySelector(".plot .tip");
      const before = tip().hidden;
      svg.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + 58, clientY: 99}));
      const first = tip().textContent;
      svg.dispatchEvent(new KeyboardEvent("keydown", {key: "End"}));
      const last = tip().textContent;
      svg.dispatchEvent(new PointerEvent("pointerleave"));
      document.title = [before, first, last, tip().hidden].join("|");"""
    dom, console = run_browser(with_script(page, code), tmp_path / "profile", "--dump-dom")
    assert console == []
    before, first, last, after = title_of(dom).split("|")
    assert (before, after) == ("true", "true")
    assert first == "iterations 0 to 1cross_entropy 3.98 (3.96 to 4)"
    assert last.startswith("iterations 1498 to 1499cross_entropy 0.25")


@needs_browser
def test_curves_can_be_hidden_tables_sorted_and_lines_copied(page, tmp_path):
    code = """
      const paths = () => document.querySelectorAll("#chart-1 path").length;
      const both = paths();
      document.querySelector("#chart-1 .legend button").click();
      const one = paths();
      const table = [...document.querySelectorAll("table.sorts")].pop();
      const column = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
      table.querySelectorAll("th button")[1].click();
      const falling = column();
      table.querySelectorAll("th button")[1].click();
      const rising = column();
      table.querySelectorAll("th button")[0].click();
      const named = column();
      document.querySelector(".zoom").click();
      const isLarge = document.querySelector(".zoom img").clientWidth;
      let copied = "";
      document.execCommand = () => { copied = String(getSelection()); return true; };
      Object.defineProperty(navigator, "clipboard", {value: undefined});
      document.querySelector(".copy").click();
      document.title = JSON.stringify([both, one, falling, rising, named, isLarge, copied,
                                       document.querySelector(".copy").textContent]);"""
    dom, console = run_browser(with_script(page, code), tmp_path / "profile", "--dump-dom",
                               "--window-size=600,800")
    assert console == []
    found = json.loads(title_of(dom).replace("&lt;", "<").replace("&gt;", ">"))
    assert found == [
        2, 1, ["<b>ox</b>", "cat", "ant"], ["cat", "<b>ox</b>", "ant"],
        ["<b>ox</b>", "ant", "cat"], 900, "python train_resnest.py --resume latest", "Copied"]


@needs_browser
@pytest.mark.parametrize("width", [360, 1300])
def test_nothing_is_wider_than_the_window(page, tmp_path, width):
    code = "document.title = document.documentElement.scrollWidth + ' ' + innerWidth;"
    # a window of a browser has a least width; a frame has none
    frame = page.with_name("frame.html")
    inner = with_script(page, f"parent.postMessage(document.documentElement.scrollWidth, '*');"
                        f"{code}")
    frame.write_text(
        f"<title></title><iframe src='{inner.name}' style='width:{width}px;height:900px;border:0'>"
        "</iframe><script>onmessage = (event) => { document.title = event.data; };</script>")
    dom, _ = run_browser(frame, tmp_path / "profile", "--dump-dom")
    assert int(title_of(dom)) <= width


@needs_browser
def test_its_picture_is_light_or_dark(page, tmp_path):
    shades = []
    for i, scheme in enumerate(("1", "0")):
        shot = tmp_path / f"{i}.png"
        run_browser(page, tmp_path / f"profile{i}", f"--screenshot={shot}",
                    f"--blink-settings=preferredColorScheme={scheme}", "--window-size=800,900")
        shades.append(np.asarray(Image.open(shot).convert("L")).mean())
    light, dark = shades
    assert light > 200 > 80 > dark


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_lines_to_copy_are_understood(script, is_done):
    module = importlib.import_module(script)
    command = [f"{script}.py", *COMMANDS[script]]
    lines = command_lines(command, ["python"], is_done)
    assert len(lines) == 4
    found = {}
    for purpose, text in lines:
        words = shlex.split(text)
        assert words[:2] == ["python", f"{script}.py"]
        found[purpose] = cli.read_flags(module.flags, script, words[2:])
    resume, evaluate, predict, export = found.values()
    assert resume.resume == "latest"
    assert not resume.eval_only
    assert (evaluate.eval_only, evaluate.resume) == (True, None)
    assert str(export.export) == "trained.pt2"
    assert (predict.predict, predict.resume) == ("photos/", None)
    if script == "train_seg":
        assert resume.max_iters == (None if is_done else 4)
        assert resume.opts == ["TRAIN.lr_encoder", "0.1", "DIR", "a b"]
