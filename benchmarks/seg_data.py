"""Segmentation training batches on one core, against PIL decoding the same JPEGs in the same run.

    python benchmarks/seg_data.py CAMVID_FOLDER

The original's default sizes (short sides 300 to 600), batches of two, no workers. The original
makes 124 images a second where PIL decodes 1,470: a ratio of 0.084; wanted is 0.204 (300).
The numbers of the batches are those of PIL throughout (tests/parity/test_seg_batches.py).
"""

import sys
import time
from pathlib import Path

from figures import Figure, LeftOut
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from data.loading.loader import SampleKey  # noqa: E402
from data.loading.workers import use_one_core  # noqa: E402
from data.segmentation import TrainBatches, read_seg_list  # noqa: E402
from settings.segmentation import DatasetConfig  # noqa: E402

ROUNDS = 5
IMAGES = 300  # per round, for either side
BATCH_SIZE = 2
ORIGINAL, WANTED = 124 / 1470, 300 / 1470


def figures(datasets):
    folder = datasets / "camvid"
    if not folder.is_dir():
        raise LeftOut(f"{folder}: no such folder")
    return [Figure("segmentation batches", median_ratio(folder), "PIL's decoding rate",
                   round(WANTED, 3))]


def median_ratio(folder):
    """Our rate divided by PIL's, the median over the rounds."""
    use_one_core()
    cfg = DatasetConfig(root_dataset=str(folder), num_class=11)
    records = read_seg_list(str(folder / "training.odgt"), str(folder))
    paths = [folder / records[i]["fpath_img"] for i in range(IMAGES)]
    batches = TrainBatches(
        records, cfg, batch_size=BATCH_SIZE, batches_per_epoch=len(records), seed=304
    )
    ratios = []
    for i in range(ROUNDS + 1):
        # processor time, so that a busy machine does not count
        start = time.process_time()
        for path in paths:
            Image.open(path).convert("RGB")
        decoded = time.process_time()
        for position in range(IMAGES // BATCH_SIZE):
            batches[SampleKey(i, position, position)]
        made = time.process_time()
        pil, ours = IMAGES / (decoded - start), IMAGES / (made - decoded)
        if i:  # the first round warms up the disk cache
            ratios.append(ours / pil)
            print(f"PIL decodes {pil:.0f} images/s, batches {ours:.0f} images/s: {ours / pil:.3f}")
    median = sorted(ratios)[len(ratios) // 2]
    print(f"median ratio {median:.3f}: {median * 1470:.0f} images/s where PIL decodes 1,470 "
          f"(original {ORIGINAL:.3f}, wanted {WANTED:.3f})")
    return median


if __name__ == "__main__":
    median_ratio(Path(sys.argv[1]))
