"""QueryInst: learnt proposals, refined in stages by dynamic heads that also give masks.

Shapes: B images, P proposals an image, C classes, S stages. Boxes are xyxy pixels of the resized
image; its size, before padding, is `img_shape` (h, w).
Source: QueryInst, arXiv:2105.01928; [queryinst.md: Forward pass].
"""

import torch
from torch import nn

from common.losses.set_prediction import mask_targets, match_stages, mean_positives
from common.losses.sparse import at_least_float32
from models.queryinst.backbone import FeaturePyramid, ResNet
from models.queryinst.boxes import decode_boxes, paste_masks, proposal_boxes, roi_levels
from models.queryinst.heads import DIIHead, MaskHead
from models.queryinst.objective import Objective
from models.queryinst.roi_align import PyramidRows
from settings.queryinst.recipes import load_queryinst_config

BOX_CELLS, MASK_CELLS = 7, 14  # a side of pooled features


def build_queryinst(cfg) -> "QueryInst":
    """The network of a config (name, YAML path or loaded config), with random weights.

    Draws from torch's global generator and reads no file; see `models.queryinst.load_backbone`.
    """
    return QueryInst(load_queryinst_config(cfg))


def of_all_stages(term: str) -> str:
    """The name of the sum over the stages that a loss term, "s0.loss_cls", belongs to."""
    return f"{term.partition('.')[2]} of all stages"


