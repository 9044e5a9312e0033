"""MMDetection's keys of loaders, data sets and pipelines: obeyed, without effect, or refused."""

import numpy as np
import pytest
from test_query_data import annotation, dataset_section, document, make, write
from torch.utils.data import Dataset

from common.checkpoint.state import check_same_run
from data.coco_format.masks import Resized
from data.queryinst import AspectRatioLoader, open_query_data
from data.queryinst.instances import QueryInstDataset
from data.queryinst.transform import Mirrored, Steps, sample_geometry
from models.queryinst import load_queryinst_config
from runtime.errors import InputError
from settings.foreign import note_lines
from settings.loading import load_config, save_config
from settings.queryinst.config import QueryInstConfig
from settings.queryinst.pipeline import (
    RandomChoiceStep,
    RandomCropStep,
    RandomFlipStep,
    ResizeStep,
)

ONE_X = "queryinst_r50_fpn_1x_coco"
TRAIN, VALID = "train_dataloader", "val_dataloader"
STEPS = f"{TRAIN}.dataset.pipeline"


def load(*options, notes=None, **sections):
    return load_queryinst_config(ONE_X, options=options, notes=notes, **sections)


def refused(*options, **sections):
    """The fault lines of a config that is not accepted."""
    with pytest.raises(InputError) as caught:
        load(*options, **sections)
    return caught.value.faults


# --- keys of one value, keys that change nothing, keys that cannot be obeyed


@pytest.mark.parametrize("option", [
    f"{TRAIN}.sampler.type=DefaultSampler", f"{TRAIN}.sampler.shuffle=True",
    f"{TRAIN}.batch_sampler.type=AspectRatioBatchSampler", f"{TRAIN}.drop_last=False",
    f"{VALID}.sampler.shuffle=False", f"{VALID}.dataset.test_mode=True",
    f"{TRAIN}.dataset.backend_args=None", f"{TRAIN}.collate_fn={{type: pseudo_collate}}",
    f"{STEPS}.0.backend_args=None", f"{STEPS}.0.to_float32=False", f"{STEPS}.0.color_type=color",
    f"{STEPS}.1.with_bbox=True", f"{STEPS}.1.with_mask=True", f"{STEPS}.1.poly2mask=True",
    f"{STEPS}.2.backend=cv2", f"{STEPS}.3.direction=horizontal",
])
def test_the_value_that_there_is_may_be_named(option):
    notes = []
    assert load(option, notes=notes) == load()
    assert not notes


@pytest.mark.parametrize("option", [
    f"{TRAIN}.persistent_workers=True", f"{TRAIN}.pin_memory=True", f"{VALID}.prefetch_factor=4",
    f"{TRAIN}.dataset.serialize_data=False", f"{TRAIN}.dataset.lazy_init=True",
    f"{TRAIN}.dataset.max_refetch=5", f"{TRAIN}.dataset.metainfo.palette=[[220, 20, 60]]",
    f"{VALID}.dataset.pipeline.3.meta_keys=(img_id,img_path)",
    f"{STEPS}.3.swap_seg_labels=[1,2]",
])
def test_keys_that_change_nothing_say_so(option):
    notes = []
    assert load(option, notes=notes) == load()
    (line,) = note_lines(notes)
    assert line.startswith(option.partition("=")[0].replace("pipeline.3", "pipeline[3]"))
    assert "changes nothing here: " in line


