"""Loading and initialising YOLACT weights: what goes in, what is reported, what is refused."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from common.checkpoint import save_checkpoint
from models.yolact import build_yolact, load_weights, load_yolact_config, start_weights
from runtime.errors import InputError

HEAD = "prediction_layers.0.conf_layer.weight"


def small_net(classes=6, **overrides):
    """yolact_shapes with another number of foreground classes."""
    names = tuple(f"c{i}" for i in range(classes))
    return build_yolact(load_yolact_config(
        "yolact_shapes", num_classes=classes + 1, dataset={"class_names": names}, **overrides))


def backbone_net(backbone):
    """A network around a backbone section, without weights of its own worth anything."""
    torch.manual_seed(0)
    return build_yolact(replace(load_yolact_config("yolact_shapes"), backbone=backbone))


def random_state(net):
    generator = torch.Generator().manual_seed(3)
    return {k: torch.randn(v.shape, generator=generator).to(v.dtype)
            for k, v in net.state_dict().items()}


def fault_of(call, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert len(caught.value.faults) == 1
    return str(caught.value)


@pytest.fixture(scope="module")
def net():
    return small_net()


def test_everything_goes_in_under_a_prefix_and_beside_old_duplicates(net):
    state = random_state(net)
    file = {f"module.{key}": value for key, value in state.items()}
    file["module.backbone.layer1.0.conv1.weight"] = torch.zeros(1)
    file["module.fpn.downsample_layers.1.weight"] = torch.zeros(1)  # this net has one, number 0
    report = load_weights(net, file)
    assert report.loaded == len(state)
    assert list(report) == [f"{len(state)} entries loaded"]
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def test_another_class_count_is_refused_in_one_line_that_names_both(net):
    fault = fault_of(load_weights, net, random_state(small_net(3)), source="w/a.pth")
    assert fault.startswith("w/a.pth: made for 4 classes with background")
    assert "has 7" in fault
    assert "--pretrained" in fault


def test_partial_loading_takes_what_fits_and_says_what_does_not(net):
    other = small_net(3)
    state = random_state(other) | {"extra": torch.zeros(1)}
    del state["fpn.lat_layers.0.bias"]
    before = {key: value.clone() for key, value in net.state_dict().items()}
    report = load_weights(net, state, partial=True)
    after = net.state_dict()
    differing = {HEAD, HEAD.replace("weight", "bias"), "semantic_seg_conv.weight",
                 "semantic_seg_conv.bias"}
    assert set(report.mismatched) == differing
    assert report.missing == ("fpn.lat_layers.0.bias",)
    assert report.unexpected == ("extra",)
    for key, value in after.items():
        kept = key in differing or key in report.missing
        assert torch.equal(value, before[key] if kept else state[key]), key
    text = "\n".join(report)
    assert f"{len(after) - 5} entries loaded" in text
    assert HEAD in text
    assert "1 in the file only, not used: extra" in text


@pytest.mark.parametrize("change", [
    lambda state: state.pop("proto_net.0.bias"),
    lambda state: state.update(extra=torch.zeros(1)),
    lambda state: state.update({"proto_net.0.bias": torch.zeros(3)}),
])
def test_any_difference_is_refused_and_changes_nothing(net, change):
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = random_state(net)
    change(state)
    assert "does not fit config yolact_shapes" in fault_of(load_weights, net, state)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_foreign_files_are_refused(net):
    fault = fault_of(load_weights, net, {"a": torch.zeros(1)}, partial=True, source="b.pth")
    assert fault.startswith("b.pth: none of its 1 entries")
    assert "not a dict of tensors" in fault_of(load_weights, net, {"epoch": 3})
    assert "none of its 0 entries" in fault_of(load_weights, net, {}, partial=True)


def torchvision_names(backbone):
    """A torchvision-like ResNet file for this backbone, with a classifier."""
    state = {}
    for key, value in random_state(backbone).items():
        if key.startswith("layers."):
            _, stage, rest = key.split(".", 2)
            key = f"layer{int(stage) + 1}.{rest}"
        state[key] = value
    return state | {"fc.weight": torch.zeros(10, 8)}


def test_resnet_file_fills_the_backbone_and_nothing_else(tmp_path):
    net = small_net()
    before = net.proto_net[0].weight.clone()
    save_checkpoint(tmp_path / "r.pth", torchvision_names(net.backbone))
    report = net.load_backbone(tmp_path / "r.pth")
    wanted = random_state(net.backbone)
    assert all(torch.equal(v, wanted[k]) for k, v in net.backbone.state_dict().items())
    assert (report.missing, report.unexpected) == ((), ("fc.weight",))
    assert torch.equal(net.proto_net[0].weight, before)


def test_deformable_blocks_take_the_plain_weight(tmp_path):
    section = load_yolact_config("yolact_shapes").backbone
    args = replace(section.args, block="bottleneck", width=8)
    plain = backbone_net(replace(section, args=args))
    net = backbone_net(replace(section, args=replace(args, dcn_layers=(0, 1))))
    save_checkpoint(tmp_path / "r.pth", torchvision_names(plain.backbone))
    report = net.load_backbone(tmp_path / "r.pth")
    conv2 = net.backbone.layers[1][0].conv2
    assert torch.equal(conv2.weight, random_state(plain.backbone)["layers.1.0.conv2.weight"])
    assert not conv2.bias.any()
    assert not conv2.conv_offset_mask.weight.any()
    assert len(report.missing) == 3
    assert all(".conv2." in key for key in report.missing)


def test_darknet_and_vgg_files(tmp_path):
    section = load_yolact_config("yolact_base.copy({'backbone': darknet53_backbone})").backbone
    few = {"pred_scales": ((1,),) * 3, "pred_aspect_ratios": (((1.0,),),) * 3}
    net = backbone_net(replace(section, args=replace(section.args, layers=(1, 1)),
                               selected_layers=(0, 1, 2), **few))
    state = random_state(net.backbone)
    save_checkpoint(tmp_path / "d.pth", state)
    assert net.load_backbone(tmp_path / "d.pth").missing == ()
    assert torch.equal(net.backbone._preconv[0].weight, state["_preconv.0.weight"])

    section = load_yolact_config("yolact_base.copy({'backbone': vgg16_backbone})").backbone
    net = backbone_net(replace(section, selected_layers=(3, 4, 5), **few))
    # the flat file numbers every layer, pools and ReLUs too: conv1_1 is 0, conv2_1 is 5, fc7 is 33
    first, second, last = torch.randn(64), torch.randn(128), torch.randn(1024)
    save_checkpoint(tmp_path / "v.pth", {"0.bias": first, "5.bias": second, "33.bias": last})
    report = net.load_backbone(tmp_path / "v.pth")
    assert report.loaded == 3
    assert torch.equal(net.backbone.layers[0][0].bias, first)
    assert torch.equal(net.backbone.layers[1][1].bias, second)
    assert torch.equal(net.backbone.layers[5][3].bias, last)


def test_detectron_blobs(tmp_path):
    section = load_yolact_config("yolact_shapes").backbone
    args = replace(section.args, block="bottleneck", norm="group")
    net = backbone_net(replace(section, args=args))
    targets = {
        "conv1_w": "conv1.weight", "conv1_gn_s": "bn1.weight", "conv1_gn_b": "bn1.bias",
        "res2_0_branch2a_w": "layers.0.0.conv1.weight",
        "res3_0_branch2b_gn_s": "layers.1.0.bn2.weight",
        "res4_0_branch2c_gn_b": "layers.2.0.bn3.bias",
        "res5_0_branch1_w": "layers.3.0.downsample.0.weight",
        "res5_0_branch1_gn_b": "layers.3.0.downsample.1.bias",
    }
    state = random_state(net.backbone)
    blobs = {blob: state[key] for blob, key in targets.items()} | {"pred_w": torch.zeros(1)}
    save_checkpoint(tmp_path / "g.pth", {"blobs": blobs})
    report = net.load_backbone(tmp_path / "g.pth")
    assert report.loaded == len(targets)
    assert report.unexpected == ("pred_w",)
    loaded = net.backbone.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in targets.values())
    assert "can run code" in fault_of(net.load_backbone, tmp_path / "R-101-GN.pkl")


def test_backbone_files_that_fit_nothing(net, tmp_path):
    save_checkpoint(tmp_path / "x.pth", {"fc.weight": torch.zeros(2)})
    assert "none of its 1 entries" in fault_of(net.load_backbone, tmp_path / "x.pth")
    assert "missing.pth" in fault_of(net.load_backbone, tmp_path / "missing.pth")


def test_random_initialisation_is_seeded_and_of_the_right_kind():
    section = load_yolact_config("yolact_shapes").backbone
    args = replace(section.args, block="bottleneck", width=8, dcn_layers=(0, 1))
    section = replace(section, args=args, selected_layers=(1, 2, 4))  # stage 4 is appended
    net, twin = backbone_net(section), backbone_net(section)
    twin.to(memory_format=torch.channels_last)  # a seed means the same in any layout
    for each in (net, twin):
        torch.manual_seed(7)
        assert each.init_weights() == ["backbone from random weights"]
    state = net.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in twin.state_dict().items())

    xavier = [m for name, m in net.named_modules() if isinstance(m, nn.Conv2d)
              and (not name.startswith("backbone.") or name.startswith("backbone.layers.4."))]
    assert len(xavier) > 15
    for conv in xavier:
        fan = conv.weight[0].numel() + conv.weight[:, 0].numel()
        bound = (6 / fan) ** 0.5
        assert 0.8 * bound < conv.weight.abs().max() <= bound
        assert conv.bias is None or not conv.bias.any()
    conv1 = net.backbone.conv1.weight.detach()
    # 8 * 147 normal draws: their deviation is within 10 % of Kaiming's
    assert float(conv1.std()) == pytest.approx((2 / (8 * 49)) ** 0.5, rel=0.1)
    assert not net.backbone.layers[1][0].conv2.conv_offset_mask.weight.any()
    assert (net.backbone.bn1.weight == 1).all()


def test_initialisation_from_a_file_reports_it(tmp_path):
    net = small_net()
    save_checkpoint(tmp_path / "r.pth", torchvision_names(net.backbone))
    lines = net.init_weights(tmp_path / "r.pth")
    assert lines[0].startswith(f"backbone from {tmp_path / 'r.pth'}: ")
    assert "fc.weight" in lines[1]
    assert torch.equal(net.backbone.conv1.weight, random_state(net.backbone)["conv1.weight"])


class Lines(list):
    """A run that keeps what it says."""

    def log(self, line):
        self.append(line)


def test_pretrained_takes_a_backbones_file(tmp_path):
    net = small_net()
    file = torchvision_names(net.backbone)
    save_checkpoint(tmp_path / "r.pth", file)
    run = Lines()
    start_weights(run, net, str(tmp_path / "r.pth"), tmp_path)
    assert torch.equal(net.backbone.layers[1][0].conv1.weight, file["layer2.0.conv1.weight"])
    assert float(net.fpn.lat_layers[0].bias.detach().abs().max()) == 0  # drawn, as in a new start
    assert any("r.pth" in line and "entries loaded" in line for line in run)


@pytest.mark.parametrize("change, fits", [
    (lambda file: file.pop("layer3.0.conv1.weight"), None),
    (lambda file: file.update({"layer2.1.conv1.weight": torch.zeros(1)}), None),
    (lambda file: file.update({f"layer{stage}.{block}.conv1.weight": torch.zeros(1)
                               for stage, count in enumerate((3, 4, 6, 3), 1)
                               for block in range(count)}), "yolact_resnet50"),
    (lambda file: (file.clear(), file.update({"layers.0.0.0.weight": torch.zeros(1)})),
     "yolact_darknet53"),
])
def test_another_backbones_file_is_refused_with_the_config_that_fits(tmp_path, change, fits):
    net = small_net()
    file = torchvision_names(net.backbone)
    change(file)
    save_checkpoint(tmp_path / "r.pth", file)
    fault = fault_of(start_weights, Lines(), net, str(tmp_path / "r.pth"), tmp_path)
    assert fault.startswith(f"{tmp_path / 'r.pth'}: not of the ResNet10 of config yolact_shapes: ")
    assert (f"it fits --config {fits}" in fault) == (fits is not None)
