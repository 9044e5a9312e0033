"""The summary of a network: parameters, operations, memory."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models.yolact.deform_conv import compiled_deform_conv2d, deform_conv2d
from runtime.sizing.summary import (
    ModelSize,
    bytes_text,
    count_text,
    custom_operators,
    size_hint,
    start_line,
    state_text,
)


class Talk:
    """A run that only listens."""

    device = torch.device("cpu")

    def __init__(self):
        self.lines = []

    def log(self, text):
        self.lines += text.splitlines()


LOADER = SimpleNamespace(largest_shape=(4, 3, 9, 9), median_size=(9, 9))


def learner_of(net, frozen=()):
    for parameter in frozen:
        parameter.requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1,
                                momentum=0.9)
    return SimpleNamespace(net=net, optimizer=optimizer, ema=None)


def test_frozen_parameters_count_but_are_not_trained():
    net = nn.Sequential(nn.Linear(1000, 2000, bias=False), nn.Linear(2000, 500, bias=False))
    line = start_line(learner_of(net, frozen=net[0].parameters()), (8, 3, 32, 48))
    assert "3 million parameters, 1 million of them trained" in line
    assert "8 x 3 x 32 x 48" in line


def test_memory_is_that_of_weights_gradients_and_momentum():
    net = nn.Linear(512, 512, bias=False)  # 1 MB
    learner = learner_of(net)
    assert state_text(learner) == "weights 1 MB = 1 MB"
    net(torch.ones(1, 512)).sum().backward()
    learner.optimizer.step()
    assert state_text(learner) == "weights 1 MB + gradients 1 MB + optimizer 1 MB = 3 MB"


@pytest.mark.parametrize("nested", [False, True])
def test_operations_of_the_first_forward_pass_are_told_for_one_image(nested):
    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Conv2d(3, 8, 3, padding=1, bias=False)

        def forward(self, feed):
            return self.net(feed[0]["image"] if nested else feed).relu().sum()

    step, run = Step(), Talk()
    learner = learner_of(step.net)
    size = ModelSize(run, SimpleNamespace(dry_run=True, compile=False), learner, step,
                     LOADER)
    for _ in range(2):  # the second pass is not added to the first
        images = torch.ones(4, 3, 16, 16)
        step([{"image": images}] if nested else images).backward()
    size.tell_dry_run(SimpleNamespace(elapsed_s=0.5))
    macs = 3 * 8 * 9 * 16 * 16
    operations = next(line for line in run.lines if line.startswith("Operations"))
    assert f"{2 * macs / 1e9:.3g} GFLOPs an image and forward pass" in operations
    assert f"{macs / 1e9:.3g} G multiply-adds" in operations
    assert "Dry run done" in run.lines[-1]


def test_without_a_dry_run_nothing_is_counted():
    net = nn.Conv2d(3, 8, 3)
    ModelSize(Talk(), SimpleNamespace(dry_run=False, compile=False), learner_of(net), net, LOADER)
    assert not net._forward_hooks
    assert not net._forward_pre_hooks


def test_numbers_are_told_in_words():
    assert [count_text(n) for n in (12, 999_999, 31_140_000, 2.5e9)] == [
        "12", "999999", "31.1 million", "2.5 billion"]
    assert [bytes_text(n) for n in (3 << 20, 1536 << 20)] == ["3 MB", "1.50 GB"]


def test_torchvisions_deformable_convolution_counts_as_the_plain_one():
    compiled = compiled_deform_conv2d()
    if compiled is None:
        pytest.skip("this torchvision has no compiled operators")
    arguments = (torch.rand(2, 4, 8, 8), torch.rand(2, 18, 8, 8), torch.rand(6, 4, 3, 3),
                 torch.rand(6), 1, 1, 1)
    counts = []
    for operator in (compiled, deform_conv2d):
        with FlopCounterMode(display=False, custom_mapping=custom_operators()) as counter:
            operator(*arguments, mask=torch.rand(2, 9, 8, 8))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("photos, seen, is_far", [
    ((4000, 3000), (256, 256), True),
    ((1024, 768), (192, 256), True),
    ((1000, 1023), (256, 192), False),
    ((640, 480), (800, 1333), False),
    ((0, 0), (24, 24), False),  # not known
])
def test_far_larger_photos_are_told_with_what_changes_it(photos, seen, is_far):
    hint = size_hint(photos, seen)
    assert bool(hint) == is_far
    if is_far:
        assert f"{photos[0]} x {photos[1]} pixels" in hint
        assert f"{seen[1]} x {seen[0]}" in hint
        assert "--image-size" in hint
        run = Talk()
        net = nn.Conv2d(3, 8, 3)
        ModelSize(run, SimpleNamespace(dry_run=False, compile=False), learner_of(net), net,
                  SimpleNamespace(largest_shape=(4, 3, *seen), median_size=photos))
        assert hint in run.lines
