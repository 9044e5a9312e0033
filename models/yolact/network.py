"""The YOLACT and YOLACT++ network: backbone, feature pyramid, prototypes, heads.

Shapes: B images, P priors, C classes with background 0, K prototypes, h x w the prototypes' map.
Module names are the original's, since state-dict keys are a public file format.
Source: YOLACT, arXiv:1904.02689; YOLACT++, arXiv:1912.06218; [yolact.md: Network].
"""

import torch
import torch.nn.functional as F
from torch import nn

from models.yolact.backbones import build_backbone
from models.yolact.detect import detect
from models.yolact.priors import make_priors, unmatched
from models.yolact.weights import init_weights, load_backbone
from runtime.errors import InputError
from settings.yolact import YolactConfig, priors_per_cell
from settings.yolact_recipes import check_class_count, load_yolact_config

ACTIVATIONS = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: x.softmax(-1),
    "relu": torch.relu,
    "none": lambda x: x,
}


def build_yolact(cfg):
    """The network of a config (a name, a YAML path, an expression or a loaded config).

    Weights are torch's random ones until `init_weights` or `weights.load_weights`.
    Raises InputError when the config has no backbone or its class count is not the data set's.
    """
    cfg = load_yolact_config(cfg)
    if cfg.backbone is None:
        raise InputError(f"config {cfg.name} has no backbone; build yolact_base or one like it")
    check_class_count(cfg)
    return Yolact(cfg)


@torch.no_grad()
def objects_without_prior(cfg, boxes):
    """Which objects no prior of a config's network matches well enough to be positive, bool [n].

    boxes: [n, 4] x1 y1 x2 y2 relative. Each of these objects is still learnt by one prior.
    """
    net = build_yolact(cfg)
    return unmatched(boxes, priors_of(net), net.cfg.positive_iou_threshold)


@torch.no_grad()
def priors_of(net):
    """[P, 4] of a network for images of its config's size, on the CPU: those of its outputs."""
    was_training, size, cudnn = net.training, net.cfg.max_size, torch.backends.cudnn
    images = torch.zeros(1, 3, size, size, device=next(net.parameters()).device)
    is_timing, cudnn.benchmark = cudnn.benchmark, False  # one image is not what will be trained
    try:
        priors = net.train(False).forward_heads(images)["priors"]  # only a pass tells level sizes
    finally:
        net.train(was_training)
        cudnn.benchmark = is_timing
    return priors.cpu()


