"""Speed of the classifier's training samples on one core, against PIL's bare decoding.

    python benchmarks/resnest_data.py hymenoptera/train --rounds 9

A sample is everything from the file to the normalised tensor. PIL's decoding, the transform's
steps one after the other, and the fast path take turns batch by batch, as a worker makes them; a
batch counts with its median over the rounds (RandAugment, whose cost differs from one to the next,
with its mean). Goal: 0.30 of the decoding rate, 0.19 with RandAugment.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from figures import Figure, LeftOut
from PIL import Image

from data.imagenet import train_transform
from data.imagenet.folders import ClassFolders, ClassificationDataset
from data.loading.loader import SampleKey
from data.loading.workers import use_one_core

BATCH = 32
WANTED = {"fast": 0.30, "fast, RandAugment": 0.19}

TAKES = {
    "RandAugment": ("rng", "np_rng"),
    "ERandomCrop": ("rng",),
    "RandomHorizontalFlip": ("generator",),
    "ColorJitter": ("generator",),
    "Lighting": ("generator",),
}


class OneByOne:
    """A transform's steps, each with the random streams that it takes."""

    def __init__(self, transform):
        self.transform = transform

    def sample(self, generator):
        return generator

    def crop(self, image, generator, rng, np_rng):
        streams = {"rng": rng, "np_rng": np_rng, "generator": generator}
        for step in self.transform.transforms:
            takes = TAKES.get(type(step).__name__, ())
            image = step(image, **{name: streams[name] for name in takes})
        return image

    def finish(self, images, generators):
        return images


def pil_decode(path):
    with path.open("rb") as file:
        return Image.open(file).convert("RGB")


def figures(datasets):
    folder = datasets / "hymenoptera" / "train"
    if not folder.is_dir():
        raise LeftOut(f"{folder}: no such folder")
    ratios = compare(folder, rounds=9, crop_size=224)
    return [Figure(f"ResNeSt samples, {name}", ratios[name], "PIL's decoding rate", wanted)
            for name, wanted in WANTED.items()]


def compare(folder, rounds, crop_size):
    """{way of making samples: its rate divided by PIL's decoding}."""
    use_one_core()
    folders = ClassFolders(folder)
    plain = train_transform(crop_size)
    transforms = {
        "steps": OneByOne(plain),
        "fast": plain,
        "fast, RandAugment": train_transform(crop_size, rand_aug=True),
    }
    jobs = {"PIL decode": lambda keys: [pil_decode(folders.path(key.index)) for key in keys]}
    for name, transform in transforms.items():
        dataset = ClassificationDataset(folders, transform, train=True, seed=0)
        jobs[name] = dataset.__getitems__
    starts = range(0, len(folders), BATCH)
    times = {name: [[] for _ in starts] for name in jobs}
    for epoch in range(rounds):
        for number, start in enumerate(starts):
            keys = [SampleKey(epoch, i, i) for i in range(start, min(start + BATCH, len(folders)))]
            for name, job in jobs.items():
                begin = time.process_time()  # of this process: what else runs does not count
                job(keys)
                times[name][number].append(time.process_time() - begin)
    print(f"{len(folders)} images, crop {crop_size}, {rounds} rounds, one thread")
    ratios, decoding = {}, None
    for name, rows in times.items():
        average = statistics.mean if "RandAugment" in name else statistics.median
        rate = len(folders) / sum(map(average, rows))
        decoding = decoding or rate
        ratios[name] = rate / decoding
        print(f"{name:18s} {rate:6.0f} images/s   {ratios[name]:.3f} of PIL decode")
    return ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="one sub-folder for each class")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--crop-size", type=int, default=224)
    args = parser.parse_args()
    compare(args.folder, args.rounds, args.crop_size)


if __name__ == "__main__":
    main()
