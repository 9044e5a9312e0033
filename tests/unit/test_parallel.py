import json
import threading

import pytest
import torch
from torch import nn

from common.parallel import (
    CustomDataParallel,
    UserScatteredDataParallel,
    check_one_process,
    gather_outputs,
    in_callers_precision,
    mean_losses,
    parse_batch_alloc,
    parse_devices,
    scatter_batch,
    to_device,
    user_scattered_collate,
)
from runtime.errors import InputError


def batch(size=5):
    """images, targets, masks, num_crowds as YOLACT's collate gives them."""
    images = torch.arange(size * 12.0).reshape(size, 3, 2, 2)
    targets = [torch.full((i + 1, 5), float(i)) for i in range(size)]
    masks = [torch.full((i + 1, 2, 2), i, dtype=torch.uint8) for i in range(size)]
    return images, targets, masks, list(range(size))


@pytest.mark.parametrize(
    "alloc, counts", [(None, [2, 2, 1]), ([1, 1, 3], [1, 1, 3]), ([3, 1, 1], [3, 1, 1])]
)
def test_each_device_gets_its_own_images_and_lists(alloc, counts):
    images, targets, masks, crowds = batch()
    pieces = scatter_batch((images, targets, masks, crowds), ["cpu"] * 3, alloc)
    assert [len(piece[0]) for piece in pieces] == counts
    assert torch.equal(torch.cat([piece[0] for piece in pieces]), images)
    for i, whole in enumerate((targets, masks, crowds), start=1):
        joined = [item for piece in pieces for item in piece[i]]
        assert all(a is b for a, b in zip(joined, whole, strict=True))


def test_pieces_lie_on_their_device():
    pieces = scatter_batch(batch(2), ["cpu", "meta"])
    assert [piece[0].device.type for piece in pieces] == ["cpu", "meta"]
    assert [piece[1][0].device.type for piece in pieces] == ["cpu", "meta"]


def test_dicts_and_tensors_are_cut_alike():
    images, targets, _, _ = batch(4)
    first, second = scatter_batch({"images": images, "targets": targets}, ["cpu", "cpu"])
    assert list(first) == ["images", "targets"]
    assert torch.equal(second["images"], images[2:])
    assert second["targets"][1] is targets[3]
    assert [len(piece) for piece in scatter_batch(images, ["cpu"] * 2, [3, 1])] == [3, 1]


def test_fewer_images_than_devices_leave_the_last_ones_out():
    assert [len(piece[0]) for piece in scatter_batch(batch(2), ["cpu"] * 3)] == [1, 1]


@pytest.mark.parametrize("alloc", [[2, 2], [5], [2, 4], [5, 0], [6, -1]])
def test_an_allocation_that_does_not_fit_is_refused(alloc):
    text = f"--batch_alloc {','.join(map(str, alloc))}: .* 2 numbers .* batch size 5"
    with pytest.raises(InputError, match=text):
        scatter_batch(batch(), ["cpu", "cpu"], alloc)


def test_fields_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        scatter_batch((torch.zeros(3, 1), [1, 2]), ["cpu"])


def test_losses_are_averaged_and_missing_terms_are_zero():
    outputs = [
        {"B": torch.tensor(1.0), "I": torch.tensor(4.0, requires_grad=True)},
        {"B": torch.tensor(3.0)},
    ]
    mean = mean_losses(outputs, "cpu")
    assert {name: value.item() for name, value in mean.items()} == {"B": 2.0, "I": 2.0}
    mean["I"].backward()
    assert outputs[0]["I"].grad == 0.5


class Losses(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images, targets, masks, num_crowds):
        return {"B": self.weight * images.mean(), "count": torch.tensor(float(len(targets)))}


