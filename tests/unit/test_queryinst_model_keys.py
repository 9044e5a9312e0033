"""MMDetection's keys under `model`: obeyed, the same or refused; lists of one mapping a stage."""

from collections import Counter

import pytest
import torch
from test_queryinst_network import images_for, make_samples, tiny, total
from torch import nn

from common.losses import match_cost
from common.losses.set_matching import cost_parts, total_cost
from data.queryinst import network_input
from models.queryinst import load_queryinst_config
from models.queryinst.backbone import ResNet
from models.queryinst.objective import cost_weights
from runtime.errors import InputError
from settings.foreign import note_lines
from settings.loading import load_config, save_config
from settings.queryinst.config import QueryInstConfig
from settings.queryinst.heads import DiceLossConfig
from settings.queryinst.model import BackboneConfig

ONE_X = "queryinst_r50_fpn_1x_coco"
HEAD, MASK, RCNN = "model.roi_head.bbox_head", "model.roi_head.mask_head", "model.train_cfg.rcnn"


def load(*options, notes=None, **sections):
    return load_queryinst_config(ONE_X, options=options, notes=notes, **sections)


def refused(*options, **sections):
    """The fault lines of a config that is not accepted."""
    with pytest.raises(InputError) as caught:
        load(*options, **sections)
    return caught.value.faults


def stages(**keys):
    """A list of one mapping a stage, all alike."""
    return [dict(keys) for _ in range(6)]


# --- lists of one mapping a stage


def test_equal_stages_in_a_list_are_the_one_mapping():
    dice = {"type": "DiceLoss", "loss_weight": 8.0, "use_sigmoid": True, "activate": False,
            "eps": 1e-5}
    conv = {"type": "DynamicConv", "in_channels": 256, "feat_channels": 64, "out_channels": 256}
    costs = [{"type": "FocalLossCost", "weight": 2.0},
             {"type": "BBoxL1Cost", "weight": 5.0, "box_format": "xyxy"},
             {"type": "IoUCost", "iou_mode": "giou", "weight": 2.0}]
    listed = load(model={
        "roi_head": {
            "stage_loss_weights": [1] * 6, "proposal_feature_channel": 256,
            "bbox_head": stages(type="DIIHead", num_classes=80, in_channels=256, dropout=0.0,
                                dynamic_conv_cfg={**conv, "input_feat_shape": 7}),
            "mask_head": stages(type="DynamicMaskHead", num_classes=80, conv_out_channels=256,
                                dynamic_conv_cfg={**conv, "with_proj": False}, loss_mask=dice),
            "mask_roi_extractor": stages(
                roi_layer={"type": "RoIAlign", "output_size": 14}, out_channels=256)},
        "train_cfg": {"rpn": None, "rcnn": stages(
            assigner={"type": "HungarianAssigner", "match_costs": costs},
            sampler={"type": "PseudoSampler"}, pos_weight=1, mask_size=28)}})
    assert listed == load()


def test_an_index_changes_one_stage_of_a_mapping_for_all():
    cfg = load(f"{HEAD}.2.num_reg_fcs=1", f"{HEAD}.num_heads=4",
               f"{MASK}.5.loss_mask.loss_weight=4.0", f"{RCNN}.1.assigner.match_costs.1.weight=3")
    assert [head.num_reg_fcs for head in cfg.model.roi_head.bbox_heads] == [3, 3, 1, 3, 3, 3]
    assert {head.num_heads for head in cfg.model.roi_head.bbox_heads} == {4}
    losses = [head.loss_mask for head in cfg.model.roi_head.mask_heads]
    assert losses == [DiceLossConfig(1e-5, 8.0)] * 5 + [DiceLossConfig(1e-5, 4.0)]
    costs = [cost_weights(rcnn) for rcnn in cfg.model.rcnns]
    assert [cost.l1 for cost in costs] == [5.0, 3.0, 5.0, 5.0, 5.0, 5.0]
    assert {cost.cls for cost in costs} == {2.0}


def test_an_index_changes_one_stage_of_a_list():
    listed = {"roi_head": {"bbox_head": stages(num_heads=4)}}
    cfg = load(f"{HEAD}.0.num_heads=2", model=listed)
    assert [head.num_heads for head in cfg.model.roi_head.bbox_heads] == [2, 4, 4, 4, 4, 4]


