"""`mmcv.ops` for mmcv-lite, which has none of the compiled operators: torchvision's in their place.

MMDetection imports dozens of names from there. RoIAlign and NMS are torchvision's, whose arithmetic
is the same; every other name is a class that says so when somebody makes one. QueryInst needs only
RoIAlign: in its two extractors, and for the targets of its masks.
"""

import importlib.abc
import importlib.machinery
import sys
import types

import torch
from torch import nn


def roi_align(features, rois, output_size, spatial_scale=1.0, sampling_ratio=0, pool_mode="avg",
              aligned=True):
    """mmcv's signature: rois [n, 5] are image, x1, y1, x2, y2."""
    from torchvision.ops import roi_align as compiled

    assert pool_mode == "avg"
    # mmcv's 0 asks for as many samples as a cell has pixels; torchvision wants -1 for it
    return compiled(features, rois, output_size, spatial_scale, sampling_ratio or -1, aligned)


class RoIAlign(nn.Module):
    """mmcv's layer of the function above."""

    def __init__(self, output_size, spatial_scale=1.0, sampling_ratio=0, pool_mode="avg",
                 aligned=True, use_torchvision=False):
        super().__init__()
        self.output_size = (output_size,) * 2 if isinstance(output_size, int) else output_size
        self.settings = (spatial_scale, sampling_ratio, pool_mode, aligned)

    def forward(self, features, rois):
        return roi_align(features, rois, self.output_size, *self.settings)


def batched_nms(boxes, scores, idxs, nms_cfg, class_agnostic=False):
    """mmcv's signature: ([k, 5] boxes with scores, their places)."""
    from torchvision.ops import batched_nms as compiled

    kept = compiled(boxes, scores, torch.zeros_like(idxs) if class_agnostic else idxs,
                    nms_cfg["iou_threshold"])
    return torch.cat((boxes[kept], scores[kept, None]), 1), kept


OURS = {"roi_align": roi_align, "RoIAlign": RoIAlign, "batched_nms": batched_nms}


class _Module(types.ModuleType):
    """Has every name: ours, or a class that cannot be made."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name in OURS:
            return OURS[name]

        def refuse(self, *args, **kwargs):
            raise NotImplementedError(f"mmcv-lite has no {name}, and this stand-in neither")

        made = type(name, (nn.Module,), {"__init__": refuse})
        setattr(self, name, made)
        return made


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname, path=None, target=None):
        if fullname == "mmcv.ops" or fullname.startswith("mmcv.ops."):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Module(spec.name)

    def exec_module(self, module):
        module.__path__ = []


def install():
    """From now on `import mmcv.ops` finds the stand-ins, unless the real ones are there."""
    try:
        import mmcv._ext  # noqa: F401  the whole mmcv
    except ImportError:
        sys.meta_path.insert(0, _Finder())
