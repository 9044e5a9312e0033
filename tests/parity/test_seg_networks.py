"""Keys, outputs, losses and gradients of the segmentation networks against golden/seg_*.json."""

import pytest
import torch
from goldens import check_summary, detfill, image_batch, load_golden
from torch import nn

from common.schedulers import poly
from models.segmentation import (
    NormMomentum,
    SegmentationModule,
    build_decoder,
    build_encoder,
    group_weight,
    to_original_state_dict,
)

KEYS = load_golden("seg_keys")
FORWARD = load_golden("seg_forward")
OPTIM = load_golden("seg_optim")["nets"]
GRAD = load_golden("seg_grad")
STEP = load_golden("seg_step")
SYNC = load_golden("seg_syncbn")

EXTRAS = ("_tmp_running_mean", "_tmp_running_var", "_running_iter")
# Ours and the original's float64 runs sum in different orders; records have 9 or 10 digits.
RTOL, ATOL = 1e-9, 1e-10
FAST = "ade20k-mobilenetv2dilated-c1_deepsup"
FORWARD_CONFIGS = [
    FAST,
    "ade20k-resnet18dilated-ppm_deepsup",
    "ade20k-resnet50-upernet",
    "ade20k-hrnetv2",
]


def build(record, half=False, use_softmax=False, weight=None):
    """The config's module in float64, filled as the golden files say."""
    encoder = build_encoder(record["encoder"], record["fc_dim"])
    decoder = build_decoder(record["decoder"], record["fc_dim"], 150, use_softmax=use_softmax)
    for net in (encoder, decoder):
        state = detfill(net.state_dict())
        if half:
            state = {
                key: value * 0.5 if value.dim() == 1 and key.endswith("weight") else value
                for key, value in state.items()
            }
        net.load_state_dict(state)
    deep = 0.4 if record["decoder"].endswith("deepsup") else None
    return SegmentationModule(encoder, decoder, nn.NLLLoss(ignore_index=-1), deep).double()


