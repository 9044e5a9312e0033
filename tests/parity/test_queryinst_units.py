"""QueryInst's assignment, losses, boxes, keys and initial weights against the original's values."""

import math

import numpy as np
import pytest
import torch
from goldens import load_golden

from common.losses import (
    dice_loss,
    generalized_iou,
    hungarian_match,
    mask_targets,
    match_cost,
    sigmoid_focal,
)
from models.queryinst import (
    build_queryinst,
    decode_boxes,
    load_queryinst_config,
    roi_levels,
)

ASSIGN, UNITS, KEYS, INIT = (load_golden(f"queryinst_{name}") for name in
                             ("assign", "units", "keys", "init"))
CONFIGS = {
    "r50_100": "queryinst_r50_fpn_ms-480-800-3x_coco",
    "r50_300": "queryinst_r50_fpn_300-proposals_crop-ms-480-800-3x_coco",
    "r101_100": "queryinst_r101_fpn_ms-480-800-3x_coco",
    "r101_300": "queryinst_r101_fpn_300-proposals_crop-ms-480-800-3x_coco",
}
# records have 9 digits; float64 on both sides
CLOSE = {"rtol": 1e-8, "atol": 1e-8}
# float32 sums of up to 2352 terms
CLOSE32 = {"rtol": 2e-6, "atol": 2e-5}
SHAPE = (256, 320)  # h, w
GT_BOXES = torch.tensor([[20, 30, 140, 200], [150.5, 60.25, 300.75, 240], [5, 5, 45, 37],
                         [200, 20, 260, 90]])
GT_LABELS = torch.tensor([0, 17, 79, 17])
DTYPES = [(torch.float64, CLOSE), (torch.float32, CLOSE32)]


def predictions(dtype=torch.float64):
    i, j = torch.arange(12, dtype=torch.float64), torch.arange(80, dtype=torch.float64)
    cx, cy = 320 * (5 * i % 12 + 0.5) / 12, 256 * (7 * i % 12 + 0.5) / 12
    w, h = 20 + 15 * (3 * i % 7), 24 + 12 * (2 * i % 9)
    boxes = torch.stack((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), 1)
    logits = 3 * torch.sin(0.7 * i[:, None] + 0.31 * j) - 2
    return logits.to(dtype), boxes.to(dtype)


@pytest.mark.parametrize("dtype, close", DTYPES)
def test_costs(dtype, close):
    args = (*predictions(dtype), GT_BOXES, GT_LABELS, SHAPE)
    parts = match_cost(*args, parts=True)
    assert list(parts) == ["cls", "l1", "giou"]
    for name, cost in parts.items():
        np.testing.assert_allclose(cost, ASSIGN[f"cost_{name}"], **close)
    torch.testing.assert_close(match_cost(*args), sum(parts.values()))


