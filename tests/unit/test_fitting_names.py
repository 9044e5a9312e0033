"""Weights of another network than the config's: one line, which names what would fit."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from models import queryinst, resnest, segmentation
from models.resnest.zoo import fitting_models
from models.segmentation.recognise import fitting_recipes
from runtime.errors import InputError
from settings.resnest import load_resnest_config


def fault_of(call, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert len(caught.value.faults) == 1, caught.value.faults
    return caught.value.faults[0]


def seg_module(encoder, decoder, fc_dim, classes=150):
    with torch.device("meta"):
        return nn.ModuleDict({"encoder": segmentation.build_encoder(encoder, fc_dim),
                              "decoder": segmentation.build_decoder(decoder, fc_dim, classes)})


class Both:
    """What load_both wants of a module."""

    def __init__(self, nets):
        self.encoder, self.decoder = nets["encoder"], nets["decoder"]


def states(nets):
    return {name: dict(net.state_dict()) for name, net in nets.items()}


def test_seg_names_the_recipe():
    given = states(seg_module("resnet18dilated", "ppm_deepsup", 512, classes=12))
    wanted = Both(seg_module("resnet50dilated", "ppm_deepsup", 2048))
    fault = fault_of(segmentation.load_both, wanted, given, Path("d/encoder_epoch_20.pth"))
    assert fault == ("d/*_epoch_20.pth: these weights are of another encoder or decoder than the "
                     "config's: use --cfg ade20k-resnet18dilated-ppm_deepsup")
    assert fitting_recipes(given) == ["ade20k-resnet18dilated-ppm_deepsup"]


def test_seg_weights_of_other_classes_are_told_as_such():
    given = states(seg_module("resnet18dilated", "ppm_deepsup", 512, classes=12))
    wanted = Both(seg_module("resnet18dilated", "ppm_deepsup", 512))
    with pytest.raises(InputError) as caught:  # a recipe's, whose classes alone differ
        segmentation.load_both(wanted, given, Path("encoder_epoch_20.pth"))
    assert "DATASET.num_class is 150" in str(caught.value)


def test_seg_weights_of_no_recipe_say_what_differs():
    given = states(seg_module("resnet18dilated", "ppm_deepsup", 512))
    del given["encoder"]["conv1.weight"]
    wanted = Both(seg_module("resnet18dilated", "c1", 512))
    with pytest.raises(InputError, match=r"missing conv1\.weight"):
        segmentation.load_both(wanted, given, Path("encoder_epoch_20.pth"))


def test_resnest_names_the_model():
    saved = resnest.build_resnest("resnest14_small", 5).state_dict()
    cfg = load_resnest_config(None, ["MODEL.NAME=resnest14"])
    run = SimpleNamespace(log=print)
    assert fault_of(resnest.load_all, run, cfg, Path("w.pth"), {"state_dict": saved}) == (
        "w.pth: these are weights of resnest14_small, not of MODEL.NAME resnest14; "
        "use MODEL.NAME resnest14_small")


def test_resnest_names_all_models_of_these_shapes():
    with torch.device("meta"):
        state = resnest.build_resnest("resnest50", 7).state_dict()
    assert fitting_models(state) == ["resnest50", "resnest50_fast_2s1x64d"]
    assert fitting_models({key: value for key, value in state.items()
                           if "num_batches_tracked" not in key}) == fitting_models(state)
    assert fitting_models({"a": torch.zeros(1)}) == []


@pytest.mark.parametrize("depth, blocks, proposals, use", [
    (101, (3, 4, 23, 3), 300, "use queryinst_r101_fpn_300-proposals_crop-ms-480-800-3x_coco"),
    (50, (3, 4, 6, 3), 100, "use queryinst_r50_fpn_1x_coco or"),
    (18, (2, 2, 2, 2), 20, "set model.backbone.depth=18 and model.rpn_head.num_proposals=20"),
])
def test_queryinst_names_the_config(depth, blocks, proposals, use):
    cfg = queryinst.load_queryinst_config("queryinst_shapes")
    net = queryinst.build_queryinst(cfg)
    state = {key: value for key, value in net.state_dict().items()
             if not key.startswith("backbone.")}
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            state[f"backbone.layer{stage}.{block}.conv1.weight"] = torch.zeros(1)
    state["backbone.layer1.0.conv3.weight"] = torch.zeros(1)
    state["rpn_head.init_proposal_bboxes.weight"] = torch.zeros(proposals, 4)
    fault = fault_of(queryinst.load_weights, net, state, source="w.pth")
    assert fault.startswith(f"w.pth: these are weights of a ResNet-{depth} with {proposals} "
                            f"proposals ({use}")
    assert fault.endswith("not of config queryinst_shapes")
