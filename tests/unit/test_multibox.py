"""MultiBoxLoss against a plain loop over [yolact.md: Losses], and its edges."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.losses import MultiBoxLoss
from common.losses.boxes import center_to_corner, crop_masks, encode, pairwise_iou
from common.losses.multibox import background_cost
from common.losses.multibox_masks import (
    Block,
    WindowedBCE,
    image_blocks,
    object_blocks,
    object_maps,
    shrink_masks,
)
from common.losses.multibox_match import (
    best_priors,
    find_positives,
    force_match,
    match,
    split_crowds,
)
from common.losses.sparse import SparseTargetBCE, TakeRows

CLASSES, PROTOTYPES, SIZE, PROTO_SIZE, SEGM_SIZE = 5, 4, 90, (17, 19), (9, 10)


def config(**changes):
    return SimpleNamespace(**({
        "positive_iou_threshold": 0.5, "negative_iou_threshold": 0.4, "crowd_iou_threshold": 0.7,
        "ohem_negpos_ratio": 3, "masks_to_train": 100,
        "conf_alpha": 1, "bbox_alpha": 1.5, "mask_alpha": 6.125, "maskiou_alpha": 25,
        "semantic_segmentation_alpha": 1, "use_semantic_segmentation_loss": True,
        "use_maskiou": False, "discard_mask_area": 25, "maskious_to_train": -1,
        "mask_proto_normalize_emulate_roi_pooling": True,
    } | changes))


class MaskIouNet(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(
            CLASSES - 1, 1, 3, 3, generator=generator, dtype=torch.float64))

    def forward(self, masks):
        return F.conv2d(masks, self.weight.to(masks.dtype)).amax((2, 3))


NET = SimpleNamespace(maskiou_net=MaskIouNet())


def make_priors():
    rows = []
    for cells, side in ((8, 0.15), (4, 0.3), (2, 0.6)):
        center = (torch.arange(cells) + 0.5) / cells
        y, x = torch.meshgrid(center, center, indexing="ij")
        for w, h in ((1, 1), (0.7, 1.4), (1.4, 0.7)):
            rows.append(torch.stack(
                (x, y, torch.full_like(x, side * w), torch.full_like(x, side * h)), -1).view(-1, 4))
    return torch.cat(rows)


def make_image(rng, num_objects):
    """Targets [n, 5] and masks [n, SIZE, SIZE] that also stick out of their boxes."""
    corner = torch.rand(num_objects, 2, generator=rng) * 0.7
    side = 0.05 + torch.rand(num_objects, 2, generator=rng) * 0.5
    boxes = torch.cat((corner, (corner + side).clamp(max=1)), 1)
    labels = torch.randint(CLASSES - 1, (num_objects, 1), generator=rng)
    grown = boxes + torch.tensor([-0.15, -0.02, 0.15, 0.02])
    masks = crop_masks(torch.rand(num_objects, SIZE, SIZE, generator=rng) < 0.8, grown, pad=0)
    return torch.cat((boxes, labels), 1), masks.to(torch.uint8)


def make_inputs(counts, dtype=torch.float64, seed=0):
    rng = torch.Generator().manual_seed(seed)
    priors = make_priors()
    shapes = {
        "loc": (len(priors), 4), "conf": (len(priors), CLASSES), "mask": (len(priors), PROTOTYPES),
        "proto": (*PROTO_SIZE, PROTOTYPES), "segm": (CLASSES - 1, *SEGM_SIZE),
    }
    predictions = {
        name: torch.randn(len(counts), *shape, generator=rng, dtype=dtype).requires_grad_()
        for name, shape in shapes.items()
    } | {"priors": priors}
    images = [make_image(rng, n) for n in counts]
    return predictions, [target for target, _ in images], [mask for _, mask in images]


# --- the plain reference ---


def sequential_match(iou):
    """The rule of [yolact.md: Matching] word by word: {prior: object}."""
    iou, taken = iou.clone(), {}
    for _ in range(len(iou)):
        best, prior = iou.max(1)
        own = best.argmax().item()
        taken[prior[own].item()] = own
        iou[:, prior[own]] = -1
        iou[own] = -1
    return taken


def plain_match(boxes, labels, crowds, priors, cfg):
    corners = center_to_corner(priors)
    if len(boxes):
        iou = pairwise_iou(boxes, corners)
        best, own = iou.max(0)
        for prior, i in sequential_match(iou).items():
            best[prior], own[prior] = 2, i
        classes = labels[own] + 1
    else:
        best, own = torch.zeros(len(priors)), torch.zeros(len(priors), dtype=torch.long)
        classes = own.clone()
    classes[best < cfg.positive_iou_threshold] = -1
    classes[best < cfg.negative_iou_threshold] = 0
    for box in crowds:
        for p, corner in enumerate(corners):
            overlap = torch.minimum(box[2:], corner[2:]) - torch.maximum(box[:2], corner[:2])
            share = overlap.clamp(min=0).prod() / (corner[2:] - corner[:2]).prod()
            if share > cfg.crowd_iou_threshold and classes[p] <= 0:
                classes[p] = -1
    return classes, own


def shrunk(masks, size):
    if not len(masks):
        return torch.zeros(0, *size) > 0
    return F.interpolate(masks[None].float(), size, mode="bilinear", align_corners=False)[0] > 0.5


def plain_loss(predictions, targets, masks, num_crowds, cfg):
    """[yolact.md: Losses], image by image and positive by positive."""
    h, w = PROTO_SIZE
    total, n = dict.fromkeys("BMCIS", 0.0), 0
    for image, (target, mask) in enumerate(zip(targets, masks, strict=True)):
        loc, conf, coeff, proto, segm = (
            predictions[name][image] for name in ("loc", "conf", "mask", "proto", "segm"))
        objects = len(target) - num_crowds[image]
        boxes, labels, mask = target[:objects, :4], target[:objects, 4].long(), mask[:objects]
        classes, own = plain_match(boxes, labels, target[objects:, :4], predictions["priors"], cfg)
        positives = (classes > 0).nonzero()[:, 0].tolist()
        n += len(positives)

        score = -conf.log_softmax(1)[:, 0].detach()
        score[classes != 0] = 0
        ranked = score.argsort(descending=True)[:min(3 * len(positives), len(score) - 1)].tolist()
        rows = positives + [p for p in ranked if classes[p] == 0]
        if rows:
            total["C"] += F.cross_entropy(conf[rows], classes[rows], reduction="sum")

        small = shrunk(mask, PROTO_SIZE)
        for p in positives:
            box, gt = boxes[own[p]], small[own[p]]
            goal = encode(box, predictions["priors"][p]).to(loc.dtype)
            total["B"] += F.smooth_l1_loss(loc[p], goal, reduction="sum")
            soft = crop_masks((proto @ coeff[p]).sigmoid()[None], box[None])[0]
            cost = F.binary_cross_entropy(soft, gt.to(soft.dtype), reduction="sum")  # log >= -100
            size = box[2:] - box[:2]
            total["M"] += cost / (size[0] * w) / (size[1] * h)
            if gt.sum() > cfg.discard_mask_area:
                predicted = NET.maskiou_net(soft[None, None])[0, labels[own[p]]]
                iou = ((soft > 0.5) & gt).sum() / ((soft > 0.5) | gt).sum()
                total["I"] += F.smooth_l1_loss(predicted, iou.to(soft.dtype))

        goal = torch.zeros_like(segm)
        for label, gt in zip(labels, shrunk(mask, SEGM_SIZE), strict=True):
            goal[label] = torch.maximum(goal[label], gt.to(goal.dtype))
        cost = F.binary_cross_entropy_with_logits(segm, goal, reduction="sum")
        total["S"] += cost / (segm.shape[1] * segm.shape[2])
    n = max(n, 1)
    return {
        "B": cfg.bbox_alpha * total["B"] / n, "M": cfg.mask_alpha * total["M"] / n,
        "C": cfg.conf_alpha * total["C"] / n, "I": cfg.maskiou_alpha * total["I"] / n,
        "S": total["S"] / len(targets),
    }


def leaves(predictions):
    return [value for value in predictions.values() if value.requires_grad]


@pytest.mark.parametrize("counts, num_crowds", [
    ((3, 1), (0, 0)),
    ((12, 0, 5), (2, 0, 1)),  # an image without objects, crowds
    ((2, 4), (2, 0)),  # an image with crowds only
    ((40,), (0,)),  # more objects than can have a good prior
])
def test_equals_the_plain_loss(counts, num_crowds):
    cfg = config(use_maskiou=True)
    predictions, targets, masks = make_inputs(counts)
    inputs = [*leaves(predictions), NET.maskiou_net.weight]
    plain = plain_loss(predictions, targets, masks, num_crowds, cfg)
    plain_grads = torch.autograd.grad(sum(plain.values()), inputs)
    losses = MultiBoxLoss(cfg)(NET, predictions, targets, masks, num_crowds)
    grads = torch.autograd.grad(sum(losses.values()), inputs)
    assert list(losses) == ["B", "M", "C", "I", "S"]
    # Predictions are float64, boxes and mask weights float32 as in training: hence 1e-6.
    for name, value in losses.items():
        torch.testing.assert_close(value, plain[name], rtol=1e-6, atol=1e-9, msg=name)
    for grad, plain_grad in zip(grads, plain_grads, strict=True):
        torch.testing.assert_close(grad, plain_grad, rtol=1e-5, atol=1e-8)


def test_terms_follow_the_config():
    predictions, targets, masks = make_inputs((3, 1))
    cfg = config(use_semantic_segmentation_loss=False)
    assert list(MultiBoxLoss(cfg)(None, predictions, targets, masks, [0, 0])) == ["B", "M", "C"]
    flat = config(mask_proto_normalize_emulate_roi_pooling=False)
    boxes = [torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]]).expand(len(t), -1) for t in targets]
    by_area = MultiBoxLoss(cfg)(None, predictions, boxes, masks, [0, 0])["M"]
    by_map = MultiBoxLoss(flat)(None, predictions, boxes, masks, [0, 0])["M"]
    torch.testing.assert_close(by_area, by_map)  # a box over the whole image has the map's area


# --- matching ---


def random_boxes(rng, n, grid=None):
    """[n, 4] boxes; on a grid many IoUs are equal, so that ties are met."""
    if grid:
        corner = torch.randint(0, grid, (n, 2), generator=rng) / grid
        return torch.cat((corner, corner + torch.randint(1, 4, (n, 2), generator=rng) / grid), 1)
    corner = torch.rand(n, 2, generator=rng)
    return torch.cat((corner, corner + 0.02 + 0.5 * torch.rand(n, 2, generator=rng)), 1)


@pytest.mark.parametrize("grid", [None, 4])
@pytest.mark.parametrize("seed", range(5))
def test_force_match_is_the_sequential_rule(grid, seed):
    rng = torch.Generator().manual_seed(seed)
    counts = [7, 0, 30, 1]
    priors = random_boxes(rng, 60, grid)
    iou = [pairwise_iou(random_boxes(rng, n, grid), priors) for n in counts]
    keys = torch.cat([best_priors(rows, max(counts)) for rows in iou])
    forced = force_match(keys, counts, len(priors)).split(counts)
    for image, rows in enumerate(iou):
        expected = {own: prior for prior, own in sequential_match(rows).items()}
        assert (forced[image] - image * len(priors)).tolist() == [
            expected[own] for own in range(len(rows))]


def test_more_objects_than_priors_is_refused():
    objects, crowds = split_crowds([torch.rand(5, 5)], [torch.zeros(5, 8, 8)], [0])
    with pytest.raises(ValueError, match="5 objects in an image, but only 3 priors"):
        match(objects, crowds, make_priors()[:3], config())


def test_crowds_are_ignored_at_threshold_one():
    predictions, targets, masks = make_inputs((2,))
    objects, crowds = split_crowds(targets, masks, [2])
    classes, _ = match(objects, crowds, predictions["priors"], config(crowd_iou_threshold=1))
    assert (classes == 0).all()
    classes, _ = match(objects, crowds, predictions["priors"], config(crowd_iou_threshold=0.1))
    assert (classes == -1).any()


def test_crowds_take_no_positives():
    box = [0.1, 0.1, 0.7, 0.7]
    target = torch.tensor([[*box, 2], [*box, -1]])
    objects, crowds = split_crowds([target], [torch.ones(2, 9, 9)], [1])
    classes, _ = match(objects, crowds, make_priors(), config(crowd_iou_threshold=0.1))
    alone, _ = match(objects, [torch.zeros(0, 4)], make_priors(), config())
    assert (alone == 3).any()
    assert torch.equal(classes == 3, alone == 3)
    assert (classes[alone == 0] == -1).any()


# --- parts that take a short cut ---


@pytest.mark.parametrize("full, size", [
    ((550, 550), (138, 138)), ((550, 550), (69, 69)), ((400, 400), (100, 100)),
    ((700, 700), (88, 88)), ((64, 64), (16, 16)), ((37, 53), (20, 11)), ((5, 5), (9, 9)),
])
def test_shrink_masks_equals_interpolate(full, size):
    rng = torch.Generator().manual_seed(0)
    masks = [torch.rand(n, *full, generator=rng) < 0.5 for n in (2, 0, 1)]
    expected = torch.cat([shrunk(m, size) for m in masks])
    for dtype in (torch.uint8, torch.bool, torch.float32):
        assert torch.equal(shrink_masks([m.to(dtype) for m in masks], size), expected)


def test_blocks_by_object_and_by_image_agree():
    """What a CPU does and what a GPU does."""
    predictions, targets, masks = make_inputs((6, 0, 3))
    objects, crowds = split_crowds(targets, masks, [0, 0, 0])
    classes, own = match(objects, crowds, predictions["priors"], config())
    used = find_positives(classes, own, (classes > 0).sum(1).tolist())
    maps = object_maps(objects, PROTO_SIZE)
    sign = maps.inside.view(torch.int8) - 2 * (maps.target & maps.inside).view(torch.int8)
    proto, rows = predictions["proto"], predictions["mask"].flatten(0, 1)[used.priors]
    results = []
    for blocks in (object_blocks(objects, used, PROTO_SIZE), image_blocks(used)):
        costs = WindowedBCE.apply(proto, rows, sign, blocks)
        weight = torch.arange(len(costs), dtype=costs.dtype)  # tells the positives apart
        results.append((costs, *torch.autograd.grad((costs * weight).sum(), (proto, rows),
                                                    retain_graph=True)))
    for by_object, by_image in zip(*results, strict=True):
        torch.testing.assert_close(by_object, by_image)


def test_take_rows_has_the_gradient_of_index_select():
    rows = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    index = torch.tensor([4, 0, 49, 4])
    scale = torch.arange(12.0).view(4, 3)
    expected, = torch.autograd.grad((rows.index_select(0, index) * scale).sum(), rows)
    for dtype in (torch.float32, torch.bfloat16):  # small integers: exact in both
        cast = rows.detach().to(dtype).requires_grad_()
        grad, = torch.autograd.grad((TakeRows.apply(cast, index) * scale.to(dtype)).sum(), cast)
        assert grad.dtype == dtype
        assert torch.equal(grad.float(), expected)


def test_sparse_target_bce_has_torchs_value_and_gradient():
    rng = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(20, 30, generator=rng, dtype=torch.float64)).requires_grad_()
    index = torch.tensor([3, 17, 3])
    target = torch.rand(3, 30, generator=rng, dtype=torch.float64) / 2
    dense = torch.zeros(20, 30, dtype=torch.float64).index_add_(0, index, target)
    expected = F.binary_cross_entropy_with_logits(logits, dense, reduction="sum")
    value = SparseTargetBCE.apply(logits, index, target)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(torch.autograd.grad(3 * value, logits),
                               torch.autograd.grad(3 * expected, logits))


def test_background_cost_does_not_underflow():
    """One huge row must not swallow the others, as the batch's maximum did."""
    rows = [[900.0, -100.0, 0.0], [-200.0, -200.0, -200.0], [-300.0, -290.0, -300.0]]
    conf = torch.tensor([rows])
    expected = -conf.double().log_softmax(2)[:, :, 0].float()
    torch.testing.assert_close(background_cost(conf), expected)


