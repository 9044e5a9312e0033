"""Detection and mask assembly: the three kinds of NMS on small cases, edges, bounded memory."""

from dataclasses import replace

import pytest
import torch

from models.yolact import build_yolact, detect, load_yolact_config, masks, postprocess

SIZE, CLASSES, PROTOTYPES = 100, 4, 8
KINDS = {"fast": {}, "cross": {"cross_class_nms": True}, "traditional": {"fast_nms": False}}


@pytest.fixture(scope="module")
def cfg():
    return replace(load_yolact_config("yolact_shapes"), max_size=SIZE, num_classes=CLASSES)


def predictions(boxes_xyxy, probs, batch=1):
    """Raw predictions that decode to these relative boxes and class probabilities.

    boxes_xyxy: P rows; probs: P rows of 3 foreground probabilities, background gets the rest.
    """
    boxes, probs = torch.tensor(boxes_xyxy).reshape(-1, 4), torch.tensor(probs).reshape(-1, 3)
    priors = torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), dim=1)
    conf = torch.cat((1 - probs.sum(1, keepdim=True), probs), dim=1).log()
    num = len(boxes)
    coefficients = torch.arange(num * PROTOTYPES).reshape(1, num, PROTOTYPES) / 100
    return {
        "loc": torch.zeros(batch, num, 4), "conf": conf.expand(batch, -1, -1), "priors": priors,
        "mask": coefficients.expand(batch, -1, -1), "proto": torch.zeros(batch, 8, 8, PROTOTYPES),
    }


# Three boxes in a row; each covers 2/3 of the union with the next and 3/7 with the one after.
A, B, C = (0.0, 0.0, 0.5, 0.5), (0.1, 0.0, 0.6, 0.5), (0.2, 0.0, 0.7, 0.5)


def found(result):
    """(class, score in hundredths, left edge in tenths) of each detection."""
    return [(int(c), round(float(s) * 100), round(float(b[0]) * 10))
            for c, s, b in zip(result["class"], result["score"], result["box"], strict=True)]


def test_fast_nms_lets_dropped_boxes_drop_others(cfg):
    raw = predictions([A, B, C], [(0.9, 0.0, 0.0), (0.8, 0.0, 0.0), (0.7, 0.0, 0.0)])
    assert found(detect(raw, cfg)[0])[:1] == [(0, 90, 0)]
    assert (0, 70, 2) not in found(detect(raw, cfg)[0])  # B, dropped by A, drops C
    assert found(detect(raw, cfg, fast_nms=False)[0]) == [(0, 90, 0), (0, 70, 2)]


def test_cross_class_compares_boxes_of_all_classes(cfg):
    raw = predictions([A, B], [(0.8, 0.01, 0.01), (0.01, 0.7, 0.01)])
    assert found(detect(raw, cfg, cross_class_nms=True)[0]) == [(0, 80, 0)]
    per_class = found(detect(raw, cfg)[0])
    assert per_class[:2] == [(0, 80, 0), (1, 70, 1)]
    # a prior may come out for several classes, with tiny scores
    assert per_class[2:] == [(2, 1, 0)] or per_class[2:] == [(2, 1, 1)]


def test_traditional_wants_the_score_in_each_class(cfg):
    raw = predictions([A, B], [(0.8, 0.04, 0.0), (0.04, 0.7, 0.0)])
    assert found(detect(raw, cfg, fast_nms=False)[0]) == [(0, 80, 0), (1, 70, 1)]


def test_fast_nms_keeps_and_traditional_drops_at_the_threshold(cfg):
    scores = [(0.9, 0.0, 0.0), (0.8, 0.0, 0.0)]
    raw = predictions([(0.0, 0.0, 0.25, 0.25), (0.0, 0.0, 0.125, 0.25)], scores)  # IoU 1/2
    assert [score for _, score, _ in found(detect(raw, cfg)[0])[:2]] == [90, 80]
    # 17 x 8 and 8 x 8 pixels, with the last pixel 18 x 9 and 9 x 9: IoU 1/2 only in that count
    raw = predictions([(0.0, 0.0, 17 / 64, 8 / 64), (0.0, 0.0, 8 / 64, 8 / 64)], scores)
    cfg = replace(cfg, max_size=64)
    assert [score for _, score, _ in found(detect(raw, cfg, fast_nms=False)[0])] == [90]


