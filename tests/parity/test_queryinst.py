"""QueryInst's network against the original's values, on rebuilt weights and inputs (R50, 100)."""

import copy

import numpy as np
import pytest
import torch
from goldens import check_summary, detfill, image_batch, load_golden

from models.queryinst import build_queryinst, network

FORWARD, PREDICT, LOSS = (load_golden(f"queryinst_{name}") for name in
                          ("forward", "predict", "loss"))
# float32 against float64: the original's own float32 run is off by up to 5e-6 of the largest value
TENSOR = 2e-5
LOSS_RTOL = 1e-5
# the original's float32 gradients are off by up to 2.1e-3: a ReLU that rounds to the other side
GRAD_RTOL, TOTAL_GRAD_RTOL = 5e-3, 1e-3
MASK_PIXELS = 3


def filled(state_dict):
    """The weights of the goldens (their README, "Weights")."""
    weights = detfill(state_dict)
    for key, value in weights.items():
        if ".fc_reg." in key:
            weights[key] = value * 0.05
        elif key.endswith("fc_cls.bias"):
            weights[key] = torch.full_like(value, -np.log(99))
    i = torch.arange(100)
    weights["rpn_head.init_proposal_bboxes.weight"] = torch.stack((
        (37 * i % 101 + 0.5) / 101, (53 * i % 101 + 0.5) / 101,
        0.1 + 0.8 * (29 * i % 97) / 96, 0.1 + 0.8 * (41 * i % 89) / 88), dim=1)
    return weights


@pytest.fixture(scope="module")
def weights_and_net():
    with torch.device("meta"):
        net = build_queryinst("queryinst_r50_fpn_1x_coco")
    weights = filled(torch.nn.Module.state_dict(net.to_empty(device="cpu")))
    net.load_state_dict(weights)
    return weights, net


@pytest.fixture
def net(weights_and_net):
    weights, net = weights_and_net
    net.min_normaliser = 1.0
    # only these change in training without updates
    net.load_state_dict({key: value for key, value in weights.items()
                         if "running" in key or "num_batches" in key}, strict=False)
    net.zero_grad(set_to_none=True)
    return net


@pytest.fixture(scope="module")
def outputs(weights_and_net):
    net = weights_and_net[1].eval()
    with torch.no_grad():
        return net.forward_heads(image_batch("queryinst/forward", 1, 3, 256, 320), [(250, 310)])


def close(tensor, record):
    check_summary(tensor, record, atol=TENSOR * record["absmax"])


def test_features(outputs):
    for i in range(4):
        close(outputs["backbone"][i], FORWARD[f"backbone.C{i + 2}"])
        close(outputs["fpn"][i], FORWARD[f"fpn.P{i + 2}"])
    close(outputs["init_boxes"][0], FORWARD["init_boxes"])


@pytest.mark.parametrize("stage", range(6))
def test_stage(outputs, stage):
    names = {"roi_levels": "roi_levels", "roi_feats": "roi_feats", "cls_logits": "cls_score",
             "boxes": "boxes", "attn_feats": "attn_feats", "object_feats": "object_feats",
             "mask_logits": "mask_logits"}
    for ours, theirs in names.items():
        record = FORWARD[f"stage{stage}.{theirs}"]
        atol = 0 if ours == "roi_levels" else TENSOR * record["absmax"]
        check_summary(outputs["stages"][stage][ours], record, atol)


def test_predict(net):
    record = PREDICT["rescaled"]
    images = image_batch("queryinst/forward", 1, 3, 256, 320)
    meta = {"img_shape": (250, 310), "ori_shape": (201, 248),
            "scale_factor": (310 / 248, 250 / 201)}
    found, = net.eval().predict(images, [meta])
    assert found["labels"].tolist() == record["labels"]
    np.testing.assert_allclose(found["scores"], record["scores"], rtol=1e-4)
    boxes = np.array(record["bboxes"])
    np.testing.assert_allclose(found["boxes"], boxes, atol=TENSOR * np.abs(boxes).max())
    masks = found["masks"].numpy()
    assert list(masks.shape) == record["mask_shape"]
    assert masks.dtype == bool
    areas = masks.sum((1, 2))
    np.testing.assert_allclose(areas, record["mask_area"], atol=MASK_PIXELS)
    rows, columns = np.arange(201), np.arange(248)
    # a pixel more or less moves a mean by its distance from it over the area
    slack = 250 * MASK_PIXELS / np.maximum(areas, 1)
    for key, sums in (("mask_moment_x", masks.sum(1) @ columns),
                      ("mask_moment_y", masks.sum(2) @ rows)):
        known = areas > 0
        assert (np.abs(sums / np.maximum(areas, 1) - record[key]) <= slack)[known].all()

    # in the resized frame: the same objects, whose boxes are rescaled exactly once
    other, = net.predict(images, [meta], rescale=False)
    scale = torch.tensor(meta["scale_factor"] * 2)
    torch.testing.assert_close(other["boxes"] / scale, found["boxes"])
    assert torch.equal(other["labels"], found["labels"])
    assert other["masks"].shape == (100, 250, 310)
    larger = other["masks"].sum((1, 2)) / found["masks"].sum((1, 2))
    assert torch.allclose(larger.median(), scale[0] * scale[1], rtol=0.02)


# --- losses


def ellipse(box, height=256, width=320):
    x1, y1, x2, y2 = box[:4]
    dx = (torch.arange(width) + 0.5 - (x1 + x2) / 2) / ((x2 - x1) / 2)
    dy = (torch.arange(height) + 0.5 - (y1 + y2) / 2) / ((y2 - y1) / 2)
    return dx[None] ** 2 + dy[:, None] ** 2 <= 1


