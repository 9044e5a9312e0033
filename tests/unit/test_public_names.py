"""What notebooks and downstream code import stays where it is, whatever room it moves to."""

import importlib
import subprocess
import sys

import pytest
from rooms import ROOT

NAMES = {
    "common.checkpoint": "save_checkpoint load_checkpoint find_latest find_interrupt",
    "common.config": "load_config InputError",
    "common.parallel": "CustomDataParallel UserScatteredDataParallel user_scattered_collate "
                       "scatter_batch parse_devices",
    "common.schedulers": "warmup_multistep poly per_epoch autoscale",
    "common.losses": "MultiBoxLoss LabelSmoothing NLLMultiLabelSmooth mixup draw_mixup match_cost "
                     "hungarian_match mask_targets generalized_iou sigmoid_focal dice_loss",
    "models.yolact": "load_yolact_config build_yolact detect postprocess",
    "models.resnest": "MODEL_NAMES build_resnest param_groups",
    "models.queryinst": "build_queryinst decode_boxes roi_levels",
    "models.segmentation": "build_encoder build_decoder SegmentationModule group_weight "
                           "to_original_state_dict load_original_state_dict",
    "metrics": "CocoEvaluator TopK SegmentationMeter",
    "data": "YolactTransform rescale_size",
    "data.imagenet": "center_crop_box random_crop_box val_transform train_transform RandAugment "
                     "RAND_AUGMENT_OPS Lighting",
    "data.segmentation": "resized_size orientation_batches train_batch eval_item ADE20K_COLORS "
                         "ADE20K_CLASSES color_encode",
}


@pytest.mark.parametrize("module, name", [(module, name) for module, names in NAMES.items()
                                          for name in names.split()])
def test_public_name(module, name):
    assert getattr(importlib.import_module(module), name) is not None


def test_rooms_are_attributes_of_data_once_it_is_imported():
    code = "import data; data.imagenet.center_crop_box, data.segmentation.train_batch"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_name_that_is_not_there():
    import data

    with pytest.raises(AttributeError, match=r"module 'data' has no attribute 'Nothing'"):
        _ = data.Nothing


def test_a_config_argument_may_be_a_name():
    """Or a path, or what is loaded: the same comes out."""
    import numpy as np
    import torch

    from common.losses import MultiBoxLoss
    from data import YolactTransform
    from models.yolact import build_yolact, detect, load_yolact_config

    names = "yolact_shapes", "yolact_shapes_config", f"{ROOT}/configs/yolact/yolact_shapes.yaml"
    cfg = load_yolact_config(names[0])
    image = np.arange(40 * 50 * 3, dtype=np.uint8).reshape(40, 50, 3)
    sample = (image, np.ones((1, 40, 50), np.uint8), np.array([[0.1, 0.1, 0.5, 0.5]]),
              np.array([0]), 0)
    wanted = YolactTransform(cfg)(*sample)[0]
    images = torch.zeros(1, 3, cfg.max_size, cfg.max_size)
    predictions = build_yolact(names[0]).forward_heads(images)
    for name in names:
        np.testing.assert_array_equal(YolactTransform(name)(*sample)[0], wanted)
        assert MultiBoxLoss(name).cfg.max_size == cfg.max_size
        assert len(detect(predictions, name)) == 1