def test_custom_data_parallel_scatters_and_gathers_as_its_base_asks():
    wrapped = CustomDataParallel(Losses(), batch_alloc=[4, 1])
    pieces, kwargs = wrapped.scatter(batch(), {}, ["cpu", "cpu"])
    assert kwargs == [{}, {}]
    outputs = [wrapped.module(*piece) for piece in pieces]
    assert wrapped.gather(outputs, "cpu")["count"] == 2.5
    named = {"images": batch()[0], "num_crowds": batch()[3]}
    pieces, _ = wrapped.scatter((named,), {}, ["cpu", "cpu"])
    assert [len(piece[0]["images"]) for piece in pieces] == [4, 1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens without a GPU")
def test_without_a_gpu_the_wrappers_call_the_module():
    assert CustomDataParallel(Losses())(*batch())["count"] == 5
    module = nn.Linear(2, 1)
    loss = UserScatteredDataParallel(_FromDict(module))([{"img": torch.ones(3, 2)}])[0]
    assert loss.shape == (1,)
    loss.backward()
    assert module.weight.grad is not None
    with pytest.raises(ValueError, match="2 batches for 1 devices"):
        UserScatteredDataParallel(_FromDict(module))([{}, {}])


class _FromDict(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, batch):
        return self.inner(batch["img"]).mean(), torch.tensor(0.5)


def test_scalars_of_the_replicas_become_one_dimensional():
    outputs = [(torch.tensor(1.0), torch.ones(2, 3)), (torch.tensor(2.0), torch.zeros(1, 3))]
    loss, maps = gather_outputs(outputs, "cpu")
    assert loss.tolist() == [1.0, 2.0]
    assert maps.shape == (3, 3)
    assert gather_outputs([{"a": torch.tensor(1.0)}], None)["a"].shape == (1,)


def test_user_scattered_collate_keeps_the_list():
    samples = [{"img_data": 1}, {"img_data": 2}]
    assert user_scattered_collate(samples) is samples


@pytest.mark.parametrize(
    "text, numbers",
    [
        ("0", [0]),
        ("3-0", [0, 1, 2, 3]),
        ("gpu0-gpu3", [0, 1, 2, 3]),
        ("gpu0-3", [0, 1, 2, 3]),
        ("GPU1, 2", [1, 2]),
        ("0-1,1-2", [0, 1, 2]),
        ("2,0", [2, 0]),
        ("", []),
        ("cpu", []),
    ],
)
def test_device_lists(text, numbers):
    assert parse_devices(text) == numbers


@pytest.mark.parametrize(
    "text, piece",
    [("0-gpu3", "0-gpu3"), ("0,", ""), ("-1", "-1"), ("0,cuda:0", "cuda:0"), ("0,cpu", "cpu")],
)
def test_a_piece_that_is_no_device_is_named(text, piece):
    with pytest.raises(InputError) as caught:
        parse_devices(text)
    assert str(caught.value) == f"Can not recognize device: {json.dumps(piece)}"


def test_batch_alloc_text_is_parsed_and_checked():
    assert parse_batch_alloc("5, 3", 2, 8) == [5, 3]
    for text in ("5,3,1", "5", "5,x", "8,0", ""):
        with pytest.raises(InputError, match="--batch_alloc"):
            parse_batch_alloc(text, 2, 8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, None])
def test_threads_compute_in_the_callers_precision(dtype):
    # "cpu" stands for a GPU: a thread begins with that device's default dtype as well
    seen = []

    def replica(x):
        seen.append(torch.mm(x, x).dtype)

    with torch.autocast("cpu", dtype=torch.float16 if dtype is None else dtype,
                        enabled=dtype is not None):
        (call,) = in_callers_precision([replica], "cpu")
    thread = threading.Thread(target=call, args=(torch.ones(2, 2),))
    thread.start()
    thread.join()
    assert seen == [dtype or torch.float32]


def test_both_wrappers_hand_their_precision_to_the_threads(monkeypatch):
    handed = []
    monkeypatch.setattr("common.parallel.in_callers_precision",
                        lambda replicas: handed.append(replicas) or replicas)
    monkeypatch.setattr(torch.nn.DataParallel, "parallel_apply",
                        lambda self, replicas, inputs, kwargs: [torch.zeros(1)] * len(replicas))
    CustomDataParallel(Losses()).parallel_apply(["a", "b"], [], [])
    scattered = UserScatteredDataParallel(Losses())
    scattered.device_ids, scattered.output_device = [0, 1], None
    monkeypatch.setattr("common.parallel.to_device", lambda piece, gpu: piece)
    monkeypatch.setattr(scattered, "replicate", lambda module, ids: ["c", "d"])
    scattered([{}, {}])
    assert handed == [["a", "b"], ["c", "d"]]


def test_compile_is_refused_with_several_gpus_in_one_process():
    check_one_process(1, True)
    check_one_process(4, False)
    with pytest.raises(InputError, match=r"--compile: .* torchrun --nproc_per_node 4"):
        check_one_process(4, True)


def test_images_get_their_layout_on_the_device():
    images, labels = to_device([torch.rand(2, 3, 4, 5), torch.ones(2, 4, 5)], "cpu",
                               torch.channels_last)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.is_contiguous()
    kept = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert to_device(kept, "cpu").is_contiguous(memory_format=torch.channels_last)
