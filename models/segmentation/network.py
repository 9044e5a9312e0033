"""Encoder, decoder and loss by name, and what an optimizer takes of them."""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.segmentation.decoders import C1, PPM, UPerNet
from models.segmentation.hrnet import HRNetV2
from models.segmentation.mobilenet import MobileNetV2Dilated
from models.segmentation.resnet import (
    resnet10_small,
    resnet18,
    resnet50,
    resnet101,
    resnext101,
)
from models.segmentation.weights import load_weights_file
from runtime.errors import InputError, did_you_mean
from settings.segmentation import SegConfig

_ENCODERS = {
    "mobilenetv2dilated": MobileNetV2Dilated,
    "resnet10small": resnet10_small,
    "resnet18": resnet18,
    "resnet18dilated": partial(resnet18, dilated=True),
    "resnet50": resnet50,
    "resnet50dilated": partial(resnet50, dilated=True),
    "resnet101": resnet101,
    "resnet101dilated": partial(resnet101, dilated=True),
    "resnext101": resnext101,
    "hrnetv2": HRNetV2,
}
_DECODERS = {
    "c1": C1,
    "c1_deepsup": partial(C1, deep_sup=True),
    "ppm": PPM,
    "ppm_deepsup": partial(PPM, deep_sup=True),
    "upernet": UPerNet,
    "upernet_lite": partial(UPerNet, fpn_dim=256),
    "upernet_small": partial(UPerNet, fpn_dim=32, pool_channels=32, widths=(32, 64, 128)),
}
_DECODER_NORM_BIAS = 1e-4  # parity: not 0 [segmentation.md: Initialisation]


def build_encoder(arch: str, fc_dim: int, weights: str | Path = "") -> nn.Module:
    """The encoder `arch`, any case; `encoder(x, return_feature_maps=True)` gives a list of maps.

    fc_dim:  unused as in the original: the name alone decides (see settings/segmentation.py)
    weights: "" for the original's random start, or a file in the original's form
    Raises InputError for an unknown name or a file that does not fit.
    """
    encoder = _named(_ENCODERS, arch, "MODEL.arch_encoder")()
    if weights:
        load_weights_file(encoder, weights)
    return encoder


def build_decoder(
    arch: str,
    fc_dim: int,
    num_class: int,
    weights: str | Path = "",
    use_softmax: bool = False,
) -> nn.Module:
    """The decoder `arch`, any case; `decoder(features, segSize=None)` as decoders.py says.

    fc_dim, weights: as `build_encoder`
    use_softmax:     probabilities at `segSize` instead of log-probabilities
    """
    decoder = _named(_DECODERS, arch, "MODEL.arch_decoder")(num_class, fc_dim, use_softmax)
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # biases stay at torch's own start
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.constant_(module.bias, _DECODER_NORM_BIAS)
    if weights:
        load_weights_file(decoder, weights)
    return decoder


