"""Time of a YOLACT training sample from disk to collated tensors, beside PIL's decoding alone.

    python benchmarks/yolact_data.py --images DIR --info FILE.json [--config yolact_resnet50]
    python benchmarks/yolact_data.py --index            # start-up at the size of COCO train2017

One core, no workers. The two are timed in turn, image batch by image batch, since other processes
may disturb the machine; the median over the rounds counts. The original takes 27 PIL decodings.
"""

import argparse
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before NumPy and torch start their threads
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from figures import Figure, LeftOut
from PIL import Image

from data.coco_format import CocoIndex, dataset
from data.coco_format.check import examine_coco
from data.loading import SampleKey
from data.loading.workers import use_one_core
from data.yolact import InstanceDataset, collate_instances, instances, pixels, transform

BATCH = 8
TARGET_DECODINGS = 5.5  # 10 ms where PIL takes 1.8


def figures(datasets):
    photos = datasets / "coco_small"
    if not photos.is_dir():
        raise LeftOut(f"{photos}: no such folder")
    use_one_core()
    ratio = time_samples(photos / "images", photos / "annotations" / "instances_train.json",
                         "yolact_resnet50", rounds=8)
    return [Figure("YOLACT samples", ratio, "PIL's time to decode", TARGET_DECODINGS,
                   is_cost=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--info", type=Path)
    parser.add_argument("--config", default="yolact_resnet50")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--index", action="store_true", help="time index and checker instead")
    args = parser.parse_args()
    if args.index:
        time_index()
    elif args.images is None or args.info is None:
        parser.error("--images and --info go together, or --index")
    else:
        use_one_core()
        time_samples(args.images, args.info, args.config, args.rounds)


def time_samples(folder, info, config, rounds):
    """PIL decodings that a sample takes, the median over the rounds."""
    from models.yolact import load_yolact_config

    cfg = load_yolact_config(config)
    index = CocoIndex.from_file(info)
    images = InstanceDataset(index, folder, cfg, train=True, seed=0)
    files = [(folder / index.file_name(row)).read_bytes() for row in index.items()]
    stages = watch_stages()
    pil_ms, ours_ms, stage_ms = [], [], defaultdict(list)
    for epoch in range(rounds + 1):
        stages.clear()
        pil = ours = 0.0
        for first in range(0, len(images) - BATCH + 1, BATCH):
            pil += seconds(decode_all, files[first:first + BATCH])
            keys = [SampleKey(epoch, i, i) for i in range(first, first + BATCH)]
            ours += seconds(lambda keys=keys: collate([images[key] for key in keys], stages))
        number = len(images) // BATCH * BATCH
        if epoch == 0:
            continue  # warms up caches and allocators
        pil_ms.append(1e3 * pil / number)
        ours_ms.append(1e3 * ours / number)
        for name, spent in stages.items():
            stage_ms[name].append(1e3 * spent / number)
    return report(cfg, pil_ms, ours_ms, stage_ms)


def report(cfg, pil_ms, ours_ms, stage_ms):
    pil, ours = statistics.median(pil_ms), statistics.median(ours_ms)
    ratio = statistics.median(a / b for a, b in zip(ours_ms, pil_ms, strict=True))
    print("ms an image          median  fastest round")
    print(f"PIL decode           {pil:6.2f}  {min(pil_ms):6.2f}")
    print(f"sample at {cfg.max_size:4d} px    {ours:6.2f}  {min(ours_ms):6.2f}")
    print(f"ratio                {ratio:6.2f} PIL decodings (aim: at most {TARGET_DECODINGS}; "
          f"{ratio * 1.8:.1f} ms where PIL takes 1.8)")
    rest = ours
    for name, values in stage_ms.items():
        rest -= statistics.median(values)
        print(f"  {name:28s} {statistics.median(values):6.2f} ms")
    print(f"  {'rest':28s} {rest:6.2f} ms")
    return ratio


def seconds(work, *args):
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def decode_all(files):
    for data in files:
        Image.open(io.BytesIO(data)).convert("RGB").load()


def collate(samples, stages):
    start = time.perf_counter()
    collate_instances(samples)
    stages["collate"] += time.perf_counter() - start


def watch_stages():
    """{stage: seconds so far}; from now on the functions of each stage add to it."""
    stages = defaultdict(float)

    def watch(owner, name, stage, part_of=None):
        function = getattr(owner, name)

        def timed(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            spent = time.perf_counter() - start
            stages[stage] += spent
            if part_of:
                stages[part_of] -= spent
            return result

        setattr(owner, name, timed)

    watch(dataset, "read_bgr", "read and decode")
    watch(transform.YolactTransform, "sample", "choices, boxes")
    watch(instances, "annotation_mask", "masks")
    watch(transform, "render", "crop and resize")
    watch(pixels, "_distorted", "photometric and normalise", part_of="crop and resize")
    return stages


def time_index(num_images=118_000, num_objects=860_000):
    """Index and checker on a generated file of COCO train2017's size."""
    with tempfile.TemporaryDirectory() as folder:
        info, images = Path(folder) / "instances.json", Path(folder) / "images"
        images.mkdir()
        write_large_file(info, images, num_images, num_objects)
        print(f"{num_images} images, {num_objects} objects, {info.stat().st_size / 1e6:.0f} MB")
        print(f"parse and index          {seconds(CocoIndex.from_file, info):6.1f} s")
        print(f"... and write the cache  {seconds(CocoIndex.from_file, info, folder):6.1f} s")
        print(f"from the cache           {seconds(CocoIndex.from_file, info, folder):6.1f} s")
        index = CocoIndex.from_file(info, folder)
        faults = []
        spent = seconds(lambda: faults.extend(examine_coco(info, images, index=index)[0]))
        print(f"check                    {spent:6.1f} s, {len(faults)} faults")


def write_large_file(info, images, num_images, num_objects, points=22):
    rng = np.random.default_rng(0)
    owners = rng.integers(0, num_images, num_objects).tolist()
    outline = np.round(rng.random((1000, points * 2)) * 400, 2).tolist()
    annotations = [
        {"id": i, "image_id": owner, "category_id": i % 80 + 1, "iscrowd": 0, "area": 1.0,
         "bbox": [10.0, 10.0, 300.5, 200.25], "segmentation": [outline[i % 1000]]}
        for i, owner in enumerate(owners)
    ]
    names = [f"{i:012d}.jpg" for i in range(num_images)]
    for name in names:
        (images / name).touch()
    records = [{"id": i, "file_name": n, "height": 480, "width": 640} for i, n in enumerate(names)]
    categories = [{"id": i + 1, "name": f"class {i}"} for i in range(80)]
    info.write_text(json.dumps(
        {"images": records, "annotations": annotations, "categories": categories}))


if __name__ == "__main__":
    main()
