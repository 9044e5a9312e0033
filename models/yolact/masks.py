"""From a detection's coefficients to pixel boxes and full-size masks, in bounded memory."""

import torch
import torch.nn.functional as F

from common.losses.boxes import crop_masks as crop_to_boxes

# Floats of one enlargement step: 64 MB. All masks of a large photo at once would be gigabytes.
CHUNK_ELEMENTS = 16 * 1024 * 1024


@torch.no_grad()
def postprocess(detection, width, height, net=None, score_threshold=0.0, crop_masks=True):
    """Boxes in pixels and masks at the size of the image.

    detection:        one dict out of `detect`
    width, height:    of the image, pixels
    net:              the network; if its config rescores masks, its mask IoU net does. None: never
    score_threshold:  only scores above it stay
    crop_masks:       cut each mask to its box
    Returns class [n] int64, score [n], box [n,4] int64 x1 y1 x2 y2 within the image, mask
    [n,height,width] bool, mask_score [n] (the score, times the predicted mask IoU if rescored).
    Source: [yolact.md: Masks of detections].
    """
    keep = detection["score"] > score_threshold
    label, score = detection["class"][keep], detection["score"][keep]
    boxes, coefficients = detection["box"][keep], detection["mask"][keep]

    proto = detection["proto"]
    soft = torch.sigmoid(coefficients @ proto.flatten(0, 1).T)
    soft = soft.unflatten(1, proto.shape[:2])  # [n, h, w] in (0, 1), at the size of the prototypes
    if crop_masks:
        soft = crop_to_boxes(soft, boxes)
    mask_score = score
    # parity: the box keeps its class score unless rescore_bbox [yolact.md: Masks of detections]
    if net is not None and net.cfg.rescore_mask and net.cfg.use_maskiou and len(score):
        ious = net.maskiou_net(soft[:, None])  # [n, C-1]
        mask_score = score * ious.gather(1, label[:, None]).squeeze(1)
        if net.cfg.rescore_bbox:
            score = mask_score
    return {
        "class": label,
        "score": score,
        "box": pixel_boxes(boxes, width, height),
        "mask": enlarge(soft, height, width),
        "mask_score": mask_score,
    }


def pixel_boxes(boxes, width, height):
    """[n,4] relative corners, in any order, to int64 pixels: sorted, clipped, truncated."""
    size = boxes.new_tensor((width, height))
    first, second = boxes[:, :2] * size, boxes[:, 2:] * size
    top_left = torch.minimum(first, second).clamp(min=0)
    bottom_right = torch.maximum(first, second).clamp(min=0)
    return torch.cat((top_left.minimum(size), bottom_right.minimum(size)), dim=1).long()


def enlarge(soft, height, width):
    """[n,h,w] soft masks to [n,height,width] bool, bilinear, a few masks at a time."""
    out = torch.empty(len(soft), height, width, dtype=torch.bool, device=soft.device)
    chunk = max(1, CHUNK_ELEMENTS // (height * width))
    for part, target in zip(soft.split(chunk), out.split(chunk), strict=True):
        large = F.interpolate(
            part[:, None], size=(height, width), mode="bilinear", align_corners=False
        )
        torch.gt(large[:, 0], 0.5, out=target)
    return out
