"""The YOLACT network: shapes, priors, pyramid, frozen norms, blocks, compilation."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from models.residual import BasicBlock, Bottleneck
from models.yolact import build_yolact, load_yolact_config
from models.yolact.backbones import build_backbone
from models.yolact.deform_conv import DeformConv
from models.yolact.network import Fpn, make_net
from models.yolact.priors import make_priors
from runtime.errors import InputError

SIZE = 128  # of yolact_shapes


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = build_yolact("yolact_shapes")
    net.init_weights()
    return net


def images(batch=2):
    return torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_training_mode_gives_raw_outputs(net):
    out = net.train()(images())
    assert {key: tuple(value.shape) for key, value in out.items()} == {
        "loc": (2, 1008, 4), "conf": (2, 1008, 7), "mask": (2, 1008, 16), "priors": (1008, 4),
        "proto": (2, 32, 32, 16), "segm": (2, 6, 16, 16),
    }
    assert out["mask"].abs().max() <= 1
    assert out["proto"].min() >= 0
    sum(value.sum() for key, value in out.items() if key != "priors").backward()
    assert all(p.grad is not None for p in net.parameters())  # DDP wants every one


def test_evaluation_mode_gives_detections(net):
    net._priors.clear()
    with torch.inference_mode():
        detections = net.eval()(images())
    assert len(detections) == 2
    found = detections[0]
    assert set(found) == {"box", "mask", "class", "score", "proto"}
    assert len(found["box"]) == len(found["mask"]) == len(found["class"]) == len(found["score"])
    assert found["proto"].shape == (32, 32, 16)
    # what inference mode cached must not stop a later backward pass
    out = net.train()(images())
    (out["loc"] * out["priors"]).sum().backward()


def test_raw_heads_follow_each_norms_mode(net):
    raw = net.train().forward_heads(images())
    still = net.eval().forward_heads(images())
    assert "segm" in still
    assert not torch.allclose(raw["conf"], still["conf"])  # batch statistics against running ones


def test_a_tuned_size_changes_the_cells_but_no_weight(net):
    larger = build_yolact(replace(net.cfg, max_size=160))
    larger.load_state_dict(net.state_dict())
    assert larger.forward_heads(torch.zeros(1, 3, 160, 160))["proto"].shape == (1, 40, 40, 16)


def test_priors_are_not_part_of_the_state(net):
    net.eval().forward_heads(images())
    assert not [key for key in net.state_dict() if "prior" in key]


def test_priors_by_hand():
    cfg = load_yolact_config("yolact_base", max_size=100)
    backbone = replace(
        cfg.backbone, pred_scales=((10,), (20, 40)), pred_aspect_ratios=(((1.0, 4.0),), ((4.0,),)),
        selected_layers=(1,), use_square_anchors=False,
    )
    cfg = replace(cfg, backbone=backbone, fpn=replace(cfg.fpn, num_downsample=1),
                  share_prediction_module=False)
    expected = [  # cells row by row; at a cell aspect lists, then scales, then ratios
        (0.25, 0.5, 0.1, 0.1), (0.25, 0.5, 0.2, 0.05),
        (0.75, 0.5, 0.1, 0.1), (0.75, 0.5, 0.2, 0.05),
        (0.5, 0.5, 0.4, 0.1), (0.5, 0.5, 0.8, 0.2),
    ]
    sizes = ((1, 2), (1, 1))
    # the expected values are decimal fractions, rounded to float32 once
    torch.testing.assert_close(make_priors(cfg, sizes), torch.tensor(expected), atol=1e-7, rtol=0)
    square = replace(cfg, backbone=replace(backbone, use_square_anchors=True))
    assert torch.equal(make_priors(square, sizes)[:, 2], make_priors(square, sizes)[:, 3])
    cells = replace(cfg, backbone=replace(backbone, use_pixel_scales=False, preapply_sqrt=True,
                                          pred_scales=((1,), (1, 2))))
    # scale 1 is one cell; a ratio of 4 is taken for a root: 4 wide, 1/4 high
    assert make_priors(cells, sizes)[1].tolist() == [0.25, 0.5, 2.0, 0.25]


def test_separate_heads_have_own_weights_and_prior_counts():
    cfg = load_yolact_config("yolact_shapes")
    ratios = (((1.0,),), ((1.0, 2.0),), ((1.0,),))  # of three scales each
    cfg = replace(cfg, share_prediction_module=False, extra_layers=(1, 0, 2),
                  backbone=replace(cfg.backbone, pred_aspect_ratios=ratios))
    net = build_yolact(cfg)
    assert len(net.prediction_layers) == 3
    out = net(images())
    assert out["loc"].shape[1] == len(out["priors"]) == 3 * (256 + 2 * 64 + 16)


def test_frozen_norms_stay_frozen_through_train(net):
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    net.freeze_bn()
    net.train()
    before = norms[0].running_mean.clone()
    net(images())
    assert not any(m.training for m in norms)
    assert not any(p.requires_grad for m in norms for p in m.parameters())
    assert torch.equal(norms[0].running_mean, before)
    assert net.proto_net.training
    net.freeze_bn(False)
    assert all(m.training for m in norms)
    assert all(p.requires_grad for p in net.parameters())
    frozen = build_yolact(replace(net.cfg, freeze_bn=True)).train()
    assert not any(m.training for m in frozen.modules() if isinstance(m, nn.BatchNorm2d))


def test_one_compilation_serves_all_calls(net):
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    net.train().freeze_bn()
    net._priors.clear()
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    with torch.no_grad():
        results, plain = [compiled(images()), net(images()), compiled(images())], net(images())
    net.freeze_bn(False)
    assert len(graphs) == 1
    for result in results:
        for key in plain:
            # float32, operations in another order
            torch.testing.assert_close(result[key], plain[key], atol=1e-5, rtol=0)


def test_half_precision_and_channels_last_stay_close(net):
    other = build_yolact(net.cfg).eval().to(memory_format=torch.channels_last)
    other.load_state_dict(net.state_dict())
    net.eval()
    with torch.no_grad():
        plain = net.forward_heads(images())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half, detections = net.forward_heads(images()), net(images())
        strided = other.forward_heads(images().to(memory_format=torch.channels_last))
    assert half["priors"].dtype == detections[0]["score"].dtype == torch.float32
    for key, value in plain.items():
        largest = float(value.abs().max())
        # bfloat16 keeps 8 bits, over some 20 layers; channels_last only reorders float32 sums
        torch.testing.assert_close(half[key].float(), value, atol=0.05 * largest, rtol=0)
        torch.testing.assert_close(strided[key], value, atol=1e-4 * largest, rtol=0)


def test_configs_that_cannot_be_built():
    with pytest.raises(InputError, match="has no backbone"):
        build_yolact("coco_base")
    cfg = load_yolact_config("yolact_shapes")
    with pytest.raises(InputError, match="num_classes is 9"):
        build_yolact(replace(cfg, num_classes=9))


@pytest.mark.parametrize("name, deformed", [
    ("resnet101_dcn_inter3", {1: (0, 3), 2: tuple(range(0, 22, 3)), 3: (0,)}),
    ("resnet50_dcnv2", {1: tuple(range(4)), 2: tuple(range(6)), 3: tuple(range(3))}),
])
def test_deformable_blocks_are_the_specs(name, deformed):
    cfg = load_yolact_config(f"yolact_base.copy({{'backbone': {name}_backbone}})").backbone
    with torch.device("meta"):
        backbone = build_backbone(cfg)
    found = {
        i: tuple(j for j, block in enumerate(stage) if isinstance(block.conv2, DeformConv))
        for i, stage in enumerate(backbone.layers)
    }
    assert found == {0: ()} | deformed


def test_only_the_last_blocks_of_a_stage_are_deformable():
    cfg = load_yolact_config("yolact_resnet50").backbone
    args = replace(cfg.args, dcn_layers=(0, 3, 2), dcn_interval=2)
    with torch.device("meta"):
        backbone = build_backbone(replace(cfg, args=args))
    found = [[isinstance(block.conv2, DeformConv) for block in stage] for stage in backbone.layers]
    assert found[1] == [False, False, True, False]
    assert found[2] == [False, False, False, False, True, False]
    assert not any(found[3])


def test_missing_stages_are_appended():
    cfg = load_yolact_config("yolact_shapes").backbone
    backbone = build_backbone(replace(cfg, selected_layers=(3, 5)))
    assert backbone.channels == [32, 64, 128, 256, 512, 512]
    assert backbone.num_own_stages == 4
    assert [tuple(x.shape[2:]) for x in backbone(images())] == [
        (size, size) for size in (32, 16, 8, 4, 2, 1)]


@pytest.mark.parametrize("block", [
    Bottleneck(64, 16),
    BasicBlock(64, 64),
])
def test_a_block_without_a_branch_is_its_shortcut(block):
    last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
    nn.init.zeros_(last.weight)
    x = torch.randn(1, 64, 5, 5)
    assert torch.equal(block.eval()(x), x.relu())


def test_vgg_norm_is_only_for_the_output():
    cfg = load_yolact_config("yolact_base.copy({'backbone': vgg16_backbone})").backbone
    backbone = build_backbone(cfg).eval()
    with torch.no_grad():
        before = backbone(images(1)[..., :64, :64])
        backbone.norms[0].weight.fill_(2.0)
        after = backbone(images(1)[..., :64, :64])
    assert [tuple(x.shape[1:]) for x in before] == [
        (64, 64, 64), (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4), (1024, 4, 4),
        (512, 2, 2)]
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [
        i != 3 for i in range(7)]


def test_pyramid_options():
    cfg = replace(load_yolact_config("yolact_base").fpn, num_features=8)
    stages = [torch.randn(1, c, s, s) for c, s in ((4, 13), (6, 7), (8, 4))]
    levels = Fpn(cfg, [4, 6, 8])(stages)
    assert [x.shape[-1] for x in levels] == [13, 7, 4, 2, 1]
    assert min(x.min() for x in levels[:3]) >= 0
    assert levels[3].min() < 0  # no ReLU below
    plain = Fpn(replace(cfg, use_conv_downsample=False, relu_downsample_layers=True,
                        relu_pred_layers=False, interpolation_mode="nearest"), [4, 6, 8])
    levels = plain(stages)
    assert min(x.min() for x in levels[:3]) < 0
    assert torch.equal(levels[3], levels[2][..., ::2, ::2].relu())


def test_net_grammar():
    layers = (("cat", (((4, 3, {"padding": 1}),), ((6, 1, {}),)), {}), (None, -2, {}), (5, -2, {}))
    net, channels = make_net(3, layers, last_relu=False)
    kinds = [type(layer).__name__ for layer in net]
    assert kinds == ["Concat", "ReLU", "Upsample", "ReLU", "ConvTranspose2d"]
    assert channels == 5
    assert net(torch.randn(1, 3, 4, 4)).shape == (1, 5, 9, 9)
    full, _ = make_net(3, layers)
    assert len(full) == 6
    assert all(a is not b for a, b in pairwise(full))


@pytest.mark.parametrize("name", ["yolact_resnet50", "yolact_darknet53"])
@pytest.mark.parametrize("size", [33, 64, 130])
def test_the_config_knows_the_prototypes_size(name, size):
    # a mask IoU net of one convolution as large as the prototypes fits; one cell more does not
    cfg = load_yolact_config(name, max_size=size)
    side = build_yolact(cfg).eval().forward_heads(torch.zeros(1, 3, size, size))["proto"].shape[1]
    replace(cfg, use_maskiou=True, maskiou_net=((8, side, {}),))
    with pytest.raises(InputError, match="max_size wants at least"):
        replace(cfg, use_maskiou=True, maskiou_net=((8, side + 1, {}),))