def test_stages_that_differ_read_back(tmp_path):
    cfg = load(f"{HEAD}.0.feedforward_channels=64", f"{MASK}.0.dynamic_channels=16",
               f"{RCNN}.5.pos_weight=2")
    save_config(cfg, tmp_path / "config.yaml")
    assert load_config(QueryInstConfig, tmp_path / "config.yaml") == cfg
    assert cfg != load()


def test_a_list_wants_one_mapping_a_stage():
    for key in ("bbox_head", "mask_head"):
        (fault,) = refused(model={"roi_head": {key: [{}] * 5}})
        assert f"roi_head.{key} wants one mapping, or 6, one a stage, got 5" in fault
    (fault,) = refused(model={"train_cfg": {"rcnn": [{}] * 7}})
    assert "train_cfg.rcnn wants one mapping, or 6" in fault
    faults = refused(f"{HEAD}.6.num_heads=4")
    assert "unknown key model.roi_head.bbox_head.6" in faults[0]


def test_faults_inside_a_list_name_stage_and_key():
    (fault,) = refused(f"{HEAD}.3.num_headz=4")
    assert "unknown key model.roi_head.bbox_head[3].num_headz. Did you mean" in fault
    (fault,) = refused(f"{MASK}.1.loss_mask.type=CrossEntropyLoss")
    assert "mask_head[1].loss_mask.type wants 'DiceLoss', got CrossEntropyLoss" in fault


# --- numbers that MMDetection repeats


@pytest.mark.parametrize("options", [
    (f"{HEAD}.0.num_classes=1",),
    (f"{HEAD}.num_classes=1", f"{MASK}.num_classes=1"),
    tuple(f"{key}.{i}.num_classes=1" for key in (HEAD, MASK) for i in range(6)),
    ("model.num_classes=1", f"{MASK}.3.num_classes=1"),
])
def test_the_heads_number_of_classes_is_the_networks(options):
    assert load(*options).model.num_classes == 1


@pytest.mark.parametrize("options, first, second", [
    ((f"{HEAD}.0.num_classes=1", f"{HEAD}.1.num_classes=2"),
     "bbox_head[0].num_classes is 1", "bbox_head[1].num_classes is 2"),
    ((f"{HEAD}.num_classes=1", f"{MASK}.2.num_classes=2"),
     "bbox_head.num_classes is 1", "mask_head[2].num_classes is 2"),
    (("model.num_classes=3", f"{HEAD}.0.num_classes=1"),
     "model.num_classes is 3", "bbox_head[0].num_classes is 1"),
])
def test_numbers_of_classes_that_disagree_are_one_line(options, first, second):
    (fault,) = refused(*options)
    assert first in fault
    assert second in fault


@pytest.mark.parametrize("key", [
    "rpn_head.proposal_feature_channel", "roi_head.proposal_feature_channel",
    "roi_head.bbox_head.0.in_channels", "roi_head.mask_head.conv_out_channels",
    "roi_head.mask_head.3.dynamic_conv_cfg.out_channels",
    "roi_head.bbox_roi_extractor.out_channels",
])
def test_widths_agree_with_the_pyramid(key):
    assert load(f"model.{key}=256") == load()
    assert load("model.neck.out_channels=64", f"model.{key}=64").model.neck.out_channels == 64
    (fault,) = refused(f"model.{key}=128")
    assert "wants 256, as model.neck.out_channels, got 128" in fault


def test_the_pyramid_takes_the_backbones_channels():
    assert load("model.neck.in_channels=[256,512,1024,2048]") == load()
    assert load("model.neck.in_channels=(64,128,256,512)", "model.backbone.depth=18")
    (fault,) = refused("model.neck.in_channels=[256,512,1024,2048]", "model.backbone.depth=18")
    assert "wants [64, 128, 256, 512], the backbone's channels, got [256, 512" in fault