def labels(rate, num_class=150, batch=2, height=64, width=96):
    b = torch.arange(batch)[:, None, None]
    y = torch.arange(height // rate)[:, None]
    x = torch.arange(width // rate)
    return (7 * y + 13 * x + 29 * b) % (num_class + 1) - 1


def feed_of(record):
    return {
        "img_data": image_batch("seg", 2, 3, 64, 96).double(),
        "seg_label": labels(record["segm_downsampling_rate"]),
    }


def train_with_fixed_dropout(module):
    module.train()
    for part in module.modules():
        if isinstance(part, nn.Dropout2d):
            part.eval()


def close(value, wanted):
    value = value.item() if torch.is_tensor(value) else value
    assert value == pytest.approx(wanted, rel=RTOL, abs=ATOL)


def check(tensor, record):
    check_summary(tensor, record, atol=max(ATOL, 1e-9 * record["absmax"]))


def check_outputs(module, record):
    feed = feed_of(record)
    with torch.no_grad():
        features = module.encoder(feed["img_data"], return_feature_maps=True)
        assert len(features) == len(record["encoder_out"])
        for feature, wanted in zip(features, record["encoder_out"], strict=True):
            check(feature, wanted)
        scores = module.decoder(features)
        loss, accuracy = module(feed)
    outputs = scores if isinstance(scores, tuple) else (scores,)
    for output, name in zip(outputs, ("logprob", "logprob_deepsup"), strict=False):
        check(output, record[name])
    assert ("logprob_deepsup" in record) == (len(outputs) == 2)
    close(loss, record["loss_eval"])
    close(accuracy, record["acc_eval"])
    module.decoder.use_softmax = True
    with torch.no_grad():
        probabilities = module(feed, segSize=tuple(record["segSize"]))
    check(probabilities, record["softmax"])
    best = probabilities.argmax(dim=1).flatten()
    picks = [(i * (len(best) - 1)) // 63 for i in range(64)]
    assert best[picks].tolist() == record["argmax"]["samples"]


@pytest.mark.parametrize("arch", list(KEYS["encoders"]))
def test_encoder_keys(arch):
    wanted = KEYS["encoders"][arch]
    wanted = KEYS["encoders"][wanted["same_as"]] if "same_as" in wanted else wanted
    fc_dim = {"hrnetv2": 720, "mobilenetv2dilated": 320}.get(arch, 512)
    with torch.device("meta"):
        encoder = build_encoder(arch.upper(), fc_dim)
    check_keys(encoder, wanted)
    assert sum(p.numel() for p in encoder.parameters()) == KEYS["encoder_counts"][arch]["n_params"]


@pytest.mark.parametrize("name", list(KEYS["decoders"]))
def test_decoder_keys(name):
    arch, fc_dim = name.split("@fc")
    with torch.device("meta"):
        decoder = build_decoder(arch, int(fc_dim), 150)
    check_keys(decoder, KEYS["decoders"][name])
    assert sum(p.numel() for p in decoder.parameters()) == KEYS["decoder_counts"][name]["n_params"]


def check_keys(net, wanted):
    native = {key: list(value.shape) for key, value in net.state_dict().items()}
    without = {k: v for k, v in wanted.items() if not k.endswith(EXTRAS)}
    assert list(native.items()) == list(without.items())


@pytest.mark.parametrize("arch", ["mobilenetv2dilated", "resnet18", "hrnetv2"])
def test_files_have_the_originals_keys_in_order(arch):
    fc_dim = {"hrnetv2": 720, "mobilenetv2dilated": 320}.get(arch, 512)
    state = to_original_state_dict(build_encoder(arch, fc_dim))
    shapes = {key: list(value.shape) for key, value in state.items()}
    assert list(shapes.items()) == list(KEYS["encoders"][arch].items())


@pytest.mark.parametrize("name", FORWARD_CONFIGS)
def test_outputs_in_eval_mode(name):
    record = FORWARD["eval_half"][name]
    check_outputs(build(record, half=True).eval(), record)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORWARD_CONFIGS)
def test_outputs_in_eval_mode_with_large_values(name):
    record = FORWARD["eval"][name]
    check_outputs(build(record).eval(), record)


@pytest.mark.parametrize("name", FORWARD_CONFIGS)
def test_one_forward_in_train_mode(name):
    record = FORWARD["train"][name]
    module, feed = build(record), feed_of(record)
    train_with_fixed_dropout(module)
    buffers = record["buffers_after_one_forward"]
    names = [key for key in buffers if not key.endswith((*EXTRAS, "num_batches_tracked"))]
    assert names
    for key in names:
        check_eight(module.get_buffer(key), buffers[key]["before"])
    # the running statistics move at each forward, so one run gives everything
    seen = {}
    module.encoder.register_forward_hook(lambda *x: seen.update(features=x[2]))
    module.decoder.register_forward_hook(lambda *x: seen.update(scores=x[2]))
    with torch.no_grad():
        loss, accuracy = module(feed)
    check(seen["features"][-1], record["encoder_last"])
    outputs = seen["scores"] if isinstance(seen["scores"], tuple) else (seen["scores"],)
    for output, key in zip(outputs, ("logprob", "logprob_deepsup"), strict=False):
        check(output, record[key])
    close(loss, record["loss"])
    close(accuracy, record["acc"])
    for key in names:
        check_eight(module.get_buffer(key), buffers[key]["after"])


def check_eight(tensor, record, count=8):
    """A summary with another number of samples than 64."""
    count = min(count, tensor.numel(), len(record["samples"]))
    last = tensor.numel() - 1
    samples = tensor[[(i * last) // (count - 1) for i in range(count)]]
    wanted = torch.tensor(record["samples"], dtype=torch.float64)
    # golden samples have 10 significant digits
    torch.testing.assert_close(samples, wanted, rtol=1e-9, atol=1e-10)
    close(tensor.mean(), record["mean"])
    close(tensor.std(correction=0), record["std"])


@pytest.mark.parametrize("mode", ["eval_bn", "train_bn"])
def test_gradients(mode):
    record = GRAD[FAST][mode]
    module = build(FORWARD["eval"][FAST])
    module.eval()
    if mode == "train_bn":
        train_with_fixed_dropout(module)
    loss, accuracy = module(feed_of(FORWARD["eval"][FAST]))
    loss.backward()
    close(loss, record["loss"])
    close(accuracy, record["acc"])
    for name, norm in record["grad_norm"].items():
        close(module.get_parameter(name).grad.norm(), norm)
    total = sum(p.grad.square().sum() for p in module.parameters()).sqrt()
    encoder = sum(p.grad.square().sum() for p in module.encoder.parameters()).sqrt()
    close(total, record["total_grad_norm"])
    close(encoder, record["encoder_grad_norm"])


def test_six_sgd_steps():
    record = STEP[FAST]
    module = build(FORWARD["eval"][FAST])
    train_with_fixed_dropout(module)
    nets = (module.encoder, module.decoder)
    optimizers = [
        torch.optim.SGD(group_weight(net), lr=0.02, momentum=0.9, weight_decay=1e-4)
        for net in nets
    ]
    lr_at = poly(0.02, record["num_epoch"] * record["epoch_iters"], 0.9)
    for step in record["steps"]:
        it = step["it"]
        images = image_batch(f"seg_step{it}", 2, 3, 64, 96).double()
        feed = {"img_data": images, "seg_label": (labels(8) + 1 + it) % 151 - 1}
        for optimizer in optimizers:
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = lr_at(it)
        close(lr_at(it), step["lr"])
        loss, accuracy = module(feed)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        close(loss, step["loss"])
        close(accuracy, step["acc"])
        for name, norm in step["param_norm"].items():
            close(module.get_parameter(name).norm(), norm)
    for name, summary in record["final_running"].items():
        check_eight(module.get_buffer(name), summary, count=16)


@pytest.mark.parametrize("name", list(OPTIM))
def test_optimizer_groups(name):
    record = OPTIM[name]
    with torch.device("meta"):
        encoder = build_encoder(record["encoder_arch"], record["fc_dim"])
        decoder = build_decoder(record["decoder_arch"], record["fc_dim"], 150)
    for net, wanted in ((encoder, record["encoder"]), (decoder, record["decoder"])):
        decay, no_decay = group_weight(net)
        assert "weight_decay" not in decay
        assert no_decay["weight_decay"] == 0.0
        found = {
            "decay": len(decay["params"]),
            "no_decay": len(no_decay["params"]),
            "decay_numel": sum(p.numel() for p in decay["params"]),
            "no_decay_numel": sum(p.numel() for p in no_decay["params"]),
        }
        assert found == wanted


@pytest.mark.parametrize("name", [key for key in SYNC if key != "note"])
def test_running_statistics(name):
    momentum = float(name.removeprefix("momentum_"))
    plain = nn.BatchNorm2d(3, momentum=momentum).double()
    corrected = nn.BatchNorm2d(3, momentum=momentum).double()
    schedule = NormMomentum(corrected, corrected=True)
    for k, (single, parallel) in enumerate(
        zip(SYNC[name]["single_device"], SYNC[name]["parallel"], strict=True)
    ):
        x = image_batch(f"syncbn{k}", 4, 3, 5, 6).double() * (1 + k) + k
        if k == 3:
            x[:, 2] = 7.0
        out = plain(x)
        check_short(out, single["out"])
        check_values(plain.running_mean, single["running_mean"])
        check_values(plain.running_var, single["running_var"])

        schedule.set(k)
        corrected(x)
        check_values(corrected.running_mean, parallel["running_mean"])
        check_values(corrected.running_var, parallel["running_var"])
        state = to_original_state_dict(corrected)
        check_values(state["_running_iter"], parallel["running_iter"], rel=1e-6)  # kept in float32
        check_values(state["_tmp_running_mean"], parallel["tmp_running_mean"])
        check_values(x.mean((0, 2, 3)), parallel["mean"])
        # torch adds eps to the variance where the original takes at least eps: at most eps / 2 of
        # the value, 5e-6 relative at variance 1 [segmentation.md: Batch norm]
        variance = x.var((0, 2, 3), correction=0)
        check_values((variance + corrected.eps).rsqrt(), parallel["inv_std"], rel=1e-5)


def check_short(tensor, record):
    flat = tensor.flatten()
    count = len(record["samples"])
    samples = flat[[(i * (len(flat) - 1)) // (count - 1) for i in range(count)]]
    check_values(samples, record["samples"])
    assert list(tensor.shape) == record["shape"]


def check_values(tensor, wanted, rel=1e-9):
    wanted = torch.tensor(wanted, dtype=torch.float64)
    torch.testing.assert_close(tensor.detach().double(), wanted, rtol=rel, atol=1e-9)
