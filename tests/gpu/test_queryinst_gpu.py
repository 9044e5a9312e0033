"""QueryInst's losses on an accelerator: the CPU's numbers, and one wait for the device."""

import pytest
import torch
from device_waits import device_waits
from queryinst_step import make_batch

from common.parallel import to_device
from models.queryinst import build_queryinst

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return build_queryinst("queryinst_r50_fpn_1x_coco").train()


@pytest.fixture
def exact_convolutions():
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = True


def losses_on(net, device):
    images, samples = to_device(make_batch(2, 160, 224), torch.device(device))
    return net.to(device).loss(images, samples)


def test_first_stage_equals_the_cpus(net, exact_convolutions):
    wanted = losses_on(net, "cpu")
    found = losses_on(net, "cuda")
    # later stages' matches hang on near ties: with random weights many proposals look alike
    for name in ("s0.loss_cls", "s0.loss_bbox", "s0.loss_iou"):
        torch.testing.assert_close(found[name].cpu(), wanted[name], rtol=1e-3, atol=0)
    assert found.keys() == wanted.keys()
    assert all(value.isfinite() for value in found.values())


def test_waits_for_the_device_once(net):
    losses_on(net, "cuda")
    images, samples = to_device(make_batch(2, 160, 224), torch.device("cuda"))

    def step():
        losses = net.loss(images, samples)
        sum(value for name, value in losses.items() if "loss" in name).backward()

    waits = device_waits(step)
    assert len(waits) <= 1, waits
