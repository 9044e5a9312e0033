"""The fast data path against the plain chain of the specification, and the data set around it."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from coco_maker import annotation, crowd, document, write
from pycocotools import mask as coco_mask

from data.coco_format import CocoIndex
from data.coco_format.masks import rasterise
from data.loading import SampleKey, sample_rng
from data.yolact import InstanceDataset, YolactTransform, collate_instances
from data.yolact.geometry import CanvasCrop, whole_image
from data.yolact.pixels import MEANS, STDS, Normalisation, render
from data.yolact.sampling import Photometric, sample_geometry
from metrics import CocoEvaluator
from runtime.errors import InputError

HW = (60, 80)
# Values are up to about 5; a step of HSV to BGR costs about 4e-4 of 255, 7e-6 of a deviation.
ATOL = 3e-5


@dataclass(frozen=True)
class Transform:
    normalize: bool = True
    subtract_means: bool = False
    to_float: bool = False
    channel_order: str = "RGB"


def config(size=50, transform=None, label_map=None, has_gt=True, **changes):
    keys = {"augment_photometric_distort": True, "augment_expand": True,
            "augment_random_sample_crop": True, "augment_random_mirror": True} | changes
    return SimpleNamespace(
        max_size=size, discard_box_width=4 / 550, discard_box_height=4 / 550,
        backbone=SimpleNamespace(transform=transform or Transform()),
        dataset=SimpleNamespace(label_map=label_map, class_names=("a", "b"), has_gt=has_gt), **keys)


def plain_chain(image, geometry, photometric, transform):
    """Every step on whole float32 images, as the specification has it (section 7)."""
    image = (image.astype(np.float32) + np.float32(photometric.brightness))
    image *= np.float32(photometric.contrast)
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    hsv[..., 1] *= photometric.saturation
    hue = hsv[..., 0] + np.float32(photometric.hue)
    hue[hue > 360] -= 360
    hue[hue < 0] += 360
    hsv[..., 0] = hue
    image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    canvas = np.empty((geometry.canvas_height, geometry.canvas_width, 3), np.float32)
    canvas[:] = MEANS
    canvas[geometry.top:geometry.top + geometry.height,
           geometry.left:geometry.left + geometry.width] = image
    x0, y0, x1, y1 = geometry.crop
    canvas = canvas[y0:y1, x0:x1]
    if geometry.mirror:
        canvas = canvas[:, ::-1]
    image = cv2.resize(np.ascontiguousarray(canvas), (geometry.size, geometry.size))
    if transform.normalize:
        image = (image - np.float32(MEANS)) / np.float32(STDS)
    elif transform.subtract_means:
        image = image - np.float32(MEANS)
    elif transform.to_float:
        image = image / 255
    return (image if transform.channel_order == "BGR" else image[..., ::-1]).transpose(2, 0, 1)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


GEOMETRIES = [
    whole_image(37, 53, 40),
    whole_image(1, 1, 8),
    whole_image(600, 3, 40),  # taller than a strip is never wide: many strips
    whole_image(300, 200, 90),
    CanvasCrop(37, 53, 37, 53, 0, 0, (5, 3, 30, 33), True, 40),
    CanvasCrop(37, 53, 90, 120, 20, 30, (0, 0, 120, 90), False, 40),
    CanvasCrop(37, 53, 90, 120, 20, 30, (0, 0, 120, 90), True, 40),
    CanvasCrop(37, 53, 90, 120, 20, 30, (30, 10, 50, 50), True, 40),  # the image crosses an edge
    CanvasCrop(37, 53, 90, 120, 20, 30, (25, 32, 60, 60), False, 40),  # only image
    CanvasCrop(37, 53, 90, 120, 20, 30, (0, 0, 120, 30), False, 40),  # only canvas
    CanvasCrop(37, 53, 90, 120, 67, 53, (0, 0, 120, 90), True, 40),  # in the corner
    CanvasCrop(37, 53, 148, 212, 1, 2, (0, 0, 212, 148), False, 9),
    CanvasCrop(2, 2, 8, 8, 5, 5, (0, 0, 8, 8), False, 2),  # samples fall beside the image
]
PHOTOMETRICS = [
    Photometric(), Photometric(20, 1.3), Photometric(-31, 1.3), Photometric(-20, 0.7, 1.4),
    Photometric(5, 1, 0.6, 17), Photometric(-31, 1.5, 1.5, -17.5), Photometric(0, 1, 1, -3),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("photometric", PHOTOMETRICS)
def test_pixels_are_those_of_the_plain_chain(geometry, photometric):
    image = noise(geometry.height, geometry.width)
    image[: len(image) // 2, ::2] //= 12  # dark pixels fall below zero with brightness
    for transform in (Transform(), Transform(normalize=False, to_float=True)):
        found = render(image, geometry, photometric, Normalisation.of(transform))
        expected = plain_chain(image, geometry, photometric, transform)
        np.testing.assert_allclose(found, expected, atol=ATOL)


@pytest.mark.parametrize("transform", [
    Transform(normalize=False, subtract_means=True),
    Transform(normalize=False, channel_order="BGR", to_float=True), Transform(normalize=False)])
def test_other_normalisations(transform):
    geometry = GEOMETRIES[6]
    image = noise(37, 53)
    found = render(image, geometry, Photometric(7), Normalisation.of(transform))
    # values up to 262 here
    np.testing.assert_allclose(found, plain_chain(image, geometry, Photometric(7), transform),
                               atol=2e-3)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_bitmaps_are_those_of_the_plain_chain(geometry):
    mask = np.zeros((geometry.height, geometry.width), np.uint8)
    cv2.circle(mask, (geometry.width // 3, geometry.height // 2), geometry.height // 4, 1, -1)
    canvas = np.zeros((geometry.canvas_height, geometry.canvas_width), np.uint8)
    canvas[geometry.top:geometry.top + geometry.height,
           geometry.left:geometry.left + geometry.width] = mask
    x0, y0, x1, y1 = geometry.crop
    canvas = canvas[y0:y1, x0:x1][:, ::-1 if geometry.mirror else 1]
    expected = cv2.resize(np.ascontiguousarray(canvas), (geometry.size, geometry.size))
    np.testing.assert_array_equal(geometry.bitmap(mask), expected)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_points_and_boxes_move_alike(geometry):
    boxes = np.array([[0.2, 0.1, 0.7, 0.6], [0.0, 0.0, 1.0, 1.0]])
    boxes *= (geometry.width, geometry.height) * 2
    corners = geometry.points(boxes.reshape(-1, 2)).reshape(-1, 4)
    if geometry.mirror:
        corners = corners[:, [2, 1, 0, 3]]
    found = geometry.boxes(boxes)
    reaches_in = (corners[:, :2] < geometry.size).all(1) & (corners[:, 2:] > 0).all(1)
    np.testing.assert_allclose(found[reaches_in], np.clip(corners, 0, geometry.size)[reaches_in])


def test_polygons_are_rasterised_as_pycocotools_does():
    rng = np.random.default_rng(1)
    for _ in range(50):
        centers = rng.uniform(-5, 75, (rng.integers(1, 3), 1, 2))
        polygons = list(rng.normal(centers, 12, (len(centers), 6, 2)))
        out = np.zeros((70, 70), np.uint8)
        rasterise(polygons, out)
        runs = coco_mask.frPyObjects([p.ravel() for p in polygons], 70, 70)
        expected = coco_mask.decode(coco_mask.merge(runs))
        # Rounding to its fifth of a pixel may turn where a coordinate is shifted or negative.
        assert (out != expected).sum() <= 3
    out = np.zeros((70, 70), np.uint8)
    rasterise([np.array([[80.0, 0], [90, 0], [90, 9]])], out)
    rasterise([np.array([[-8.0, 0], [-1, 0], [-1, 9]])], out)
    assert not out.any()


def test_crop_keeps_objects_whose_centre_is_inside():
    boxes = np.array([[0, 0, 20, 20], [50, 50, 70, 58], [30, 5, 34, 9.0]])
    labels = np.array([1, 0, -1])
    cropped = 0
    for seed in range(60):
        geometry, kept = sample_geometry(np.random.RandomState(seed), config(), HW, boxes, labels)
        x0, y0, x1, y1 = geometry.crop
        assert 0 <= x0 < x1 <= geometry.canvas_width
        assert 0 <= y0 < y1 <= geometry.canvas_height
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + (geometry.left, geometry.top)
        inside = ((centres > (x0, y0)) & (centres < (x1, y1))).all(1)
        assert (kept == inside).all()
        assert (kept & (labels >= 0)).any()
        cropped += not kept.all()
    assert cropped > 10


@pytest.mark.parametrize("labels, crops", [([-1], False), ([], True)])
def test_crop_without_an_object_to_keep(labels, crops):
    boxes = np.array([[30, 30, 50, 50.0]])[:len(labels)]
    shapes = set()
    for seed in range(20):
        geometry, kept = sample_geometry(
            np.random.RandomState(seed), config(augment_expand=False), HW, boxes, np.array(labels))
        shapes.add(geometry.crop_size)
        assert kept.all()
    assert (len(shapes) > 1) == crops


def test_transform_of_no_objects():
    arguments = (noise(*HW), np.zeros((0, *HW), np.uint8), np.zeros((0, 4)), np.zeros(0), 0)
    for train in (False, True):
        image, masks, boxes, labels, num_crowds = YolactTransform(config(), train)(
            *arguments, rng=np.random.RandomState(0))
        assert image.shape == (3, 50, 50)
        assert (len(masks), len(boxes), len(labels), num_crowds) == (0, 0, 0, 0)


def test_transform_refuses_what_does_not_agree():
    with pytest.raises(ValueError, match="1 boxes, 1 labels, 2 masks"):
        YolactTransform(config())(noise(*HW), np.zeros((2, *HW), np.uint8), [[0, 0, 1, 1]], [1], 0)


CONTENT = document([
    annotation(1, 1, 1, (10, 10, 30, 20)), crowd(2, 2, HW, (40, 20, 30, 30), 2),
    annotation(3, 2, 2, (5, 5, 30, 40)), annotation(4, 3, 1, (0, 0, 80, 60)),
    annotation(5, 3, 2, segmentation=[[20, 20, 60, 20, 40, 50]], bbox=[20, 20, 40, 30]),
])


def dataset_of(tmp_path, content=CONTENT, train=True, cfg=None, seed=0, **options):
    info, images = write(tmp_path, content)
    return InstanceDataset(CocoIndex.from_file(info), images, cfg or config(), train=train,
                           seed=seed, **options)


def equal(one, other):
    return all(torch.equal(value, other[key]) if isinstance(value, torch.Tensor)
               else value == other[key] for key, value in one.items())


def test_training_samples(tmp_path):
    dataset = dataset_of(tmp_path)
    assert len(dataset) == 3
    for epoch in range(20):
        for i in range(3):
            sample = dataset[SampleKey(epoch, i, i)]
            labels = sample["target"][:, 4].tolist()
            assert sample["image"].shape == (3, 50, 50)
            assert sample["image"].dtype == sample["target"].dtype == torch.float32
            assert sample["masks"].shape == (len(labels), 50, 50)
            assert sample["masks"].dtype == torch.uint8
            assert sample["masks"].max() == 1
            assert sample["num_crowds"] == labels.count(-1)
            assert labels == sorted(labels, reverse=-1 in labels)  # crowds last
            assert (sample["image_id"], sample["size"]) == (i + 1, HW)
            assert sample["skipped"] == []
            assert ((sample["target"][:, :4] >= 0) & (sample["target"][:, :4] <= 1)).all()


def test_samples_depend_on_seed_and_key_only(tmp_path):
    dataset = dataset_of(tmp_path)
    key = SampleKey(3, 1, 1)
    first = dataset[key]
    np.random.seed(1)
    torch.manual_seed(1)
    dataset[SampleKey(4, 2, 2)]
    assert equal(dataset[key], first)
    assert not equal(dataset[SampleKey(4, 1, 1)], first)
    assert not equal(dataset[SampleKey(3, 2, 1)], first)
    assert not equal(dataset_of(tmp_path, seed=1)[key], first)


def test_data_set_and_public_transform_give_the_same(tmp_path):
    cfg = config(size=120)
    dataset = dataset_of(tmp_path, cfg=cfg)
    image = cv2.imread(str(tmp_path / "images" / "3.png"))
    rectangle = np.ones(HW, np.uint8)
    triangle = coco_mask.decode(coco_mask.frPyObjects([[20, 20, 60, 20, 40, 50]], *HW))[..., 0]
    boxes = np.array([[0, 0, 1, 1], [20 / 80, 20 / 60, 60 / 80, 50 / 60]])
    for epoch in range(30):
        key = SampleKey(epoch, 2, 2)
        sample = dataset[key]
        expected = YolactTransform(cfg, train=True)(
            image, np.stack([rectangle, triangle]), boxes, np.array([0, 1]), 0,
            rng=sample_rng(0, key))
        np.testing.assert_array_equal(sample["image"], expected[0])
        # float32 against float64
        np.testing.assert_allclose(sample["target"][:, :4], expected[2], atol=1e-6)
        assert sample["target"][:, 4].tolist() == expected[3].tolist()
        masks = sample["masks"].numpy()
        union, common = (masks | expected[1]).sum((1, 2)), (masks & expected[1]).sum((1, 2))
        # A polygon at the final size beside a resized bitmap of the source's size: they differ
        # along the outline, at small scales by a good part of the object.
        assert (union - common <= 0.05 * union + 30).all()


def test_expected_masks_without_draws(tmp_path):
    cfg = config(size=60, augment_photometric_distort=False, augment_expand=False,
                 augment_random_sample_crop=False, augment_random_mirror=False)
    square = document([annotation(1, 1, 1, (10, 15, 30, 20)), crowd(2, 1, (60, 60), (5, 6, 7, 8))],
                      num_images=1, hw=(60, 60))
    masks = dataset_of(tmp_path, square, cfg=cfg)[SampleKey(0, 0, 0)]["masks"].numpy()
    expected = np.zeros((2, 60, 60), np.uint8)
    expected[0, 15:35, 10:40] = 1
    expected[1, 6:14, 5:12] = 1
    np.testing.assert_array_equal(masks, expected)


def test_evaluation_samples(tmp_path):
    content = document([annotation(1, 2, 2, (8, 6, 40, 30)), annotation(2, 1, 1, (0, 0, 0.5, 9))])
    dataset = dataset_of(tmp_path, content, train=False)
    sample = dataset[0]
    assert (sample["image_id"], sample["size"]) == (2, HW)
    np.testing.assert_allclose(sample["target"], [[0.1, 0.1, 0.6, 0.6, 1]], atol=1e-6)
    image = cv2.imread(str(tmp_path / "images" / "2.png"))
    expected = YolactTransform(config())(image, np.zeros((0, *HW)), np.zeros((0, 4)), [], 0)[0]
    np.testing.assert_array_equal(sample["image"], expected)
    assert len(dataset[1]["target"]) == 0  # narrower than the original's limit, but not replaced


def test_images_without_ground_truth(tmp_path):
    info, images = write(tmp_path, document([]))
    info.write_text(json.dumps({"images": document([])["images"]}))
    dataset = InstanceDataset(CocoIndex.from_file(info), images, config(has_gt=False),
                              train=False, seed=0)
    assert len(dataset) == 3
    assert dataset[2]["target"].shape == (0, 5)
    assert dataset[2]["masks"].shape == (0, 50, 50)


def test_negatives(tmp_path):
    content = document([annotation(1, 2)])
    dataset = dataset_of(tmp_path, content, include_empty=True)
    assert len(dataset) == 3
    samples = [dataset[SampleKey(0, i, i)] for i in range(3)]
    assert [sample["image_id"] for sample in samples] == [2, 1, 3]
    assert [tuple(sample["masks"].shape) for sample in samples[1:]] == [(0, 50, 50)] * 2
    batch = collate_instances(samples)
    assert [tuple(target.shape) for target in batch["targets"]] == [(1, 5), (0, 5), (0, 5)]


def test_sample_left_without_objects_is_replaced(tmp_path):
    content = document([annotation(1, 1, bbox=[10, 10, 1, 0]), annotation(2, 2)])
    dataset = dataset_of(tmp_path, content)
    for epoch in range(10):
        sample = dataset[SampleKey(epoch, 0, 0)]
        assert sample["image_id"] == 2
        assert len(sample["target"]) == 1
    with pytest.raises(InputError, match="samples in a row could not be used"):
        dataset_of(tmp_path, document([annotation(1, 1, bbox=[10, 10, 1, 0])]))[SampleKey(0, 0, 0)]


def test_unreadable_image(tmp_path):
    keys = [SampleKey(0, i, i) for i in range(3)]
    dataset = dataset_of(tmp_path, bad_images="stop")
    path = tmp_path / "images" / "2.png"
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2])
    with pytest.raises(InputError, match=r"2\.png: truncated"):
        dataset[keys[1]]
    index = CocoIndex.from_file(tmp_path / "info.json")
    skipping = InstanceDataset(index, tmp_path / "images", config(), train=True, seed=0,
                               bad_images="skip")
    sample = skipping[keys[1]]
    assert sample["image_id"] in (1, 3)
    assert len(sample["skipped"]) >= 1
    assert "2.png: truncated" in sample["skipped"][0]
    assert equal(skipping[keys[1]], sample)
    batch = collate_instances([skipping[key] for key in keys])
    assert batch["skipped"] == sample["skipped"]
    validation = InstanceDataset(index, tmp_path / "images", config(), train=False, seed=0,
                                 bad_images="skip")
    sample = validation[1]
    assert sample["image_id"] == 2
    assert "2.png" in sample["skipped"][0]
    batch = collate_instances([validation[i] for i in range(3)])
    assert batch["image_ids"] == [1, 3]
    assert batch["skipped"] == sample["skipped"]
    assert len(batch["images"]) == 2
    assert len(collate_instances([sample])["images"]) == 0


def test_all_images_unreadable_ends(tmp_path):
    dataset = dataset_of(tmp_path, bad_images="skip")
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="samples in a row"):
        dataset[SampleKey(0, 0, 0)]


def test_label_maps(tmp_path):
    content = document([annotation(1, 1, 90), annotation(2, 1, 0)], categories=(0, 90))
    cfg = config(label_map={0: 1, 90: 2})
    sample = dataset_of(tmp_path, content, cfg=cfg, train=False)[0]
    assert sample["target"][:, 4].tolist() == [1, 0]
    with pytest.raises(InputError, match="category ids 0, 90 are not in the label map"):
        dataset_of(tmp_path, content)


def test_what_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(InputError, match="annotation 1: its bbox"):
        dataset_of(tmp_path, document([annotation(1, 1, bbox=[1])]))
    with pytest.raises(InputError, match="no annotations to train on"):
        dataset_of(tmp_path, document([]))
    with pytest.raises(InputError, match="no images to use"):
        dataset_of(tmp_path, document([], num_images=0), train=False)


def test_old_coco_name(tmp_path):
    info, images = write(tmp_path, CONTENT)
    content = json.loads(info.read_text())
    content["images"][0]["file_name"] = "COCO_train2014_1.png"
    info.write_text(json.dumps(content))
    dataset = InstanceDataset(CocoIndex.from_file(info), images, config(), train=False, seed=0)
    assert dataset[0]["image_id"] == 1


def test_collate(tmp_path):
    dataset = dataset_of(tmp_path, train=False)
    batch = collate_instances([dataset[0], dataset[1]])
    assert batch["images"].shape == (2, 3, 50, 50)
    assert batch["image_ids"] == [1, 2]
    assert batch["sizes"] == [HW, HW]
    assert batch["num_crowds"] == [0, 1]
    assert [len(target) for target in batch["targets"]] == [1, 2]
    assert [mask.dtype for mask in batch["masks"]] == [torch.uint8] * 2


def test_real_photos(datasets):
    folder = datasets("coco_small")
    index = CocoIndex.from_file(folder / "annotations" / "instances_train.json")
    label_map = {i: n + 1 for n, i in enumerate(index.categories)}
    dataset = InstanceDataset(index, folder / "images", config(200, label_map=label_map),
                              train=False, seed=0)
    for i in range(0, len(dataset), 9):
        sample = dataset[i]
        annotations = index.annotations_of(int(index.items()[i]))
        height, width = sample["size"]
        # small objects lose the most in the coarser grid
        for a, mask in zip(annotations, sample["masks"], strict=False):
            if index.is_rle(a) or len(sample["masks"]) < len(annotations):
                continue
            runs = coco_mask.frPyObjects([p.ravel().astype(float) for p in index.polygons(a)],
                                         height, width)
            area = coco_mask.area(coco_mask.merge(runs)) / (height * width) * 200**2
            assert abs(float(mask.sum()) - area) <= 0.1 * area + 12


def test_a_second_file_is_joined_by_names(tmp_path):
    """The class of an object and the id that is reported for it, under other ids."""
    paths = {}
    for part, names in (("train", ("a", "b")), ("valid", ("b", "a"))):
        (tmp_path / part).mkdir()
        content = document([annotation(1, 1, 1), annotation(2, 1, 2, box=(40, 10, 20, 20))])
        content["categories"] = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
        paths[part] = write(tmp_path / part, content)
    trained, index = (CocoIndex.from_file(info) for info, _ in paths.values())
    cfg = config(label_map={1: 1, 2: 2})
    dataset = InstanceDataset(index, paths["valid"][1], cfg, train=False, seed=0, trained=trained)
    assert dataset[0]["target"][:, 4].tolist() == [1, 0]
    assert dataset.category_ids.tolist() == [2, 1]
    own = InstanceDataset(trained, paths["train"][1], cfg, train=False, seed=0, trained=trained)
    assert own[0]["target"][:, 4].tolist() == [0, 1]
    assert own.category_ids.tolist() == [1, 2]


def test_what_is_there_scores_100_under_other_ids(tmp_path):
    """Boxes and classes of the samples, reported by their category ids, against the file itself."""
    paths = {}
    for part, names in (("train", ("a", "b")), ("valid", ("b", "a"))):
        (tmp_path / part).mkdir()
        content = document([annotation(i, 1 + i % 3, 1 + i % 2, box=(5 + 4 * i, 10, 20, 30),
                                       iscrowd="0", area="") for i in range(8)])
        content["categories"] = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
        paths[part] = write(tmp_path / part, content)
    trained, index = (CocoIndex.from_file(info) for info, _ in paths.values())
    dataset = InstanceDataset(index, paths["valid"][1], config(label_map={1: 1, 2: 2}),
                              train=False, seed=0, trained=trained)
    evaluator = CocoEvaluator(paths["valid"][0], iou_types=("bbox",))
    for sample in (dataset[i] for i in range(len(dataset))):
        classes = sample["target"][:, 4].long()
        evaluator.update({sample["image_id"]: {
            "boxes": sample["target"][:, :4] * torch.tensor([80, 60, 80, 60]),
            "scores": torch.ones(len(classes)), "labels": dataset.category_ids[classes]}})
    assert evaluator.compute()["box/all"] == pytest.approx(100)


def test_a_class_that_the_second_file_lacks_has_no_category_id(tmp_path):
    paths = {}
    for part, categories in (("train", (1, 2)), ("valid", (2,))):
        (tmp_path / part).mkdir()
        paths[part] = write(tmp_path / part, document([annotation(1, 1, 2)], categories=categories))
    trained, index = (CocoIndex.from_file(info) for info, _ in paths.values())
    dataset = InstanceDataset(index, paths["valid"][1], config(label_map={1: 1, 2: 2}),
                              train=False, seed=0, trained=trained)
    assert dataset.category_ids.tolist() == [-1, 2]


def test_names_with_backslashes_are_read(tmp_path):
    content = document([annotation(1, 1)], num_images=1)
    info, images = write(tmp_path, content)
    (images / "deep").mkdir()
    (images / "1.png").rename(images / "deep" / "1.png")
    content["images"][0]["file_name"] = "deep\\1.png"
    info.write_text(json.dumps(content))
    dataset = InstanceDataset(CocoIndex.from_file(info), images, config(), train=False, seed=0)
    assert dataset[0]["size"] == HW
