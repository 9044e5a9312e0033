"""QueryInst's parts against plain re-computations, and what training relies on."""

import datetime
import math
import multiprocessing

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from common.losses import hungarian_match, mask_targets
from common.losses.set_matching import assign_all
from models.queryinst import build_queryinst, load_queryinst_config, roi_levels
from models.queryinst.boxes import paste_masks
from models.queryinst.roi_align import PyramidRows
from runtime.errors import Failed

TINY = ["model.neck.out_channels=16", "model.roi_head.num_stages=2",
        "model.roi_head.bbox_head.num_heads=2", "model.backbone.base_channels=8",
        "model.roi_head.bbox_head.feedforward_channels=16", "model.rpn_head.num_proposals=6",
        "model.num_classes=3"]


def tiny(*options):
    torch.manual_seed(0)
    return build_queryinst(load_queryinst_config("queryinst_shapes", options=[*TINY, *options]))


def make_samples(*counts, size=64, seed=0):
    """One sample for each count of objects, rectangles in size x size images."""
    rng = np.random.RandomState(seed)
    samples = []
    for count in counts:
        corners = rng.uniform(0, size - 20, (count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(6, 20, (count, 2))], 1)
        masks = torch.zeros(count, size, size, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int).tolist(), strict=True):
            mask[y1:y2, x1:x2] = True
        samples.append({"boxes": torch.from_numpy(boxes).float(), "masks": masks,
                        "labels": torch.from_numpy(rng.randint(0, 3, count)),
                        "img_shape": (size, size)})
    return samples


def images_for(samples, size=64):
    return torch.randn(len(samples), 3, size, size, generator=torch.Generator().manual_seed(1))


def total(losses):
    return sum(value for name, value in losses.items() if "loss" in name)


# --- pooling and pasting


def pooled_by_hand(feature, box, scale, size, samples=2):
    """RoIAlign of one box as the papers' formula, sample by sample, float64 [C, size, size].

    samples: of a cell and axis; 0: as many as the cell has pixels
    """
    _, height, width = feature.shape
    x0, y0, x1, y1 = (side * scale - 0.5 for side in box)
    cell_h, cell_w = (y1 - y0) / size, (x1 - x0) / size
    count_h, count_w = (samples or max(1, math.ceil(cell)) for cell in (cell_h, cell_w))
    out = torch.zeros(len(feature), size, size, dtype=torch.float64)
    for i, j in np.ndindex(size, size):
        for k, m in np.ndindex(count_h, count_w):
            y = y0 + (i + (k + 0.5) / count_h) * cell_h
            x = x0 + (j + (m + 0.5) / count_w) * cell_w
            if not (-1 <= y <= height and -1 <= x <= width):
                continue
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dx = y - top, x - left
            out[:, i, j] += ((1 - dy) * (1 - dx) * feature[:, top, left]
                             + (1 - dy) * dx * feature[:, top, right]
                             + dy * (1 - dx) * feature[:, bottom, left]
                             + dy * dx * feature[:, bottom, right])
    return out / (count_h * count_w)


BOXES = torch.tensor([
    [3.0, 5.0, 40.0, 33.0],  # the finest level
    [-30.0, -20.0, 50.0, 70.0],  # over two borders, the second level
    [0.0, 0.0, 256.0, 192.0],
    [-400.0, -300.0, 700.0, 600.0],  # far outside on all sides, the coarsest
    [300.0, 10.0, 340.0, 40.0],  # beside the image
    [50.0, 50.0, 50.0, 80.0],  # no width
], dtype=torch.float64)


@pytest.mark.parametrize("size", [7, 14])
def test_pooling(size):
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(2, 5, 192 // stride, 256 // stride, generator=generator,
                          dtype=torch.float64) for stride in (4, 8, 16, 32)]
    image = torch.tensor([0, 1, 0, 1, 1, 0])
    pooled = PyramidRows(levels).pool(BOXES, image, size)
    assert pooled.shape == (6, size * size, 5)
    level = roi_levels(BOXES).tolist()
    assert level == [0, 0, 1, 3, 0, 0]
    for i, box in enumerate(BOXES.tolist()):
        wanted = pooled_by_hand(levels[level[i]][image[i]], box, 1 / (4 << level[i]), size)
        torch.testing.assert_close(pooled[i].T.reshape(5, size, size), wanted)


