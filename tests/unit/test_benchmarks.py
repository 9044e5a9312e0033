"""python -m benchmarks: suites, files of figures and the comparison with an older one."""

import ast
import subprocess
import sys
from types import SimpleNamespace

import pytest
from figures import Figure, LeftOut, load, save, table
from rooms import ROOT

import benchmarks.__main__ as command

HELPERS = {"__main__", "figures", "device_waits", "networks"}


def test_every_benchmark_is_in_a_suite_and_gives_figures():
    found = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - HELPERS
    assert found == {name for suite in command.SUITES.values() for name in suite}
    for name in found:
        tree = ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text())
        assert "figures" in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_aims_and_what_is_worse():
    rate, cost = Figure("a", 0.5, "b", 0.4), Figure("a", 0.5, "b", 0.4, is_cost=True)
    assert (rate.is_met, cost.is_met, Figure("a", 0.5, "b").is_met) == (True, False, True)
    assert (rate.aim, cost.aim) == ("at least 0.4", "at most 0.4")
    assert [rate.worse_than(old) for old in (0.4, 0.55, 0.56)] == [False, False, True]
    assert [cost.worse_than(old) for old in (0.6, 0.46, 0.45)] == [False, False, True]
    assert table([cost], [Figure("a", 0.45, "b")]) == [
        ["a", "0.5", "b", "at most 0.4 (missed)", "0.45", "worse"]]
    assert table([rate], [Figure("c", 9, "b")])[0][4:] == ["", "new"]


def test_files_read_back_and_others_are_refused(tmp_path):
    suites = {"x": [Figure("a", 0.5, "b", None, True)], "y": []}
    save(tmp_path / "new.json", {"cpu": "z"}, suites)
    assert load(tmp_path / "new.json") == ({"cpu": "z"}, suites)
    for text in ("", "[]", "{}", '{"machine": {}, "suites": {"x": [{"name": 1}]}}'):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match=r"other.json: no file of python -m benchmarks"):
            load(tmp_path / "other.json")


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Benchmarks that are run in this process: `good`, `absent`."""
    monkeypatch.setattr(command, "SUITES", {"all": ("good", "absent")})
    monkeypatch.setattr(command, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(command, "this_machine", lambda: {"cpu": "C", "gpu": "none", "date": "D"})

    def missing(datasets):
        raise LeftOut(f"{datasets}: no such folder")

    monkeypatch.setitem(sys.modules, "good", SimpleNamespace(
        figures=lambda datasets: [Figure("speed", 0.5, "theirs")]))
    monkeypatch.setitem(sys.modules, "absent", SimpleNamespace(figures=missing))

    def run_apart(module, datasets):
        path = tmp_path / "one.json"
        status = command.run_here(module, datasets, path)
        return None if status == command.SKIPPED else load(path)[1][module]

    monkeypatch.setattr(command, "run_apart", run_apart)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, words)])
        return command.main()

    return run


def test_figures_are_written_and_compared(fake, tmp_path, capsys):
    assert fake("--json", tmp_path / "old.json", "--write", "--datasets", tmp_path) == 0
    out = capsys.readouterr().out
    assert f"left out: {tmp_path}: no such folder" in out
    assert "speed  0.5    theirs" in out
    page = (tmp_path / "RESULTS.md").read_text()
    assert "## C\n\ncpu C, gpu none, date D\n" in page
    assert "| speed | 0.5 | theirs |  |" in page
    assert fake("good", "--compare", tmp_path / "old.json") == 0
    save(tmp_path / "old.json", {"cpu": "other"}, {"good": [Figure("speed", 0.7, "theirs")]})
    assert fake("good", "--compare", tmp_path / "old.json") == 1
    out = capsys.readouterr().out
    assert out.rstrip().endswith("0.7     worse")
    assert "another machine's or other versions': cpu other" in out


def test_a_page_keeps_other_machines_figures(fake, tmp_path):
    fake("good", "--write")
    page = tmp_path / "RESULTS.md"
    page.write_text(page.read_text().replace("## C", "## Other") + "\n## Third\n\nkept\n")
    for _ in range(2):
        fake("good", "--write")
    assert [line for line in page.read_text().splitlines() if line.startswith("## ")] == [
        "## Other", "## Third", "## C"]
    assert "kept" in page.read_text()


@pytest.mark.parametrize("words, wanted", [
    (["nothing"], "no benchmark named nothing; there are data, "),
    (["--compare", "no.json"], "no.json: no file of python -m benchmarks --json: "),
])
def test_wrong_words_end_with_a_line(words, wanted):
    done = subprocess.run([sys.executable, "-m", "benchmarks", *words], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 2
    assert wanted in done.stderr.splitlines()[-1]
