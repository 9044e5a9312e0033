"""MultiBoxLoss on an accelerator: the CPU's numbers, and how often it waits for the device."""

import pytest
import torch
from device_waits import device_waits
from multibox_loss import BATCH, make_inputs

from common.losses import MultiBoxLoss
from models.yolact import load_yolact_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture(scope="module")
def cfg():
    return load_yolact_config("yolact_resnet50_config")


def run(cfg, device):
    predictions, targets, masks = make_inputs(cfg, torch.device(device))
    losses = MultiBoxLoss(cfg)(None, predictions, targets, masks, [0] * BATCH)
    leaves = [value for value in predictions.values() if value.requires_grad]
    return losses, torch.autograd.grad(sum(losses.values()), leaves)


def test_equals_the_cpu(cfg):
    losses, grads = run(cfg, "cuda")
    cpu_losses, cpu_grads = run(cfg, "cpu")
    for name, value in losses.items():  # float32 sums of millions in another order
        torch.testing.assert_close(value.cpu(), cpu_losses[name], rtol=1e-4, atol=0)
    for grad, cpu_grad in zip(grads, cpu_grads, strict=True):
        error = (grad.cpu() - cpu_grad).norm() / cpu_grad.norm()
        assert error < 1e-4


def test_waits_for_the_device_once(cfg):
    predictions, targets, masks = make_inputs(cfg, torch.device("cuda"))
    criterion = MultiBoxLoss(cfg)
    criterion(None, predictions, targets, masks, [0] * BATCH)  # the first call makes the tables

    def step():
        sum(criterion(None, predictions, targets, masks, [0] * BATCH).values()).backward()

    waits = device_waits(step)
    assert len(waits) <= 1, waits