@pytest.mark.parametrize("option, message", [
    (f"{TRAIN}.sampler.type=InfiniteSampler", "sampler.type wants 'DefaultSampler'"),
    (f"{TRAIN}.batch_sampler.type=X", "batch_sampler.type wants one of AspectRatioBatchSampler"),
    (f"{TRAIN}.drop_last=True", "drop_last wants false beside batch_sampler"),
    (f"{VALID}.drop_last=True", "val_dataloader.drop_last wants false: every image is scored"),
    (f"{VALID}.sampler.shuffle=True", "val_dataloader.sampler.shuffle wants false"),
    (f"{VALID}.batch_sampler={{type: AspectRatioBatchSampler}}", "batch_sampler wants None"),
    (f"{VALID}.dataset.indices=5", "val_dataloader.dataset.indices wants None: the scores"),
    (f"{VALID}.dataset.test_mode=False", "val_dataloader.dataset.test_mode wants true"),
    (f"{TRAIN}.worker_init_fn=f", "worker_init_fn is not supported here: code of a config"),
    (f"{TRAIN}.dataset.type=ConcatDataset",
     "MMDetection's ConcatDataset is not built here: one annotation file"),
    (f"{TRAIN}.dataset.type=CocoDatset", "dataset.type wants one of CocoDataset, got CocoDatset"),
    (f"{TRAIN}.dataset.backend_args={{backend: petrel}}", "backend_args wants None"),
    (f"{STEPS}.3.type=PhotoMetricDistortion",
     "MMDetection's PhotoMetricDistortion is not built here"),
    (f"{STEPS}.3.type=RandomFlop", "got RandomFlop. Did you mean RandomFlip?"),
    (f"{STEPS}.3=Mosaic", "pipeline[3] wants"),
    (f"{STEPS}.2.interpolation=nearest", "interpolation wants 'bilinear', got nearest"),
    (f"{STEPS}.2.scale_factor=2", "scale_factor is not supported here: scale says the size"),
    (f"{STEPS}.2.prob=0.5", "unknown key train_dataloader.dataset.pipeline[2].prob"),
    (f"{STEPS}.1.with_mask=False", "with_mask wants True, got False"),
    (f"{STEPS}.1.poly2mask=False", "poly2mask wants True, got False"),
    (f"{STEPS}.0.to_float32=True", "to_float32 wants False, got True"),
    (f"{STEPS}.3.prob=1.5", "prob wants a number from 0 to 1, or several"),
    (f"{STEPS}.3.prob=[0.5,0.2]", "prob wants one number, or one for each direction, got 2"),
    (f"{STEPS}.2={{type: RandomCrop, crop_size: [3, 4], _delete_: true}}",
     "allow_negative_crop wants true, got False"),
    (f"{STEPS}=[{{scale: [3, 4]}}]", "key train_dataloader.dataset.pipeline[0].type is missing"),
])
def test_what_cannot_be_obeyed_is_refused(option, message):
    assert any(message in fault for fault in refused(option))


def test_every_step_of_another_library_is_named():
    wanted = ("Mosaic", "CopyPaste", "Albu", "RandomResize", "Pad")
    pipeline = [{"type": name} for name in wanted]
    faults = refused(train_dataloader={"dataset": {"pipeline": pipeline}})
    for name in wanted:
        assert any(f"MMDetection's {name} is not built here" in fault for fault in faults)


# --- pipelines


