"""Training samples a second and core of QueryInst's pipelines, on drawn scenes or any COCO data.

    python benchmarks/queryinst_data.py [--info FILE --images DIR] [--seconds 10]

Decoding, augmentation, masks and padding of batches of 2, in one process, by processor time. The
original makes 35 to 40 images a second and core of either pipeline (640x480 JPEG, 7 objects).
"""

import argparse
import io
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


from figures import Figure, LeftOut
from PIL import Image

from data.drawn.shapes import write_coco
from data.loading import SampleKey
from data.loading.workers import use_one_core
from data.queryinst import QueryInstDataset, open_query_data
from models.queryinst import load_queryinst_config

CONFIGS = ("queryinst_r50_fpn_1x_coco", "queryinst_r50_fpn_ms-480-800-3x_coco",
           "queryinst_r50_fpn_300-proposals_crop-ms-480-800-3x_coco")


def rate(name, info, images, seconds):
    options = [f"train_dataloader.dataset.{key}={value}" for key, value in
               (("data_root", ""), ("ann_file", info), ("data_prefix.img", images))]
    cfg = load_queryinst_config(name, options=options).train_dataloader.dataset
    names, indexes = open_query_data({"train": cfg})
    dataset = QueryInstDataset(indexes["train"], cfg, names, train=True, divisor=32)
    index = indexes["train"]
    files = [(Path(images) / index.file_name(row)).read_bytes() for row in index.items()]
    count, objects, begin = 0, 0, time.process_time()
    while time.process_time() - begin < seconds:
        keys = [SampleKey(count // len(dataset), i, i % len(dataset))
                for i in (count, count + 1)]
        batch = dataset.collate([dataset[key] for key in keys])
        objects += sum(len(sample["labels"]) for sample in batch["samples"])
        count += 2
    spent = time.process_time() - begin
    decoded, begin = 0, time.process_time()
    while time.process_time() - begin < seconds / 4:
        Image.open(io.BytesIO(files[decoded % len(files)])).convert("RGB").load()
        decoded += 1
    decodings = (spent / count) * decoded / (time.process_time() - begin)
    print(f"{count / spent:6.1f} images/s  {objects / count:4.1f} objects an image  "
          f"{decodings:4.1f} PIL decodings a sample  {name}")
    return decodings


def figures(datasets):
    folder = datasets / "coco_small"
    if not folder.is_dir():
        raise LeftOut(f"{folder}: no such folder")
    use_one_core()
    info = folder / "annotations" / "instances_train.json"
    return [Figure(f"samples of {name}", rate(name, info, folder / "images", 10),
                   "PIL's time to decode", is_cost=True) for name in CONFIGS]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--info", help="annotation file; without it scenes are drawn")
    parser.add_argument("--images", help="folder of its images")
    parser.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args()
    use_one_core()
    with tempfile.TemporaryDirectory() as folder:
        info, images = args.info, args.images
        if info is None:
            paths = write_coco(Path(folder), num_train=60, num_val=2, size=640, seed=0)
            info, images = paths.train_info, paths.train_images
        for name in CONFIGS:
            rate(name, info, images, args.seconds)


if __name__ == "__main__":
    main()
