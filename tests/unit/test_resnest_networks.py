"""ResNeSt networks: options, weights files, configs."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from common.checkpoint import save_checkpoint
from models.resnest import (
    MODEL_NAMES,
    PRETRAINED_FILES,
    build_resnest,
    find_weights,
    load_resnest_config,
    load_weights,
    param_groups,
    pretrained_file,
)
from models.resnest.split_attention import SplAtConv2d
from models.resnest.zoo import _ARCHITECTURES
from runtime.errors import InputError
from settings.loading import save_config, to_dict


@pytest.fixture
def small():
    torch.manual_seed(0)
    return build_resnest("resnest14_small", 5)


def test_unknown_names_and_fields():
    with pytest.raises(InputError, match=r"'resnest5'\. Did you mean resnest50\?"):
        build_resnest("resnest5")
    with pytest.raises(TypeError, match="drop_rate"):
        build_resnest("resnest50", drop_rate=0.2)
    for wrong in ({"radix": 0}, {"dilation": 3}, {"stem_stride": 3}, {"final_drop": 1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
            build_resnest("resnest14_small", **wrong)


def test_last_gamma(small):
    scales = [m.bn3.weight for m in small.modules() if hasattr(m, "bn3")]
    assert all((scale == 1).all() for scale in scales)
    zeroed = build_resnest("resnest14_small", 5, last_gamma=True)
    scales = [m.bn3.weight for m in zeroed.modules() if hasattr(m, "bn3")]
    assert len(scales) == 4
    assert all((scale == 0).all() for scale in scales)


def test_final_drop(small):
    dropping = build_resnest("resnest14_small", 5, final_drop=0.5)
    dropping.load_state_dict(small.state_dict())  # dropout has no state
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(dropping.eval()(images), small.eval()(images))
    torch.manual_seed(0)
    once = dropping.train()(images)
    assert not torch.equal(once, dropping(images))


@pytest.mark.parametrize("stride, side", [(4, 2), (2, 4), (1, 8)])
def test_stem_stride(stride, side):
    net = build_resnest("resnest14_small", 5, stem_stride=stride)
    shapes = []
    net.layer4.register_forward_hook(lambda *args: shapes.append(args[2].shape))
    assert net.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 5)
    assert shapes[0][2:] == (side, side)


@pytest.mark.parametrize("options, sides", [
    ({"dilated": True}, (16, 8, 8, 8)), ({"dilation": 4}, (16, 8, 8, 8)),
    ({"dilation": 2}, (16, 8, 4, 4)), ({}, (16, 8, 4, 2)),
])
def test_dilation(options, sides):
    net = build_resnest("resnest50_fast_1s1x64d", 2, layers=(1, 1, 2, 2), **options).eval()
    got = []
    for i in range(4):
        layer = getattr(net, f"layer{i + 1}")
        layer.register_forward_hook(lambda *args: got.append(args[2].shape[-1]))
    net(torch.randn(1, 3, 64, 64))
    assert tuple(got) == sides


def test_one_image_in_train_mode(small):
    with pytest.raises(ValueError, match="more than 1 value"):
        small.train()(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("radix, cardinality", [(1, 1), (2, 1), (2, 2), (4, 2)])
def test_split_attention_is_the_papers(radix, cardinality):
    """Against the cardinal-major formula of the paper, written out group by group."""
    torch.manual_seed(0)
    channels, batch = 8, 3
    conv = SplAtConv2d(channels, radix, cardinality, 1, 1, nn.BatchNorm2d).double().eval()
    x = torch.randn(batch, channels, 5, 4).double()
    maps = conv.bn0(conv.conv(x)).relu().unflatten(1, (radix, channels))
    pooled = maps.sum(1).mean((2, 3), keepdim=True)
    logits = conv.fc2(conv.bn1(conv.fc1(pooled)).relu()).flatten(1)
    wanted = torch.zeros(batch, channels, 5, 4).double()
    width = channels // cardinality
    for group in range(cardinality):
        own = logits[:, group * radix * width : (group + 1) * radix * width]
        own = own.reshape(batch, radix, width)
        weights = own.softmax(1) if radix > 1 else own.sigmoid()
        part = slice(group * width, (group + 1) * width)
        for r in range(radix):
            wanted[:, part] += weights[:, r, :, None, None] * maps[:, r, part]
    torch.testing.assert_close(conv(x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("radix", [1, 2])
def test_attention_keeps_the_maps_in_half_precision(monkeypatch, radix):
    conv = SplAtConv2d(8, radix, 1, 1, 1, nn.BatchNorm2d)
    attention = conv.attention  # on a GPU autocast has softmax in float32
    monkeypatch.setattr(conv, "attention", lambda means: attention(means).float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv(torch.randn(3, 8, 6, 4)).dtype == torch.bfloat16


def test_frozen_attention_still_passes_gradients_on():
    torch.manual_seed(0)
    conv = SplAtConv2d(8, 2, 1, 1, 1, nn.BatchNorm2d)
    conv.fc1.requires_grad_(False)
    conv.fc2.requires_grad_(False)
    out = conv(torch.randn(3, 8, 6, 4))
    out.sum().backward(retain_graph=True)
    once = conv.conv.weight.grad.clone()
    out.sum().backward()
    torch.testing.assert_close(conv.conv.weight.grad, 2 * once)
    assert conv.bn1.weight.grad is not None
    assert conv.fc1.weight.grad is None


def test_channels_last_gives_the_same(small):
    images = torch.randn(2, 3, 64, 64)
    plain = small.eval()(images)
    small.to(memory_format=torch.channels_last)
    last = small(images.contiguous(memory_format=torch.channels_last))
    # other convolution kernels, float32
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-5)


def test_groups_ignore_the_wrapper(small):
    wrapped = nn.Sequential()
    wrapped.module = small
    for own, other in zip(
        param_groups(small, 0.1, True), param_groups(wrapped, 0.1, True), strict=True
    ):
        assert own["weight_decay"] == other["weight_decay"]
        assert [id(p) for p in own["params"]] == [id(p) for p in other["params"]]


def test_weights_come_back(small, tmp_path):
    save_checkpoint(tmp_path / "w.pth", small.state_dict())
    other = build_resnest("resnest14_small", 5)
    report = load_weights(other, tmp_path / "w.pth", "resnest14_small")
    assert report.loaded == len(small.state_dict())
    assert (report.fresh, report.file_classes, report.doubt) == ((), 5, "")
    for key, value in small.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


def test_fine_tuning_to_other_classes(small, tmp_path):
    state = {f"module.{key}": value for key, value in small.state_dict().items()}
    save_checkpoint(tmp_path / "checkpoint_3.pth", {"epoch": 3, "state_dict": state})
    other = build_resnest("resnest14_small", 2)
    head = other.fc.weight.clone()
    report = load_weights(other, tmp_path / "checkpoint_3.pth", "resnest14_small")
    assert report.fresh == ("fc.weight", "fc.bias")
    assert report.file_classes == 5
    assert "the file has 5 classes, so fc.weight, fc.bias start at random" in str(report)
    assert torch.equal(other.fc.weight, head)
    assert torch.equal(other.conv1[0].weight, small.conv1[0].weight)


def test_weights_without_a_classifier(small, tmp_path):
    state = {k: v for k, v in small.state_dict().items() if not k.startswith("fc.")}
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    save_checkpoint(tmp_path / "body.pth", state)
    report = load_weights(build_resnest("resnest14_small", 5), tmp_path / "body.pth")
    assert report.file_classes is None
    assert "the file has no classifier" in str(report)


def test_weights_of_another_model(small, tmp_path):
    state = small.state_dict()
    moved = {key.replace("layer1.0.conv1", "layer1.0.first"): v for key, v in state.items()}
    save_checkpoint(tmp_path / "moved.pth", moved)
    wrong = {**state, "bn1.weight": torch.zeros(3)}
    save_checkpoint(tmp_path / "shape.pth", wrong)
    plain = {**state, "layer1.0.conv2.weight": torch.zeros(3)}
    del plain["layer1.0.conv2.conv.weight"]
    save_checkpoint(tmp_path / "plain.pth", plain)
    before = {key: value.clone() for key, value in state.items()}
    for name, text in (
        ("moved", "missing layer1.0.conv1.weight; the weights belong to another model"),
        ("moved", "unexpected layer1.0.first.weight"),
        ("shape", r"bn1.weight is \(3,\), the model wants \(32,\)"),
        ("plain", "a plain ResNet's"),
    ):
        with pytest.raises(InputError, match=text):
            load_weights(small, tmp_path / f"{name}.pth")
    assert all(torch.equal(small.state_dict()[key], value) for key, value in before.items())


def test_a_file_named_after_another_model(small, tmp_path):
    # the pair that differs in no shape: only the file's name can tell
    save_checkpoint(tmp_path / "resnest14-0123.pth", small.state_dict())
    report = load_weights(small, tmp_path / "resnest14-0123.pth", "resnest14_small")
    assert "named after resnest14, the model is resnest14_small" in str(report)


def test_published_files():
    assert pretrained_file("resnest50") == "resnest50-528c19ca.pth"
    assert pretrained_file("resnet50") is None
    assert len(PRETRAINED_FILES) == 11
    for name, (address, digits) in PRETRAINED_FILES.items():
        assert address.endswith(f"/weights_step1/{name}")
        assert name.endswith(f"-{digits}.pth")


def test_weights_are_found_by_file_or_by_name(tmp_path, monkeypatch):
    asked = []

    def fetch(name, folder, known):
        asked.append((name, folder))
        assert name in known
        return folder / name

    monkeypatch.setattr("models.resnest.weights.find_pretrained", fetch)
    own = tmp_path / "resnest50"
    assert find_weights(tmp_path / "mine.pth", "weights") == tmp_path / "mine.pth"
    find_weights("resnest50", tmp_path)
    find_weights("resnest50-528c19ca.pth", tmp_path)
    find_weights(tmp_path / "there" / "resnest50-528c19ca.pth", "weights")
    assert asked == [("resnest50-528c19ca.pth", tmp_path)] * 2 + [
        ("resnest50-528c19ca.pth", tmp_path / "there")]
    own.write_bytes(b"")
    assert find_weights(own, "weights") == own


def test_configs_are_found_by_name_and_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("resnest101", "resnest101.yaml", "configs/resnest/resnest101.yaml",
                 "configs/resnest101.yaml"):
        assert load_resnest_config(name).MODEL.NAME == "resnest101"
    with pytest.raises(InputError, match=r"resnest11.yaml: no such .* mean resnest101.yaml\?"):
        load_resnest_config("resnest11")


def test_a_base_file_as_fvcore_spells_it(tmp_path):
    (tmp_path / "base.yaml").write_text("MODEL: {NAME: resnest200}\nSEED: 3")
    path = write(tmp_path, "_BASE_: base.yaml\nSEED: 4")
    cfg = load_resnest_config(path)
    assert (cfg.MODEL.NAME, cfg.SEED) == ("resnest200", 4)


def write(tmp_path, text):
    path = tmp_path / "cfg.yaml"
    path.write_text(text)
    return path


def test_default_config_is_the_originals():
    cfg = load_resnest_config()
    assert (cfg.SEED, cfg.DATA.CROP_SIZE, cfg.MODEL.NAME) == (1, 224, "resnet50")
    assert (cfg.OPTIMIZER.LR, cfg.OPTIMIZER.LR_SCHEDULER) == (0.025, "cos")
    assert dataclasses.asdict(cfg.TRAINING) == {
        "BATCH_SIZE": 64, "TEST_BATCH_SIZE": 256, "LAST_GAMMA": False, "EPOCHS": 120,
        "START_EPOCHS": 0, "WORKERS": 4, "EVAL_EVERY": 1, "THREADS": 0,
    }


def test_what_the_original_accepts_and_more(tmp_path):
    path = write(tmp_path, "DATA: {MIXUP: 1, BASE_SIZE: None}\nMODEL: {FINAL_DROP: False}\n"
                           "OPTIMIZER: {WEIGHT_DECAY: 1e-4, LR: 1, LR_SCHEDULER: cosine}\n")
    cfg = load_resnest_config(path, ["TRAINING.EPOCHS=3"])
    assert (cfg.DATA.MIXUP, cfg.DATA.BASE_SIZE, cfg.MODEL.FINAL_DROP) == (1.0, None, 0.0)
    assert isinstance(cfg.MODEL.FINAL_DROP, float)
    assert (cfg.OPTIMIZER.WEIGHT_DECAY, cfg.OPTIMIZER.LR, cfg.TRAINING.EPOCHS) == (1e-4, 1.0, 3)
    assert load_resnest_config(cfg) is cfg
    save_config(cfg, tmp_path / "again.yaml")
    assert load_resnest_config(tmp_path / "again.yaml") == cfg
    assert to_dict(cfg)["OPTIMIZER"]["MILESTONES"] is None
    assert load_resnest_config(write(tmp_path, "")) == load_resnest_config()


@pytest.mark.parametrize("override, text", [
    ("DATA.LABEL_SMOTHING=0.1", "Did you mean DATA.LABEL_SMOOTHING?"),
    ("MODEL.NAME=resnest5", "Did you mean resnest50?"),
    ("OPTIMIZER.LR_SCHEDULER=cosin", "Did you mean cosine?"),
    ("OPTIMIZER.LR_SCHEDULER=step", "OPTIMIZER.LR_STEP wants the epochs"),
    ("OPTIMIZER.LR_SCHEDULER=multistep", "OPTIMIZER.MILESTONES wants the epochs"),
    ("OPTIMIZER.WARMUP_EPOCHS=500", "wants at most TRAINING.EPOCHS 120, got 500"),
    ("TRAINING.BATCH_SIZE=1", "wants a number of at least 2, got 1: the norms inside split"),
    ("TRAINING.START_EPOCHS=120", "START_EPOCHS wants less than EPOCHS 120, got 120"),
    ("MODEL.FINAL_DROP=True", "wants a number of at least 0 and below 1, got True"),
    ("DATA.RANDOM_ERASING=0.5", "RANDOM_ERASING wants AUGMENT standard, got 0.5 with original"),
    ("DATA.DATASET=CIFAR", "wants ImageNet, got CIFAR"),
])
def test_config_faults(override, text):
    with pytest.raises(InputError) as caught:
        load_resnest_config(None, [override])
    assert text in str(caught.value)
    assert len(caught.value.faults) == 1


def test_all_faults_at_once(tmp_path):
    path = write(tmp_path, "DATA: {CROP_SIZE: 0, MIXUP: -1}\nMODEL: {NAME: vgg}\n")
    with pytest.raises(InputError) as caught:
        load_resnest_config(path)
    assert [fault.split(": ")[1].split(" ")[0] for fault in caught.value.faults] == [
        "DATA.CROP_SIZE", "DATA.MIXUP", "MODEL.NAME",
    ]
    assert caught.value.faults[2].startswith(f"{path}:2: ")


def test_names():
    assert len(MODEL_NAMES) == 16
    assert tuple(_ARCHITECTURES) == MODEL_NAMES
    assert len([name for name in MODEL_NAMES if name.startswith("resnest50_fast_")]) == 7


RECIPES = sorted((Path(__file__).parents[2] / "configs" / "resnest").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_load(path):
    cfg = load_resnest_config(path)
    name, optimizer = cfg.MODEL.NAME, cfg.OPTIMIZER
    assert name in MODEL_NAMES
    if path.stem in MODEL_NAMES:  # a published recipe
        assert name == path.stem
        # 0.1 at batch 256, whatever the number of processes
        lr_per_image = optimizer.LR / cfg.TRAINING.BATCH_SIZE
        assert lr_per_image == pytest.approx(0.1 / 256, rel=1e-12)
        assert (cfg.TRAINING.EPOCHS, optimizer.WARMUP_EPOCHS, cfg.DATA.MIXUP) == (270, 5, 0.2)


def test_all_recipes_are_there():
    names = {path.stem for path in RECIPES}
    published = {"resnest50", "resnest101", "resnest200", "resnest269"}
    assert names >= published | {"base_resnet50", "resnest_base", "shapes", "small"}
