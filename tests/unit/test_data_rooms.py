"""A family's room of data loads no other family's, and what reads no COCO file no pycocotools."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = {"yolact", "queryinst", "segmentation", "imagenet"}


@pytest.mark.parametrize(
    "room, strangers",
    [
        *((family, [f"data.{other}" for other in sorted(FAMILIES - {family})])
          for family in sorted(FAMILIES)),
        ("imagenet", ["pycocotools", "data.coco_format"]),
        ("segmentation", ["pycocotools", "data.coco_format"]),
        ("coco_format", [f"data.{family}" for family in sorted(FAMILIES)]),
        ("coco_format.summary", [f"data.{family}" for family in sorted(FAMILIES)]),
    ],
)
def test_a_room_loads_no_other(room, strangers):
    code = (f"import sys, data.{room}; print([name for name in sys.modules for other in {strangers}"
            " if name == other or name.startswith(other + '.')])")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
