"""Weights and parameter groups of QueryInst."""

import pytest
import torch
from goldens import load_golden

from common.checkpoint import save_checkpoint
from models.queryinst import (
    backbone_file,
    build_queryinst,
    load_backbone,
    load_queryinst_config,
    load_weights,
    lr_schedule,
    param_groups,
)
from runtime.errors import InputError

TINY = ["model.neck.out_channels=16", "model.roi_head.num_stages=2",
        "model.roi_head.bbox_head.num_heads=2", "model.backbone.base_channels=8",
        "model.roi_head.bbox_head.feedforward_channels=16", "model.rpn_head.num_proposals=5"]


def tiny(*options):
    return build_queryinst(load_queryinst_config("queryinst_shapes", options=[*TINY, *options]))


@pytest.fixture
def net():
    return tiny()


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in
               zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("form", ["plain", "checkpoint", "module", "old"])
def test_forms_of_a_file(net, form):
    state = dict(tiny().state_dict())
    source = tiny()
    source.load_state_dict(state)
    if form == "module":
        state = {f"module.{key}": value for key, value in state.items()}
    if form == "old":
        state = {key.replace("rpn_head.", "bbox_head.") if key.startswith("rpn_head.") else key:
                 value for key, value in state.items() if "num_batches_tracked" not in key}
    if form == "checkpoint":
        state = {"meta": {"epoch": 12}, "state_dict": state}
    report = load_weights(net, state)
    assert report.lines() == [f"{report.loaded} entries loaded"]
    assert same_weights(net, source)


def test_another_number_of_classes(net):
    other = tiny("model.num_classes=4").state_dict()
    with pytest.raises(InputError, match="made for 4 classes, config queryinst_shapes has"):
        load_weights(net, other, source="f.pth")
    report = load_weights(net, other, partial=True)
    assert set(report.mismatched) == {
        f"roi_head.{head}.{stage}.{layer}.{part}"
        for stage in range(2) for part in ("weight", "bias")
        for head, layer in (("bbox_head", "fc_cls"), ("mask_head", "conv_logits"))}
    name = "roi_head.bbox_head.1.attention.attn.in_proj_weight"
    assert torch.equal(net.state_dict()[name], other[name])


def test_what_does_not_fit_is_named(net):
    state = dict(net.state_dict())
    state["roi_head.extra"] = state.pop("neck.fpn_convs.0.conv.bias")
    with pytest.raises(InputError, match=r"fpn_convs.0.conv.bias.*roi_head.extra"):
        load_weights(net, state)
    with pytest.raises(InputError, match="none of its 1 entries"):
        load_weights(net, {"a": torch.zeros(1)}, partial=True)
    with pytest.raises(InputError, match="not a dict of tensors"):
        load_weights(net, {"state_dict": {"a": 1}})


def test_backbone(net, tmp_path):
    path = tmp_path / "resnet.pth"
    source = {key: value for key, value in tiny().backbone.state_dict().items()
              if "num_batches_tracked" not in key}  # as torchvision's oldest files
    save_checkpoint(path, source | {"fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1)})
    report = load_backbone(net, path)
    assert report.lines() == [f"{len(source)} entries loaded"]
    assert torch.equal(net.backbone.layer4[0].conv2.weight, source["layer4.0.conv2.weight"])
    deeper = tiny("model.backbone.depth=18")
    with pytest.raises(InputError, match="does not fit a ResNet-18"):
        load_backbone(deeper, path)


def test_names_of_backbone_files():
    cfg = load_queryinst_config("queryinst_r50_fpn_1x_coco")
    assert backbone_file(cfg.model.backbone) == "resnet50-0676ba61.pth"
    cfg = load_queryinst_config("queryinst_r101_fpn_ms-480-800-3x_coco")
    assert backbone_file(cfg.model.backbone) == "resnet101-63fe2227.pth"
    option = "model.backbone.init_cfg.checkpoint="
    own = load_queryinst_config(cfg, options=[option + "a/b.pth"])
    assert backbone_file(own.model.backbone) == "a/b.pth"
    wrong = load_queryinst_config(cfg, options=[option + "torchvision://resnet51"])
    with pytest.raises(InputError, match="torchvision://resnet50"):
        backbone_file(wrong.model.backbone)
    assert backbone_file(load_queryinst_config("queryinst_shapes").model.backbone) is None


def test_parameter_groups():
    one_stage = ["model.roi_head.num_stages=1"]
    with torch.device("meta"):
        net = build_queryinst(load_queryinst_config("queryinst_r50_fpn_1x_coco", options=one_stage))
    backbone, other = param_groups(net)
    assert (backbone["lr"], other["lr"]) == (pytest.approx(1e-5), 1e-4)
    assert backbone["weight_decay"] == other["weight_decay"] == 1e-4
    ids = {id(p) for p in net.backbone.parameters() if p.requires_grad}
    assert {id(p) for p in backbone["params"]} == ids
    rest = [p for name, p in net.named_parameters() if not name.startswith("backbone.")]
    assert [id(p) for p in other["params"]] == [id(p) for p in rest]


def test_multipliers_of_the_longest_name(net):
    options = ["optim_wrapper.paramwise_cfg.custom_keys={backbone: {lr_mult: 0.1}, "
               "backbone.layer4: {lr_mult: 0.5, decay_mult: 0}}"]
    net.cfg = load_queryinst_config(net.cfg, options=options)
    rates = {id(p): (group["lr"], group["weight_decay"])
             for group in param_groups(net) for p in group["params"]}
    assert rates[id(net.backbone.conv1.weight)] == pytest.approx((1e-4, 1e-4))
    assert rates[id(net.backbone.layer4[0].conv1.weight)] == pytest.approx((5e-4, 0))
    assert rates[id(net.neck.fpn_convs[0].conv.weight)] == pytest.approx((1e-3, 1e-4))


@pytest.mark.parametrize("kind, name", [
    ("1x", "queryinst_r50_fpn_1x_coco"), ("3x", "queryinst_r101_fpn_ms-480-800-3x_coco")])
def test_rates_of_the_recipes(kind, name):
    cfg = load_queryinst_config(name)
    for record, rows in load_golden("queryinst_lr").items():
        if not record.startswith(f"schedule_{kind}_N"):
            continue
        rate_at = lr_schedule(cfg, int(record.rpartition("N")[2]))
        for iteration, _, _, backbone_lr, other_lr in rows:
            assert rate_at(1e-4, iteration) == pytest.approx(other_lr, rel=1e-9)
            assert rate_at(1e-5, iteration) == pytest.approx(backbone_lr, rel=1e-9)
