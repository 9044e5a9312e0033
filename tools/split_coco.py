"""Split a COCO annotation file into one to train on and one to validate on.

    python tools/split_coco.py annotations/all.json --val 0.2

Whole images go to one side or the other, so that each class has its share of both. Beside the file
lie then all_train.json and all_val.json, with the records as they were. The same file and the same
--seed give the same halves.
"""

import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # it is called by its path

from runtime import cli
from runtime.cli import flag

SCRIPT = "split_coco"
SIDES = ("train", "val")


def flags(
    file: Annotated[Path, typer.Argument(help="COCO annotation file.")],
    val: Annotated[float, flag("--val", "share of the images to validate on, or their number")]
    = 0.2,
    seed: Annotated[int, flag("--seed", "of the choice", min=0)] = 0,
    out: Annotated[Path | None, flag("--out", "folder of both files; that of FILE")] = None,
    force: Annotated[bool, flag("--force", "write over files that are there")] = False,
    debug: Annotated[bool, flag("--debug", "show the traceback of input errors")] = False,
) -> SimpleNamespace:
    """Split a COCO annotation file by images, each class in proportion."""
    return SimpleNamespace(file=file, val=val, seed=seed, out=out, force=force)


if __name__ == "__main__":
    FLAGS = cli.read_flags(flags, SCRIPT)  # --help ends here, before numpy

from data.coco_format import CocoIndex
from data.coco_format.check import first_faults
from runtime.errors import InputError
from runtime.files import write_together


def main(flags: SimpleNamespace) -> None:
    """Read, split, write, and say what each class got."""
    paths = [(flags.out or flags.file.parent) / f"{flags.file.stem}_{side}.json" for side in SIDES]
    there = [str(path) for path in paths if path.exists()]
    if there and not flags.force:
        raise InputError(f"{' and '.join(there)}: there already; --force writes over")
    if flags.out is not None and not flags.out.is_dir():
        raise InputError(f"--out {flags.out}: no such folder")
    index = CocoIndex.from_file(flags.file)
    if index.faults:
        raise InputError(first_faults(list(index.faults)))
    images = classes_of(index)
    for_val = choose_val(images, how_many(flags.val, len(images)), flags.seed)
    document = json.loads(flags.file.read_text(encoding="utf-8-sig"))
    halves = [side_of(document, for_val, wanted) for wanted in (False, True)]
    write_together([(path, writer(half)) for path, half in zip(paths, halves, strict=True)])
    names = {int(number): str(name) for number, name in index.categories.items()}
    print("\n".join([*table(names, images, for_val), f"Written: {paths[0]} and {paths[1]}"]))


def classes_of(index: CocoIndex) -> dict[int, Counter[int]]:
    """{image id: objects of each category id}, images in the file's order."""
    images: dict[int, Counter[int]] = {int(image): Counter() for image in index.image_ids}
    pairs = zip(index.ann_image_ids.tolist(), index.ann_categories.tolist(), strict=True)
    for image, category in pairs:
        if image in images:
            images[image][category] += 1
    return images


def how_many(val: float, total: int) -> int:
    """Images to validate on. Raises InputError where one side would have none."""
    if total < 2:
        raise InputError(f"the file has {total} image{'s' * (total != 1)}: two are needed")
    if not 0 < val < total or (val > 1 and not val.is_integer()):  # nan is not above 0
        raise InputError(f"--val {val:g}: want a share between 0 and 1, or a number of images "
                         f"below {total}")
    count = round(val * total) if val < 1 else int(val)
    return min(max(count, 1), total - 1)


def choose_val(images: dict[int, Counter[int]], count: int, seed: int) -> set[int]:
    """The `count` images to validate on.

    Iterative stratification: the rarest class that is left goes first, each of its images to the
    side that lacks most of that class.
    Source: Sechidis et al., On the Stratification of Multi-Label Data, 2011.
    """
    rng = random.Random(seed)
    order = list(images)
    rng.shuffle(order)
    share = count / len(images)
    holders = Counter(category for classes in images.values() for category in classes)
    lacking = [{c: n * (1 - share) for c, n in holders.items()},
               {c: n * share for c, n in holders.items()}]
    room = [len(images) - count, count]
    val: set[int] = set()
    waiting = dict.fromkeys(order)
    while left := Counter(c for image in waiting for c in images[image]):
        rarest = min(left, key=lambda c: (left[c], c))
        for image in [image for image in waiting if rarest in images[image]]:
            needs = [(room[i] > 0, lacking[i][rarest], room[i]) for i in (0, 1)]
            side = int(needs[1] > needs[0])
            place(image, side, images, lacking, room, val)
            del waiting[image]
    for image in waiting:  # without objects
        place(image, int(room[1] > 0), images, lacking, room, val)
    return val


def place(image: int, side: int, images: dict[int, Counter[int]],
          lacking: Sequence[dict[int, float]], room: list[int], val: set[int]) -> None:
    """Puts an image on a side and takes it off what the side lacks."""
    room[side] -= 1
    for category in images[image]:
        lacking[side][category] -= 1
    if side:
        val.add(image)


def side_of(document: dict[str, Any], for_val: set[int], wanted: bool) -> dict[str, Any]:
    """The document with the images, and their annotations, that are or are not `for_val`."""
    kept = {"images": "id", "annotations": "image_id"}
    return {key: [record for record in value if (int(record[kept[key]]) in for_val) == wanted]
            if key in kept else value for key, value in document.items()}


def writer(document: dict[str, Any]) -> Any:
    """What `write_together` calls with the open file."""
    return lambda file: file.write(json.dumps(document).encode())


def table(names: dict[int, str], images: dict[int, Counter[int]], for_val: set[int]) -> list[str]:
    """Lines: images and objects of each side, then objects (images) of each class."""
    lines = [f"{'class':<24} {'train':>16} {'val':>16}   objects (images)"]
    rows = [("all", [len(images) - len(for_val), len(for_val)],
             [sum(n for i, c in images.items() if (i in for_val) == side for n in c.values())
              for side in (False, True)])]
    absent: dict[str, list[str]] = {side: [] for side in SIDES}
    for category, name in names.items():
        holders = [[i for i, classes in images.items()
                    if category in classes and (i in for_val) == side] for side in (False, True)]
        counts = [sum(images[i][category] for i in side) for side in holders]
        rows.append((name, [len(side) for side in holders], counts))
        for side, part in zip(SIDES, holders, strict=True):
            if not part:
                absent[side].append(name)
    lines += [f"{name[:24]:<24} " + " ".join(
        f"{f'{objects} ({number})':>16}" for objects, number in zip(counts, numbers, strict=True))
        for name, numbers, counts in rows]
    return lines + [f"Without an object in {side}: {', '.join(missing)}"
                    for side, missing in absent.items() if missing]


if __name__ == "__main__":
    cli.run(main, SCRIPT, FLAGS)
