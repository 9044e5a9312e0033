"""Fixtures that several folders of tests use."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
    parser.addoption(
        "--write-expected", action="store_true",
        help="write tests/scripts/expected/*.json anew instead of comparing: make expected-numbers")


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
