"""Our own operators against torchvision's compiled ones, alone and inside of YOLACT++."""

import copy

import pytest
import torch

from models.queryinst.roi_align import STRIDES, PyramidRows
from models.yolact import build_yolact, detect, load_yolact_config
from models.yolact import deform_conv as layers

pytestmark = [pytest.mark.operators, pytest.mark.usefixtures("torchvision_here")]

SIZE = 144  # px of the images: stages of 36, 18, 9 and 5 cells


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def plus(torchvision_here):
    """YOLACT++ ResNet-50 whose taps do move, in float64: what is left is the operators' own."""
    torch.manual_seed(0)
    net = build_yolact("yolact_plus_resnet50")
    for module in net.modules():
        if isinstance(module, layers.DeformConv):
            torch.nn.init.normal_(module.conv_offset_mask.weight, std=0.02)
    return net.double()


def outputs_and_gradients(net, images):
    net = copy.deepcopy(net).train()
    out = net(images)
    total = sum((out[key] * torch.linspace(-1, 1, out[key].numel(), dtype=torch.float64)
                 .view_as(out[key])).sum() for key in ("loc", "conf", "mask", "proto"))
    total.backward()
    grads = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return {key: value.detach() for key, value in out.items()} | grads


def test_yolact_plus_is_the_same_with_both(plus, monkeypatch):
    from torchvision.ops import deform_conv2d as compiled

    images = torch.randn(1, 3, SIZE, SIZE, generator=generator(), dtype=torch.float64)
    calls, results = [], []
    for function in (compiled, deform_conv2d):
        def counted(*args, function=function, **kwargs):
            calls.append(function)
            return function(*args, **kwargs)

        monkeypatch.setattr(layers, "deform_conv2d", counted)
        results.append(outputs_and_gradients(plus, images))
    assert calls == [compiled] * 13 + [deform_conv2d] * 13  # its 4 + 6 + 3 deformable layers
    theirs, ours = results
    assert theirs.keys() == ours.keys()
    for name, value in theirs.items():
        # float64 through 50 layers, beside the largest entry of the tensor
        bound = 1e-9 * max(1.0, value.abs().max().item())
        assert (ours[name] - value).abs().max() <= bound, name


@pytest.mark.parametrize("size", [7, 14])
def test_roi_align(size):
    from torchvision.ops import roi_align

    levels = [torch.randn(2, 5, 128 // s, 160 // s, generator=generator(s), dtype=torch.float64)
              for s in STRIDES]
    corner = torch.rand(40, 2, generator=generator(1), dtype=torch.float64) * 150 - 20
    sides = torch.rand(40, 2, generator=generator(2), dtype=torch.float64) * 300
    boxes = torch.cat((corner, corner + sides), dim=1)  # also beyond the image's border
    image = torch.arange(40) % 2
    level = ((sides.prod(1).sqrt() / 56 + 1e-6).log2().floor().clamp(0, 3)).long()
    wanted = torch.empty(40, size * size, 5, dtype=torch.float64)
    for i, (features, stride) in enumerate(zip(levels, STRIDES, strict=True)):
        rois = torch.cat((image[:, None].double(), boxes), dim=1)[level == i]
        pooled = roi_align(features, rois, size, 1 / stride, sampling_ratio=2, aligned=True)
        wanted[level == i] = pooled.flatten(2).transpose(1, 2)
    assert set(level.tolist()) >= {0, 1, 2}
    # float64 sums of 16 products in another order
    torch.testing.assert_close(
        PyramidRows(levels).pool(boxes, image, size), wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_traditional_nms(seed):
    from torchvision.ops import batched_nms

    cfg = load_yolact_config("yolact_shapes", max_num_detections=1000)
    corner = torch.rand(150, 2, generator=generator(seed)) * 0.6
    boxes = torch.cat((corner, corner + 0.1 + torch.rand(150, 2, generator=generator(9)) * 0.3), 1)
    conf = torch.randn(1, 150, cfg.num_classes, generator=generator(seed + 10)) * 2
    priors = torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), dim=1)
    raw = {"loc": torch.zeros(1, 150, 4), "conf": conf, "priors": priors,
           "mask": torch.zeros(1, 150, 1), "proto": torch.zeros(1, 1, 1, 1)}
    found = detect(raw, cfg, fast_nms=False)[0]

    prior, label = (conf[0].softmax(1)[:, 1:] > cfg.nms_conf_thresh).nonzero(as_tuple=True)
    scores = conf[0].softmax(1)[prior, label + 1]
    pixels = boxes[prior] * cfg.max_size
    pixels[:, 2:] += 1  # this NMS counts the last pixel too
    kept = batched_nms(pixels, scores, label, cfg.nms_thresh)
    assert len(kept) > 100
    assert found["class"].tolist() == label[kept].tolist()
    torch.testing.assert_close(found["score"], scores[kept])
    torch.testing.assert_close(found["box"], boxes[prior[kept]], atol=1e-6, rtol=0)  # float32


deform_conv2d = layers.deform_conv2d  # ours, whatever --operators puts into the module later
