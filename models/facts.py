"""What a file of weights knows of itself: classes, how images are prepared, which config made it.

The facts lie in the state dict's `_metadata`, where torch keeps the versions of its modules: any
`load_state_dict`, the originals' included, loads such a file strictly, and one tensor more or less
is never there. What rewrites the dict loses them; then the config is asked.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from common.checkpoint.state import differing_names

KEY = "facts"  # in `_metadata` of the whole network, whose name there is ""
_WRAPPERS = ("state_dict", "decoder", "encoder")  # a checkpoint has its state dicts there

Resize = Literal["stretch", "centre", "fit"]
Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Pixels:
    """How an image becomes the network's input, float32 [B, 3, H, W].

    resize:        "stretch": both sides become `sizes[0]`; "centre": the square in the middle,
                   size / (size + margin) of the shorter side, does; "fit": the ratio is kept, the
                   shorter side becomes the size unless the longer one would exceed `longest`
    sizes:         px; several: segmentation's evaluation averages over them
    multiple:      sides are then made multiples of it, `by` padding with zeros after normalising,
                   or by stretching a little
    mean, std:     (value - mean) / std of values in 0..255, by channel
    channel_order: of the input's channels, and of mean and std
    """

    resize: Resize
    sizes: tuple[int, ...]
    mean: Channels
    std: Channels
    channel_order: Literal["RGB", "BGR"] = "RGB"
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    longest: int | None = None
    margin: int = 0
    multiple: int = 1
    by: Literal["padding", "stretching"] = "padding"

    def __post_init__(self) -> None:
        is_sound = (
            self.resize in get_args(Resize) and self.channel_order in ("RGB", "BGR")
            and self.sizes and all(isinstance(side, int) and side > 0 for side in self.sizes)
            and len(self.mean) == len(self.std) == 3 and isinstance(self.multiple, int)
            and all(isinstance(value, int | float) for value in (*self.mean, *self.std))
            and all(value > 0 for value in self.std) and self.multiple > 0)
        if not is_sound:
            raise ValueError(f"not a way to prepare images: {self}")


@dataclass(frozen=True)
class Facts:
    """What is known of a network.

    family:      "yolact", "segmentation", "resnest" or "queryinst"
    config:      name of the recipe
    num_classes: of its outputs, without YOLACT's background
    classes:     their names in that order; (): not known
    pixels:      how images are prepared
    """

    family: str
    config: str
    num_classes: int
    classes: tuple[str, ...]
    pixels: Pixels

    def __post_init__(self) -> None:
        is_sound = (
            isinstance(self.family, str) and isinstance(self.config, str)
            and isinstance(self.num_classes, int) and self.num_classes > 0
            and all(isinstance(name, str) for name in self.classes)
            and len(self.classes) in (0, self.num_classes))
        if not is_sound:
            raise ValueError(f"no names of {self.num_classes} classes: {self.classes}")

    def plain(self) -> dict[str, Any]:
        """Texts, numbers, lists and mappings of them: what pickles and JSON take."""
        pixels = {key: list(value) if isinstance(value, tuple) else value
                  for key, value in asdict(self.pixels).items()}
        return {"family": self.family, "config": self.config, "num_classes": self.num_classes,
                "classes": list(self.classes), "pixels": pixels}

    @classmethod
    def of(cls, plain: object) -> "Facts | None":
        """What `plain()` gave; None for anything else, since files are written by anyone."""
        try:
            given = dict(plain)  # type: ignore[call-overload]  # what fails here is no facts
            pixels = {key: tuple(value) if isinstance(value, list) else value
                      for key, value in given["pixels"].items()}
            return cls(given["family"], given["config"], given["num_classes"],
                       tuple(given["classes"]), Pixels(**pixels))
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def of_one_size(self, height: int, width: int) -> "Facts":
        """The same for a file that takes images of this size alone, where it is a square."""
        if self.pixels.resize != "fit" or height != width:
            return self
        return replace(self, pixels=replace(self.pixels, resize="stretch", sizes=(height,),
                                            longest=None, multiple=1))

    def names(self) -> tuple[str, ...]:
        """A name for each class: "class 0", "class 1", ... where they are not known."""
        return self.classes or tuple(f"class {i}" for i in range(self.num_classes))

    def warn_of_size(self, own: "Facts", warn: Callable[[str], object]) -> None:
        """A line when the config, whose facts are `own`, makes the images larger or smaller."""
        trained, now = max(self.pixels.sizes), max(own.pixels.sizes)
        if trained != now:
            warn(f"the checkpoint was trained on images of {trained} px, and they are made {now} "
                 f"px now; --image-size {trained} has them as in training")

    def warn_of_others(self, names: Sequence[str], warn: Callable[[str], object]) -> None:
        """A line when the data's classes `names` are as many but not these, or not in this order.

        Their scores would be of other classes.
        """
        if self.classes and len(self.classes) == len(names):
            difference = differing_names(self.classes, names)
            if difference:
                warn("the checkpoint's classes are not the data's, so scores may mix them up: "
                     f"{difference}. Give the data the checkpoint's names, or order.")


def with_facts(state_dict: Mapping[str, Any], facts: Facts) -> "OrderedDict[str, Any]":
    """The same entries, and the facts in the metadata."""
    state = OrderedDict(state_dict)
    metadata = OrderedDict(_metadata_of(state_dict))
    own = metadata.get("")
    metadata[""] = {**(own if isinstance(own, Mapping) else {}), KEY: facts.plain()}
    vars(state)["_metadata"] = metadata
    return state


def facts_in(loaded: Mapping[str, Any], family: str) -> Facts | None:
    """What a loaded state dict, or a checkpoint around one, says of itself; None: nothing.

    family: whose facts are wanted; those of another one's file are nothing
    """
    inner = [loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), Mapping)]
    for state in (loaded, *inner):
        own = _metadata_of(state).get("")
        facts = Facts.of(own.get(KEY)) if isinstance(own, Mapping) else None
        if facts is not None and facts.family == family:
            return facts
    return None


def _metadata_of(state: Mapping[str, Any]) -> Mapping[str, Any]:
    found = vars(state).get("_metadata") if isinstance(state, OrderedDict) else None
    return found if isinstance(found, Mapping) else {}