def test_limits(cfg):
    boxes = [(0.03 * i, 0.0, 0.03 * i + 0.02, 0.02) for i in range(30)]
    raw = predictions(boxes, [(0.3 + 0.01 * i, 0.06, 0.05) for i in range(30)])
    few = replace(cfg, max_num_detections=7, nms_top_k=20)
    for options in ({}, {"fast_nms": False}):
        result = found(detect(raw, few, **options)[0])
        assert [score for _, score, _ in result] == [59, 58, 57, 56, 55, 54, 53]
    # the cross-class kind is limited by the top k alone
    assert len(detect(raw, few, cross_class_nms=True)[0]["score"]) == 20
    assert len(detect(raw, replace(few, max_num_detections=90))[0]["score"]) == 3 * 20


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_found_is_length_zero(cfg, kind):
    raw = predictions([A, B], [(0.01, 0.02, 0.03)] * 2, batch=2)
    for result in detect(raw, cfg, **KINDS[kind]):
        assert result["box"].shape == (0, 4)
        assert result["mask"].shape == (0, PROTOTYPES)
        assert result["class"].shape == result["score"].shape == (0,)
        assert result["class"].dtype == torch.int64
        full = postprocess(result, 20, 10)
        assert full["mask"].shape == (0, 10, 20)
        assert full["box"].shape == (0, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_each_image_is_on_its_own(cfg, kind):
    raw = predictions([A, C], [(0.9, 0.0, 0.0), (0.0, 0.6, 0.0)], batch=2)
    raw["conf"] = torch.stack((raw["conf"][0], torch.tensor([[5.0, 0, 0, 0], [0, 0, 0, 5.0]])))
    first, second = detect(raw, cfg, **KINDS[kind])
    assert found(first)[:2] == [(0, 90, 0), (1, 60, 2)]
    assert found(second)[0][::2] == (2, 2)
    assert torch.equal(second["mask"][0], raw["mask"][1, 1])


def test_half_precision_predictions_are_judged_in_float32(cfg):
    raw = predictions([A, C], [(0.9, 0.02, 0.03), (0.02, 0.6, 0.2)])
    half = {k: v if k == "priors" else v.bfloat16() for k, v in raw.items()}
    result = detect(half, cfg)[0]
    assert {result[k].dtype for k in ("box", "mask", "score", "proto")} == {torch.float32}
    assert torch.equal(result["box"], detect(raw, cfg)[0]["box"])


def greedy(boxes, scores, cfg, fast):
    """Per-class NMS by the definition, one pair at a time: [(class, prior)], best first."""
    kept = []
    offset = 0 if fast else 1

    def iou(a, b):
        sides = [min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + offset for k in (0, 1)]
        inter = max(sides[0], 0) * max(sides[1], 0)
        areas = [(x[2] - x[0] + offset) * (x[3] - x[1] + offset) for x in (a, b)]
        return inter / (sum(areas) - inter)

    for c, row in enumerate(scores.tolist()):
        order = sorted(range(len(row)), key=lambda i: -row[i])
        order = order[: cfg.nms_top_k] if fast else [i for i in order if row[i] > 0.05]
        stays = []
        for rank, i in enumerate(order):
            rivals = order[:rank] if fast else stays
            worst = max((iou(boxes[i], boxes[j]) for j in rivals), default=0)
            if worst <= cfg.nms_thresh if fast else worst < cfg.nms_thresh:
                stays.append(i)
        kept += [(row[i], c, i) for i in stays]
    return [(c, i) for _, c, i in sorted(kept, reverse=True)][: cfg.max_num_detections]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["fast", "traditional"])
