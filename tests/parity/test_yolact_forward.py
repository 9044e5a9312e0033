"""Raw outputs, backbone stages and priors of whole networks on rebuilt weights and images."""

import numpy as np
import pytest
import torch
from goldens import calm, check_summary, image_batch, load_golden

from models.yolact import build_yolact

GOLDEN = load_golden("yolact_forward")["configs"]
OUTPUTS = ("loc", "conf", "mask", "proto", "segm")


@pytest.fixture(scope="module", params=GOLDEN)
def runs(request):
    """(golden, {"bn_eval": outputs, "bn_train": outputs}, stages of each) of one config."""
    golden = GOLDEN[request.param]
    net = build_yolact(request.param)
    weights = calm(net.state_dict())
    images = image_batch(golden["input"]["name"], *golden["input"]["shape"])
    outputs, stages = {}, {}
    keep = net.backbone.register_forward_hook(lambda module, args, out: stages.update(now=out))
    for mode in ("bn_eval", "bn_train"):
        net.load_state_dict(weights)
        net.train(mode == "bn_train")
        with torch.no_grad():
            outputs[mode] = net.forward_heads(images)
        outputs[mode]["stages"] = stages["now"]
    keep.remove()
    return golden, outputs


@pytest.mark.parametrize("mode", ["bn_eval", "bn_train"])
def test_raw_outputs(runs, mode):
    golden, outputs = runs
    for name in OUTPUTS:
        record = golden[mode][name]
        # ten times what the original's own float32 run differs from its float64 run
        check_summary(outputs[mode][name], record, atol=10 * record["f32_max_abs_diff"])


@pytest.mark.parametrize("mode", ["bn_eval", "bn_train"])
def test_backbone_stages(runs, mode):
    golden, outputs = runs
    records = golden[mode]["backbone_outs"]
    assert len(records) == len(outputs[mode]["stages"])
    for stage, record in zip(outputs[mode]["stages"], records, strict=True):
        # the record states no float32 error; 1e-5 of the largest value is 80 roundings
        check_summary(stage, record, atol=1e-5 * record["absmax"], every=8)


def test_priors(runs):
    golden, outputs = runs
    priors = outputs["bn_eval"]["priors"]
    check_summary(priors, golden["priors"], atol=1e-9)  # beside the record's rounding: exact
    np.testing.assert_allclose(priors[:12], golden["priors"]["first12"], rtol=2e-8)
    cells = sum(h * w for h, w in golden["level_sizes_hw"])
    assert len(priors) == golden["num_priors_per_cell"] * cells


def test_class_probabilities(runs):
    golden, outputs = runs
    conf = outputs["bn_eval"]["conf"].double().softmax(-1)
    # a probability moves by at most half as much as its logits do
    check_summary(conf, golden["softmax_conf"],
                  atol=10 * golden["bn_eval"]["conf"]["f32_max_abs_diff"])