def test_pooling_gives_every_level_a_gradient_and_boxes_none():
    levels = [torch.randn(1, 2, 64 // stride, 64 // stride, dtype=torch.float64,
                          requires_grad=True) for stride in (4, 8, 16, 32)]
    boxes = BOXES[:1].clone().requires_grad_()
    image = torch.tensor([0])

    def pool(finest):
        return PyramidRows([finest, *levels[1:]]).pool(boxes, image, 3)
    pool(levels[0]).sum().backward()
    assert boxes.grad is None
    assert levels[0].grad.sum() > 0
    assert all((level.grad == 0).all() for level in levels[1:])
    assert torch.autograd.gradcheck(pool, levels[:1])


def test_half_precision_features_are_pooled_in_float32():
    levels = [torch.randn(1, 2, 64 // stride, 64 // stride).bfloat16()
              for stride in (4, 8, 16, 32)]
    pooled = PyramidRows(levels).pool(BOXES[:1].float(), torch.tensor([0]), 7)
    wanted = pooled_by_hand(levels[0][0].double(), BOXES[0].tolist(), 1 / 4, 7)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled[0].T.reshape(2, 7, 7), wanted.float(), rtol=1e-5, atol=1e-5)


def test_boxes_that_are_not_numbers_do_no_harm():
    rows = PyramidRows([torch.randn(1, 2, 8, 8), *[torch.randn(1, 2, 4, 4)] * 3])
    boxes = torch.tensor([[math.nan] * 4, [math.inf] * 4, [-math.inf, 0, math.inf, 5]])
    assert rows.pool(boxes, torch.zeros(3, dtype=torch.int64), 7).shape == (3, 49, 2)


def test_mask_targets_are_adaptive_roi_align():
    samples = make_samples(4, size=96, seed=3)[0]
    generator = torch.Generator().manual_seed(0)
    blobs = F.interpolate(torch.randn(4, 1, 6, 6, generator=generator), (70, 96))[:, 0] > 0
    boxes = torch.cat((samples["boxes"].double() * 0.7 + 3,
                       torch.tensor([[-20.0, -20.0, 120.0, 90.0], [10, 10, 10, 10]])))
    index = torch.tensor([0, 1, 2, 3, 1, 2])
    targets = mask_targets(blobs, boxes, index)
    for target, box, i in zip(targets, boxes, index.tolist(), strict=True):
        clipped = torch.minimum(box.clamp(min=0), torch.tensor([96.0, 70, 96, 70]))
        wanted = pooled_by_hand(blobs[i][None].double(), clipped.tolist(), 1, 28, samples=0)[0]
        assert torch.equal(target.bool(), wanted >= 0.5 - 1e-12)


def test_half_a_cell_is_covered_enough():
    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[..., :10] = True
    # cells of one pixel, half a pixel to the right: the tenth has its sample on the edge
    target, = mask_targets(mask, torch.tensor([[0.5, 0, 28.5, 28]]), torch.tensor([0]))
    assert target[14].sum() == 10


def test_mask_targets_of_nothing():
    empty = mask_targets(torch.zeros(0, 32, 32, dtype=torch.bool), torch.zeros(0, 4),
                         torch.zeros(0, dtype=torch.int64))
    assert empty.shape == (0, 28, 28)


def test_pasting_is_grid_sample():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(5, 28, 28, generator=generator)
    boxes = torch.tensor([[5.2, 7.7, 60.1, 50.3], [-20.0, -15.5, 30.0, 25.0],
                          [40.0, 30.0, 130.0, 90.0], [20.3, 20.6, 21.2, 60.0],
                          [200.0, 10.0, 220.0, 30.0]])
    height, width = 60, 80
    pasted = paste_masks(masks, boxes, (height, width))
    y, x = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    for mask, (x0, y0, x1, y1), found in zip(masks, boxes.tolist(), pasted, strict=True):
        grid = torch.stack(torch.meshgrid((x - x0) / (x1 - x0) * 2 - 1,
                                          (y - y0) / (y1 - y0) * 2 - 1, indexing="xy"), -1)
        values = F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]
        differs = found != (values >= 0.5)
        assert ((values[differs] - 0.5).abs() < 1e-5).all()
    assert not pasted[4].any()


