"""Fixtures that several folders of tests use."""

import os
from pathlib import Path

import operators
import pytest
from operators import chosen_operators, torchvision_here  # noqa: F401  fixtures of all tests

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
    parser.addoption(
        "--write-expected", action="store_true",
        help="write tests/scripts/expected/*.json anew instead of comparing: make expected-numbers")
    operators.add_option(parser)


def pytest_configure(config):
    fault = operators.load_fault() if config.getoption(operators.OPTION) == operators.REAL else None
    if fault is not None:
        raise pytest.UsageError(
            f"{operators.OPTION} {operators.REAL}: torchvision's operators do not load: {fault}")


def pytest_terminal_summary(terminalreporter, config):
    """At the end, since `pytest -q` shows no header."""
    ran = [report for kind in ("passed", "failed", "skipped", "error")
           for report in terminalreporter.stats.get(kind, ())]
    comparing = {report.nodeid for report in ran  # those of files that do not import have none
                 if isinstance(report, pytest.TestReport) and "operators" in report.keywords}
    if comparing:
        terminalreporter.write_line(
            operators.report_line(operators.fault_of(config), len(comparing)))


@pytest.fixture
def datasets():
    """`datasets("coco_small")` is the folder of a real photo set; the test skips without it."""
    base = Path(os.environ.get("TRAINER_DATASETS", ROOT.parent / "shared" / "datasets"))

    def find(name):
        folder = base / name
        if not folder.is_dir():
            pytest.skip(f"photo set {name} is not here (set TRAINER_DATASETS to its parent folder)")
        return folder

    return find