# --- the random subset ---


def test_subset_stands_for_all_positives():
    """With the same mask everywhere any subset has the mean of all, so the loss must not change."""
    predictions, targets, masks = make_inputs((6, 3, 0))
    targets = [t[:1].expand(len(t), -1) for t in targets]
    masks = [m[:1].expand(len(m), -1, -1) for m in masks]
    predictions["mask"] = torch.ones_like(predictions["mask"]).requires_grad_()
    whole = MultiBoxLoss(config())(None, predictions, targets, masks, [0, 0, 0])
    part = MultiBoxLoss(config(masks_to_train=4))(None, predictions, targets, masks, [0, 0, 0])
    torch.testing.assert_close(part["M"], whole["M"], rtol=1e-6, atol=0)  # float32 weights
    used, positives = (
        (torch.autograd.grad(losses["M"], predictions["mask"])[0] != 0).any(2).sum(1).tolist()
        for losses in (part, whole))
    assert max(positives) > 4
    assert used == [min(n, 4) for n in positives]


def test_subset_follows_torchs_seed():
    predictions, targets, masks = make_inputs((12,))
    criterion = MultiBoxLoss(config(masks_to_train=5))

    def draw(seed):
        torch.manual_seed(seed)
        return criterion(None, predictions, targets, masks, [0])["M"].item()

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(5)}) == 5