OBJECTS = (
    [(20, 30, 140, 200, 0), (150.5, 60.25, 300.75, 240, 17), (5, 5, 45, 37, 79)],
    [(10, 20, 110, 90, 2), (60, 80, 200, 210, 41), (180.25, 12.5, 280, 100, 2),
     (200, 120, 286, 222, 63), (30, 150, 58, 190, 7)],
)


def make_samples(objects=OBJECTS):
    return [
        {"boxes": torch.tensor([row[:4] for row in rows], dtype=torch.float32).reshape(-1, 4),
         "labels": torch.tensor([row[4] for row in rows], dtype=torch.int64),
         "masks": torch.stack([torch.zeros(256, 320, dtype=torch.bool), *map(ellipse, rows)])[1:],
         "img_shape": shape}
        for rows, shape in zip(objects, ((256, 320), (224, 288)), strict=True)
    ]


def total(losses):
    return sum(value for name, value in losses.items() if "loss" in name)


@pytest.fixture(scope="module")
def seen(weights_and_net):
    """What passes between the parts of one training step: stages, matches, mask targets."""
    net, kept = weights_and_net[1].train(), {}
    net.zero_grad(set_to_none=True)
    patch = pytest.MonkeyPatch()

    def watched(name, keep):
        original = vars(network)[name]

        def call(*args):
            result = original(*args)
            keep(args, result)
            return result
        patch.setattr(network, name, call)

    watched("match_stages", lambda args, found: kept.update(boxes=args[1], matches=found))
    watched("mask_targets", lambda args, found: kept.update(targets=found))
    kept["losses"] = net.loss(image_batch("queryinst/loss", 2, 3, 256, 320), make_samples())
    patch.undo()
    total(kept["losses"]).backward()
    kept["missing"] = [name for name, parameter in net.named_parameters()
                       if parameter.requires_grad and parameter.grad is None]
    kept["norms"] = {name: parameter.grad.norm().item() for name, parameter in
                     net.named_parameters() if parameter.requires_grad}
    for name in ("bboxes", "features"):
        grad = net.get_parameter(f"rpn_head.init_proposal_{name}.weight").grad
        kept[f"grad_init_proposal_{name}"] = grad.clone()
    bn = net.roi_head["mask_head"][0].convs[0].bn
    kept["bn"] = copy.deepcopy(bn)
    net.zero_grad(set_to_none=True)
    return kept


def test_losses(seen):
    losses = seen["losses"]
    assert list(losses) == list(LOSS["losses"])
    for name, value in LOSS["losses"].items():
        np.testing.assert_allclose(losses[name].item(), value, rtol=LOSS_RTOL, err_msg=name)
    np.testing.assert_allclose(total(losses).item(), LOSS["total"], rtol=LOSS_RTOL)


def test_matches_and_mask_targets(seen):
    matches = seen["matches"]
    targets = seen["targets"].unflatten(0, matches.rows.shape)
    first_object = (0, len(OBJECTS[0]))
    for stage in range(6):
        close(seen["boxes"][stage], LOSS["boxes"][str(stage)])
        for image, record in enumerate(LOSS["match"][str(stage)]):
            own = matches.image == image
            assert (matches.rows[stage, own] - 100 * image).tolist() == record["pred"]
            assert (matches.objects[stage, own] - first_object[image]).tolist() == record["gt"]
        ones = targets[stage].sum((1, 2)).int().tolist()
        assert ones == LOSS["mask_target_sum"][str(stage)]


def test_gradients(seen):
    assert seen["missing"] == LOSS["trainable_without_grad"]
    assert len(seen["norms"]) == 516
    assert seen["norms"]["neck.fpn_convs.3.conv.weight"] == 0  # no box is large enough for P5
    norm = np.linalg.norm(list(seen["norms"].values()))
    np.testing.assert_allclose(norm, LOSS["total_grad_norm"], rtol=TOTAL_GRAD_RTOL)
    for name, value in LOSS.get("grad_norm", {}).items():
        np.testing.assert_allclose(seen["norms"][name], value, rtol=GRAD_RTOL, err_msg=name)
    for name in ("grad_init_proposal_bboxes", "grad_init_proposal_features"):
        check_summary(seen[name], LOSS[name], atol=GRAD_RTOL * LOSS[name]["absmax"])
    # only boxes matched in the first stage move their proposals
    rows = seen["grad_init_proposal_bboxes"].abs().sum(1).nonzero().flatten()
    matched = {row for image in LOSS["match"]["0"] for row in image["pred"]}
    assert set(rows.tolist()) == matched


def test_batch_norms_of_a_step(seen, net):
    assert seen["bn"].num_batches_tracked == 1
    assert not torch.equal(seen["bn"].running_mean, net.roi_head["mask_head"][0].convs[0].bn
                           .running_mean)
    for module in net.train().backbone.modules():
        assert not (isinstance(module, torch.nn.BatchNorm2d) and module.training)


def test_without_any_object(net):
    """Divided by 1 and not by 1e-7, the class loss of an empty batch is nothing special."""
    images = image_batch("queryinst/loss", 2, 3, 256, 320)
    with torch.no_grad():
        losses = net.train().loss(images, make_samples(([], [])))
    for stage in range(6):
        # measured in the original: about 6e6 to 3e7 [queryinst.md: Losses]
        assert 5e6 < losses[f"s{stage}.loss_cls"] / torch.finfo(torch.float32).eps < 4e7
        for name in ("loss_bbox", "loss_iou", "loss_mask", "pos_acc"):
            assert losses[f"s{stage}.{name}"] == 0
    assert net.roi_head["mask_head"][0].convs[0].bn.num_batches_tracked == 1