def test_an_index_reaches_into_a_pipeline():
    cfg = load(f"{STEPS}.2.scale=(1000,600)", f"{STEPS}.3.prob=0.1")
    assert cfg.train_dataloader.dataset.transforms == (
        ResizeStep(scale=(1000, 600), keep_ratio=True), RandomFlipStep(prob=0.1))
    choice = {"type": "RandomChoice", "transforms": [
        [{"type": "Resize", "scale": (10, 10)}],
        {"type": "RandomChoiceResize", "scales": [7, (8, 9)]}]}
    cfg = load(f"{STEPS}.2.transforms.1.keep_ratio=True",
               train_dataloader={"dataset": {"pipeline": [
                   {"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, choice,
                   {"type": "PackDetInputs"}]}})
    (step,) = cfg.train_dataloader.dataset.transforms
    (plain,), (drawn,) = step.lists
    assert (plain.scale, plain.keep_ratio) == ((10, 10), False)
    assert (drawn.scales, drawn.keep_ratio) == (((7, 7), (8, 9)), True)


def test_a_resize_without_its_ratio():
    for keep_ratio, size in ((True, (133, 100)), (False, (100, 200))):
        step = ResizeStep(scale=(100, 200), keep_ratio=keep_ratio)
        assert sample_geometry([step], (400, 300), None).steps == [Resized((400, 300), size)]


@pytest.mark.parametrize("direction, flipped", [
    ("horizontal", lambda a: a[:, ::-1]), ("vertical", lambda a: a[::-1]),
    ("diagonal", lambda a: a[::-1, ::-1]),
])
def test_mirrors_of_pixels_points_and_boxes(direction, flipped):
    image = np.arange(4 * 6, dtype=np.uint8).reshape(4, 6)
    marked = np.zeros_like(image)
    marked[1:3, 2:5] = 1
    geometry = Steps((6, 4), [Mirrored((6, 4), direction)])
    assert np.array_equal(geometry.bitmap(image), flipped(image))
    ys, xs = np.nonzero(geometry.bitmap(marked))
    boxes, _ = geometry.boxes([[2, 1, 5, 3]])
    assert boxes.tolist() == [[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]


@pytest.mark.parametrize("keys, odds", [
    ({"prob": 0.5}, {"horizontal": 0.5}),
    ({"prob": 0.6, "direction": ("horizontal", "diagonal")}, {"horizontal": 0.3, "diagonal": 0.3}),
    ({"prob": (0.1, 0.5), "direction": ("horizontal", "vertical")},
     {"horizontal": 0.1, "vertical": 0.5}),
    ({"prob": 0.0}, {}), ({"prob": 1.0, "direction": "vertical"}, {"vertical": 1.0}),
])
def test_chances_of_mirrors(keys, odds):
    rng, draws = np.random.RandomState(0), 1000
    found = [step.direction for _ in range(draws)
             for step in sample_geometry([RandomFlipStep(**keys)], (6, 4), rng).steps]
    assert set(found) == set(odds)
    for direction, chance in odds.items():
        # four standard deviations of 1000 fair coins
        assert abs(found.count(direction) / draws - chance) < 0.064


def test_chances_of_a_choice():
    lists = tuple((ResizeStep(scale=(side, side)),) for side in (10, 20, 30))
    step, rng = RandomChoiceStep(transforms=lists, prob=(0.7, 0.0, 0.3)), np.random.RandomState(0)
    sides = [sample_geometry([step], (6, 4), rng).size[0] for _ in range(1000)]
    assert set(sides) == {10, 30}
    assert abs(sides.count(10) / 1000 - 0.7) < 0.064
    with pytest.raises(InputError, match="prob wants 3 numbers whose sum is 1"):
        RandomChoiceStep(transforms=lists, prob=(0.5, 0.5))


@pytest.mark.parametrize("kind, given, least, most", [  # of a 100 x 200 image, (width, height)
    # measured with MMDetection 3.3's RandomCrop
    ("absolute", (60, 150), (60, 150), (60, 150)), ("absolute", (500, 150), (100, 150), (100, 150)),
    ("relative", (0.5, 0.25), (50, 50), (50, 50)),
    ("absolute_range", (60, 150), (60, 60), (100, 150)),
    ("relative_range", (0.5, 0.25), (25, 100), (100, 200)),
])
def test_sizes_of_crops(kind, given, least, most):
    step = RandomCropStep(crop_size=given, crop_type=kind, allow_negative_crop=True)
    rng = np.random.RandomState(0)
    crops = [sample_geometry([step], (100, 200), rng).steps[0] for _ in range(300)]
    sizes = np.array([crop.size for crop in crops])
    assert np.abs(sizes.min(0) - least).max() <= 1  # a range is drawn nearly whole
    assert np.abs(sizes.max(0) - most).max() <= 1
    far = np.array([crop.corner for crop in crops]) + sizes
    assert (far <= (100, 200)).all()
    assert (far.max(0) == (100, 200)).all()


@pytest.mark.parametrize("kind, given", [
    ("absolute", (0, 3)), ("absolute", (0.5, 0.5)), ("relative", (0.5, 1.5)),
    ("absolute_range", (5, 3)), ("relative_range", (0, 0.5)),
])
def test_sizes_that_no_crop_has(kind, given):
    with pytest.raises(InputError, match=f"crop_size wants .* for {kind}"):
        RandomCropStep(crop_size=given, crop_type=kind, allow_negative_crop=True)


# --- data sets


def images(folder, count=4):
    """A training part of `count` images of which the first has no object."""
    content = document([annotation(i, i) for i in range(2, count + 1)])
    content["images"] = [{**content["images"][0], "id": i, "file_name": f"{i}.png"}
                         for i in range(1, count + 1)]
    write(folder, content)
    return content


def ids(folder, **changes):
    """Image ids of a training data set with these keys."""
    section = dataset_section(folder, **changes)
    names, indexes = open_query_data({"train": section})
    dataset = QueryInstDataset(indexes["train"], section, names, train=True, divisor=32)
    return [dataset.image_id(i) for i in range(len(dataset))]


def test_which_images_an_epoch_has(tmp_path):
    images(tmp_path)
    assert ids(tmp_path) == [2, 3, 4]
    assert ids(tmp_path, test_mode=True) == [1, 2, 3, 4]
    assert ids(tmp_path, filter_cfg=None) == [1, 2, 3, 4]
    assert ids(tmp_path, indices=2) == [2, 3]
    assert ids(tmp_path, indices=-1) == [4]
    assert ids(tmp_path, indices=(2, 0)) == [4, 2]
    assert ids(tmp_path, indices=(2, 0), times=3) == [4, 2] * 3
    with pytest.raises(InputError, match="names image 3, and there are 3"):
        ids(tmp_path, indices=(3,))


def test_a_repeated_data_set():
    inner = {"type": "CocoDataset", "data_root": "my/", "ann_file": "a.json"}
    wrapped = {"type": "RepeatDataset", "times": 3, "dataset": inner, "lazy_init": False}
    cfg = load(f"{TRAIN}.dataset.dataset.ann_file=b.json",
               train_dataloader={"dataset": wrapped})
    section = cfg.train_dataloader.dataset
    assert (section.times, section.info_path) == (3, "my/b.json")
    assert load(f"{TRAIN}.dataset.times=2",
                train_dataloader={"dataset": wrapped}).train_dataloader.dataset.times == 2
    assert any("val_dataloader.dataset.times wants 1" in fault
               for fault in refused(val_dataloader={"dataset": wrapped}))


def test_a_repeated_data_set_has_the_same_images_again(tmp_path):
    once = make(tmp_path, document([annotation(1, 1), annotation(2, 2)]))
    thrice = make(tmp_path, document([annotation(1, 1), annotation(2, 2)]), times=3)
    assert len(thrice) == 3 * len(once) == len(thrice.portrait)


# --- loaders


class Keys(Dataset):
    def __len__(self):
        return 11

    @property
    def portrait(self):
        return [i % 3 == 0 for i in range(11)]


def batches_of(*options, **process):
    section = load(*options).train_dataloader
    loader = AspectRatioLoader.of(Keys(), section, seed=5, collate=list, **process)
    batches = loader.epoch_keys(3)
    assert len(batches) == loader.steps_per_epoch()
    return [[key.index for key in batch] for batch in batches]


def test_batches_without_orientation_or_shuffle():
    plain = batches_of(f"{TRAIN}.batch_sampler=None", f"{TRAIN}.sampler.shuffle=False")
    assert plain == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10]]
    assert batches_of(f"{TRAIN}.sampler.shuffle=False") == [
        [1, 2], [0, 3], [4, 5], [7, 8], [6, 9], [10]]
    assert batches_of(f"{TRAIN}.batch_sampler=None") != plain