def test_equals_the_definition_on_random_boxes(cfg, kind, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(150, 2, generator=generator) * 0.6
    boxes = torch.cat((corner, corner + 0.1 + torch.rand(150, 2, generator=generator) * 0.3), 1)
    probs = (torch.randn(150, 4, generator=generator) * 2).softmax(1)[:, 1:]
    raw = predictions(boxes.tolist(), probs.tolist())
    cfg = replace(cfg, nms_top_k=60, max_num_detections=40)
    result = detect(raw, cfg, **KINDS[kind])[0]
    strong = (probs.amax(1) > cfg.nms_conf_thresh).nonzero().squeeze(1)
    scale = 1 if kind == "fast" else cfg.max_size
    wanted = greedy((boxes[strong] * scale).tolist(), probs[strong].T, cfg, kind == "fast")
    prior = result["mask"][:, 0] * 100 / PROTOTYPES  # `predictions` numbers the coefficients
    got = list(zip(result["class"].tolist(), prior.round().int().tolist(), strict=True))
    assert got == [(c, int(strong[i])) for c, i in wanted]


# --- assembly


def one_detection(boxes, logits=10.0, size=8):
    """Detections whose masks, uncropped, are full where `logits` is positive."""
    num = len(boxes)
    return {
        "box": torch.tensor(boxes), "class": torch.arange(num) % 3,
        "score": torch.linspace(0.9, 0.1, num), "mask": torch.full((num, 1), float(logits)),
        "proto": torch.ones(size, size, 1),
    }


def test_boxes_are_sorted_clipped_and_truncated():
    result = postprocess(one_detection([(0.9, 0.55, 0.1, 0.25), (-0.2, 0.5, 1.3, 1.7)]), 33, 17)
    assert result["box"].tolist() == [[3, 4, 29, 9], [0, 8, 33, 17]]
    assert result["box"].dtype == torch.int64


def test_masks_are_cropped_one_prototype_pixel_outside_the_box():
    detection = one_detection([(0.25, 0.5, 0.5, 0.75)])
    inside = postprocess(detection, 8, 8)["mask"][0]
    wanted = torch.zeros(8, 8, dtype=torch.bool)
    wanted[3:7, 1:5] = True  # 8 pixels: columns 2..3 and rows 4..5, and one more on each side
    assert torch.equal(inside, wanted)
    assert postprocess(detection, 8, 8, crop_masks=False)["mask"].all()
    assert not postprocess(one_detection([(0, 0, 1.0, 1.0)], logits=-10), 8, 8)["mask"].any()


def test_score_threshold_is_strict():
    detection = one_detection([(0.0, 0.0, 1.0, 1.0)] * 3)
    kept = postprocess(detection, 8, 8, score_threshold=float(detection["score"][1]))
    assert kept["score"].tolist() == detection["score"][:1].tolist()
    assert len(kept["mask"]) == len(kept["box"]) == len(kept["class"]) == 1


def test_assembly_in_pieces_changes_nothing(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    detection = one_detection([(0.1, 0.1, 0.9, 0.8)] * 7) | {
        "mask": torch.randn(7, 5, generator=generator),
        "proto": torch.randn(16, 16, 5, generator=generator),
    }
    whole = postprocess(detection, 50, 40)["mask"]
    assert 0.1 < whole.float().mean() < 0.9
    sizes = []
    original = masks.F.interpolate

    def spied(x, **kwargs):
        sizes.append(len(x))
        return original(x, **kwargs)

    monkeypatch.setattr(masks, "CHUNK_ELEMENTS", 50 * 40 * 3)
    monkeypatch.setattr(masks.F, "interpolate", spied)
    assert torch.equal(postprocess(detection, 50, 40)["mask"], whole)
    assert sizes == [3, 3, 1]


def test_rescoring_needs_the_net_and_its_config():
    cfg = load_yolact_config(
        "yolact_shapes", use_maskiou=True, rescore_mask=True,
        maskiou_net=((4, 3, {"stride": 2, "padding": 1}),))
    torch.manual_seed(0)
    net = build_yolact(cfg).eval()
    detection = one_detection([(0.0, 0.0, 1.0, 1.0), (0.2, 0.2, 0.8, 0.8)])
    plain = postprocess(detection, 8, 8)
    assert torch.equal(plain["mask_score"], plain["score"])
    rescored = postprocess(detection, 8, 8, net=net)
    soft = torch.sigmoid(detection["mask"] @ torch.ones(1, 64)).reshape(2, 1, 8, 8)
    soft[1, 0, :, 0] = soft[1, 0, 0] = 0  # the window is from 0.6 to 7.4
    ious = net.maskiou_net(soft)[[0, 1], [0, 1]]
    # float32 products of the same numbers
    torch.testing.assert_close(rescored["mask_score"], plain["score"] * ious.detach(), atol=1e-6,
                               rtol=0)
    assert torch.equal(rescored["score"], plain["score"])
    net.cfg = replace(cfg, rescore_bbox=True)
    assert torch.equal(postprocess(detection, 8, 8, net=net)["score"], rescored["mask_score"])
    net.cfg = replace(cfg, rescore_mask=False)
    assert torch.equal(postprocess(detection, 8, 8, net=net)["mask_score"], plain["score"])
