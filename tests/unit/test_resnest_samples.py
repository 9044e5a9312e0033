"""Class folders, the classifier's fast transform, and samples that depend on (seed, key) only."""

import math
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from data.imagenet import (
    Normalize,
    RandomErasing,
    RandomResizedCrop,
    standard_transform,
    train_transform,
    val_transform,
)
from data.imagenet.crops import center_crop_box, random_crop_box
from data.imagenet.folders import (
    ClassFolders,
    ClassificationDataset,
    check_images,
    collate_classes,
    open_class_folders,
)
from data.imagenet.jitter import BRIGHTNESS, CONTRAST, SATURATION, jittered_planes
from data.imagenet.rand_augment import RAND_AUGMENT_OPS
from data.loading.decode import read_rgb
from data.loading.loader import ResumableLoader, SampleKey
from runtime.errors import InputError


def noise(seed, width=60, height=44):
    pixels = np.random.RandomState(seed).randint(0, 256, (height, width, 3))
    # blocks of four pixels, darker to the left: something for crops and histograms to act on
    pixels = pixels[::4, ::4].repeat(4, 0).repeat(4, 1)[:height, :width]
    return Image.fromarray((pixels * np.linspace(0.4, 1, width)[:, None]).astype(np.uint8))


def write_folders(root, train=(("ant", 3), ("bee", 2)), val=(("ant", 1), ("bee", 2))):
    for part, classes in (("train", train), ("val", val)):
        for name, count in classes:
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                noise(i).save(root / part / name / f"{name}{i}.jpg")
    return root


def streams(seed):
    return {
        "rng": random.Random(seed),
        "np_rng": np.random.RandomState(seed),
        "generator": torch.Generator().manual_seed(seed),
    }


def one_by_one(transform, image, rng, np_rng, generator):
    keywords = {
        "RandAugment": {"rng": rng, "np_rng": np_rng},
        "ERandomCrop": {"rng": rng},
        "RandomHorizontalFlip": {"generator": generator},
        "ColorJitter": {"generator": generator},
        "Lighting": {"generator": generator},
        "RandomResizedCrop": {"generator": generator},
        "RandomErasing": {"generator": generator},
    }
    for step in transform.transforms:
        image = step(image, **keywords.get(type(step).__name__, {}))
    return image


@pytest.mark.parametrize(
    "transform",
    [
        train_transform(48),
        train_transform(48, rand_aug=True, min_area=0.5),
        standard_transform(32, rand_aug=True, random_erasing=0.5),
    ],
    ids=["original", "rand_aug", "standard"],
)
def test_fast_path_equals_the_steps(transform):
    for seed in range(40):
        ours, theirs = streams(seed), streams(seed)
        fast = transform(noise(seed), **ours)
        assert fast.dtype == torch.float32
        # the same bits (on ARM, PIL's own blend may differ by a level: data/jitter.py)
        assert torch.equal(fast, one_by_one(transform, noise(seed), **theirs)), seed
        # nothing more was drawn from any stream
        assert ours["rng"].random() == theirs["rng"].random()
        assert ours["np_rng"].rand() == theirs["np_rng"].rand()
        assert torch.equal(*(torch.rand(1, generator=s["generator"]) for s in (ours, theirs)))


@pytest.mark.parametrize("factor", [0.6, 0.999, 1.0, 1.001, 1.4])
@pytest.mark.parametrize("order", [
    (BRIGHTNESS, CONTRAST, SATURATION), (SATURATION, BRIGHTNESS, CONTRAST), (CONTRAST, SATURATION),
])
def test_jitter_equals_pil(order, factor):
    image = noise(3)
    wanted = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for kind in order:
        enhancer = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[kind]
        wanted = enhancer(wanted).enhance(factor)
    planes = jittered_planes(image, [(kind, factor) for kind in order], flip=True)
    ours = planes.levels[planes.pixels].transpose(1, 2, 0)
    assert np.array_equal(ours, np.asarray(wanted))


