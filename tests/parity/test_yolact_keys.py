"""State-dict keys, shapes and their order, and parameter counts, of every shipped config."""

from dataclasses import replace

import pytest
import torch
from goldens import load_golden

from models.yolact import build_yolact, load_yolact_config
from models.yolact.backbones import build_backbone

# learnable tensors and numbers in them [yolact.md: Backbones]
COUNTS = {
    "yolact_base": (348, 50157071), "yolact_im400": (348, 50157071),
    "yolact_im700": (348, 50157071), "yolact_darknet53": (192, 47783087),
    "yolact_resnet50": (195, 31164943), "yolact_resnet50_pascal": (195, 30734623),
    "yolact_plus_base": (393, 52571142), "yolact_plus_resnet50": (246, 33766460),
}


def keys_of(module):
    return [(key, list(value.shape)) for key, value in module.state_dict().items()]


@pytest.mark.parametrize("name", COUNTS)
def test_network(name):
    with torch.device("meta"):
        net = build_yolact(name)
    assert keys_of(net) == list(load_golden("yolact_keys")[f"{name}_config"].items())
    parameters = list(net.parameters())
    assert (len(parameters), sum(p.numel() for p in parameters)) == COUNTS[name]


@pytest.mark.parametrize("name, stages", [("vgg16_backbone", 10), ("resnet101_gn_backbone", 8)])
def test_backbone_that_no_shipped_config_uses(name, stages):
    cfg = load_yolact_config(f"yolact_base.copy({{'backbone': {name}}})").backbone
    with torch.device("meta"):
        backbone = build_backbone(replace(cfg, selected_layers=(stages - 1,)))
    assert keys_of(backbone) == list(load_golden("yolact_backbone_keys")[name].items())