class Yolact(nn.Module):
    """The network; `cfg` is its whole config."""

    cfg: YolactConfig

    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self._bn_is_frozen = False
        self._priors = {}  # by level sizes and device; not part of the state

        self.backbone = build_backbone(cfg.backbone)
        features = cfg.fpn.num_features
        self.proto_net, num_prototypes = make_net(
            features, cfg.mask_proto_net, last_relu=False
        )
        if cfg.use_maskiou:
            self.maskiou_net = MaskIouNet(cfg.maskiou_net, cfg.num_classes - 1)
        channels = [self.backbone.channels[i] for i in cfg.backbone.selected_layers]
        self.fpn = Fpn(cfg.fpn, channels)
        # One head for all levels, or one for each.
        num_priors = priors_per_cell(cfg)
        num_priors = num_priors[:1] if cfg.share_prediction_module else num_priors
        self.prediction_layers = nn.ModuleList(
            PredictionHead(cfg, features, n, num_prototypes) for n in num_priors
        )
        if cfg.use_semantic_segmentation_loss:
            self.semantic_seg_conv = nn.Conv2d(features, cfg.num_classes - 1, 1)
        if cfg.freeze_bn:
            self.freeze_bn()

    def forward(self, images):
        """images [B, 3, S, S]; what `forward_heads` gives in training mode, else `detect`."""
        if self.training:
            return self.forward_heads(images)
        return detect(self._predict(images)[0], self.cfg)

    def forward_heads(self, images):
        """Raw outputs in any mode; BatchNorm acts as its own mode says.

        images: [B, 3, S, S] float, normalised, S = cfg.max_size
        Returns loc [B,P,4], conf [B,P,C] logits, mask [B,P,K] after tanh, priors [P,4] cx cy w h
        relative, proto [B,h,w,K] and, with cfg.use_semantic_segmentation_loss, segm [B,C-1,h3,w3]
        logits. Under autocast some are in half precision.
        """
        predictions, finest = self._predict(images)
        if self.cfg.use_semantic_segmentation_loss:
            predictions["segm"] = self.semantic_seg_conv(finest)
        return predictions

    def _predict(self, images):
        """Everything but segm, and the finest pyramid level."""
        cfg = self.cfg
        stages = self.backbone(images)
        levels = self.fpn([stages[i] for i in cfg.backbone.selected_layers])

        proto = self.proto_net(levels[cfg.mask_proto_src]).permute(0, 2, 3, 1).contiguous()
        proto = ACTIVATIONS[cfg.mask_proto_prototype_activation](proto)

        heads = self.prediction_layers
        heads = [heads[0]] * len(levels) if cfg.share_prediction_module else heads
        outputs = [head(level) for head, level in zip(heads, levels, strict=True)]
        loc, conf, mask = (torch.cat(parts, dim=1) for parts in zip(*outputs, strict=True))
        predictions = {
            "loc": loc,
            "conf": conf,
            "mask": ACTIVATIONS[cfg.mask_proto_coeff_activation](mask),
            "priors": self.priors(tuple(tuple(x.shape[-2:]) for x in levels), images.device),
            "proto": proto,
        }
        return predictions, levels[0]

    def priors(self, level_sizes, device):
        """[P, 4] float32, cx cy w h relative, for pyramid levels of these (h, w), cached."""
        if torch.compiler.is_compiling():  # a cache filled in between would compile it all again
            return make_priors(self.cfg, level_sizes, device)
        key = (level_sizes, device)
        if key not in self._priors:
            # Training may meet what was cached in inference mode.
            with torch.inference_mode(False):
                self._priors[key] = make_priors(self.cfg, level_sizes, device)
        return self._priors[key]

    def freeze_bn(self, frozen=True):
        """Keep every BatchNorm in evaluation mode with constant scale and shift; or undo it.

        `train()` keeps to it. GroupNorm is left alone.
        """
        self._bn_is_frozen = frozen
        for module in self._batch_norms():
            module.weight.requires_grad_(not frozen)
            module.bias.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode=True):
        super().train(mode)
        if self._bn_is_frozen:
            for module in self._batch_norms():
                module.eval()
        return self

    def _batch_norms(self):
        kinds = (nn.BatchNorm2d, nn.SyncBatchNorm)
        return [module for module in self.modules() if isinstance(module, kinds)]

    def load_backbone(self, path):
        """Load a pretrained backbone file; see `models.yolact.weights.load_backbone`."""
        return load_backbone(self, path)

    def init_weights(self, backbone_path=None):
        """Initialise everything; see `models.yolact.weights.init_weights`."""
        return init_weights(self, backbone_path)


class Fpn(nn.Module):
    """Feature pyramid. `lat_layers` and `pred_layers` start with the DEEPEST level, outputs with
    the finest. Source: arXiv:1612.03144, with the strided convs of RetinaNet below.
    """

    def __init__(self, cfg, in_channels):
        super().__init__()
        self.cfg = cfg
        features, padding = cfg.num_features, 1 if cfg.pad else 0
        self.lat_layers = nn.ModuleList(nn.Conv2d(c, features, 1) for c in reversed(in_channels))
        self.pred_layers = nn.ModuleList(
            nn.Conv2d(features, features, 3, padding=padding) for _ in in_channels
        )
        if cfg.use_conv_downsample:
            self.downsample_layers = nn.ModuleList(
                nn.Conv2d(features, features, 3, stride=2, padding=1)
                for _ in range(cfg.num_downsample)
            )

    def forward(self, stages):
        """Maps [B, in_channels[i], h, w] to levels [B, features, h, w], each finest first."""
        mode = self.cfg.interpolation_mode
        align_corners = False if mode == "bilinear" else None
        merged = None
        levels = []
        for lateral, predict, stage in zip(
            self.lat_layers, self.pred_layers, reversed(stages), strict=True
        ):
            side = lateral(stage)
            if merged is None:
                merged = side
            else:
                size = stage.shape[-2:]
                up = F.interpolate(merged, size=size, mode=mode, align_corners=align_corners)
                merged = side + up
            level = predict(merged)
            levels.insert(0, F.relu(level) if self.cfg.relu_pred_layers else level)
        for i in range(self.cfg.num_downsample):
            if self.cfg.use_conv_downsample:
                level = self.downsample_layers[i](levels[-1])
            else:
                level = F.max_pool2d(levels[-1], 1, stride=2)
            # differs: the original's relu_downsample_layers changed other levels than these
            # [yolact.md: Known faults]. Way back: none, no config sets the key.
            levels.append(F.relu(level) if self.cfg.relu_downsample_layers else level)
        return levels