def test_pasting_a_box_without_extent_stays_in_its_window():
    masks = torch.ones(2, 28, 28)
    boxes = torch.tensor([[10.25, 10.0, 10.25, 20.0], [math.nan] * 4])
    pasted = paste_masks(masks, boxes, (40, 40))
    assert set(pasted[0].any(0).nonzero().flatten().tolist()) <= {9, 10, 11}
    assert not pasted[1].any()


# --- losses


@pytest.mark.parametrize("counts", [(2, 3), (2, 0), (0, 0), (9, 1)], ids=str)
def test_every_parameter_gets_a_gradient(counts):
    """With objects, without any, and with more of them than proposals."""
    net = tiny().train()
    samples = make_samples(*counts)
    losses = net.loss(images_for(samples), samples)
    total(losses).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in net.parameters())
    assert list(losses)[:5] == [f"s0.{name}" for name in
                                ("loss_cls", "pos_acc", "loss_bbox", "loss_iou", "loss_mask")]
    assert all(value.shape == () for value in losses.values())
    if not sum(counts):
        nothing = [name for name in losses if "loss_cls" not in name]
        assert all(losses[name] == 0 for name in nothing)
    assert net.roi_head["mask_head"][0].convs[0].bn.num_batches_tracked == 1


def test_the_least_normaliser_matters_without_objects_only():
    net = tiny().train()
    for counts, same in (((2, 3), True), ((0, 0), False)):
        samples = make_samples(*counts)
        images, losses = images_for(samples), []
        with torch.no_grad():
            for least in (1, 0):
                net.min_normaliser = least
                losses.append(net.loss(images, samples)["s0.loss_cls"])
        assert (losses[0] == losses[1]) == same
    assert losses[1] > 1e6 * losses[0]


def test_weights_of_the_stages_and_terms():
    samples = make_samples(2, 1)
    plain = tiny().train().loss(images_for(samples), samples)
    options = ("model.roi_head.stage_loss_weights=[1,0.5]",
               "model.roi_head.mask_head.loss_mask.loss_weight=4")
    weighted = tiny(*options).train().loss(images_for(samples), samples)
    for name, value in plain.items():
        factor = 0.5 if name.startswith("s1.loss") else 1
        factor *= 0.5 if "mask" in name else 1
        torch.testing.assert_close(weighted[name], value * factor)


def test_under_autocast_losses_are_float32_and_near():
    net = tiny().train()
    samples = make_samples(2, 3)
    plain = net.loss(images_for(samples), samples)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = net.loss(images_for(samples), samples)
    assert all(value.dtype == torch.float32 for value in half.values())
    total(half).backward()
    # bfloat16 has 8 bits, and another assignment may win
    assert abs(total(half) - total(plain)) < 0.1 * total(plain)
    net.eval()
    metas = [{"img_shape": (64, 64), "ori_shape": (64, 64), "scale_factor": (1, 1)}] * 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = net.predict(images_for(samples), metas)
    assert found[0]["scores"].dtype == found[0]["boxes"].dtype == torch.float32