def test_the_dynamic_convs_widths():
    cfg = load(f"{HEAD}.dynamic_conv_cfg.feat_channels=32")
    assert cfg.model.roi_head.bbox_head.dynamic_channels == 32
    assert cfg.model.roi_head.mask_head.dynamic_channels is None  # follows
    apart = load(f"{MASK}.dynamic_conv_cfg.feat_channels=32").model.roi_head
    assert (apart.bbox_head.dynamic_channels, apart.mask_head.dynamic_channels) == (64, 32)
    (fault,) = refused(f"{HEAD}.dynamic_conv_cfg.feat_channels=32", f"{HEAD}.dynamic_channels=16")
    assert "feat_channels is 32" in fault
    assert "dynamic_channels is 16" in fault
    net = tiny(f"{MASK}.dynamic_channels=4", f"{HEAD}.0.dynamic_channels=8",
               f"{HEAD}.1.num_reg_fcs=1")
    bbox, mask = net.roi_head["bbox_head"], net.roi_head["mask_head"]
    assert [head.instance_interactive_conv.inner_channels for head in bbox] == [8, 16]
    assert [head.instance_interactive_conv.inner_channels for head in mask] == [4, 4]
    assert [len(head.reg_fcs) // 3 for head in bbox] == [3, 1]
    samples = make_samples(2)
    assert total(net.train().loss(images_for(samples), samples)).isfinite()


# --- keys of one value, keys that change nothing, keys that cannot be obeyed


@pytest.mark.parametrize("option", [
    "model.backbone.type=ResNet", "model.backbone.out_indices=(0,1,2,3)",
    "model.backbone.dcn=None", "model.backbone.norm_cfg.type=BN", "model.neck.num_outs=4",
    "model.data_preprocessor.type=DetDataPreprocessor", "model.test_cfg.rpn=None",
    f"{HEAD}.dropout=0.0", f"{HEAD}.bbox_coder.target_stds=[0.5,0.5,1.0,1.0]",
    f"{HEAD}.0.loss_cls.use_sigmoid=True", f"{MASK}.norm_cfg.type=BN", f"{RCNN}.0.mask_size=28",
    f"{RCNN}.sampler.type=PseudoSampler", f"{RCNN}.0.assigner.type=HungarianAssigner",
])
def test_the_value_that_there_is_may_be_named(option):
    notes = []
    assert load(option, notes=notes) == load()
    assert not notes


@pytest.mark.parametrize("option, message", [
    ("model.backbone.type=ResNeXt", "backbone.type wants 'ResNet', got ResNeXt"),
    ("model.backbone.num_stages=3", "backbone.num_stages wants 4, got 3"),
    ("model.backbone.plugins=[{a: 1}]", "backbone.plugins wants None, got a list of 1"),
    ("model.backbone.pretrained=x", "backbone.pretrained is not supported here: init_cfg"),
    ("model.neck.type=PAFPN", "neck.type wants 'FPN'"),
    ("model.neck.num_outs=5", "neck.num_outs wants 4, got 5"),
    (f"{HEAD}.0.dropout=0.1", "bbox_head[0].dropout wants 0.0, got 0.1"),
    (f"{HEAD}.loss_cls.type=CrossEntropyLoss", "loss_cls.type wants 'FocalLoss'"),
    (f"{HEAD}.bbox_coder.clip_border=True", "bbox_coder.clip_border wants False"),
    (f"{MASK}.class_agnostic=True", "mask_head.class_agnostic wants False"),
    (f"{RCNN}.0.mask_size=14", "rcnn[0].mask_size wants 28, got 14: other values are not supp"),
    (f"{RCNN}.sampler.type=RandomSampler", "rcnn.sampler.type wants 'PseudoSampler'"),
    (f"{RCNN}.assigner.match_costs.0.type=DiceCost", "match_costs[0].type wants one of Focal"),
    (f"{RCNN}.assigner.match_costs=[]", "match_costs wants at least one"),
    ("model.roi_head.mask_roi_extractor.roi_layer.output_size=7", "output_size wants 14, got 7"),
    ("model.roi_head.bbox_roi_extractor.2.roi_layer.sampling_ratio=0",
     "bbox_roi_extractor[2].roi_layer.sampling_ratio wants 2, got 0"),
    ("model.test_cfg.rpn={a: 1}", "test_cfg.rpn wants None"),
])
def test_other_values_are_refused_with_the_one_that_there_is(option, message):
    (fault,) = refused(option)
    assert message in fault


def test_keys_that_change_nothing_say_so():
    notes = []
    options = ("model.neck.add_extra_convs=on_input", "model.test_cfg.rcnn.score_thr=0.05",
               "model.test_cfg.rcnn.nms={type: nms, iou_threshold: 0.5}",
               f"{RCNN}.0.debug=False", "model.data_preprocessor.boxtype2tensor=True")
    assert load(*options, notes=notes) == load()
    lines = note_lines(notes)
    assert sum(option.partition("=")[0].replace("rcnn.0", "rcnn[0]") in line
               for option in options for line in lines) == len(options)


def test_keys_that_mmdetection_has_not_stay_unknown():
    (fault,) = refused("model.backbone.norm_evil=True")
    assert "unknown key model.backbone.norm_evil. Did you mean model.backbone.norm_eval?" in fault


# --- what losses and matching obey


def losses_of(*options, seed=0):
    samples = make_samples(2, 1, seed=seed)
    return tiny(*options).train().loss(images_for(samples), samples)


def test_loss_weights_of_one_stage():
    plain = losses_of()
    for option, name, factor in (
            (f"{MASK}.0.loss_mask.loss_weight=4.0", "s0.loss_mask", 0.5),
            (f"{HEAD}.1.loss_cls.loss_weight=1.0", "s1.loss_cls", 0.5),
            (f"{HEAD}.1.loss_iou.loss_weight=4.0", "s1.loss_iou", 2.0)):
        changed = losses_of(option)
        for term, value in plain.items():
            wanted = value * factor if term == name else value
            torch.testing.assert_close(changed[term], wanted)


def test_alpha_gamma_and_eps_of_the_losses():
    plain = losses_of()
    # without gamma every entry counts its whole cross entropy; alpha splits it evenly
    even = losses_of(f"{HEAD}.loss_cls.gamma=0", f"{HEAD}.loss_cls.alpha=0.5")
    assert even["s0.loss_cls"] > 2 * plain["s0.loss_cls"]
    heavy = losses_of(f"{HEAD}.0.loss_cls.alpha=0.5")
    assert heavy["s0.loss_cls"] != plain["s0.loss_cls"]
    assert heavy["s1.loss_cls"] == plain["s1.loss_cls"]
    blurred = losses_of(f"{MASK}.loss_mask.eps=1e6")
    # 1 - 2 p.t / (large) is 1 for each of the objects, times the weight of 8
    torch.testing.assert_close(blurred["s0.loss_mask"], torch.tensor(8.0), rtol=1e-3, atol=0)


def test_pos_weight_counts_the_matched_proposals():
    plain, double, zero = (losses_of(f"{RCNN}.pos_weight={weight}")["s0.loss_cls"]
                           for weight in (1, 2, 0))
    triple = losses_of(f"{RCNN}.pos_weight=3")["s0.loss_cls"]
    assert zero == plain  # as in the original
    positive = double - plain
    assert 0 < positive < plain
    torch.testing.assert_close(triple - double, positive, rtol=1e-3, atol=1e-4)


def test_matching_costs_are_obeyed():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator)
    corners = torch.rand(6, 2, generator=generator) * 30
    boxes, labels = torch.cat((corners, corners + 10), 1), torch.tensor([0, 2])
    args = logits, boxes, boxes[:2] + 3, labels, (64, 64)
    parts = match_cost(*args, parts=True)

    def cost(*options):
        return total_cost(cost_parts(*args, cost_weights(load(*options).model.train_cfg.rcnn)))

    torch.testing.assert_close(cost(), match_cost(*args), rtol=0, atol=0)
    torch.testing.assert_close(
        cost(f"{RCNN}.assigner.match_costs.1.weight=10"), match_cost(*args) + parts["l1"])
    alone = cost(f"{RCNN}.assigner.match_costs=[{{type: IoUCost, weight: 2.0}}]")
    torch.testing.assert_close(alone, parts["giou"])
    assert not torch.equal(cost(f"{RCNN}.assigner.match_costs.0.gamma=1"), cost())


