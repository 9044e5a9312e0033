"""What each script says before its first updates: that it compiles, and what its letters mean."""

import pytest


@pytest.mark.parametrize("fixture", ["train", "segment", "classify", "query_train"])
def test_compiling_is_said_before_and_after(fixture, request, monkeypatch):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # the lines are wanted here, not the minutes
    run = request.getfixturevalue(fixture)("--compile --dry-run", timeout=250)
    assert run.status == 0, run.err_text
    lines = [line.split("--compile: ")[1] for line in run.text.splitlines() if "--compile:" in line]
    assert len(lines) == 2, run.text
    assert lines[0].startswith("the network is compiled in the first update")
    assert lines[1].startswith("the first update took ")
    if fixture == "train":
        assert run.text.count("In each line: [epoch] iteration, mean losses B box, C class") == 1
