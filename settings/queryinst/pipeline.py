"""Schema of a QueryInst config's pipelines: one section for each of MMDetection's transforms.

Keys and defaults are MMDetection's [queryinst.md: Data].
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from settings.foreign import ForeignKeys, ForeignTypes
from settings.ranges import NOT_EMPTY, Count, Fraction, OneOf, Section

_Size = tuple[Count, Count]  # px
_Direction = Literal["horizontal", "vertical", "diagonal"]
_Odds = float | tuple[float, ...]

# Of every step that opens a file.
_FROM_DISK = {"backend_args": None, "file_client_args": None, "imdecode_backend": "cv2"}
_RESIZING = {"clip_object_border": True, "backend": "cv2", "interpolation": "bilinear"}


@dataclass(frozen=True)
class _Odd:
    """Mark of a probability, or of several that exclude each other."""

    def faults(self, value: Any, got: str) -> list[str]:
        odds = value if isinstance(value, tuple) else (value,)
        if odds and all(0 <= each <= 1 for each in odds) and sum(odds) <= 1 + 1e-6:
            return []
        return [f"wants a number from 0 to 1, or several whose sum is at most 1, got {got}"]


@dataclass(frozen=True)
class LoadImageStep(Section):
    """The image as the file has it, 8 bits."""

    FOREIGN = ForeignKeys(same={**_FROM_DISK, "to_float32": False, "color_type": "color",
                                "ignore_empty": False})

    type: Literal["LoadImageFromFile"] = "LoadImageFromFile"


@dataclass(frozen=True)
class LoadAnnotationsStep(Section):
    """The objects: boxes, classes, masks."""

    FOREIGN = ForeignKeys(
        same={**_FROM_DISK, "with_bbox": True, "with_label": True, "with_mask": True,
              "with_seg": False, "with_keypoints": False, "poly2mask": True, "box_type": "hbox",
              "reduce_zero_label": False},
        ignored={"ignore_index": "there are no semantic maps to ignore parts of"},
    )

    type: Literal["LoadAnnotations"] = "LoadAnnotations"


@dataclass(frozen=True, kw_only=True)
class ResizeStep(Section):
    """scale, px: with keep_ratio the limits of the longer and the shorter side, in any order; else
    the width and the height themselves. One number stands for both.
    """

    FOREIGN = ForeignKeys(same=_RESIZING, refused={"scale_factor": "scale says the size, in px"})

    type: Literal["Resize"] = "Resize"
    scale: _Size | Count
    keep_ratio: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", _size(self.scale))
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class RandomChoiceResizeStep(Section):
    """One of `scales` is drawn, each as in Resize."""

    FOREIGN = ForeignKeys(same={**_RESIZING, "resize_type": "Resize"})

    type: Literal["RandomChoiceResize"] = "RandomChoiceResize"
    scales: Annotated[tuple[_Size | Count, ...], NOT_EMPTY]
    keep_ratio: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(map(_size, self.scales)))
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class RandomFlipStep(Section):
    """A mirror, by chance. Several directions share `prob`, or have a number each."""

    FOREIGN = ForeignKeys(ignored={"swap_seg_labels": "there are no semantic maps to relabel"})

    type: Literal["RandomFlip"] = "RandomFlip"
    prob: Annotated[_Odds, _Odd()]
    direction: tuple[_Direction, ...] | _Direction = "horizontal"

    def misfits(self) -> list[str]:
        if not isinstance(self.prob, tuple) or len(self.prob) == len(_several(self.direction)):
            return []
        return [f"prob wants one number, or one for each direction, got {len(self.prob)} for "
                f"{', '.join(_several(self.direction))}"]

    @property
    def chances(self) -> list[tuple[str, float]]:
        """(direction, its probability) of each; what is left of 1 is no mirror."""
        directions, odds = _several(self.direction), self.prob
        if not isinstance(odds, tuple):
            odds = (odds / len(directions),) * len(directions)
        return list(zip(directions, odds, strict=True))


@dataclass(frozen=True, kw_only=True)
class RandomChoiceStep(Section):
    """One list of steps is drawn, by `prob` or evenly."""

    type: Literal["RandomChoice"] = "RandomChoice"
    transforms: "Annotated[tuple[tuple[Step, ...] | Step, ...], NOT_EMPTY]"
    prob: tuple[Fraction, ...] | None = None

    def __post_init__(self) -> None:
        lists = tuple(steps if isinstance(steps, tuple) else (steps,) for steps in self.transforms)
        object.__setattr__(self, "transforms", lists)
        super().__post_init__()

    @property
    def lists(self) -> tuple[tuple["Step", ...], ...]:
        """The steps of each choice."""
        return tuple(steps for steps in self.transforms if isinstance(steps, tuple))

    def misfits(self) -> list[str]:
        faults = []
        if any(isinstance(step, ENDS) for steps in self.lists for step in steps):
            faults.append("transforms of RandomChoice may not load or pack")
        odds = self.prob
        if odds is not None and (len(odds) != len(self.lists) or abs(sum(odds) - 1) > 1e-6):
            faults.append(f"prob wants {len(self.lists)} numbers whose sum is 1, got {list(odds)}")
        return faults


@dataclass(frozen=True, kw_only=True)
class RandomCropStep(Section):
    """A window at a place that is drawn.

    absolute:       of crop_size, (width, height) in px
    relative:       of crop_size, (width, height) as shares of the image's
    absolute_range: height and width are drawn between the two numbers of crop_size, px
    relative_range: height and width are drawn, each from its share in crop_size, (of the height, of
                    the width), to the whole
    No window is larger than the image.
    """

    FOREIGN = ForeignKeys(same={"recompute_bbox": False, "bbox_clip_border": True})

    type: Literal["RandomCrop"] = "RandomCrop"
    crop_size: tuple[int | float, int | float]
    crop_type: Literal["absolute", "relative", "absolute_range", "relative_range"] = "absolute"
    # a crop may have no object; MMDetection would take another image instead of it
    allow_negative_crop: Annotated[bool, OneOf((True,))] = False

    def misfits(self) -> list[str]:
        if self.crop_type.startswith("relative"):
            fits, wanted = all(0 < share <= 1 for share in self.crop_size), "two shares, up to 1"
        else:
            fits = all(isinstance(side, int) and side >= 1 for side in self.crop_size)
            wanted = "two numbers of pixels"
        if self.crop_type == "absolute_range":
            fits, wanted = fits and self.crop_size[0] <= self.crop_size[1], f"{wanted}, ascending"
        return [] if fits else [f"crop_size wants {wanted} for {self.crop_type}, got "
                                f"{list(self.crop_size)}"]


@dataclass(frozen=True)
class PackStep(Section):
    """The sample is what a batch is made of."""

    FOREIGN = ForeignKeys(ignored={"meta_keys": "a sample has what training and scores need"})

    type: Literal["PackDetInputs"] = "PackDetInputs"


# MMDetection's other transforms, mmcv's among them.
NOT_BUILT = ForeignTypes("MMDetection", """
    Albu AutoAugment AutoContrast BaseFrameSample Brightness CachedMixUp CachedMosaic CenterCrop
    Color ColorTransform Compose Contrast CopyPaste Corrupt CutOut Equalize Expand FilterAnnotations
    FixScaleResize FixShapeResize GeomTransform ImageToTensor InferencerLoader InstaBoost Invert
    KeyMapper LoadEmptyAnnotations LoadImageFromNDArray LoadMultiChannelImageFromFiles
    LoadPanopticAnnotations LoadProposals LoadTextAnnotations LoadTrackAnnotations MinIoURandomCrop
    MixUp Mosaic MultiBranch MultiScaleFlipAug Normalize PackReIDInputs PackTrackInputs Pad
    PhotoMetricDistortion Posterize ProposalBroadcaster RandAugment RandomAffine RandomApply
    RandomCenterCropPad RandomErasing RandomGrayscale RandomOrder RandomResize RandomShift
    ResizeShortestEdge Rotate SegRescale Sharpness ShearX ShearY Solarize SolarizeAdd TestTimeAug
    ToTensor TransformBroadcaster TranslateX TranslateY Transpose UniformRefFrameSample
    WrapFieldsToLists YOLOXHSVRandomAug""")

Step = Annotated[
    LoadImageStep | LoadAnnotationsStep | ResizeStep | RandomChoiceResizeStep | RandomFlipStep
    | RandomChoiceStep | RandomCropStep | PackStep, NOT_BUILT]
ENDS = (LoadImageStep, LoadAnnotationsStep, PackStep)


def pipeline_faults(steps: tuple[Any, ...]) -> list[str]:
    """What is wrong with the order of a pipeline's steps."""
    types = [step.type for step in steps]
    ends = [kind().type for kind in ENDS]
    if sorted(name for name in types if name in ends) == sorted(ends) and types[-1] == ends[-1]:
        return []
    return [f"pipeline wants {' and '.join(ends[:-1])} once each, and {ends[-1]} at the end, got "
            f"{', '.join(types)}"]


def _size(scale: Any) -> Any:
    return (scale, scale) if isinstance(scale, int) else scale


def _several(direction: Any) -> tuple[str, ...]:
    return direction if isinstance(direction, tuple) else (direction,)