@pytest.mark.parametrize("options", [
    (f"{TRAIN}.batch_sampler=None", f"{TRAIN}.drop_last=True"),
    (f"{TRAIN}.batch_sampler.drop_last=True",),
])
def test_batches_that_are_not_full_may_be_left_out(options):
    found = batches_of(*options, f"{TRAIN}.batch_size=4")
    whole = batches_of(*[option.replace("True", "False") for option in options],
                       f"{TRAIN}.batch_size=4")
    assert found == whole[:2]
    assert [len(batch) for batch in whole] == [4, 4, 3]
    with pytest.raises(InputError, match="drop_last leaves no batch"):
        batches_of(*options, f"{TRAIN}.batch_size=4", world_size=4)


def test_a_resumed_run_has_the_same_batching():
    def identity(*options):
        return AspectRatioLoader.of(Keys(), load(*options).train_dataloader, seed=5,
                                    collate=list).identity

    usual = identity()
    older = {key: value for key, value in usual.items() if key != "batching"}
    check_same_run(older, usual, False, print)
    for option in (f"{TRAIN}.batch_sampler=None", f"{TRAIN}.sampler.shuffle=False",
                   f"{TRAIN}.batch_sampler.drop_last=True"):
        for saved, now in ((usual, identity(option)), (identity(option), usual)):
            with pytest.raises(InputError, match="batching was"):
                check_same_run(saved, now, False, print)


def test_what_is_not_the_default_reads_back(tmp_path):
    cfg = load(f"{TRAIN}.batch_sampler=None", f"{TRAIN}.drop_last=True",
               f"{TRAIN}.dataset.indices=[1,5]", f"{TRAIN}.dataset.filter_cfg=None",
               f"{TRAIN}.dataset.times=2", f"{STEPS}.3.prob=[0.1,0.2]",
               f"{STEPS}.3.direction=[horizontal,vertical]", f"{STEPS}.2.keep_ratio=False")
    save_config(cfg, tmp_path / "config.yaml")
    assert load_config(QueryInstConfig, tmp_path / "config.yaml") == cfg
    assert cfg != load()
