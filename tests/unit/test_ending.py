"""Curves are drawn when there is something new to see."""

import os
from types import SimpleNamespace

import pytest

from runtime.run import ending


@pytest.fixture
def drawn(monkeypatch):
    """How often curves were drawn; the picture then is as new as a file gets."""
    count = []

    def plot(metrics, picture, *_):
        picture.write_bytes(b"picture")
        os.utime(picture, ns=(metrics.stat().st_mtime_ns + 1,) * 2)
        count.append(1)

    monkeypatch.setattr(ending, "plot_curves", plot)
    return count


def test_curves_are_drawn_again_after_a_new_line_only(tmp_path, drawn):
    reports = []
    run = SimpleNamespace(is_main=True, folder=tmp_path, write_report=lambda: reports.append(1))
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("{}\n")
    ending.draw_curves(run, (), "run")
    ending.draw_curves(run, (), "run")
    assert (len(drawn), len(reports)) == (1, 2)  # the page also says how the run stands
    newer = (tmp_path / "curves.png").stat().st_mtime_ns + 1
    metrics.write_text("{}\n{}\n")
    os.utime(metrics, ns=(newer, newer))
    ending.draw_curves(run, (), "run")
    assert len(drawn) == 2


def test_other_ranks_draw_nothing(tmp_path, drawn):
    ending.draw_curves(SimpleNamespace(is_main=False, folder=tmp_path), (), "run")
    assert not drawn