def test_each_stage_matches_by_its_own_costs():
    """By classes alone another proposal wins than by boxes; stage 1 goes on as before."""
    only_class = f"{RCNN}.0.assigner.match_costs=[{{type: FocalLossCost, weight: 1.0}}]"
    changed = False
    for seed in range(5):
        plain, other = losses_of(seed=seed), losses_of(only_class, seed=seed)
        changed |= plain["s0.loss_bbox"] != other["s0.loss_bbox"]
        assert plain["s1.loss_bbox"] == other["s1.loss_bbox"]
    assert changed


# --- what the backbone obeys


def backbone(**keys):
    torch.manual_seed(0)
    return ResNet(BackboneConfig(base_channels=8, frozen_stages=1, init_cfg=None, **keys)).train()


@pytest.mark.parametrize("norm_eval", [True, False])
def test_recomputed_blocks_give_the_same_gradients_and_statistics(norm_eval):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    grads, statistics, calls = [], [], []
    for with_cp in (False, True):
        net = backbone(depth=18, norm_eval=norm_eval, with_cp=with_cp)
        count = Counter()
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(
                    lambda *_, name=name, count=count: count.update([name]))
        sum(out.square().mean() for out in net(images)).backward()
        grads.append({name: p.grad for name, p in net.named_parameters() if p.requires_grad})
        statistics.append({name: b.clone() for name, b in net.named_buffers()})
        calls.append(count)
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=0, atol=0, msg=name)
    for name, value in statistics[0].items():
        assert torch.equal(statistics[1][name], value), name
    assert set(calls[0].values()) == {1}
    again = {name for name, times in calls[1].items() if times == 2}
    # the first block with something to train has an input without gradient, so it is kept
    assert again
    assert all(name.startswith(("layer2.1", "layer3", "layer4")) for name in again)