def test_cap_on_mask_ious():
    predictions, targets, masks = make_inputs((12,))
    seen = []

    def record(rows):
        seen.append(len(rows))
        return NET.maskiou_net(rows)

    net = SimpleNamespace(maskiou_net=record)
    for cap in (-1, 6):
        cfg = config(use_maskiou=True, maskious_to_train=cap)
        MultiBoxLoss(cfg)(net, predictions, targets, masks, [0])
    assert seen[0] > 6
    assert seen[1] == 6


# --- nothing to learn from, half precision, manners ---


@pytest.mark.parametrize("counts, num_crowds", [((0, 0), (0, 0)), ((2, 0), (2, 0))])
def test_batch_without_objects_is_zero_with_a_graph(counts, num_crowds):
    predictions, targets, masks = make_inputs(counts, dtype=torch.float32)
    losses = MultiBoxLoss(config(use_maskiou=True))(NET, predictions, targets, masks, num_crowds)
    assert [losses[name].item() for name in "BMCI"] == [0, 0, 0, 0]
    assert losses["S"].item() > 0
    inputs = [*leaves(predictions), NET.maskiou_net.weight]
    *grads, segm_grad, weight_grad = torch.autograd.grad(sum(losses.values()), inputs)
    assert all((grad == 0).all() for grad in (*grads, weight_grad))
    assert segm_grad.isfinite().all()


