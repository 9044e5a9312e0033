"""MultiBoxLoss on an accelerator: the CPU's numbers, and how often it waits for the device."""

import pytest
import torch
from device_waits import device_waits
from multibox_loss import BATCH, make_inputs

from common.losses import MultiBoxLoss
from common.parallel import to_device
from models.yolact import load_yolact_config
from models.yolact.matching import match_images

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


@pytest.mark.parametrize("is_matched, most", [(True, 0), (False, 1)])
def test_waits_for_the_device_once_or_never(cfg, is_matched, most):
    predictions, targets, masks = make_inputs(cfg, torch.device("cuda"))
    truth = [targets, masks, [0] * BATCH]
    if is_matched:
        on_host = [target.cpu() for target in targets]
        found = match_images(on_host, truth[2], priors=predictions["priors"].cpu(), cfg=cfg)
        truth.append(to_device(found, "cuda"))
    criterion = MultiBoxLoss(cfg)
    criterion(None, predictions, *truth)  # the first call makes the tables

    def step():
        sum(criterion(None, predictions, *truth).values()).backward()

    waits = device_waits(step)
    assert len(waits) <= most, waits
