"""The first reading of a COCO file, against pycocotools reading the same file in the same run.

    python benchmarks/coco_index.py [FILE.json]

Without a file one of train2017's size is generated: 118,000 images, 860,000 objects, 46 million
coordinates, drawn evenly; 540 MB in a temporary folder. Each reading is a process of its own; its
processor time and peak memory are compared. Wanted: a third of the time, half of the memory.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from figures import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

IMAGES, OBJECTS, CROWDS = 118_000, 860_000, 0.012
ROUNDS = 3
READERS = ("ours", "pycocotools")


def generate(path: Path) -> None:
    rng = np.random.default_rng(0)
    ids = rng.permutation(600_000)[:IMAGES]
    hw = rng.integers(300, 641, (IMAGES, 2))
    with path.open("w") as file:
        file.write('{"images": [')
        for i in range(IMAGES):
            record = {"license": 1, "file_name": f"{ids[i]:012d}.jpg",
                      "coco_url": f"http://images.example/train/{ids[i]:012d}.jpg",
                      "height": int(hw[i, 0]), "width": int(hw[i, 1]),
                      "date_captured": "2013-11-14 11:18:45", "id": int(ids[i])}
            file.write((", " if i else "") + json.dumps(record))
        file.write('], "annotations": [')
        owners = rng.integers(0, IMAGES, OBJECTS)
        points = np.maximum(3, rng.lognormal(3.0, 0.75, OBJECTS).astype(int))
        crowds = rng.random(OBJECTS) < CROWDS
        for k in range(OBJECTS):
            h, w = hw[owners[k]].tolist()
            record = _object(rng, h, w, int(points[k])) if not crowds[k] else _crowd(rng, h, w)
            record |= {"iscrowd": int(crowds[k]), "image_id": int(ids[owners[k]]),
                       "category_id": k % 80 + 1, "id": k + 1}
            file.write((", " if k else "") + json.dumps(record))
        names = [{"supercategory": "x", "id": i + 1, "name": f"c{i}"} for i in range(80)]
        file.write(f'], "categories": {json.dumps(names)}}}')


def _object(rng, h, w, points):
    xy = (rng.random((points, 2)) * (w * 0.4, h * 0.4) + (w * 0.3, h * 0.3)).round(2)
    (x0, y0), (x1, y1) = xy.min(0).tolist(), xy.max(0).tolist()
    box = [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)]
    return {"segmentation": [xy.ravel().tolist()], "area": box[2] * box[3] * 0.6 + 1, "bbox": box}


def _crowd(rng, h, w):
    cuts = np.sort(rng.choice(h * w, int(rng.integers(50, 400)) * 2, replace=False))
    runs = np.diff(np.concatenate([[0], cuts, [h * w]])).tolist()
    return {"segmentation": {"counts": runs, "size": [h, w]}, "area": float(h * w // 2),
            "bbox": [0.0, 0.0, float(w), float(h)]}


def read(reader: str, path: str) -> None:
    """Prints seconds of processor time and peak memory in MB beyond the imports."""
    if reader == "ours":
        from data.coco_format.parsing import parse_coco as read_file
    else:
        from pycocotools.coco import COCO as read_file
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    kept = read_file(Path(path) if reader == "ours" else path)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([seconds, peak / 1024]), file=sys.stderr)
    del kept


def figures(datasets: Path) -> list[Figure]:
    seconds, memory = compare(None)
    return [Figure("COCO index, processor time", seconds, "pycocotools'", 0.33, is_cost=True),
            Figure("COCO index, peak memory", memory, "pycocotools'", 0.5, is_cost=True)]


def compare(file: str | None) -> tuple[float, float]:
    """Ours divided by pycocotools': (processor time, peak memory), medians over the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        path = file or f"{folder}/instances.json"
        if file is None:
            generate(Path(path))
        ratios = []
        for i in range(ROUNDS):
            found = []
            for reader in READERS:
                done = subprocess.run([sys.executable, __file__, reader, path], check=True,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                found.append(json.loads(done.stderr.splitlines()[-1]))
                print(f"round {i + 1}, {reader}: {found[-1][0]:.1f} s of processor time, "
                      f"{found[-1][1]:.0f} MB")
            ratios.append([ours / theirs for ours, theirs in zip(*found, strict=True)])
    seconds, memory = np.median(ratios, axis=0)
    print(f"median ratio to pycocotools: time {seconds:.2f} (wanted 0.33), memory {memory:.2f} "
          "(wanted 0.50)")
    return float(seconds), float(memory)


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] in READERS:
        read(*sys.argv[1:])
        return
    compare(sys.argv[1] if len(sys.argv) > 1 else None)


if __name__ == "__main__":
    main()