def test_half_precision_computes_in_float32():
    predictions, targets, masks = make_inputs((5, 2), dtype=torch.float32)
    half = {k: v.detach().bfloat16().requires_grad_() if v.requires_grad else v
            for k, v in predictions.items()}
    exact = {k: v.detach().float().requires_grad_() if v.requires_grad else v
             for k, v in half.items()}
    criterion = MultiBoxLoss(config(use_maskiou=True))
    with torch.autocast("cpu", torch.bfloat16):
        losses = criterion(NET, half, targets, masks, [0, 0])
    expected = criterion(NET, exact, targets, masks, [0, 0])
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name]), name
    grads = torch.autograd.grad(sum(losses.values()), leaves(half))
    exact_grads = torch.autograd.grad(sum(expected.values()), leaves(exact))
    for grad, exact_grad in zip(grads, exact_grads, strict=True):
        assert grad.dtype == torch.bfloat16
        assert torch.equal(grad, exact_grad.bfloat16())


def test_huge_logits_stay_finite():
    predictions, targets, masks = make_inputs((5, 2), dtype=torch.float32)
    predictions = {k: v.detach().mul(1e4).requires_grad_() if v.requires_grad else v
                   for k, v in predictions.items()}
    losses = MultiBoxLoss(config())(None, predictions, targets, masks, [0, 0])
    assert all(value.isfinite() for value in losses.values())
    grads = torch.autograd.grad(sum(losses.values()), leaves(predictions))
    assert all(grad.isfinite().all() for grad in grads)