class PredictionHead(nn.Module):
    """Boxes, classes and mask coefficients of one level.

    The channels of a conv's output are prior-major, and rows come out cell by cell, prior fastest.
    """

    def __init__(self, cfg, in_channels, num_priors, num_prototypes):
        super().__init__()
        channels = in_channels
        if cfg.extra_head_net is None:
            self.upfeature = nn.Identity()
        else:
            self.upfeature, channels = make_net(in_channels, cfg.extra_head_net)
        self.sizes = (4, cfg.num_classes, num_prototypes)
        self.bbox_layer, self.conf_layer, self.mask_layer = (
            nn.Conv2d(channels, num_priors * size, **cfg.head_layer_params) for size in self.sizes
        )
        self.bbox_extra, self.conf_extra, self.mask_extra = (
            make_net(channels, [(channels, 3, {"padding": 1})] * n)[0] for n in cfg.extra_layers
        )

    def forward(self, x):
        """[B, channels, h, w] to loc, conf, mask, each [B, h * w * priors, size]."""
        x = self.upfeature(x)
        outputs = (
            self.bbox_layer(self.bbox_extra(x)),
            self.conf_layer(self.conf_extra(x)),
            self.mask_layer(self.mask_extra(x)),
        )
        return [  # len(x) would tie an exported program to one batch size
            out.permute(0, 2, 3, 1).reshape(x.shape[0], -1, size)
            for out, size in zip(outputs, self.sizes, strict=True)
        ]


class MaskIouNet(nn.Module):
    """Predicts, for every class, the IoU of a soft mask with the truth (YOLACT++, section 3.2)."""

    def __init__(self, layers, num_foreground_classes):
        super().__init__()
        self.maskiou_net, _ = make_net(1, (*layers, (num_foreground_classes, 1, {})))

    def forward(self, masks):
        """[n, 1, h, w] in [0, 1] to [n, C-1]."""
        return self.maskiou_net(masks).amax((2, 3))


class Concat(nn.Module):
    """Parallel nets on one input, their outputs concatenated."""

    def __init__(self, nets, dim=1):
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.dim = dim

    def forward(self, x):
        """[B, C, h, w] to the nets' outputs [B, C_k, h', w'], side by side along `dim`."""
        return torch.cat([net(x) for net in self.nets], dim=self.dim)


def make_net(in_channels, layers, last_relu=True):
    """A net from the config's grammar, and its number of output channels.

    layers: (channels, kernel, kwargs): a conv; with a negative kernel a transposed conv of that
            size, or without channels a bilinear enlargement by it; ("cat", nets, kwargs): Concat.
    A ReLU follows every item, enlargements included; `last_relu=False` drops the last.
    """
    net = nn.Sequential()
    for channels, kernel, kwargs in layers:
        if channels == "cat":
            nets, widths = zip(*(make_net(in_channels, inner) for inner in kernel), strict=True)
            net.append(Concat(nets, **kwargs))
            in_channels = sum(widths)
        elif channels is None:
            net.append(nn.Upsample(scale_factor=-kernel, mode="bilinear", **kwargs))
        else:
            kind = nn.Conv2d if kernel > 0 else nn.ConvTranspose2d
            net.append(kind(in_channels, channels, abs(kernel), **kwargs))
            in_channels = channels
        net.append(nn.ReLU(inplace=True))
    return (net if last_relu else net[:-1]), in_channels