def test_predictions_that_are_not_finite_make_losses_not_finite():
    net = tiny().train()
    with torch.no_grad():
        net.roi_head["bbox_head"][1].fc_reg.bias[2] = math.nan
    samples = make_samples(2, 3)
    losses = net.loss(images_for(samples), samples)
    assert all(value.isfinite() for name, value in losses.items() if name.startswith("s0"))
    assert not any(value.isfinite() for name, value in losses.items()
                   if name.startswith("s1.loss"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_cost_that_is_not_finite_is_named(value):
    logits, boxes = torch.zeros(4, 3), torch.rand(4, 4).cumsum(1)
    boxes[1, 2] = value
    with pytest.raises(Failed, match=r"the cost l1(, giou)? is not finite"):
        hungarian_match(logits, boxes, torch.rand(2, 4), torch.tensor([0, 1]), (8, 8))
    logits[0, 1] = math.nan
    with pytest.raises(Failed, match="cls"):
        hungarian_match(logits, boxes, torch.rand(2, 4), torch.tensor([0, 1]), (8, 8))


def test_all_assignments_at_once():
    costs = [torch.rand(3, 5, 2), torch.rand(3, 5, 0), torch.rand(3, 5, 7)]
    costs[2][1, 0, 0] = math.nan
    found, finite = assign_all(costs)
    assert finite.tolist() == [[True] * 3, [True] * 3, [True, False, True]]
    assert [[len(rows) for rows, _ in stages] for stages in found] == [[2] * 3, [0] * 3, [5] * 3]
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(costs[0][2].numpy())
    assert found[0][2][0].tolist() == rows.tolist()
    assert found[0][2][1].tolist() == columns.tolist()


# --- several ranks


def losses_of(samples):
    return {name: value.item() for name, value in
            tiny().train().loss(images_for(samples), samples).items()}


RANKS = [((4, 1), (0, 1)), ((1, 0), (0, 0))]  # objects of two images on each of two ranks


def as_rank(rank, rendezvous, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2,
                            timeout=datetime.timedelta(seconds=180))
    results.put((rank, [losses_of(make_samples(*counts[rank])) for counts in RANKS]))
    dist.destroy_process_group()


def test_losses_are_divided_by_the_mean_over_ranks(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    ranks = [context.Process(target=as_rank, args=(rank, tmp_path / "rendezvous", results))
             for rank in (0, 1)]
    for process in ranks:
        process.start()
    by_rank = dict(results.get(timeout=200) for _ in ranks)
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    for i, counts in enumerate(RANKS):
        average = sum(map(sum, counts)) / 2
        for rank, own in enumerate(counts):
            for name, alone in losses_of(make_samples(*own)).items():
                factor = 1
                if "loss" in name:
                    # classes and masks are never divided by less than 1
                    least = 0 if "box" in name or "iou" in name else 1
                    factor = max(sum(own), 1) / max(average, least)
                assert by_rank[rank][i][name] == pytest.approx(alone * factor, rel=1e-5), name


# --- modes and predictions


def test_frozen_and_evaluated_norms():
    net = tiny("model.backbone.frozen_stages=1", "model.backbone.norm_eval=True").train()
    frozen = {name.split(".")[1] for name, p in net.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1"}
    norms = [m for m in net.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    assert net.roi_head["mask_head"][0].convs[0].bn.training
    free = tiny("model.backbone.frozen_stages=1").train()
    training = {name for name, m in free.backbone.named_modules()
                if isinstance(m, torch.nn.BatchNorm2d) and m.training}
    assert "layer2.0.bn1" in training
    assert not any(name.startswith(("bn1", "layer1")) for name in training)


def test_forward_follows_the_mode():
    net = tiny()
    samples = make_samples(1)
    assert "s0.loss_cls" in net.train()(images_for(samples), samples)
    metas = [{"img_shape": (60, 50), "ori_shape": (30, 25), "scale_factor": (2.0, 2.0)}]
    found, = net.eval()(images_for(samples), metas)
    # 6 proposals of 3 classes, all of them: fewer than max_per_img
    assert len(found["scores"]) == 18
    assert found["scores"].tolist() == sorted(found["scores"].tolist(), reverse=True)
    assert found["masks"].shape == (18, 30, 25)
    assert found["masks"].dtype == torch.bool
    assert found["labels"].dtype == torch.int64
    assert sorted(found["labels"].tolist()) == [0] * 6 + [1] * 6 + [2] * 6
    net.cfg = load_queryinst_config(net.cfg, options=["model.test_cfg.rcnn.max_per_img=4"])
    fewer, = net(images_for(samples), metas)
    torch.testing.assert_close(fewer["scores"], found["scores"][:4])


def test_the_first_boxes_are_the_unpadded_images():
    net = tiny().eval()
    with torch.no_grad():
        heads = net.forward_heads(torch.zeros(2, 3, 64, 96), [(60, 90), (33, 50)])
        whole = net.forward_heads(torch.zeros(1, 3, 64, 96))
    assert heads["init_boxes"].shape == (2, 6, 4)
    assert heads["init_boxes"][:, 3].tolist() == [[0, 0, 90, 60], [0, 0, 50, 33]]
    assert whole["init_boxes"][0, 0].tolist() == [0, 0, 96, 64]
    sizes = [tuple(level.shape[-2:]) for level in heads["fpn"]]
    assert sizes == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert heads["stages"][1]["mask_logits"].shape == (12, 3, 28, 28)