def test_box_without_width_stays_finite():
    predictions, targets, masks = make_inputs((2,), dtype=torch.float32)
    targets[0][0, 2] = targets[0][0, 0]
    losses = MultiBoxLoss(config())(None, predictions, targets, masks, [0])
    assert all(value.isfinite() for value in losses.values())


def test_inputs_are_left_alone():
    predictions, targets, masks = make_inputs((5, 2))
    before = [value.detach().clone() for value in (*predictions.values(), *targets, *masks)]
    losses = MultiBoxLoss(config(use_maskiou=True))(NET, predictions, targets, masks, [1, 0])
    torch.autograd.grad(sum(losses.values()), leaves(predictions))
    after = (*predictions.values(), *targets, *masks)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_without_grad():
    predictions, targets, masks = make_inputs((3, 1))
    with torch.no_grad():
        losses = MultiBoxLoss(config())(None, predictions, targets, masks, [0, 0])
    assert not any(value.requires_grad for value in losses.values())


def test_unknown_normalisation():
    with pytest.raises(ValueError, match="normalize"):
        MultiBoxLoss(config(), normalize="batch")


# --- normalisation over ranks ---


def as_rank(rank, rendezvous):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2,
        timeout=timedelta(seconds=180))
    try:
        return share_of(rank, "global"), share_of(rank, "rank")
    finally:
        torch.distributed.destroy_process_group()


