"""A QueryInst config as MMDetection's own: plain dicts and lists that mmdet 3.3 builds from.

What stands once here, MMDetection has in each place that needs it [queryinst.md: Configs]. Reading
the result gives the same config again.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from settings.queryinst.config import QueryInstConfig
from settings.queryinst.data import DataLoaderConfig, DatasetConfig
from settings.queryinst.heads import BboxHeadConfig, MaskHeadConfig, RcnnTrainConfig
from settings.queryinst.mmdetection_run import evaluator_keys, run_keys
from settings.queryinst.model import ModelConfig

Plain = dict[str, Any]

_RELU = {"type": "ReLU", "inplace": True}
# Without a mirror in the pipeline there is nothing to say of one.
_META_KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")


def to_mmdetection(cfg: QueryInstConfig, classes: Sequence[str] = ()) -> Plain:
    """A whole config of MMDetection: its Runner trains by it, its DetInferencer predicts by it.

    classes: names in the order of the outputs, which every data set then has in metainfo; (): as
             the config says

    Only dicts, lists, tuples, texts, numbers and None. Without validation the three sections of one
    are None, and so are the test's when there is neither. MMDetection has no ResNet-10: it does not
    build a config of that depth.
    """
    plain = {"model": _model(cfg.model),
             "train_dataloader": _loader(cfg.train_dataloader, classes, is_train=True)}
    loader, evaluator = cfg.val_dataloader, cfg.val_evaluator
    for part in ("val", "test"):
        if part == "test":
            loader, evaluator = cfg.test_dataloader or loader, cfg.test_evaluator or evaluator
        plain[f"{part}_dataloader"] = (
            None if loader is None else _loader(loader, classes, is_train=False))
        plain[f"{part}_evaluator"] = (
            None if loader is None or evaluator is None
            else evaluator_keys(evaluator, loader.dataset.info_path))
    return plain | run_keys(cfg)


def _model(model: ModelConfig) -> Plain:
    backbone, pixels, head = model.backbone, model.data_preprocessor, model.roi_head
    width, num_proposals = model.neck.out_channels, model.rpn_head.num_proposals
    init = backbone.init_cfg
    return {
        "type": model.type,
        "data_preprocessor": {
            "type": "DetDataPreprocessor", "mean": list(pixels.mean), "std": list(pixels.std),
            "bgr_to_rgb": pixels.bgr_to_rgb, "pad_mask": True, "pad_value": pixels.pad_value,
            "pad_size_divisor": pixels.pad_size_divisor},
        "backbone": {
            "type": "ResNet", "depth": backbone.depth, "base_channels": backbone.base_channels,
            "num_stages": 4, "out_indices": (0, 1, 2, 3), "frozen_stages": backbone.frozen_stages,
            "norm_cfg": {"type": "BN", "requires_grad": backbone.norm_cfg.requires_grad},
            "norm_eval": backbone.norm_eval, "style": backbone.style, "with_cp": backbone.with_cp,
            "zero_init_residual": backbone.zero_init_residual,
            "init_cfg": None if init is None else
                {"type": "Pretrained", "checkpoint": init.checkpoint}},
        "neck": {
            "type": "FPN", "in_channels": list(backbone.channels), "out_channels": width,
            "start_level": 0, "add_extra_convs": "on_input", "num_outs": 4},
        "rpn_head": {
            "type": "EmbeddingRPNHead", "num_proposals": num_proposals,
            "proposal_feature_channel": width},
        "roi_head": {
            "type": "SparseRoIHead", "num_stages": head.num_stages,
            "stage_loss_weights": list(model.stage_loss_weights),
            "proposal_feature_channel": width,
            "bbox_roi_extractor": _roi_extractor(7, width),
            "mask_roi_extractor": _roi_extractor(14, width),
            "bbox_head": [_bbox_head(bbox, model.num_classes, width) for bbox in head.bbox_heads],
            "mask_head": [
                _mask_head(mask, mask.dynamic_channels or bbox.dynamic_channels,
                           model.num_classes, width)
                for bbox, mask in zip(head.bbox_heads, head.mask_heads, strict=True)]},
        "train_cfg": {"rpn": None, "rcnn": [_rcnn(rcnn) for rcnn in model.rcnns]},
        "test_cfg": {"rpn": None, "rcnn": asdict(model.test_cfg.rcnn)},
    }


def _roi_extractor(side: int, width: int) -> Plain:
    layer = {"type": "RoIAlign", "output_size": side, "sampling_ratio": 2}
    return {"type": "SingleRoIExtractor", "roi_layer": layer, "out_channels": width,
            "featmap_strides": [4, 8, 16, 32]}


def _dynamic_conv(width: int, inner: int, side: int) -> Plain:
    return {"type": "DynamicConv", "in_channels": width, "feat_channels": inner,
            "out_channels": width, "input_feat_shape": side, "act_cfg": dict(_RELU),
            "norm_cfg": {"type": "LN"}}


def _bbox_head(head: BboxHeadConfig, num_classes: int, width: int) -> Plain:
    return {
        "type": "DIIHead", "num_classes": num_classes, "num_ffn_fcs": 2,
        "num_heads": head.num_heads, "num_cls_fcs": head.num_cls_fcs,
        "num_reg_fcs": head.num_reg_fcs, "feedforward_channels": head.feedforward_channels,
        "in_channels": width, "dropout": 0.0, "ffn_act_cfg": dict(_RELU),
        "dynamic_conv_cfg": _dynamic_conv(width, head.dynamic_channels, 7),
        "loss_cls": {"type": "FocalLoss", "use_sigmoid": True, **asdict(head.loss_cls)},
        "loss_bbox": {"type": "L1Loss", **asdict(head.loss_bbox)},
        "loss_iou": {"type": "GIoULoss", **asdict(head.loss_iou)},
        "bbox_coder": {
            "type": "DeltaXYWHBBoxCoder", "clip_border": False, "target_means": [0.0] * 4,
            "target_stds": [0.5, 0.5, 1.0, 1.0]}}


def _mask_head(head: MaskHeadConfig, inner: int, num_classes: int, width: int) -> Plain:
    return {
        "type": "DynamicMaskHead", "num_convs": head.num_convs, "num_classes": num_classes,
        "roi_feat_size": 14, "in_channels": width, "conv_kernel_size": 3,
        "conv_out_channels": width, "class_agnostic": False, "norm_cfg": {"type": "BN"},
        "upsample_cfg": {"type": "deconv", "scale_factor": 2},
        "dynamic_conv_cfg": {**_dynamic_conv(width, inner, 14), "with_proj": False},
        "loss_mask": {"type": "DiceLoss", "use_sigmoid": True, "activate": False,
                      **asdict(head.loss_mask)}}


def _rcnn(rcnn: RcnnTrainConfig) -> Plain:
    forms = {"BBoxL1Cost": {"box_format": "xyxy"}, "IoUCost": {"iou_mode": "giou"}}
    costs = [{**asdict(cost), **forms.get(cost.type, {})} for cost in rcnn.assigner.match_costs]
    return {"assigner": {"type": "HungarianAssigner", "match_costs": costs},
            "sampler": {"type": "PseudoSampler"}, "pos_weight": rcnn.pos_weight, "mask_size": 28}


def _loader(loader: DataLoaderConfig, classes: Sequence[str], is_train: bool) -> Plain:
    by_shape = loader.batch_sampler
    shuffle = is_train if loader.sampler.shuffle is None else loader.sampler.shuffle
    return {
        "batch_size": loader.batch_size, "num_workers": loader.num_workers,
        "persistent_workers": loader.num_workers > 0, "drop_last": loader.drop_last,
        "sampler": {"type": "DefaultSampler", "shuffle": shuffle},
        "batch_sampler": None if by_shape is None else asdict(by_shape),
        "dataset": _dataset(loader.dataset, classes, is_train)}


def _dataset(data: DatasetConfig, classes: Sequence[str], is_train: bool) -> Plain:
    names = tuple(classes) or data.metainfo.classes
    plain: Plain = {
        "type": data.type, "data_root": data.data_root, "ann_file": data.ann_file,
        "data_prefix": asdict(data.data_prefix),
        "test_mode": not is_train if data.test_mode is None else data.test_mode,
        "filter_cfg": None if data.filter_cfg is None else asdict(data.filter_cfg),
        "pipeline": [_step(step, is_train) for step in data.pipeline]}
    if names:
        plain["metainfo"] = {"classes": names}
    if data.indices is not None:
        plain["indices"] = data.indices
    if data.times > 1:
        return {"type": "RepeatDataset", "times": data.times, "dataset": plain}
    return plain


def _step(step: Any, is_train: bool) -> Plain:
    """A step with everything that MMDetection's own default would change."""
    plain = {key: value for key, value in vars(step).items() if value is not None}
    if step.type == "LoadAnnotations":
        plain |= {"with_bbox": True, "with_mask": True}
    elif step.type == "PackDetInputs" and not is_train:
        plain["meta_keys"] = _META_KEYS
    elif step.type == "RandomChoice":
        plain["transforms"] = [[_step(inner, is_train) for inner in steps] for steps in step.lists]
    return plain