def test_translations_equal_pil():
    image = noise(1)
    for name, step in (("TranslateXabs", (1, 0)), ("TranslateYabs", (0, 1))):
        for pixels in (40.0, 3.0, 100.0, 2.5):
            for draw, sign in ((0.0, 1), (0.9, -1)):
                shift = [sign * pixels * axis for axis in step]
                wanted = image.transform(
                    image.size, Image.Transform.AFFINE, (1, 0, shift[0], 0, 1, shift[1]),
                    Image.Resampling.BICUBIC,
                )
                rng = random.Random()
                rng.random = lambda draw=draw: draw
                got = RAND_AUGMENT_OPS[name][0](image, pixels, rng=rng)
                assert np.array_equal(np.asarray(got), np.asarray(wanted)), (name, pixels, sign)


def test_crop_keeps_its_minimum():
    rng = random.Random(0)
    for _ in range(200):
        x0, y0, x1, y1 = random_crop_box(100, 80, 64, rng, min_area=0.7)
        assert 0 <= x0 < x1 <= 100
        assert 0 <= y0 < y1 <= 80
        # the centre crop, a fallback, is smaller: (64 / 96 of the shorter side) squared
        assert (x1 - x0) * (y1 - y0) >= 0.7 * 8000 or x1 - x0 == pytest.approx(80 * 64 / 96)


def test_standard_crop_and_erasing():
    generator = torch.Generator().manual_seed(0)
    crop = RandomResizedCrop(24)
    assert crop(noise(0), generator=generator).size == (24, 24)
    long = Image.new("RGB", (400, 10))  # no box of that area and ratio fits: torchvision's centre
    assert crop(long, generator=generator).size == (24, 24)
    shares = []
    for _ in range(100):
        erased = RandomErasing(1.0)(torch.ones(3, 40, 40), generator=generator)
        shares.append((erased == 0).double().mean().item())
    assert min(shares) > 0.015
    assert max(shares) < 0.36  # 33 %, its sides rounded
    untouched = torch.ones(3, 4, 4)
    assert RandomErasing(0.0)(untouched, generator=generator) is untouched