def send_rank(rank, rendezvous, results):
    torch.set_num_threads(1)
    results.put((rank, as_rank(rank, rendezvous)))


def share_of(rank, normalize):
    """Losses and gradients of one rank's half of a batch of 6, 0 and 1, 9 objects."""
    predictions, targets, masks = make_inputs((6, 0, 1, 9))
    half = slice(2 * rank, 2 * rank + 2)
    inputs = {k: v if k == "priors" else v[half] for k, v in predictions.items()}
    losses = MultiBoxLoss(config(), normalize)(None, inputs, targets[half], masks[half], [0, 0])
    grads = torch.autograd.grad(sum(losses.values()), leaves(predictions))
    return {k: v.item() for k, v in losses.items()}, [grad.numpy() for grad in grads]


def test_global_normalisation_equals_one_process(tmp_path):
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    # two new processes: what earlier tests did to this one must not matter
    ranks = [context.Process(target=send_rank, args=(rank, tmp_path / "rendezvous", results))
             for rank in (0, 1)]
    for process in ranks:
        process.start()
    by_rank = dict(results.get(timeout=200) for _ in ranks)
    for process in ranks:
        process.join()
    (global0, local0), (global1, _) = by_rank[0], by_rank[1]

    predictions, targets, masks = make_inputs((6, 0, 1, 9))
    losses = MultiBoxLoss(config(), "global")(None, predictions, targets, masks, [0] * 4)
    grads = torch.autograd.grad(sum(losses.values()), leaves(predictions))
    for name, value in losses.items():
        # float32 division of the totals: 1e-6
        mean = torch.tensor((global0[0][name] + global1[0][name]) / 2, dtype=value.dtype)
        torch.testing.assert_close(mean, value.detach(), rtol=1e-6, atol=0)
    for grad, grad0, grad1 in zip(grads, global0[1], global1[1], strict=True):
        torch.testing.assert_close(torch.from_numpy(grad0 + grad1) / 2, grad, rtol=1e-6, atol=1e-12)
    assert local0[0] == share_of(0, "rank")[0]  # "rank" takes no notice of the other
    assert local0[0] != global0[0]


def test_a_saturated_wrong_pixel_costs_its_logit_and_keeps_its_gradient():
    # the original's form: log of the sigmoid, clamped at -100, has no gradient there
    for logit, target in ((120.0, 0.0), (-120.0, 1.0)):
        x = torch.tensor(logit, requires_grad=True)
        original = F.binary_cross_entropy(x.sigmoid(), torch.tensor(target))
        original.backward()
        assert (original.item(), x.grad.item()) == (100.0, 0.0)

        proto = torch.tensor([[[[logit]]]], requires_grad=True)  # one pixel, one prototype
        row = torch.ones(1, 1, requires_grad=True)
        sign = torch.tensor([[[1 - 2 * target]]])  # 1: background inside the window, -1: object
        block = Block(0, 1, slice(0, 1), (slice(None), slice(None)))
        cost = WindowedBCE.apply(proto, row, sign.to(torch.int8), [block])
        cost.sum().backward()
        assert cost.item() == 120.0
        assert proto.grad.item() == 1 - 2 * target
