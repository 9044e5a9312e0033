"""From raw predictions to detections: score cut, box decoding, three kinds of NMS.

Shapes: P priors, n priors that pass the score cut, C foreground classes, K prototypes, k kept.
Source: YOLACT, arXiv:1904.02689, section 4 (Fast NMS); [yolact.md: Detection].
"""

import torch

from common.losses.boxes import decode, pairwise_iou
from common.losses.sparse import at_least_float32
from settings.yolact_recipes import as_yolact_config


@torch.no_grad()
def detect(predictions, cfg, fast_nms=True, cross_class_nms=False):
    """Detections of each image, best score first.

    predictions:     what `Yolact.forward_heads` returns; `conf` are logits
    cfg:             the network's config, its name or its path
    fast_nms:        False: traditional NMS, class by class
    cross_class_nms: Fast NMS over all classes at once; at most cfg.nms_top_k instead of
                     cfg.max_num_detections come out
    Returns a list of dicts of one image each, tensors of k rows on the device of the predictions:
    box [k,4] x1 y1 x2 y2 relative, unclipped; mask [k,K] coefficients; class [k] int64, 0-based;
    score [k] in (0, 1); and proto [h,w,K]. Nothing found: k = 0.
    """
    cfg = as_yolact_config(cfg)
    conf = at_least_float32(predictions["conf"])
    scores = conf.softmax(-1)[..., 1:]  # [B, P, C]
    boxes = decode(at_least_float32(predictions["loc"]), predictions["priors"])
    masks = at_least_float32(predictions["mask"])
    protos = at_least_float32(predictions["proto"])
    if not fast_nms:
        nms = traditional_nms
    else:
        nms = cross_class_fast_nms if cross_class_nms else per_class_fast_nms

    detections = []
    for image_scores, image_boxes, image_masks, proto in zip(
        scores, boxes, masks, protos, strict=True
    ):
        kept = image_scores.amax(1) > cfg.nms_conf_thresh
        image_boxes, image_masks = image_boxes[kept], image_masks[kept]
        prior, label, score = nms(image_boxes, image_scores[kept].T, cfg)
        detections.append({
            "box": image_boxes[prior],
            "mask": image_masks[prior],
            "class": label,
            "score": score,
            "proto": proto,
        })
    return detections


# Each kind of NMS takes boxes [n,4] and scores [C,n], and returns the index among the n boxes, the
# class and the score of what it keeps, [k] each, best first. n = 0 gives k = 0.


def per_class_fast_nms(boxes, scores, cfg):
    """Drop what overlaps any better box of its class, even one that is dropped itself."""
    num_classes, n = scores.shape
    # parity: all n boxes compete in every class, also with scores under nms_conf_thresh
    # [yolact.md: Detection]
    scores, prior = scores.topk(min(cfg.nms_top_k, n), dim=1)  # [C, t], best first
    keep = _best_overlap(boxes[prior]) <= cfg.nms_thresh
    label = torch.arange(num_classes, device=boxes.device)[:, None].expand_as(prior)
    return _best(prior[keep], label[keep], scores[keep], cfg.max_num_detections)


def cross_class_fast_nms(boxes, scores, cfg):
    """Fast NMS over each prior's best class, whatever the classes of the boxes compared."""
    scores, label = scores.max(0)
    scores, prior = scores.topk(min(cfg.nms_top_k, len(scores)))
    keep = _best_overlap(boxes[prior]) <= cfg.nms_thresh
    prior, scores = prior[keep], scores[keep]
    return prior, label[prior], scores


def traditional_nms(boxes, scores, cfg):
    """Greedy NMS in every class at once; a dropped box drops nothing.

    One step keeps the best box left of every class. As many steps as detections may come out are
    enough, since a class keeps its boxes best first.
    """
    most = int((scores > cfg.nms_conf_thresh).sum(1).max())  # candidates of any one class
    scores, prior = scores.topk(most, dim=1)  # [C, most], best first
    boxes_px = boxes[prior] * cfg.max_size
    left = scores > cfg.nms_conf_thresh
    kept = torch.zeros_like(left)
    for _ in range(min(most, cfg.max_num_detections)):
        best = left.int().argmax(1, keepdim=True)  # [C, 1]: the first one left
        kept.scatter_(1, best, kept.gather(1, best) | left.gather(1, best))
        best_box = boxes_px.gather(1, best[:, :, None].expand(-1, -1, 4))
        # parity: this NMS alone suppresses AT the threshold, and counts pixels inclusively
        # [yolact.md: Detection]
        left &= _inclusive_iou(best_box, boxes_px) < cfg.nms_thresh
        left.scatter_(1, best, False)
        if not left.any():
            break
    label = torch.arange(len(scores), device=boxes.device)[:, None].expand_as(prior)
    return _best(prior[kept], label[kept], scores[kept], cfg.max_num_detections)


def _best_overlap(boxes):
    """[..., t, 4], best first, to [..., t]: the highest IoU with any better box."""
    if boxes.shape[-2] == 0:
        return boxes.new_zeros(boxes.shape[:-1])
    return pairwise_iou(boxes, boxes).triu(diagonal=1).amax(-2)


def _inclusive_iou(a, b):
    """[..., 1, 4] and [..., t, 4] pixel boxes whose last pixel counts, to [..., t] IoU."""
    size_a, size_b = a[..., 2:] - a[..., :2] + 1, b[..., 2:] - b[..., :2] + 1
    top_left = torch.maximum(a[..., :2], b[..., :2])
    bottom_right = torch.minimum(a[..., 2:], b[..., 2:])
    intersection = (bottom_right - top_left + 1).clamp(min=0).prod(-1)
    return intersection / (size_a.prod(-1) + size_b.prod(-1) - intersection)


def _best(prior, label, score, count):
    """The `count` best by score, best first."""
    score, order = score.topk(min(count, len(score)))
    return prior[order], label[order], score