class SegmentationModule(nn.Module):
    """Encoder, decoder and criterion as one module: what parallel wrappers and torch.compile take.

    crit:           takes log-probabilities [B, C, h, w] and labels [B, h, w]; the original's is
                    NLLLoss(ignore_index=-1)
    deep_sup_scale: weight of the auxiliary loss; None for a decoder without one
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        crit: nn.Module,
        deep_sup_scale: float | None = None,
    ):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.crit = crit
        self.deep_sup_scale = deep_sup_scale

    def forward(self, feed: dict, segSize: tuple[int, int] | None = None):
        """feed: `img_data` [B, 3, H, W] and, for the loss, `seg_label` [B, h, w] int64, -1 ignored.

        Returns (loss, accuracy), both 0-d, when `segSize` is None; else the decoder's scores at
        that size (h, w). A batch without a labelled cell has loss 0, and gradient 0, where `crit`
        is an NLLLoss.
        """
        if segSize is not None:
            return self.decoder(self._features(feed), segSize=segSize)
        terms, accuracy = self.loss_terms(feed)
        loss = terms["main"]
        if self.deep_sup_scale is not None:
            loss = loss + self.deep_sup_scale * terms["deepsup"]
        return loss, accuracy

    def loss_terms(self, feed: dict) -> tuple[dict[str, Tensor], Tensor]:
        """({"main": 0-d, "deepsup": 0-d, unweighted, if there is one}, accuracy 0-d)."""
        labels = feed["seg_label"]
        if self.deep_sup_scale is None:
            main = self.decoder(self._features(feed))
            return {"main": self._loss(main, labels)}, pixel_accuracy(main, labels)
        main, auxiliary = self.decoder(self._features(feed))
        terms = {"main": self._loss(main, labels), "deepsup": self._loss(auxiliary, labels)}
        return terms, pixel_accuracy(main, labels)

    def class_probabilities(self, images: Tensor) -> Tensor:
        """[B, num_class, H, W] of normalised images [B, 3, H, W]; with a `use_softmax` decoder."""
        return self({"img_data": images}, segSize=images.shape[-2:])

    def _loss(self, log_probs, labels):
        crit = self.crit
        if not isinstance(crit, nn.NLLLoss) or crit.reduction != "mean" or crit.weight is not None:
            return crit(log_probs, labels)
        # differs: the mean over no labelled cell is 0, not 0 / 0
        # [segmentation.md: Loss and accuracy]. Way back: none, a picture without a label would end
        # the run, or be skipped with all others of its batch.
        total = F.nll_loss(log_probs, labels, ignore_index=crit.ignore_index, reduction="sum")
        return total / (labels != crit.ignore_index).sum().clamp(min=1)

    def _features(self, feed):
        return self.encoder(feed["img_data"], return_feature_maps=True)


def build_module(
    cfg: SegConfig, device: torch.device, layout: torch.memory_format
) -> SegmentationModule:
    """The config's encoder and decoder, at random, and the loss, which leaves labels of -1 out.

    layout: of the weights in memory
    """
    model = cfg.MODEL
    module = SegmentationModule(
        build_encoder(model.arch_encoder, model.fc_dim),
        build_decoder(model.arch_decoder, model.fc_dim, cfg.DATASET.num_class),
        nn.NLLLoss(ignore_index=-1),
        cfg.TRAIN.deep_sup_scale if model.is_deep_supervised else None)
    module.to(device)
    # torch's types do not know this form of `to`
    return module.to(memory_format=layout)  # type: ignore[call-overload]


class TrainingStep(nn.Module):
    """The named terms whose sum is the loss: what a training loop wraps and calls."""

    def __init__(self, module: SegmentationModule):
        super().__init__()
        self.module = module

    def forward(self, feed: dict) -> dict[str, Tensor]:
        """feed as SegmentationModule's: img_data [B, 3, H, W], seg_label [B, h, w].

        Returns 0-d tensors: "main", "deepsup" (weighted, if there is one) and "accuracy", which is
        no part of the sum.
        """
        terms, accuracy = self.module.loss_terms(feed)
        if "deepsup" in terms:
            terms["deepsup"] = self.module.deep_sup_scale * terms["deepsup"]
        return {**terms, "accuracy": accuracy}


@contextlib.contextmanager
def scoring(module: SegmentationModule) -> Iterator[None]:
    """In it the module gives class scores at a wanted size: eval mode, with use_softmax."""
    was_training, was_softmax = module.training, module.decoder.use_softmax
    module.eval()
    module.decoder.use_softmax = True
    try:
        with torch.no_grad():
            yield
    finally:
        module.decoder.use_softmax = was_softmax
        module.train(was_training)


def pixel_accuracy(scores: Tensor, labels: Tensor) -> Tensor:
    """Share of labelled cells whose best class is right, 0-d float32; 0 where none is labelled."""
    labelled = labels >= 0
    right = (labelled & (scores.argmax(dim=1) == labels)).sum()
    return right.float() / (labelled.sum().float() + 1e-10)


def average_scores(
    module: SegmentationModule, images: list[Tensor], size: tuple[int, int]
) -> Tensor:
    """Mean over the scales of one image's class scores, [1, num_class, *size] float32.

    images: the image at each scale, [1, 3, H, W]; `module` is in eval mode, with use_softmax
    """
    total = 0
    for image in images:
        total = total + module({"img_data": image}, segSize=size).float() / len(images)
    return total


def group_weight(net: nn.Module) -> list[dict]:
    """SGD's groups: weights of convolutions and linear layers; the rest without weight decay."""
    decayed, rest = [], []
    for module in net.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_weight = isinstance(module, (nn.Conv2d, nn.Linear)) and name == "weight"
            (decayed if is_weight else rest).append(parameter)
    return [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]


def _named(builders, arch, key):
    if arch.lower() not in builders:
        hint = did_you_mean(arch, builders)
        raise InputError(f"{key}: unknown name {arch!r}.{hint} Known: {', '.join(builders)}")
    return builders[arch.lower()]