def test_normalisation_uses_the_recorded_moments():
    white = val_transform(16)(Image.new("RGB", (20, 20), (255, 255, 255)))
    wanted = [(1 - m) / s for m, s in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    assert white[:, 3, 5].tolist() == pytest.approx(wanted, rel=1e-6)  # float32
    assert Normalize()(torch.full((3, 1, 1), 0.5)).shape == (3, 1, 1)


def test_index(tmp_path):
    train, val = open_class_folders(write_folders(tmp_path))
    assert train.classes == val.classes == ("ant", "bee")
    assert train.labels.tolist() == [0, 0, 0, 1, 1]
    assert train.path(3) == tmp_path / "train" / "bee" / "bee0.jpg"
    assert [train.name(0), val.name(2)] == ["ant/ant0.jpg", "bee/bee1.jpg"]
    assert train.counts().tolist() == [3, 2]
    assert len(val) == 3


def test_labels_are_those_of_train(tmp_path):
    write_folders(tmp_path, train=(("ant", 1), ("bee", 1), ("cat", 1)), val=(("cat", 2),))
    _, val = open_class_folders(tmp_path)
    assert val.labels.tolist() == [2, 2]


def test_deeper_folders_and_other_files(tmp_path):
    write_folders(tmp_path)
    deep = tmp_path / "train" / "ant" / "more"
    deep.mkdir()
    noise(7).save(deep / "Z.PNG")
    (deep / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    train, _ = open_class_folders(tmp_path)
    assert train.counts().tolist() == [4, 2]
    assert train.name(3) == "ant/more/Z.PNG"


def test_missing_folders(tmp_path):
    with pytest.raises(InputError) as caught:
        open_class_folders(tmp_path / "nowhere")
    assert "nowhere: no such folder" in str(caught.value)
    (tmp_path / "val" / "ant").mkdir(parents=True)
    with pytest.raises(InputError) as caught:
        open_class_folders(tmp_path)
    assert len(caught.value.faults) == 2
    assert caught.value.faults[0].startswith(f"{tmp_path / 'train'}: no such folder")
    assert caught.value.faults[1].startswith(f"{tmp_path / 'val' / 'ant'}: no images in it")


def test_every_fault_of_the_folders(tmp_path):
    write_folders(tmp_path, train=(("ant", 1), ("bee", 0)), val=(("ant", 1), ("beee", 2)))
    with pytest.raises(InputError) as caught:
        open_class_folders(tmp_path)
    assert len(caught.value.faults) == 2
    assert "bee: no images in it" in caught.value.faults[0]
    assert caught.value.faults[1].endswith(
        "not among the classes trained on; add it to train/ or remove it. Did you mean bee?"
    )


def test_folder_without_classes(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(InputError, match="no class folders in it"):
        ClassFolders(tmp_path / "train")


def test_samples_depend_on_seed_and_key_only(tmp_path):
    train, _ = open_class_folders(write_folders(tmp_path))
    transform = train_transform(32, rand_aug=True)
    first = ClassificationDataset(train, transform, train=True, seed=5)
    second = ClassificationDataset(train, transform, train=True, seed=5)
    keys = [SampleKey(e, p, i) for e in range(2) for p, i in ((0, 1), (1, 4), (2, 4))]
    random.seed(1)
    samples = [first[key] for key in keys]
    torch.manual_seed(2)
    for key, sample in reversed(list(zip(keys, samples, strict=True))):
        assert torch.equal(second[key]["image"], sample["image"])
        assert (sample["label"], sample["index"]) == (int(key.index > 2), key.index)
    other = ClassificationDataset(train, transform, train=True, seed=6)
    for key, sample in zip(keys, samples, strict=True):
        assert not torch.equal(other[key]["image"], sample["image"])
    assert not torch.equal(samples[1]["image"], samples[2]["image"])


@pytest.mark.parametrize("transform", [
    train_transform(32, rand_aug=True), standard_transform(32, rand_aug=True, random_erasing=0.5)])
def test_a_batch_is_its_samples(tmp_path, transform):
    train, _ = open_class_folders(write_folders(tmp_path))
    damage(train.path(2))
    dataset = ClassificationDataset(train, transform, train=True, seed=5, bad_images="skip")
    keys = [SampleKey(0, i, i) for i in range(len(train))]
    batch = dataset.__getitems__(keys)
    for key, sample in zip(keys, batch, strict=True):
        alone = dataset[key]
        assert torch.equal(alone.pop("image"), sample.pop("image"))
        assert alone == sample
    assert [bool(sample["skipped"]) for sample in batch] == [i == 2 for i in range(len(train))]


def test_the_loader_takes_whole_batches(tmp_path, monkeypatch):
    train, _ = open_class_folders(write_folders(tmp_path))
    dataset = ClassificationDataset(train, train_transform(32), train=True, seed=5)
    monkeypatch.delattr(ClassificationDataset, "__getitem__")
    loader = ResumableLoader(dataset, 2, seed=3, workers=0, collate=collate_classes)
    assert [len(batch["images"]) for _, _, (batch,) in loader.steps(0, 2)] == [2, 2]


def test_workers_change_nothing(tmp_path):
    train, _ = open_class_folders(write_folders(tmp_path))
    batches = []
    for workers in (0, 2):
        dataset = ClassificationDataset(train, train_transform(32, True), train=True, seed=3)
        loader = ResumableLoader(dataset, 2, seed=3, workers=workers, collate=collate_classes)
        batches.append([batch for _, _, (batch,) in loader.steps(0, 4)])
    for alone, shared in zip(*batches, strict=True):
        assert torch.equal(alone["images"], shared["images"])
        assert torch.equal(alone["labels"], shared["labels"])


def test_eval_samples(tmp_path):
    _, val = open_class_folders(write_folders(tmp_path))
    dataset = ClassificationDataset(val, val_transform(32), train=False, seed=0)
    batch = collate_classes([dataset[i] for i in range(3)])
    assert batch["images"].shape == (3, 3, 32, 32)
    assert batch["labels"].tolist() == [0, 1, 1]
    assert batch["indices"].tolist() == [0, 1, 2]
    assert torch.equal(batch["images"][2], val_transform(32)(read_rgb(val.path(2))))


def damage(path):
    path.write_bytes(path.read_bytes()[:200])


def test_damaged_images(tmp_path):
    train, val = open_class_folders(write_folders(tmp_path))
    for i in (1, 2):
        damage(train.path(i))
    damage(val.path(0))
    assert [line.split(":")[0] for line in check_images(train)] == [
        str(train.path(1)), str(train.path(2)),
    ]
    key = SampleKey(0, 0, 1)
    with pytest.raises(InputError, match=r"ant1\.jpg: damaged"):
        ClassificationDataset(train, train_transform(32), train=True, seed=0)[key]
    skipping = ClassificationDataset(
        train, train_transform(32), train=True, seed=0, bad_images="skip"
    )
    sample = skipping[key]
    assert str(train.path(1)) in sample["skipped"][0]
    assert sample["index"] not in (1, 2)
    assert sample["label"] == train.labels[sample["index"]]
    assert torch.equal(skipping[key]["image"], sample["image"])
    stopping = ClassificationDataset(val, val_transform(32), train=False, seed=0)
    with pytest.raises(InputError, match=r"ant0\.jpg: damaged"):
        stopping[0]
    lacking = ClassificationDataset(val, val_transform(32), train=False, seed=0, bad_images="skip")
    batch = collate_classes([lacking[0], lacking[1]])
    assert batch["indices"].tolist() == [1]  # the damaged one has no place in the score
    assert "ant0.jpg" in batch["skipped"][0]
    assert len(collate_classes([lacking[0]])["labels"]) == 0


def test_only_damaged_images(tmp_path):
    train, _ = open_class_folders(write_folders(tmp_path))
    for i in range(len(train)):
        train.path(i).write_bytes(b"nothing")
    dataset = ClassificationDataset(
        train, train_transform(32), train=True, seed=0, bad_images="skip"
    )
    with pytest.raises(InputError, match="samples in a row could not be used"):
        dataset[SampleKey(0, 0, 0)]


def test_image_kinds(tmp_path):
    noise(0).convert("L").save(tmp_path / "grey.png")
    noise(0).convert("CMYK").save(tmp_path / "cmyk.jpg")
    noise(0).convert("P").save(tmp_path / "palette.png")
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn, which the original ignores
    noise(0).save(tmp_path / "turned.jpg", exif=exif)
    for path in tmp_path.iterdir():
        image = read_rgb(path)
        assert (image.mode, image.size) == ("RGB", (60, 44))
    with pytest.raises(InputError, match="cannot be read"):
        read_rgb(tmp_path / "absent.jpg")


def test_small_images():
    tiny = noise(0, 32, 32)
    for seed in range(20):
        image = train_transform(32, rand_aug=True)(tiny, **streams(seed))
        assert image.shape == (3, 32, 32)
        assert all(math.isfinite(v) for v in (image.min(), image.max()))


def test_the_margin_of_the_centre_crop():
    assert center_crop_box(60, 40, 32, 0) == (10, 0, 50, 40)
    assert center_crop_box(60, 40, 32) == (20, 10, 40, 30)  # the original's 32
    striped = Image.fromarray(np.repeat(np.arange(40, dtype=np.uint8)[:, None, None], 40, 1)
                              .repeat(3, 2) * 6)
    whole, inner = (val_transform(32, margin=margin)(striped) for margin in (0, 32))
    assert (whole.max() - whole.min()) > 1.8 * (inner.max() - inner.min())
    # what stands in for a random crop that fits nowhere looks at as much
    box = random_crop_box(900, 20, 32, random.Random(0), margin=0)
    assert box == center_crop_box(900, 20, 32, 0)


@pytest.mark.operators
@pytest.mark.usefixtures("torchvision_here")
def test_torchvision_draws():
    """The standard transform against torchvision's own."""
    from torchvision.transforms import v2

    theirs = v2.Compose([
        v2.RandomResizedCrop(32), v2.RandomHorizontalFlip(), v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), v2.RandomErasing(0.5),
    ])
    for seed in range(20):
        torch.manual_seed(seed)
        wanted = theirs(noise(seed))
        torch.manual_seed(seed)
        ours = standard_transform(32, random_erasing=0.5)(noise(seed))
        # float32: torchvision scales by 1/255 instead of dividing
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-6)