def test_style_places_the_stride():
    images = torch.randn(1, 3, 64, 64)
    nets = {style: backbone(depth=50, style=style) for style in ("pytorch", "caffe")}
    strides = {style: (net.layer2[0].conv1.stride, net.layer2[0].conv2.stride,
                       net.layer2[0].downsample[0].stride) for style, net in nets.items()}
    assert strides == {"pytorch": ((1, 1), (2, 2), (2, 2)), "caffe": ((2, 2), (1, 1), (2, 2))}
    outs = [net.eval()(images) for net in nets.values()]
    assert [out.shape for out in outs[0]] == [out.shape for out in outs[1]]
    torch.testing.assert_close(outs[0][0], outs[1][0])  # no stride in the first stage
    assert not torch.equal(outs[0][1], outs[1][1])


def test_norms_that_are_not_trained():
    net = tiny("model.backbone.norm_cfg.requires_grad=False")
    norms = [m for m in net.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(p.requires_grad for norm in norms for p in norm.parameters())
    assert net.backbone.layer4[0].conv1.weight.requires_grad


def test_blocks_may_start_as_their_shortcuts():
    for depth, name in ((18, "bn2"), (50, "bn3")):
        options = f"model.backbone.depth={depth}", "model.backbone.zero_init_residual=True"
        block = tiny(*options).backbone.layer3[0]
        assert not block.get_submodule(name).weight.any()
        assert block.bn1.weight.all()
    assert tiny("model.backbone.depth=50").backbone.layer3[0].bn3.weight.all()


def test_channels_may_come_as_the_files_have_them():
    key = "model.data_preprocessor"
    usual = load().model.data_preprocessor
    odd = load(f"{key}.bgr_to_rgb=False", f"{key}.pad_value=7").model.data_preprocessor
    image = torch.randint(0, 255, (1, 3, 32, 32), dtype=torch.uint8)
    batch = {"images": image, "metas": [{"img_shape": (20, 30)}]}
    cpu = torch.device("cpu")
    inputs = network_input(batch, cpu, odd)
    swapped = network_input({**batch, "images": image.flip(1)}, cpu, usual)
    assert torch.equal(inputs[:, :, :20, :30], swapped[:, :, :20, :30])
    assert (inputs[:, :, 20:] == 7).all()
    assert (inputs[:, :, :, 30:] == 7).all()
