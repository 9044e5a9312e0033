"""Lists of ImageNet's and ADE20K's size: reading them, and what they cost each data worker.

    python benchmarks/lists.py [--classes 1000] [--images 1281]

Names only: empty files in class folders, and an .odgt list of 20,210 records. The yardstick of
class folders is a walk that keeps a list of (path, label), as torchvision's ImageFolder does; that
of the list is json.loads of every line. A worker is a forked process that looks at every name once,
as in an epoch; its own pages are counted before and after: Python objects cost it their pages by
their reference counts alone.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from figures import Figure

from data.imagenet.folders import ClassFolders
from data.segmentation.lists import SegList
from data.segmentation.odgt import read_odgt
from runtime.image_kinds import IMAGE_SUFFIXES

ROUNDS = 3
RECORDS = 20_210  # of ADE20K's training list


def figures(datasets):
    found = compare(classes=1000, images=128)  # a tenth of ImageNet; the ratios are the same
    wanted = {"time to list class folders": 1.2, "memory of a worker, class folders": 0.05,
              "time to read an .odgt list": 3.0, "memory of a worker, .odgt list": 0.05}
    return [Figure(name, ratio, of, wanted[name], is_cost=True)
            for name, (ratio, of) in found.items()]


def compare(classes, images):
    """{what: (ours divided by the yardstick's, the yardstick)}."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_folders(root / "train", classes, images)
        write_odgt(root / "training.odgt")
        kinds = {
            "class folders": (ClassFolders, image_folder, root / "train", "torchvision's way"),
            ".odgt list": (lambda path: SegList(read_odgt(str(path))), json_lines,
                           root / "training.odgt", "json.loads of its lines"),
        }
        found = {}
        for kind, (ours, theirs, path, of) in kinds.items():
            verb = "list" if "folders" in kind else "read an"
            times = [(seconds(ours, path), seconds(theirs, path)) for _ in range(ROUNDS)]
            own_s, their_s = (min(column) for column in zip(*times, strict=True))
            found[f"time to {verb} {kind}"] = own_s / their_s, of
            own_mb, their_mb = worker_mb(ours(path)), worker_mb(theirs(path))
            found[f"memory of a worker, {kind}"] = own_mb / their_mb, "a list of Python objects"
            print(f"{kind}: {own_s:.2f} s, the yardstick {their_s:.2f} s of processor time; a "
                  f"worker's own pages grow by {own_mb:.1f} MB, the yardstick's by {their_mb:.1f}")
    return found


def write_folders(folder, classes, images):
    for number in range(classes):
        own = folder / f"n{number:08d}"
        own.mkdir(parents=True)
        for i in range(images):
            os.close(os.open(own / f"n{number:08d}_{i}.JPEG", os.O_CREAT | os.O_WRONLY))


def write_odgt(path):
    records = ({"fpath_img": f"ADEChallengeData2016/images/training/ADE_train_{i:08d}.jpg",
                "fpath_segm": f"ADEChallengeData2016/annotations/training/ADE_train_{i:08d}.png",
                "width": 683, "height": 512} for i in range(RECORDS))
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def image_folder(folder):
    labels = {name: i for i, name in enumerate(sorted(os.listdir(folder)))}
    found = []
    for name, label in labels.items():
        for where, _, files in sorted(os.walk(folder / name, followlinks=True)):
            for file in sorted(files):
                if file.lower().endswith(IMAGE_SUFFIXES):
                    found.append((os.path.join(where, file), label))
    return found


def json_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def seconds(read, path):
    start = time.process_time()
    read(path)
    return time.process_time() - start


def worker_mb(names):
    """By how many MB a forked process grows that looks at each name once."""
    receiving, sending = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=look_at_all, args=(names, sending))
    worker.start()
    grown = receiving.recv()
    worker.join()
    return max(grown, 0.01)


def look_at_all(names, sending):
    get = names.file if isinstance(names, ClassFolders) else names.__getitem__
    get(0)
    before = own_mb()
    for i in range(len(names)):
        get(i)
    sending.send(own_mb() - before)


def own_mb():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--images", type=int, default=1281, help="of each class")
    args = parser.parse_args()
    compare(args.classes, args.images)


if __name__ == "__main__":
    main()
