"""report.html as a whole: what it tells, that no name can break it, and that it ends no run."""

import html.parser
import json
import os
import re
from contextlib import closing

import pytest
from PIL import Image

from runtime.errors import SaveError

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Elements(html.parser.HTMLParser):
    """The page's elements as [(name, attributes)], its text, and whether all are closed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.found, self.words, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def read(folder):
    page = (folder / "report.html").read_text(encoding="utf-8")
    found = Elements(page)
    assert not found.open
    return page, found


def charts(page):
    return json.loads(re.search(r'id="charts">(.*?)</script>', page, re.S)[1])


def train(i, loss=1.0):
    return {"event": "train", "iteration": i, "epoch": 0, "lr": 0.1, "loss": loss,
            "losses": {"cross_entropy": loss}, "images_per_s": 5.0, "data_s": 0.1,
            "memory_mb": 9.0, "grad_norm": None}


def a_run(make_run, folder, **options):
    run = make_run("train_resnest")
    run.describe(
        data={"train": {"source": "d/train", "images": 12, "unit": "images", "num_classes": 2,
                        "classes": {"cat": 7, EVIL: 5}}},
        config="mine.yaml", differs_from_recipe={"TRAINING.EPOCHS": [3, 270]},
        differs_from_defaults={})
    run.open_folder(folder, "a: 1\n", **options)
    return run


def test_the_page_tells_all_of_a_run(make_run, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train_resnest.py", "--config-file", "mine.yaml"])
    run = a_run(make_run, tmp_path / "run")
    for i in range(3):
        run.record(train(i, 3.0 - i))
    (run.folder / "checkpoint_0.pth").write_bytes(b"x" * 2500)
    run.saved(3, run.folder / "checkpoint_0.pth")
    run.warn("the disk is slow")
    run.record_scores(3, 0, {"top1": 61.5, "top5": 90.0},
                      {"cat": {"precision": 0.25, "support": 4}, EVIL: {"precision": None}})
    Image.new("RGB", (30, 20)).save(run.folder / "mistakes.png")
    run.write_report()
    page, found = read(run.folder)
    for text in (
        "train_resnest: run running", "best top1 61.5 % at iteration 3", "updates 3 1 evaluation",
        "TRAINING.EPOCHS 3 270", "Other than in mine.yaml", "checkpoint_0.pth 3 61.5", "2.5 kB",
        "python train_resnest.py --config-file mine.yaml --resume latest", "the disk is slow 1",
        "cat 0.25 4", "train 12", "cat 7", "cpu (", "last loss 1",
    ):
        assert text in found.text, text
    by_title = {chart["title"]: chart for chart in charts(page)}
    assert by_title["Loss"]["series"][0]["y"] == [3.0, 2.0, 1.0]
    assert "Gradient norm" not in by_title  # it was never known
    images = [attributes for name, attributes in found.found if name == "img"]
    assert [image["alt"].endswith("(mistakes.png)") for image in images] == [True]
    run.close()
    assert "train_resnest: run finished" in read(run.folder)[1].text
    facts = json.loads((run.folder / "env.json").read_text())
    assert [session["status"] for session in facts["sessions"]] == ["done"]
    assert facts["data"]["train"]["classes"]["cat"] == 7


def test_the_page_needs_no_other_file_and_talks_to_nobody(make_run, tmp_path):
    run = a_run(make_run, tmp_path)
    Image.new("RGB", (30, 20)).save(run.folder / "mistakes.png")
    run.close()
    page, found = read(tmp_path)
    for name, attributes in found.found:
        assert name not in ("link", "iframe", "object", "form")
        for key in ("src", "href"):
            assert attributes.get(key, "#").startswith(("#", "data:image/")), (name, attributes)
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    policy = next(a["content"] for _, a in found.found if a.get("http-equiv"))
    assert policy.startswith("default-src 'none';")


def test_no_name_can_break_the_page(make_run, tmp_path):
    run = a_run(make_run, tmp_path / "a <b> &amp; c")
    odd = train(0)
    odd["losses"] = {EVIL: 1.0, "</script>": 2.0, "\u2028\ud800": 3.0}
    run.record(odd)
    run.warn(f"odd {EVIL}\udcff")
    run.record_scores(1, 0, {EVIL: 1.0, "top1": 2.0}, {EVIL: {EVIL: 0.5}})
    (run.folder / "x'\"><script>.png").write_bytes(b"none")
    run.close()
    page, found = read(run.folder)
    scripts = [attributes for name, attributes in found.found if name == "script"]
    assert len(scripts) == 2  # the data, and the page's own
    assert not any("onerror" in attributes for _, attributes in found.found)
    assert [name for name, _ in found.found].count("img") == 0
    assert EVIL in found.text
    names = {series["name"] for chart in charts(page) for series in chart["series"]}
    assert {EVIL, "</script>"} <= names


def test_values_that_are_no_numbers_are_gaps(make_run, tmp_path):
    run = a_run(make_run, tmp_path)
    for i, loss in enumerate((1.0, float("nan"), float("inf"), 2.0)):
        run.record(train(i, loss))
    run.record_scores(4, 0, {"top1": float("nan"), "top5": None})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"event": "eval", "iteration": 4, "metrics": {"top1": NaN, "top5": 1e999}}\n')
    run.close()
    page, _ = read(tmp_path)
    loss = next(chart for chart in charts(page) if chart["title"] == "Loss")
    assert loss["series"][0]["y"] == [1.0, None, None, 2.0]


def test_a_resumed_run_shows_its_whole_history(make_run, tmp_path):
    run = a_run(make_run, tmp_path)
    run.record(train(0, 5.0))
    run.record(train(1, 4.0))
    run.warn("first")
    run.saved(1, tmp_path / "checkpoint_0.pth")
    (tmp_path / "checkpoint_0.pth").write_bytes(b"1")
    run.close()
    again = a_run(make_run, tmp_path, resume_from=1)
    again.record(train(1, 3.0))
    again.warn("second")
    again.write_report()
    page, found = read(tmp_path)
    loss = next(chart for chart in charts(page) if chart["title"] == "Loss")
    assert loss["series"][0]["y"] == [5.0, 3.0]
    for text in ("first 1", "second 1", "Resumed at iteration 1.", "in 2 sessions",
                 "checkpoint_0.pth 1"):
        assert text in found.text, text
    assert [session["start"] for session in facts(tmp_path)["sessions"]] == [0, 1]


def test_a_fresh_run_in_an_old_folder_shows_nothing_of_the_old_one(make_run, tmp_path):
    run = a_run(make_run, tmp_path)
    run.record(train(0, 5.0))
    run.warn("old")
    run.close()
    again = a_run(make_run, tmp_path)
    again.record(train(0, 3.0))
    again.close()
    page, found = read(tmp_path)
    assert charts(page)[0]["series"][0]["y"] == [3.0]
    assert "old 1" not in found.text
    assert len(facts(tmp_path)["sessions"]) == 1


def facts(folder):
    return json.loads((folder / "env.json").read_text())


def test_an_evaluation_beside_adds_its_scores_and_leaves_the_facts(make_run, tmp_path):
    run = a_run(make_run, tmp_path)
    run.record(train(0))
    run.close()
    before = facts(tmp_path)
    evaluation = make_run("train_resnest")
    evaluation.describe(config="other")
    evaluation.open_folder(tmp_path, "", append=True)
    evaluation.record_scores(1, None, {"top1": 12.5})
    evaluation.close()
    assert facts(tmp_path) == before
    found = read(tmp_path)[1]
    assert "best top1 12.5 %" in found.text
    assert "finished" in found.text


def test_an_error_that_ends_the_run_is_on_the_page(make_run, tmp_path):
    run = a_run(make_run, tmp_path)
    with pytest.raises(ValueError, match="loss is"), closing(run):
        raise ValueError("loss is <nan>")
    assert "stopped It ended early: ValueError: loss is <nan>" in read(tmp_path)[1].text
    assert facts(tmp_path)["sessions"][0]["status"] == "stopped"


@pytest.mark.parametrize("fault", ["folder", "disk", "page"])
def test_no_fault_of_the_page_ends_a_run(make_run, tmp_path, monkeypatch, capsys, fault):
    run = a_run(make_run, tmp_path)
    run.record(train(0))
    if fault == "folder":  # nobody can replace that one by a file
        (tmp_path / "report.html" / "x").mkdir(parents=True)
    else:
        def fail(*_, **__):
            raise SaveError("No space left") if fault == "disk" else ZeroDivisionError("odd")

        name = "write_text" if fault == "disk" else "page"
        monkeypatch.setattr(f"runtime.report.writer.{name}", fail)
    for _ in range(3):
        run.write_report()
    run.record(train(1))
    run.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"warning: {tmp_path}/report.html is not up to date; nothing")
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


def test_a_full_disk_that_ends_the_run_is_told_once(make_run, tmp_path, monkeypatch, capsys):
    run = a_run(make_run, tmp_path)

    def fail(*_, **__):
        raise SaveError("No space left")

    monkeypatch.setattr("runtime.report.writer.write_text", fail)
    with pytest.raises(SaveError), closing(run):
        raise SaveError("a.pth: could not be written")
    assert capsys.readouterr().err == ""


def test_a_damaged_env_json_is_no_harm(make_run, tmp_path):
    (tmp_path / "env.json").write_text('{"sessions": 3, "saves": [1], "log_bytes": "x"}')
    run = a_run(make_run, tmp_path, resume_from=1)
    run.saved(2, tmp_path / "a.pth")
    run.close()
    assert "in 1 session" in read(tmp_path)[1].text
    (tmp_path / "env.json").write_text("[")
    evaluation = make_run("train_resnest")
    evaluation.open_folder(tmp_path, "", append=True)
    evaluation.close()
    assert "unknown" in read(tmp_path)[1].text


def test_a_run_without_anything_has_a_page(make_run, tmp_path):
    make_run("train_other").open_folder(tmp_path, "")
    make_run("train_third").close()


def test_other_ranks_write_nothing(make_run, tmp_path, monkeypatch):
    run = make_run("train_resnest")
    run.is_main = False
    run._folder = tmp_path
    run.describe(a=1)
    run.saved(1, "x")
    run.write_report()
    run.close()
    assert os.listdir(tmp_path) == []


def test_the_page_of_a_million_updates_is_bounded(make_run, tmp_path):
    run = a_run(make_run, tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        for i in range(20_000):
            file.write(json.dumps(train(i, 1 + 1 / (i + 1))) + "\n")
    run.write_report()
    assert (tmp_path / "report.html").stat().st_size < 500_000
    series = charts(read(tmp_path)[0])[0]["series"][0]
    assert 500 <= len(series["x"]) <= 1001
    assert series["high"][0] == 2.0
