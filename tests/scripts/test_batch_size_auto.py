"""--batch-size auto trains as the number that it finds does, and is that number ever after."""

import pytest
import torch

# The tiny sets let a batch have 2 images, or an epoch would be fewer than 8 updates; the configs
# have other batches, or get them here.
SCRIPTS = {
    "yolact": ("train", "--batch_size {}", "--batch_size {}"),
    "seg": ("segment", "TRAIN.batch_size_per_gpu {}", "--batch-size {}"),
    "resnest": ("classify", "TRAINING.BATCH_SIZE {}", "--batch-size {}"),
    "queryinst": ("query_train", "--cfg-options train_dataloader.batch_size={}", "--batch-size {}"),
}


def state_of(run):
    """The weights of the newest checkpoint, by name."""
    found = {}
    for name in run.names:
        if "best" not in name and "state" not in name:
            found |= {f"{name}: {key}": value for key, value in _tensors(run.load(name), "")}
    assert found
    return found


def _tensors(item, name):
    if isinstance(item, torch.Tensor):
        yield name, item
    elif isinstance(item, dict | list | tuple):
        pairs = item.items() if isinstance(item, dict) else enumerate(item)
        for key, value in pairs:
            yield from _tensors(value, f"{name}.{key}")


@pytest.mark.parametrize("name", SCRIPTS)
def test_training_is_as_with_the_number_given(name, request):
    fixture, key, flag = SCRIPTS[name]
    run = request.getfixturevalue(fixture)
    found = run(f"--max-iters 2 {key.format('auto')}")
    assert found.status == 0, found.err_text
    assert found.text.count("--batch-size auto: 2 images on each device, ") == 1, found.text
    assert f"The same again: {flag.format(2)}." in found.text
    given = run(f"--max-iters 2 {flag.format(2)}", out="given")
    assert given.status == 0, given.err_text
    assert found.losses == given.losses
    weights = state_of(given)
    for key, value in state_of(found).items():
        assert torch.equal(value, weights[key]), key
    # a resumed run does not try again
    more = run(f"--max-iters 3 --resume latest {flag.format('auto')}")
    assert more.status == 0, more.err_text
    assert "--batch-size auto: 2, as in the checkpoint to go on from." in more.text
    assert list(more.losses)[-1] == 2


@pytest.mark.parametrize("name", ["yolact", "queryinst"])
def test_processes_agree(name, request, ranks):
    """The losses that wait for the other ranks do not, while each tries for itself."""
    fixture, _, flag = SCRIPTS[name]
    words = "--loss_norm global" if name == "yolact" else ""
    run = request.getfixturevalue(fixture)(
        f"--max-iters 1 {words} {flag.format('auto')}", launcher=ranks(2))
    assert run.status == 0, run.err_text
    assert run.text.count("--batch-size auto: 1 image on each device, ") == 1
    assert f"The same again: {flag.format(2 if name == 'yolact' else 1)}." in run.text
    assert list(run.losses) == [0]


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("value", ["0", "many", "2.5"])
def test_what_is_no_batch_size_is_one_line(name, value, request):
    fixture, _, flag = SCRIPTS[name]
    run = request.getfixturevalue(fixture)(flag.format(value))
    assert run.status == 2
    assert len(run.err) == 1
    assert f"{flag.split()[0]}: '{value}' is " in run.err[0]


def test_the_images_of_each_gpu_want_a_number(train):
    run = train("--batch_size auto --batch_alloc 8")
    assert run.status == 2
    assert len(run.err) == 1
    assert "--batch_alloc 8: the images of each GPU want a number for --batch_size" in run.err[0]
