"""What a training step of train_seg is made of: terms, optimizers, common statistics, starts."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from common.optim.steps import Optimizers
from models import segmentation as models
from models.sync_norm import CpuSyncBatchNorm
from runtime.errors import InputError
from runtime.launch.gpus import pick_gpus
from runtime.run.seg_history import SegHistory
from settings.segmentation import TrainConfig


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return models.SegmentationModule(
        models.build_encoder("resnet18dilated", 512), models.build_decoder("c1_deepsup", 512, 5),
        nn.NLLLoss(ignore_index=-1), 0.4)


@pytest.fixture
def feed():
    generator = torch.Generator().manual_seed(1)
    return {"img_data": torch.randn(2, 3, 32, 40, generator=generator),
            "seg_label": torch.randint(-1, 5, (2, 4, 5), generator=generator)}


def test_terms_sum_to_the_modules_loss(module, feed):
    module.eval()
    terms = models.TrainingStep(module)(feed)
    loss, accuracy = module(feed)
    total = (terms["main"] + terms["deepsup"]).item()
    assert total == pytest.approx(loss.item(), rel=1e-6)
    assert terms["accuracy"] == accuracy


def test_scoring_is_left_as_it_was_entered(module, feed):
    module.train()
    with models.scoring(module):
        assert not module.training
        scores = module.class_probabilities(feed["img_data"])
        assert not scores.requires_grad
    assert scores.shape == (2, 5, 32, 40)
    assert torch.allclose(scores.sum(1), torch.ones(2, 32, 40), atol=1e-5)
    assert module.training
    assert not module.decoder.use_softmax


def test_optimizers_step_together():
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    both = Optimizers({"encoder": torch.optim.SGD([a], lr=1.0, momentum=0.9),
                       "decoder": torch.optim.SGD([b], lr=1.0)})
    both.set_lr({"decoder": 0.5})
    assert [group["lr"] for group in both.param_groups] == [1.0, 0.5]
    (a.sum() + b.sum()).backward()
    both.step()
    assert a[0] == 0
    assert b[0] == 0.5
    both.zero_grad()
    assert a.grad is None
    state = copy.deepcopy(both.state_dict())
    both.set_lr({"encoder": 7.0})
    both.load_state_dict(state)
    assert both.param_groups[0]["lr"] == 1.0
    with pytest.raises(KeyError):
        both.load_state_dict({"encoder": state["encoder"]})


def test_an_overflow_in_one_leaves_all_out():
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    both = Optimizers({"encoder": torch.optim.SGD([a], lr=1.0),
                       "decoder": torch.optim.SGD([b], lr=1.0)})
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(a.sum() * float("inf") + b.sum()).backward()
    scaler.step(both)
    scaler.update()
    assert a[0] == b[0] == 1
    both.zero_grad()
    scaler.scale(a.sum() + b.sum()).backward()
    scaler.step(both)
    assert a[0] == b[0] == 0


def sync_worker(rank, store, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank,
                                         world_size=2)
    torch.set_num_threads(1)
    net, parts, targets = sync_case()
    net = models.synchronise_norms(net, torch.device("cpu"))
    assert isinstance(net[1], CpuSyncBatchNorm)
    out = net.train()(parts[rank])
    (out * targets[rank]).sum().backward()
    gradients = [p.grad.clone() for p in net.parameters()]
    for gradient in gradients:  # as DistributedDataParallel, but for the mean
        torch.distributed.all_reduce(gradient)
    torch.save([out.detach(), gradients, dict(net.named_buffers())], f"{folder}/{rank}.pth")
    torch.distributed.destroy_process_group()


def sync_case():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.1)).double()
    nn.init.normal_(net[1].weight)
    # the processes have images of other sizes, and other numbers of them
    parts = [torch.randn(2, 3, 8, 9).double(), torch.randn(1, 3, 6, 7).double()]
    return net, parts, [torch.randn(2, 4, 6, 7).double(), torch.randn(1, 4, 4, 5).double()]


def test_statistics_over_two_processes(tmp_path):
    mp.start_processes(sync_worker, (str(tmp_path / "store"), str(tmp_path)), 2,
                       start_method="fork")
    net, parts, targets = sync_case()
    conv, norm = net
    # the same values as one long row of pixels through torch's own batch norm
    rows = [conv(part).flatten(2).transpose(1, 2).reshape(-1, 4) for part in parts]
    one = nn.BatchNorm1d(4, momentum=0.1).double()
    one.load_state_dict(norm.state_dict())
    out = one.train()(torch.cat(rows))
    wanted = torch.cat([t.flatten(2).transpose(1, 2).reshape(-1, 4) for t in targets])
    (out * wanted).sum().backward()
    own = [*(p.grad for p in conv.parameters()), one.weight.grad, one.bias.grad]
    for rank, pixels in enumerate(out.detach().split([len(row) for row in rows])):
        found, gradients, buffers = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        found = found.flatten(2).transpose(1, 2).reshape(-1, 4)
        torch.testing.assert_close(found, pixels)
        for a, b in zip(gradients, own, strict=True):
            torch.testing.assert_close(a, b)
        torch.testing.assert_close(buffers["1.running_mean"], one.running_mean)
        torch.testing.assert_close(buffers["1.running_var"], one.running_var)
        assert buffers["1.num_batches_tracked"] == 1


def test_statistics_need_no_group_in_eval_mode():
    norm = nn.BatchNorm2d(4)
    plain = copy.deepcopy(norm).eval()
    synced = models.synchronise_norms(norm, torch.device("cpu")).eval()
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(synced(x), plain(x))
    assert list(synced.state_dict()) == list(plain.state_dict())


def test_weights_of_other_classes_are_taken_partly(module):
    other = models.build_decoder("c1_deepsup", 512, 9)
    report = models.load_partly(other, models.to_original_state_dict(module.decoder), "file.pth")
    assert torch.equal(other.cbr[0].weight, module.decoder.cbr[0].weight)
    (line,) = report.lines()[1:]
    assert "4 of another shape" in line
    assert "conv_last.weight" in line
    with pytest.raises(InputError, match=r"file\.pth"):
        models.load_partly(other, {"nothing": torch.zeros(1)}, "file.pth")


def test_one_image_is_too_few_for_a_pyramid():
    few = TrainConfig(batch_size_per_gpu=1)
    for decoder, is_synchronised in (("c1", False), ("upernet", False), ("ppm", True)):
        models.check_batch(decoder, few, is_synchronised)
    models.check_batch("ppm", TrainConfig(batch_size_per_gpu=1, fix_bn=True), False)
    with pytest.raises(InputError, match=r"TRAIN\.batch_size_per_gpu 1"):
        models.check_batch("PPM_deepsup", few, False)


def test_means_since_the_epochs_start_and_the_points_of_the_curves():
    def meter(elapsed_s, waited_s):
        return SimpleNamespace(elapsed_s=elapsed_s, waited_s=waited_s)

    history = SegHistory(epoch_iters=4, disp_iter=2)
    history.updated(0, 1.0, 0.25, meter(2.0, 0.5))
    resumed = SegHistory(epoch_iters=4, disp_iter=2)
    resumed.restore(history.pack())
    assert (history.is_resumed, resumed.is_resumed) == (False, True)
    resumed.updated(1, float("nan"), 0.0, meter(2.0, 0.5))  # counts for the times alone
    resumed.updated(2, 2.0, 0.75, meter(4.0, 0.0))
    assert resumed.line(2, {"encoder": 0.5, "decoder": 0.25}) == (
        "Epoch: [1][2/4], Time: 3.00, Data: 0.25, lr_encoder: 0.500000, lr_decoder: 0.250000, "
        "Accuracy: 50.00, Loss: 1.500000")
    assert resumed.curves == {"train": {"epoch": [0.0, 0.5], "loss": [1.0, 2.0],
                                        "acc": [0.25, 0.75]}}
    resumed.updated(4, 5.0, 1.0, meter(1.0, 1.0))  # the next epoch begins anew
    line = resumed.line(4, {"encoder": 0, "decoder": 0})
    assert line.endswith("Accuracy: 100.00, Loss: 5.000000")


@pytest.mark.parametrize("text, device, count, wanted", [
    ("0-3", None, 0, ("cpu", [])),
    ("0-3", None, 2, ("cuda:0", [0, 1])),
    ("0-3", None, 8, ("cuda:0", [0, 1, 2, 3])),
    ("gpu2,1", None, 4, ("cuda:2", [2, 1])),
    ("cpu", None, 4, ("cpu", [])),
    ("0-3", "cpu", 4, ("cpu", [])),
    ("0-3", "cuda:1", 4, ("cuda:1", [1])),
])
def test_gpus_of_one_process(monkeypatch, text, device, count, wanted):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("RANK", raising=False)
    assert pick_gpus(text, "0-3", device) == wanted


def test_gpus_that_are_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="--gpus 1-2"):
        pick_gpus("1-2", "0-3", None)