@pytest.mark.parametrize("case, count, objects", [(None, 12, 4), ("three_preds", 3, 4),
                                                  ("no_gt", 12, 0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_assignment(case, count, objects, dtype):
    record = ASSIGN[case] if case else ASSIGN
    logits, boxes = (tensor[:count] for tensor in predictions(dtype))
    rows, columns = hungarian_match(logits, boxes, GT_BOXES[:objects], GT_LABELS[:objects], SHAPE)
    assert rows.dtype == columns.dtype == torch.int64
    assert rows.tolist() == sorted(rows.tolist())
    gt_inds, labels = torch.zeros(count, dtype=torch.int64), torch.full((count,), -1)
    gt_inds[rows] = columns + 1
    labels[rows] = GT_LABELS[columns]
    assert gt_inds.tolist() == record["gt_inds"]
    assert labels.tolist() == record["labels"]


@pytest.mark.parametrize("dtype, close", DTYPES)
def test_loss_terms(dtype, close):
    eps = float(np.finfo(np.float32).eps)
    logits, boxes = predictions(dtype)
    labels = torch.tensor([0, 80, 17, 80, 79, 80])
    focal = 2 * sigmoid_focal(logits[:6], labels) / (3 + eps)
    np.testing.assert_allclose(focal, UNITS["focal_avg3"], **close)
    iou = generalized_iou(boxes[:4], GT_BOXES.to(dtype))
    np.testing.assert_allclose(iou, UNITS["giou_pairs"], **close)
    np.testing.assert_allclose(2 * (1 - iou).sum() / (4 + eps), UNITS["giou_avg4"], **close)
    n = torch.arange(3 * 28 * 28, dtype=torch.float64)
    prob = torch.sigmoid(4 * torch.sin(0.37 * n)).to(dtype).reshape(3, 28, 28)
    target = (n % 5 < 2).to(dtype).reshape(3, 28, 28)
    dice = dice_loss(prob, target)
    assert dice.shape == (3,)
    # the record is 1.6e-8 lower, as if one of the two 1e-5 of the stated formula were missing
    np.testing.assert_allclose(8 * dice.sum() / (3 + eps), UNITS["dice_avg3"], rtol=2e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_terms_of_half_precision_are_float32(dtype):
    logits, boxes = (tensor.to(dtype) for tensor in predictions())
    logits[0] = -50  # log(sigmoid) underflows in half precision
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cost = match_cost(logits, boxes, GT_BOXES, GT_LABELS, SHAPE)
        focal = sigmoid_focal(logits, torch.full((12,), 80))
        iou = generalized_iou(boxes, boxes)
    for value in (cost, focal, iou):
        assert value.dtype == torch.float32
        assert value.isfinite().all()


@pytest.mark.parametrize("dtype, close", DTYPES)
def test_decoding(dtype, close):
    _, boxes = predictions(dtype)
    i = torch.arange(12, dtype=torch.float64)
    deltas = torch.stack((i.sin(), i.cos(), 2 * (2 * i).sin(), 6 * (3 * i).cos()), 1).to(dtype)
    scale = {"rtol": close["rtol"] * 10, "atol": close["atol"] * 100}  # boxes of 7000 px
    np.testing.assert_allclose(decode_boxes(boxes, deltas), UNITS["decode"], **scale)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_levels(dtype):
    sizes = torch.tensor(UNITS["roi_level_sizes"], dtype=dtype)
    boxes = torch.stack((sizes * 0 + 3, sizes * 0 + 5, sizes + 3, sizes + 5), 1)
    assert roi_levels(boxes).tolist() == UNITS["roi_level"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_mask_targets(dtype):
    y, x = torch.arange(256.0)[:, None] + 0.5, torch.arange(320.0) + 0.5
    masks = torch.stack([((x - (a + c) / 2) / ((c - a) / 2)) ** 2
                         + ((y - (b + d) / 2) / ((d - b) / 2)) ** 2 <= 1
                         for a, b, c, d in GT_BOXES.tolist()])
    boxes = torch.tensor(UNITS["mask_target_boxes"], dtype=dtype)
    targets = mask_targets(masks, boxes, torch.tensor([0, 1, 2, 3, 0]))
    assert targets.dtype == torch.float32
    assert targets.sum((1, 2)).tolist() == UNITS["mask_target_sum"]
    rows = ["".join(str(int(cell)) for cell in row) for row in targets[1]]
    assert rows == UNITS["mask_target_rows"]


@pytest.mark.parametrize("kind", CONFIGS)
def test_keys(kind):
    with torch.device("meta"):
        net = build_queryinst(CONFIGS[kind])
    keys = {key: list(value.shape) for key, value in net.state_dict().items()}
    assert list(keys.items()) == list(KEYS[kind].items())
    parameters = list(net.parameters())
    trainable = [p for p in parameters if p.requires_grad]
    counts = {"entries": len(keys), "params": sum(p.numel() for p in parameters),
              "trainable": sum(p.numel() for p in trainable), "trainable_tensors": len(trainable)}
    assert counts == KEYS["_counts"][kind]
    frozen = {name.split(".")[1] for name, p in net.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1"}


@pytest.fixture(scope="module")
def fresh():
    """Neck, proposals and stage 0 of a new R50; the other stages would only cost time."""
    torch.manual_seed(0)
    one_stage = ["model.roi_head.num_stages=1"]
    cfg = load_queryinst_config(CONFIGS["r50_100"], options=one_stage)
    return build_queryinst(cfg).state_dict()


@pytest.mark.parametrize("name", INIT)
def test_initial_weights(fresh, name):
    record, values = INIT[name], fresh[name]
    assert list(values.shape) == record["shape"]
    # a sample's spread: 5 standard errors of a standard deviation, 3e-3 for many values
    n = values.numel()
    std = values.std(unbiased=False).item()
    assert math.isclose(std, record["std"], rel_tol=max(5 / math.sqrt(2 * n), 3e-3), abs_tol=1e-9)
    if record["std"] == 0:
        assert values.min() == pytest.approx(record["min"], rel=1e-6)
        return
    # ends: exact bounds of a uniform draw, looser where few values or a normal one are drawn
    reach = abs(record["max"]) + abs(record["min"])
    slack = 0.3 if n < 1000 or abs(record["max"]) > 2.5 * record["std"] else 0.02
    assert abs(values.min().item() - record["min"]) <= slack * reach
    assert abs(values.max().item() - record["max"]) <= slack * reach
