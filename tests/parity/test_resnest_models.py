"""ResNeSt networks against the original's recorded keys, groups, outputs and first updates."""

import hashlib

import pytest
import torch
from goldens import calm, check_summary, detfill, image_batch, load_golden
from torch.nn import functional as F

from common.losses.classification import LabelSmoothing
from models.resnest import MODEL_NAMES, build_resnest, param_groups

KEYS = load_golden("resnest_keys")
FORWARD = {k: v for k, v in load_golden("resnest_forward").items() if not k.startswith("_")}
OPTIM = load_golden("resnest_optim")["models"]
INIT = load_golden("resnest_init")
TRAIN3 = load_golden("resnest_train3")

COUNTS = KEYS.pop("_counts")
CASES = [(name, case) for name, cases in FORWARD.items() for case in cases]


def build_on_meta(name):
    with torch.device("meta"):
        return build_resnest(name)


def filled(name, fill, num_classes=1000):
    """The network in float64 with the recorded start weights."""
    net = build_resnest(name, num_classes)
    net.load_state_dict((calm if fill == "calm" else detfill)(net.state_dict()))
    return net.double()


def check_moments(tensor, record, rtol):
    got = {
        "mean": tensor.mean().item(),
        "std": tensor.std(unbiased=False).item(),
        "absmax": tensor.abs().max().item(),
    }
    wanted = {key: record[key] for key in got if key in record}
    tolerance = {"rel": rtol, "abs": rtol * record["absmax"]}
    assert {key: got[key] for key in wanted} == pytest.approx(wanted, **tolerance)


def test_names():
    assert set(COUNTS) <= set(MODEL_NAMES)


@pytest.mark.parametrize("name", list(COUNTS))
def test_keys(name):
    state = build_on_meta(name).state_dict()
    wanted = {key: shape for key, shape in KEYS[name].items() if not key.startswith("_")}
    assert {key: list(value.shape) for key, value in state.items()} == wanted
    assert list(state) == list(wanted)


@pytest.mark.parametrize("name", list(COUNTS))
def test_counts(name):
    net = build_on_meta(name)
    counts = COUNTS[name]
    assert sum(p.numel() for p in net.parameters()) == counts["params"]
    assert len(list(net.parameters())) == counts["n_param_tensors"]
    assert len(net.state_dict()) == counts["n_state_entries"]


@pytest.mark.parametrize("name", list(OPTIM))
def test_param_groups(name):
    net, record = build_on_meta(name), OPTIM[name]
    names = {parameter: name for name, parameter in net.named_parameters()}
    groups = param_groups(net, 1e-4, disable_bn_wd=True)
    assert [group["weight_decay"] for group in groups] == [0.0, 1e-4]
    for group, wanted in zip(groups, (record["group0"], record["group1"]), strict=True):
        own = [names[parameter] for parameter in group["params"]]
        assert len(own) == wanted["tensors"]
        assert sum(parameter.numel() for parameter in group["params"]) == wanted["params"]
        assert hashlib.sha256("\n".join(own).encode()).hexdigest() == wanted["names_sha256"]
    (one,) = param_groups(net, 1e-4)
    all_names = "\n".join(names[parameter] for parameter in one["params"])
    assert hashlib.sha256(all_names.encode()).hexdigest() == record["all_names_sha256"]


@pytest.mark.parametrize("name, case", CASES)
def test_forward(name, case):
    record = FORWARD[name][case]
    fill, mode, shape = case.split("_")
    net = filled(name, fill).train(mode == "train")
    features = {}
    for module in record.get("features_f64", {}):
        # cloned: the ReLU behind bn1 works in place
        net.get_submodule(module).register_forward_hook(
            lambda _, __, out, module=module: features.__setitem__(module, out.clone())
        )
    text = record["input"].split('"')[1]
    images = torch.as_tensor(image_batch(text, *map(int, shape.split("x")))).double()
    with torch.no_grad():
        logits = net(images)
    # float64 on both sides; the raw fill grows activations to 1e8, the calm one does not
    rtol = 1e-9 if fill == "calm" else 1e-6
    check_summary(logits, record["logits_f64"], atol=rtol * record["logits_f64"]["absmax"])
    assert logits.argmax(1).tolist() == record["argmax"]
    for module, wanted in record.get("features_f64", {}).items():
        assert list(features[module].shape) == wanted["shape"]
        check_moments(features[module], wanted, rtol)
    for key, wanted in record.get("buffers_after_f64", {}).items():
        check_moments(net.state_dict()[key], wanted, rtol)


@pytest.mark.parametrize("name", [name for name in INIT if isinstance(INIT[name], dict)])
def test_initial_weights(name):
    torch.manual_seed(1)
    state = build_resnest(name).state_dict()
    for key, wanted in INIT[name].items():
        if isinstance(wanted, dict):
            # the same draws in the same order; the record has 7 or more digits
            torch.testing.assert_close(
                state[key].flatten()[:4].double(),
                torch.tensor(wanted["first4"]).double(), rtol=1e-6, atol=1e-9,
            )
            assert state[key].double().std(unbiased=False).item() == pytest.approx(
                wanted["std"], rel=1e-5, abs=1e-12
            )


@pytest.mark.parametrize("name", ["ce", "label_smoothing"])
def test_first_updates(name):
    record = TRAIN3[name]["f64"]
    net = filled("resnest50", "calm", num_classes=10).train()
    criterion = LabelSmoothing(0.1) if name == "label_smoothing" else F.cross_entropy
    sgd = torch.optim.SGD(net.parameters(), lr=0.002, momentum=0.9, weight_decay=1e-4)
    for step, wanted in enumerate(record):
        images = torch.as_tensor(image_batch(f"resnest:train3:{step}", 4, 3, 64, 64)).double()
        targets = (3 * torch.arange(4) + step) % 10
        sgd.zero_grad()
        loss = criterion(net(images), targets)
        loss.backward()
        grad_norm = torch.nn.utils.get_total_norm([p.grad for p in net.parameters()])
        sgd.step()
        state = net.state_dict()
        got = {
            "loss": loss.item(),
            "grad_norm": grad_norm.item(),
            "param_abs_sum_after": sum(p.abs().sum().item() for p in net.parameters()),
            "bn1_running_mean_sum_after": state["bn1.running_mean"].sum().item(),
            "splat_bn1_running_var_sum_after": state["layer4.2.conv2.bn1.running_var"].sum().item(),
            "num_batches_tracked": state["bn1.num_batches_tracked"].item(),
        }
        # float64 on both sides: only the order of sums differs
        assert got == pytest.approx({key: wanted[key] for key in got}, rel=1e-7), step
        assert state["fc.bias"].tolist() == pytest.approx(wanted["fc_bias_after"], rel=1e-7)
