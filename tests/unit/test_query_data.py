"""QueryInst's data path: sizes, pipelines, filters, masks, batches."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from coco_maker import annotation, crowd, document, write
from goldens import load_golden

from data.loading import SampleKey
from data.queryinst import (
    QueryInstDataset,
    network_input,
    open_query_data,
    rescale_size,
    save_query_samples,
)
from data.queryinst.opening import check_truth, class_names
from data.queryinst.transform import Cropped, Mirrored, Resized, Steps, sample_geometry
from models.queryinst import load_queryinst_config
from runtime.errors import InputError
from settings.queryinst.data import DataPrefix, DatasetConfig
from settings.queryinst.pipeline import RandomCropStep, RandomFlipStep, ResizeStep

RESCALE = load_golden("queryinst_units")["rescale"]
CROP = "queryinst_r50_fpn_300-proposals_crop-ms-480-800-3x_coco"


@pytest.mark.parametrize("case", RESCALE, ids=str)
def test_rescale_size(case):
    assert rescale_size(tuple(case["wh"]), tuple(case["scale"])) == tuple(case["out_wh"])


def dataset_section(folder, *steps, **changes):
    pipeline = load_queryinst_config("queryinst_shapes").train_dataloader.dataset.pipeline
    return DatasetConfig(data_root=str(folder), ann_file="info.json",
                         data_prefix=DataPrefix("images"),
                         pipeline=(*pipeline[:2], *steps, pipeline[-1]), **changes)


def make(folder, content, *steps, train=True, **changes):
    write(folder, content)
    section = dataset_section(folder, *steps, **changes)
    names, indexes = open_query_data({"train": section})
    return QueryInstDataset(indexes["train"], section, names, train=train, divisor=32)


def sample_of(dataset, image_id=1, epoch=0):
    position = [dataset.image_id(i) for i in range(len(dataset))].index(image_id)
    return dataset[SampleKey(epoch, position, position)]


# --- geometry


def test_boxes_and_points_go_the_way_of_the_pixels():
    image = np.zeros((60, 80, 3), np.uint8)
    image[20:40, 10:30] = 255
    geometry = Steps((80, 60), [Resized((80, 60), (160, 120)), Mirrored((160, 120)),
                                   Cropped((90, 30), (60, 70)), Resized((60, 70), (30, 35))])
    moved = geometry.image(image)
    assert moved.shape == (35, 30, 3)
    boxes, kept = geometry.boxes([[10, 20, 30, 40], [60, 0, 80, 60]])
    # mirrored: 100..140 of 160; cropped: 10..50; halved
    assert boxes.tolist() == [[5, 5, 25, 25]]
    assert kept.tolist() == [True, False]
    ys, xs = np.nonzero(moved[..., 0] > 127)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (5, 5, 25, 25)
    assert geometry.points(np.array([[10, 20], [30, 40]])).tolist() == [[25, 5], [5, 25]]
    assert geometry.factors == (0.5, 0.5)
    assert np.array_equal(geometry.bitmap(image[..., 0] // 255)[5:25, 5:25], np.ones((20, 20)))


def test_boxes_are_clipped_by_a_resize_and_kept():
    boxes, kept = Steps((80, 60), [Resized((80, 60), (40, 30))]).boxes([[-4, 10, 90, 20]])
    assert boxes.tolist() == [[0, 5, 40, 10]]
    assert kept.all()


def test_draws_of_the_crop_recipe():
    transforms = load_queryinst_config(CROP).train_dataloader.dataset.transforms
    rng = np.random.RandomState(0)
    sampled = [sample_geometry(transforms, (640, 480), rng) for _ in range(600)]
    kinds = [tuple(type(step).__name__ for step in geometry.steps) for geometry in sampled]
    mirrored = sum("Mirrored" in kind for kind in kinds) / len(kinds)
    cropped = [geometry for geometry, kind in zip(sampled, kinds, strict=True) if "Cropped" in kind]
    # three standard deviations of 600 fair coins
    assert abs(mirrored - 0.5) < 0.062
    assert abs(len(cropped) / len(sampled) - 0.5) < 0.062
    shorts = set()
    for geometry in cropped:
        first, crop, last = geometry.steps[-3:]
        assert min(first.size) in (400, 500, 600)
        assert all(min(side, 384) <= got <= min(side, 600)
                   for side, got in zip(first.size, crop.size, strict=True))
        assert all(0 <= place <= side - got for place, side, got in
                   zip(crop.corner, first.size, crop.size, strict=True))
        assert last.old == crop.size
        assert geometry.factors == last.factors
    for geometry in sampled:
        shorts.add(min(geometry.size))
        assert max(geometry.size) <= 1333
    assert set(range(480, 801, 32)) <= shorts


def test_a_small_image_is_cropped_to_what_it_has():
    step = RandomCropStep(crop_size=(384, 600), crop_type="absolute_range",
                          allow_negative_crop=True)
    geometry = sample_geometry([step], (100, 700), np.random.RandomState(1))
    assert geometry.size[0] == 100
    assert 384 <= geometry.size[1] <= 600


# --- samples


RESIZE = ResizeStep(scale=(160, 120), keep_ratio=True)
FLIP = RandomFlipStep(prob=1.0)


def test_a_sample(tmp_path):
    dataset = make(tmp_path, document([annotation(1, 1, 2, box=(10, 20, 20, 30))]), RESIZE)
    sample = sample_of(dataset)
    assert sample["image"].shape == (3, 120, 160)
    assert sample["image"].dtype == torch.uint8
    assert (sample["img_shape"], sample["ori_shape"]) == ((120, 160), (60, 80))
    assert sample["scale_factor"] == (2.0, 2.0)
    assert sample["boxes"].tolist() == [[20, 40, 60, 100]]
    assert sample["labels"].tolist() == [1]
    assert sample["masks"].dtype == torch.bool
    ys, xs = sample["masks"][0].nonzero().T
    assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == [20, 40, 60, 100]
    assert sample["masks"][0].sum() == 40 * 60


def test_a_mirrored_sample_is_rgb(tmp_path):
    plain = sample_of(make(tmp_path, document([annotation(1, 1)])))
    mirrored = sample_of(make(tmp_path, document([annotation(1, 1)]), FLIP))
    assert torch.equal(mirrored["image"], plain["image"].flip(2))
    assert torch.equal(mirrored["masks"], plain["masks"].flip(2))
    assert mirrored["boxes"].tolist() == [[50, 10, 70, 30]]
    from PIL import Image

    pixels = np.asarray(Image.open(tmp_path / "images" / "1.png"))
    assert np.array_equal(plain["image"].permute(1, 2, 0), pixels)


def test_polygons_and_run_lengths_agree(tmp_path):
    polygon = annotation(1, 1, box=(10, 20, 20, 30))
    run_lengths = crowd(2, 1, (60, 80), (10, 20, 20, 30)) | {"iscrowd": 0}
    crop = RandomCropStep(crop_size=(30, 50), crop_type="absolute_range",
                          allow_negative_crop=True)
    dataset = make(tmp_path, document([polygon, run_lengths]), FLIP, crop, RESIZE)
    for epoch in range(20):
        sample = sample_of(dataset, epoch=epoch)
        if len(sample["masks"]) == 2:
            first, second = sample["masks"]
            # resized bitmap against rasterised polygon: a row or column of the border at most
            border = 2 * 4 * sum(sample["img_shape"])
            assert (first ^ second).sum() <= border
            area = (sample["boxes"][0, 2:] - sample["boxes"][0, :2]).prod()
            assert abs(first.sum() - area) <= border


def test_what_is_no_object(tmp_path):
    annotations = [
        annotation(1, 1),
        annotation(2, 1, box=(5, 5, 0.5, 10)),  # narrower than a pixel
        annotation(3, 1, ignore=1),
        annotation(4, 1, area=0, segmentation={"size": [60, 80], "counts": [4800]}),
        crowd(5, 1, (60, 80), (10, 10, 20, 20)),
        annotation(6, 1, box=(80.5, 10, 1.2, 10)),  # beside the image
        annotation(7, 1, 2),
    ]
    dataset = make(tmp_path, document(annotations))
    assert sample_of(dataset)["boxes"].tolist() == [[10, 10, 30, 30]] * 2
    assert sample_of(dataset)["labels"].tolist() == [0, 1]


def test_area_0_empties_nothing(tmp_path):
    annotations = [annotation(1, 1, area=0), annotation(2, 1, 2, area=""),
                   annotation(3, 1, area=None), annotation(4, 1, area=-400)]
    assert len(sample_of(make(tmp_path, document(annotations)))["boxes"]) == 4


class Lines:
    """A run that keeps what is told."""

    def __init__(self):
        self.logged, self.warned = [], []
        self.log, self.warn = self.logged.append, self.warned.append


def test_images_left_out_are_counted(tmp_path):
    content = document([annotation(1, 1)], num_images=5)
    content["images"][4]["width"] = 31
    write(tmp_path, content)
    section, run = dataset_section(tmp_path), Lines()
    open_query_data({"train": section, "valid": section}, run=run)
    key = "train_dataloader.dataset.filter_cfg"
    assert run.logged == [
        f"{section.info_path}: 4 of 5 images have no objects and are left out "
        f"({key}.filter_empty_gt=False keeps them).",
        f"{section.info_path}: 1 of 5 images are less than 32 px wide or high and are left out "
        f"({key}.min_size=1 keeps them)."]


def test_the_evaluators_own_file_is_looked_at_first(tmp_path):
    for folder, number in (("images", 3), ("more", 4), ("fewer", 2)):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, document([annotation(1, 1)], num_images=number))
    section = dataset_section(tmp_path / "images")
    _, indexes = open_query_data({"valid": section})
    for fits in (section.info_path, tmp_path / "more" / "info.json"):
        check_truth(str(fits), indexes["valid"])
    with pytest.raises(InputError, match=r"lacks 1 of the 3 images of .*, id 3 first"):
        check_truth(str(tmp_path / "fewer" / "info.json"), indexes["valid"])
    with pytest.raises(InputError, match=r"none\.json: no such annotation file; set"):
        check_truth(str(tmp_path / "none.json"), indexes["valid"])


def test_files_are_joined_by_name(tmp_path):
    sections = {}
    for part, names in (("train", ("cat", "dog", "cow")), ("valid", ("Dog", "cat"))):
        (tmp_path / part).mkdir()
        content = document([annotation(1, 1, 1), annotation(2, 2, 2)])
        content["categories"] = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
        write(tmp_path / part, content)
        sections[part] = dataset_section(tmp_path / part)
    run = Lines()
    names, indexes = open_query_data(sections, run=run)
    valid = QueryInstDataset(indexes["valid"], sections["valid"], names, train=False,
                                  divisor=32)
    assert names == ("cat", "dog", "cow")
    assert valid.category_ids.tolist() == [2, 1, -1]
    for part in ("no category cow", "2 of its 2 categories have other ids",
                 "differ from those"):
        assert sum(part in line for line in run.warned) == 1, (part, run.warned)
    assert len(run.warned) == 3  # images of the same name in another folder are others


def test_which_images_are_trained_on(tmp_path):
    content = document([annotation(1, 2), crowd(2, 4, (60, 80), (10, 10, 20, 20)),
                        annotation(3, 5, box=(1, 1, 5, 5))], num_images=5)
    content["images"][4]["width"] = 31
    dataset = make(tmp_path, content)
    # 4: an image of crowds counts as having an annotation; 5 is too narrow
    assert [dataset.image_id(i) for i in range(len(dataset))] == [2, 4]
    assert len(sample_of(dataset, 4)["boxes"]) == 0
    section = dataset_section(tmp_path)
    every = replace(section, filter_cfg=replace(section.filter_cfg, filter_empty_gt=False))
    names, indexes = open_query_data({"train": every})
    kept = QueryInstDataset(indexes["train"], every, names, train=True, divisor=32)
    assert [kept.image_id(i) for i in range(len(kept))] == [1, 2, 3, 4]
    valid = QueryInstDataset(indexes["train"], section, names, train=False, divisor=32)
    assert [valid.image_id(i) for i in range(len(valid))] == [1, 2, 3, 4, 5]
    assert valid.portrait.tolist() == [False] * 4 + [True]


def test_nothing_left_to_train_on(tmp_path):
    with pytest.raises(InputError, match="no image is left"):
        make(tmp_path, document([annotation(1, 1, box=(1, 1, 9, 9))], hw=(20, 80)))


def test_classes_stand_in_the_order_of_the_file(tmp_path):
    content = document([annotation(1, 1, 3), annotation(2, 1, 2), annotation(3, 1, 7)],
                       categories=(7, 2, 3))
    dataset = make(tmp_path, content)
    assert dataset.names == ("class 7", "class 2", "class 3")
    assert sample_of(dataset)["labels"].tolist() == [2, 1, 0]
    assert dataset.category_ids.tolist() == [7, 2, 3]


def test_some_of_the_classes(tmp_path):
    content = document([annotation(1, 1, 3), annotation(2, 2, 2)], categories=(3, 2))
    section = dataset_section(tmp_path)
    some = replace(section, metainfo=replace(section.metainfo, classes=("class 2",)))
    write(tmp_path, content)
    names, indexes = open_query_data({"train": some})
    dataset = QueryInstDataset(indexes["train"], some, names, train=True, divisor=32)
    assert names == ("class 2",)
    assert [dataset.image_id(i) for i in range(len(dataset))] == [2]
    with pytest.raises(InputError, match=r"no category named class 4.*Did you mean"):
        class_names(indexes["train"], ["class 4"])


def test_faults_of_the_files(tmp_path):
    write(tmp_path, document([annotation(1, 1, box=(70, 10, 30, 10))]))
    missing = replace(dataset_section(tmp_path), ann_file="nothing.json")
    with pytest.raises(InputError) as caught:
        open_query_data({"train": dataset_section(tmp_path), "valid": missing})
    assert len(caught.value.faults) == 2
    assert "reaches out of its image" in caught.value.faults[0]
    assert "set val_dataloader.dataset.data_root" in caught.value.faults[1]


def test_the_validation_file_has_the_classes_of_training(tmp_path):
    for part, categories in (("a", (1, 2)), ("b", (2, 3))):
        (tmp_path / part).mkdir()
        write(tmp_path / part, document([annotation(1, 1, categories[1])], categories=categories))
    with pytest.raises(InputError, match="categories class 3 are not among"):
        open_query_data({"train": dataset_section(tmp_path / "a"),
                              "valid": dataset_section(tmp_path / "b")})


def test_a_bad_image(tmp_path):
    dataset = make(tmp_path, document([annotation(1, 1), annotation(2, 2)]))
    (tmp_path / "images" / "1.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"1\.png"):
        sample_of(dataset)
    section = dataset_section(tmp_path)
    names, indexes = open_query_data({"train": section})
    for train in (True, False):
        skipping = QueryInstDataset(indexes["train"], section, names, train=train, divisor=32,
                                         bad_images="skip")
        sample = sample_of(skipping) if train else skipping[0]
        assert "1.png" in sample["skipped"][0]
        assert sample["image_id"] == (2 if train else 1)
    batch = skipping.collate([skipping[0], skipping[1]])
    assert (batch["image_ids"], batch["left_out"], len(batch["images"])) == ([2], [1], 1)
    assert len(skipping.collate([skipping[0]])["images"]) == 0


# --- batches


def test_batches_are_padded_with_zero_after_normalising(tmp_path):
    dataset = make(tmp_path, document([annotation(1, 1), annotation(2, 2)]), RESIZE)
    cfg = load_queryinst_config("queryinst_shapes").model.data_preprocessor
    samples = [sample_of(dataset, 1), sample_of(dataset, 2)]
    samples[1]["image"] = samples[1]["image"][:, :100, :130]
    samples[1]["masks"] = samples[1]["masks"][:, :100, :130]
    samples[1]["img_shape"] = (100, 130)
    batch = dataset.collate(samples)
    assert batch["images"].shape == (2, 3, 128, 160)
    assert [truth["masks"].shape for truth in batch["samples"]] == [(1, 128, 160)] * 2
    assert [truth["img_shape"] for truth in batch["samples"]] == [(120, 160), (100, 130)]
    images = network_input(batch, torch.device("cpu"), cfg)
    assert (images[0, :, 120:] == 0).all()
    assert (images[1, :, 100:] == 0).all()
    assert (images[1, :, :, 130:] == 0).all()
    pixels = samples[1]["image"].double().permute(1, 2, 0)
    wanted = (pixels - torch.tensor(cfg.mean).double()) / torch.tensor(cfg.std).double()
    torch.testing.assert_close(images[1, :, :100, :130].double(), wanted.permute(2, 0, 1),
                               rtol=1e-6, atol=1e-6)
    assert batch["image_ids"] == [1, 2]


def test_a_sample_depends_on_its_key_alone(tmp_path):
    transforms = load_queryinst_config(CROP).train_dataloader.dataset.transforms
    dataset = make(tmp_path, document([annotation(1, 1)], hw=(300, 400)), *transforms)
    first, again, other = (sample_of(dataset, epoch=epoch) for epoch in (0, 0, 1))
    assert torch.equal(first["image"], again["image"])
    assert first["img_shape"] == again["img_shape"]
    assert first["image"].shape != other["image"].shape or not torch.equal(
        first["image"], other["image"])


def test_pictures(tmp_path):
    dataset = make(tmp_path, document([annotation(1, 1), annotation(2, 2, 2)], hw=(500, 700)))
    save_query_samples(SimpleNamespace(is_main=False), dataset)
    save_query_samples(SimpleNamespace(is_main=True, folder=tmp_path), dataset)
    from PIL import Image

    assert Image.open(tmp_path / "train_samples.png").width > 500
    assert dataset.pixels(2).shape == (500, 700, 3)
    assert len({dataset.file_name(1), dataset.file_name(2)}) == 2
