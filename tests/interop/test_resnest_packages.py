"""PyPI's `resnest` and `timm` beside train_resnest: files both ways, the same outputs."""

import pytest
import torch

from common.checkpoint import load_checkpoint, save_checkpoint
from common.checkpoint.series import resnest_series
from models.resnest import build_resnest, load_weights, param_groups

pytestmark = pytest.mark.slow

TIMMS = {  # our name, which is the original's, and timm's
    "resnest50": "resnest50d", "resnest50_fast_1s4x24d": "resnest50d_1s4x24d",
    "resnest50_fast_4s2x40d": "resnest50d_4s2x40d", "resnest101": "resnest101e",
    "resnest200": "resnest200e", "resnest269": "resnest269e",
}
ORIGINALS = (*TIMMS, "resnest50_fast_1s1x64d", "resnest50_fast_2s1x64d", "resnest50_fast_4s1x64d",
             "resnest50_fast_1s2x40d", "resnest50_fast_2s2x40d")
RUN = ("resnest50", "resnest50_fast_1s4x24d", "resnest50_fast_2s1x64d")  # forward passes
CASES = [("resnest", name) for name in ORIGINALS] + [("timm", name) for name in TIMMS]
RUN_CASES = [case for case in CASES if case[1] in RUN]


def theirs(package, name, **kwargs):
    """The network of the package, with random weights."""
    if package == "timm":
        timm = pytest.importorskip("timm", reason="timm is not installed: make interop")
        return timm.create_model(TIMMS[name], **kwargs)
    zoo = pytest.importorskip("resnest.torch", reason="resnest is not installed: make interop")
    return getattr(zoo, name)(pretrained=False, **kwargs)


def disturb(net):
    """Running statistics that are not those of a fresh network, which hide mistakes."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return net


def check_same_outputs(a, b):
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        ours, other = a.double().eval()(images), b.double().eval()(images)
    assert ours.std() > 1e-3
    # float64 through 50 layers, in another order of sums
    torch.testing.assert_close(ours, other, rtol=0, atol=1e-9 * other.abs().max().item())


@pytest.mark.parametrize("package, name", CASES)
def test_names_and_shapes(package, name):
    with torch.device("meta"):
        own, other = build_resnest(name).state_dict(), theirs(package, name).state_dict()
    assert [*own] == [*other]
    assert [value.shape for value in own.values()] == [value.shape for value in other.values()]


@pytest.mark.parametrize("package, name", RUN_CASES)
def test_our_checkpoint_there(tmp_path, package, name):
    torch.manual_seed(0)
    net = disturb(build_resnest(name, num_classes=7))
    optimizer = torch.optim.SGD(param_groups(net, 1e-4), lr=0.1, momentum=0.9)
    path = resnest_series(tmp_path, per_epoch=10).save(
        10, {"epoch": 1, "state_dict": net.state_dict(), "optimizer": optimizer.state_dict(),
             "best_pred": 12.5})
    loaded = torch.load(path, weights_only=True)  # as the original's train.py resumes
    other = theirs(package, name, num_classes=7)
    other.load_state_dict(loaded["state_dict"], strict=True)
    torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9).load_state_dict(loaded["optimizer"])
    check_same_outputs(net, other)
    if package == "timm":  # its own loader finds the weights in the file
        check_same_outputs(net, theirs(package, name, num_classes=7, checkpoint_path=str(path)))


@pytest.mark.parametrize("package, name", RUN_CASES)
@pytest.mark.parametrize("form", ["state dict", "train.py's"])
def test_their_file_here(tmp_path, package, name, form):
    torch.manual_seed(0)
    other = disturb(theirs(package, name, num_classes=7))
    content = other.state_dict()
    if form == "train.py's":  # of DistributedDataParallel, with all that it saves beside
        wrapped = {f"module.{key}": value for key, value in content.items()}
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
        content = {"epoch": 3, "state_dict": wrapped, "optimizer": optimizer.state_dict(),
                   "best_pred": torch.tensor(71.5)}
    torch.save(content, tmp_path / "theirs.pth")
    net = build_resnest(name, num_classes=7)
    report = load_weights(net, tmp_path / "theirs.pth", name)  # what --pretrained does
    assert report.loaded == len(other.state_dict())
    assert not report.fresh
    check_same_outputs(net, other)


def test_a_file_goes_round_unchanged(tmp_path):
    other = theirs("resnest", "resnest50")
    torch.save(other.state_dict(), tmp_path / "theirs.pth")
    net = build_resnest("resnest50")
    load_weights(net, tmp_path / "theirs.pth", "resnest50")
    save_checkpoint(tmp_path / "ours.pth", net.state_dict())
    back = load_checkpoint(tmp_path / "ours.pth")
    assert [*back] == [*other.state_dict()]
    assert all(torch.equal(back[key], value) for key, value in other.state_dict().items())