class QueryInst(nn.Module):
    """The network; `cfg` is its whole config.

    min_normaliser: the mean number of matched proposals that the class loss is divided by counts
                    as at least this much; 0 is the original's behaviour
    """

    def __init__(self, cfg):
        super().__init__()
        model = cfg.model
        self.cfg = cfg
        self.min_normaliser = 1.0
        channels, head = model.neck.out_channels, model.roi_head
        self.backbone = ResNet(model.backbone)
        self.neck = FeaturePyramid(self.backbone.channels, channels)
        self.rpn_head = nn.ModuleDict({
            "init_proposal_bboxes": nn.Embedding(model.rpn_head.num_proposals, 4),
            "init_proposal_features": nn.Embedding(model.rpn_head.num_proposals, channels),
        })
        self.roi_head = nn.ModuleDict({
            "bbox_head": nn.ModuleList(
                DIIHead(channels, model.num_classes, BOX_CELLS**2, bbox)
                for bbox in head.bbox_heads),
            "mask_head": nn.ModuleList(
                MaskHead(channels, model.num_classes,
                         mask.dynamic_channels or bbox.dynamic_channels, mask.num_convs)
                for bbox, mask in zip(head.bbox_heads, head.mask_heads, strict=True)),
        })
        self._objective = Objective.of(model)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self):
        """Every weight anew, as without a pretrained file [queryinst.md: Initialisation]."""
        for module in self.backbone.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        # differs: without a pretrained file the original starts each block as its shortcut
        # [queryinst.md: Initialisation]. Way back: model.backbone.zero_init_residual=True.
        if self.cfg.model.backbone.zero_init_residual:
            self.backbone.start_as_shortcuts()
        for module in self.neck.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        # every proposal starts as the whole image: cx, cy, w, h
        boxes = self.rpn_head["init_proposal_bboxes"].weight
        boxes.copy_(boxes.new_tensor((0.5, 0.5, 1.0, 1.0)).expand_as(boxes))
        nn.init.normal_(self.rpn_head["init_proposal_features"].weight)
        for head in (*self.roi_head["bbox_head"], *self.roi_head["mask_head"]):
            head.init_weights()

    def forward(self, images, targets):
        """images [B, 3, H, W]; `loss` of samples in training, `predict` of metas in evaluation."""
        return self.loss(images, targets) if self.training else self.predict(images, targets)

    def loss(self, images, samples):
        """Named losses of a batch, 0-d tensors; the training loss is the sum of the names with
        `loss` in them.

        images:  [B, 3, H, W] float, normalised, padded with 0
        samples: B dicts: boxes [n, 4], labels [n] int64, masks [n, H, W] bool, img_shape (h, w);
                 n = 0 is fine
        Returns `s0.loss_cls`, `s0.pos_acc` (percent), `s0.loss_bbox`, `s0.loss_iou`,
        `s0.loss_mask`, `s1.loss_cls` ... All ranks must call it; there is one all-reduce and one
        wait for the device. Every trainable parameter gets a gradient, be it zero.
        """
        _, _, rows, _, stages = self._run(images, [sample["img_shape"] for sample in samples])
        stages = list(stages)
        logits = torch.stack([stage["cls_logits"] for stage in stages])
        boxes = torch.stack([stage["boxes"] for stage in stages])
        average = mean_positives(samples, boxes.shape[2], images.device)
        matches = match_stages(logits.detach(), boxes.detach(), samples, self._objective.costs)
        positives = matches.boxes_of(boxes.detach())
        masks = torch.stack([
            self._masks_of(i, rows, positives[i], stages[i], matches) for i in range(len(stages))])
        targets = mask_targets(torch.cat([sample["masks"] for sample in samples]),
                               positives.flatten(0, 1), matches.objects.flatten())
        with torch.autocast(images.device.type, enabled=False):
            terms = self._objective.losses(logits, boxes, masks, targets.view(masks.shape), matches,
                                           average, self.min_normaliser)
        losses = {}
        for i, stage_weight in enumerate(self.cfg.model.stage_loss_weights):
            for name in ("loss_cls", "pos_acc", "loss_bbox", "loss_iou", "loss_mask"):
                value = terms[name][i]
                losses[f"s{i}.{name}"] = value * stage_weight if "loss" in name else value
        return losses

    @torch.no_grad()
    def predict(self, images, metas, rescale=True):
        """What is seen: for each image a dict of `boxes` [k, 4], `scores` [k], `labels` [k] int64,
        `masks` [k, h, w] bool, surest first, k <= max_per_img.

        images:  [B, 3, H, W] float, normalised, padded with 0
        metas:   B dicts: img_shape (h, w), ori_shape (h, w), scale_factor (w, h)
        rescale: boxes and masks of the original image; False: of the resized one
        parity: no NMS, no threshold, and boxes are not clipped [queryinst.md: Inference]
        """
        return self.found(self.said(images, metas), metas, rescale)

    def said(self, images, metas):
        """What the last stage says of `predict`'s arguments: `found` takes it."""
        _, _, rows, _, stages = self._run(images, [meta["img_shape"] for meta in metas])
        stage = list(stages)[-1]
        boxes, image = flat_boxes(stage["boxes"])
        masks = self._masks(-1, rows, boxes, image, stage["attn_feats"].flatten(0, 1))
        return stage, masks.unflatten(0, stage["boxes"].shape[:2])

    def found(self, said, metas, rescale=True):
        """What `predict` returns, from what `said` gave."""
        (stage, masks), test, results = said, self.cfg.model.test_cfg.rcnn, []
        for i, meta in enumerate(metas):
            probs = at_least_float32(stage["cls_logits"][i]).sigmoid()
            scores, index = probs.flatten().topk(min(test.max_per_img, probs.numel()))
            proposals, labels = index // probs.shape[1], index % probs.shape[1]
            found, size = stage["boxes"][i, proposals], meta["ori_shape"]
            scale = found.new_tensor(tuple(meta["scale_factor"]) * 2)
            if rescale:
                found = found / scale
            else:
                size = [round(side * factor) for side, factor in
                        zip(size, meta["scale_factor"][::-1], strict=True)]
            shown = at_least_float32(masks[i, proposals, labels]).sigmoid()
            results.append({
                "boxes": found, "scores": scores, "labels": labels,
                "masks": paste_masks(shown, found, tuple(size), test.mask_thr_binary)})
        return results

    def forward_heads(self, images, img_shapes=None):
        """Everything between the image and the losses, in any mode; norms act as theirs says.

        images:     [B, 3, H, W]; img_shapes: B times (h, w); None: nothing is padding
        Returns backbone and fpn, lists of 4; init_boxes [B, P, 4]; stages, S dicts of roi_levels
        [B*P] int64, roi_feats [B*P, D, 7, 7], cls_logits [B, P, C], boxes [B, P, 4], attn_feats
        and object_feats [B, P, D], mask_logits [B*P, C, 28, 28] of all proposals.
        """
        img_shapes = img_shapes or [images.shape[-2:]] * len(images)
        backbone, fpn, rows, init_boxes, stages = self._run(images, img_shapes)
        outputs = []
        pooled = init_boxes
        for i, stage in enumerate(stages):
            boxes, image = flat_boxes(stage["boxes"])
            logits = self._masks(i, rows, boxes, image, stage["attn_feats"].flatten(0, 1))
            feats = stage["roi_feats"].transpose(1, 2).unflatten(2, (BOX_CELLS, BOX_CELLS))
            levels = roi_levels(pooled.detach()).flatten()
            outputs.append(stage | {"roi_levels": levels, "roi_feats": feats,
                                    "mask_logits": logits})
            pooled = stage["boxes"]
        return {"backbone": backbone, "fpn": fpn, "init_boxes": init_boxes, "stages": outputs}

    def _run(self, images, img_shapes):
        """(backbone outputs, pyramid levels, their PyramidRows, first boxes, iterator of stages)"""
        backbone = self.backbone(images)
        fpn = self.neck(backbone)
        rows = PyramidRows(fpn)
        proposals = self.rpn_head["init_proposal_bboxes"].weight
        whwh = torch.tensor([tuple(shape[::-1]) * 2 for shape in img_shapes])
        whwh = whwh.to(proposals, non_blocking=True)
        boxes = proposal_boxes(proposals, whwh)
        queries = self.rpn_head["init_proposal_features"].weight
        queries = queries.expand(len(images), *queries.shape)
        return backbone, fpn, rows, boxes, self._stages(rows, boxes, queries)

    def _stages(self, rows, boxes, queries):
        for head in self.roi_head["bbox_head"]:
            feats = rows.pool(*flat_boxes(boxes), BOX_CELLS)
            logits, deltas, attended, queries = head(feats, queries)
            with torch.autocast(boxes.device.type, enabled=False):
                decoded = decode_boxes(boxes, deltas.to(boxes.dtype))
            yield {"roi_feats": feats, "cls_logits": logits, "boxes": decoded,
                   "attn_feats": attended, "object_feats": queries}
            # boxes are refined stage by stage, each by its own loss alone
            boxes = decoded.detach()

    def _masks_of(self, i_stage, rows, positives, stage, matches):
        """[N, 28, 28] logits of a stage's positives, each of its object's class."""
        queries = stage["attn_feats"].flatten(0, 1)[matches.rows[i_stage]]
        logits = self._masks(i_stage, rows, positives, matches.image, queries)
        return logits[torch.arange(len(logits), device=logits.device), matches.labels[i_stage]]

    def _masks(self, i_stage, rows, boxes, image, queries):
        """[N, C, 28, 28] logits of boxes [N, 4] of images [N], with their queries [N, D]."""
        feats = rows.pool(boxes, image, MASK_CELLS)
        return self.roi_head["mask_head"][i_stage](feats, queries)


def flat_boxes(boxes):
    """[B, P, 4] to ([B*P, 4] without graph, [B*P] int64 numbers of their images)."""
    batch_size, num_proposals = boxes.shape[:2]
    image = torch.arange(batch_size, device=boxes.device).repeat_interleave(num_proposals)
    return boxes.detach().flatten(0, 1), image
