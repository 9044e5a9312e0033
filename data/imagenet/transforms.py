"""The classifier's transforms: PIL RGB image -> float32 [3, n, n], normalised.

The original's pipelines, step by step in `.transforms`; calling a pipeline gives the same numbers
faster. What is random comes from the keywords rng (random.Random), np_rng (numpy RandomState) and
generator (torch.Generator), each the library's global stream when None.
Source: [resnest.md: Training transform], [resnest.md: Validation transform].
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from data.imagenet.crops import CENTER_MARGIN_PX, MIN_AREA_REL, center_crop_box, random_crop_box
from data.imagenet.jitter import (
    IDENTITY,
    ColorJitter,
    Planes,
    Step,
    as_tensor,
    jittered_planes,
    planes_of,
)
from data.imagenet.rand_augment import RAND_AUGMENT_OPS, RandAugment
from settings.datasets import IMAGENET_MEAN as MEAN
from settings.datasets import IMAGENET_STD as STD

__all__ = [
    "RAND_AUGMENT_OPS",
    "ColorJitter",
    "Lighting",
    "RandAugment",
    "center_crop_box",
    "random_crop_box",
    "standard_transform",
    "train_transform",
    "transforms_of",
    "val_transform",
]

JITTER = 0.4
LIGHTING_STD = 0.1
STANDARD_MIN_AREA_REL = 0.08  # torchvision's
RAND_AUGMENT_N, RAND_AUGMENT_M = 2, 12
_EIGENVALUES = np.array((0.2175, 0.0188, 0.0045), np.float32)
_EIGENVECTORS = np.array(
    (
        (-0.5675, 0.7192, 0.4009),
        (-0.5808, -0.0045, -0.8140),
        (-0.5836, -0.6948, 0.4203),
    ),
    np.float32,
)
_MEAN, _STD = (np.array(each, np.float32)[:, None] for each in (MEAN, STD))
_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class ECenterCrop:
    """The centre crop, resized to crop_size x crop_size."""

    def __init__(self, crop_size: int, interpolation: str, margin: int):
        self.crop_size, self.margin = crop_size, margin
        self.filter = _FILTERS[interpolation]

    def __call__(self, image: Image.Image) -> Image.Image:
        box = center_crop_box(*image.size, self.crop_size, self.margin)
        return _cropped(image, box, self.crop_size, self.filter)


class ERandomCrop:
    """A random crop of at least `min_area` of the image, resized bilinearly to crop_size."""

    def __init__(
        self, crop_size: int, min_area: float = MIN_AREA_REL, margin: int = CENTER_MARGIN_PX
    ):
        self.crop_size, self.min_area, self.margin = crop_size, min_area, margin

    def __call__(self, image: Image.Image, *, rng: Any = None) -> Image.Image:
        box = random_crop_box(*image.size, self.crop_size, rng, self.min_area, self.margin)
        return _cropped(image, box, self.crop_size, _FILTERS["bilinear"])


class RandomResizedCrop:
    """torchvision's random crop: uniform area, log-uniform aspect ratio; its random numbers."""

    RATIO, ATTEMPTS = (3.0 / 4.0, 4.0 / 3.0), 10

    def __init__(self, crop_size: int, min_area: float = STANDARD_MIN_AREA_REL):
        self.crop_size, self.scale = crop_size, (min_area, 1.0)

    def __call__(self, image: Image.Image, *, generator: Any = None) -> Image.Image:
        box = self._box(*image.size, generator)
        return _cropped(image, box, self.crop_size, _FILTERS["bilinear"])

    def _box(self, width, height, generator):
        for _ in range(self.ATTEMPTS):
            box_width, box_height = _sample_sides(width * height, self.scale, self.RATIO, generator)
            if 0 < box_width <= width and 0 < box_height <= height:
                y = _sample_below(height - box_height + 1, generator)
                x = _sample_below(width - box_width + 1, generator)
                return x, y, x + box_width, y + box_height
        ratio = min(max(width / height, self.RATIO[0]), self.RATIO[1])
        box_width = min(width, round(height * ratio))
        box_height = min(height, round(width / ratio))
        x, y = (width - box_width) // 2, (height - box_height) // 2
        return x, y, x + box_width, y + box_height


class RandomHorizontalFlip:
    """Mirrors left to right with probability `p`; the random number is torchvision's."""

    def __init__(self, p: float = 0.5):
        self.p = p

    def __call__(self, image: Image.Image, *, generator: Any = None) -> Image.Image:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.sample(generator) else image

    def sample(self, generator: Any = None) -> bool:
        """Whether to mirror."""
        return torch.rand(1, generator=generator).item() < self.p


class ToTensor:
    """RGB image -> float32 [3, h, w] in [0, 1]."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(planes_of(image)).float().div_(255)


class Lighting:
    """AlexNet's PCA noise: three normals of the given standard deviation, one colour per image.

    Called with a float32 [3, h, w] tensor in [0, 1] and keyword generator; nothing is clipped.
    """

    def __init__(self, std: float):
        self.std = std

    def __call__(self, image: torch.Tensor, *, generator: Any = None) -> torch.Tensor:
        return image + torch.from_numpy(self.sample(generator)).to(image)[:, None, None]

    def sample(self, generator: Any = None) -> np.ndarray:
        """What is added to R, G and B, float32 [3]."""
        alpha = torch.empty(3).normal_(0.0, self.std, generator=generator).numpy()
        return (_EIGENVECTORS * alpha * _EIGENVALUES).sum(1)


class Normalize:
    """(image - mean) / std per channel, float32 [3, h, w]."""

    def __init__(self):
        self.mean = torch.tensor(MEAN)[:, None, None]
        self.std = torch.tensor(STD)[:, None, None]

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return image.sub(self.mean).div_(self.std)


class RandomErasing:
    """With probability `p` a rectangle of 2 to 33 % becomes 0, on the normalised tensor.

    Source: arXiv:1708.04896; the random numbers are torchvision's.
    """

    SCALE, RATIO, ATTEMPTS = (0.02, 0.33), (0.3, 3.3), 10

    def __init__(self, p: float):
        self.p = p

    def __call__(self, image: torch.Tensor, *, generator: Any = None) -> torch.Tensor:
        if torch.rand(1, generator=generator).item() >= self.p:
            return image
        height, width = image.shape[1:]
        for _ in range(self.ATTEMPTS):
            # torchvision's ratio is height to width here
            tall, wide = _sample_sides(height * width, self.SCALE, self.RATIO, generator)
            if tall < height and wide < width:
                y = _sample_below(height - tall + 1, generator)
                x = _sample_below(width - wide + 1, generator)
                image = image.clone()
                image[:, y : y + tall, x : x + wide] = 0.0
                break
        return image


class ValTransform:
    """Centre crop, tensor, normalise. Called with an RGB PIL image."""

    def __init__(self, crop_size: int, interpolation: str, margin: int):
        self.transforms = [ECenterCrop(crop_size, interpolation, margin), ToTensor(), Normalize()]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        for transform in self.transforms:
            image = transform(image)
        return image


class _StagedTransform:
    """Called with an RGB PIL image and keywords rng, np_rng and generator.

    The call is `sample`, `crop` and `finish` in turn, which a loader takes through whole batches.
    """

    def __call__(
        self, image: Image.Image, *, rng: Any = None, np_rng: Any = None, generator: Any = None
    ) -> torch.Tensor:
        sampled = self.sample(generator)
        return self.finish([self.crop(image, sampled, rng, np_rng)], [sampled])[0]


class Sampled(NamedTuple):
    """What a TrainTransform takes from its generator.

    flip: whether to mirror; steps: of the jitter; tables: [3, 256] float32, what lighting and
    normalisation make of each level
    """

    flip: bool
    steps: list[Step]
    tables: np.ndarray


class TrainTransform(_StagedTransform):
    """The original's augmentation.

    `.transforms` holds its steps; the call gives what they give one after the other, with
    mirroring, jitter, lighting and normalisation done in one go.
    """

    def __init__(self, crop_size: int, rand_aug: bool, min_area: float, margin: int,
                 mirror: bool = True):
        self._rand_augment = RandAugment(RAND_AUGMENT_N, RAND_AUGMENT_M) if rand_aug else None
        self._crop = ERandomCrop(crop_size, min_area, margin)
        self._flip = RandomHorizontalFlip(0.5 if mirror else 0.0)
        self._jitter = ColorJitter(JITTER)
        self._lighting = Lighting(LIGHTING_STD)
        steps = [self._crop, self._flip, self._jitter, ToTensor(), self._lighting, Normalize()]
        self.transforms = [self._rand_augment, *steps] if rand_aug else steps

    def sample(self, generator: Any = None) -> Sampled:
        """All that `generator` decides; the image does not matter to it."""
        flip, steps = self._flip.sample(generator), self._jitter.sample(generator)
        return Sampled(flip, steps, _normalised_levels(self._lighting.sample(generator)))

    def crop(self, image: Image.Image, sampled: Sampled, rng: Any, np_rng: Any) -> Image.Image:
        """The image after RandAugment and the random crop."""
        if self._rand_augment is not None:
            image = self._rand_augment(image, rng=rng, np_rng=np_rng)
        return self._crop(image, rng=rng)

    def finish(self, crops: list[Image.Image], sampled: list[Sampled]) -> list[torch.Tensor]:
        """The normalised tensors, float32 [3, n, n] each."""
        planes = [jittered_planes(crop, each.steps, each.flip)
                  for crop, each in zip(crops, sampled, strict=True)]
        return [as_tensor(each, own.tables) for each, own in zip(planes, sampled, strict=True)]


class StandardTransform(_StagedTransform):
    """torchvision's usual ImageNet augmentation: random resized crop, mirror, normalise, erase."""

    def __init__(self, crop_size: int, rand_aug: bool, min_area: float, random_erasing: float,
                 mirror: bool = True):
        self._rand_augment = RandAugment(RAND_AUGMENT_N, RAND_AUGMENT_M) if rand_aug else None
        self._crop = RandomResizedCrop(crop_size, min_area)
        self._flip = RandomHorizontalFlip(0.5 if mirror else 0.0)
        self._erasing = RandomErasing(random_erasing) if random_erasing > 0 else None
        steps = [self._rand_augment, self._crop, self._flip, ToTensor(), Normalize()]
        self.transforms = [step for step in [*steps, self._erasing] if step is not None]

    def sample(self, generator: Any = None) -> Any:
        """`generator` itself: what it gives first, the crop, depends on the image's size."""
        return generator

    def crop(self, image: Image.Image, generator: Any, rng: Any, np_rng: Any) -> Image.Image:
        """The image after RandAugment and the random crop."""
        if self._rand_augment is not None:
            image = self._rand_augment(image, rng=rng, np_rng=np_rng)
        return self._crop(image, generator=generator)

    def finish(self, crops: list[Image.Image], generators: list[Any]) -> list[torch.Tensor]:
        """The normalised tensors, float32 [3, n, n] each."""
        tables = _normalised_levels(np.zeros(3, np.float32))
        images = [
            as_tensor(Planes(planes_of(crop, self._flip.sample(generator)), IDENTITY), tables)
            for crop, generator in zip(crops, generators, strict=True)
        ]
        if self._erasing is None:
            return images
        return [self._erasing(image, generator=generator)
                for image, generator in zip(images, generators, strict=True)]


def val_transform(
    crop_size: int, interpolation: str = "bilinear", margin: int = CENTER_MARGIN_PX
) -> ValTransform:
    """The original's validation transform.

    interpolation: "bilinear", or "bicubic" as for the published accuracies
    margin:        crop_size / (crop_size + margin) of the shorter side is looked at; 0: all of it
    """
    return ValTransform(crop_size, interpolation, margin)


def train_transform(
    crop_size: int,
    rand_aug: bool = False,
    min_area: float = MIN_AREA_REL,
    margin: int = CENTER_MARGIN_PX,
    mirror: bool = True,
) -> TrainTransform:
    """The original's training transform.

    rand_aug: RandAugment(2, 12) in front
    min_area: of the random crop, as a fraction of the image's; 0.1 is the original
    margin:   of the centre crop that stands in where no random crop fits, as in `val_transform`
    mirror:   every other image is mirrored; without it the other random numbers are the same
    """
    return TrainTransform(crop_size, rand_aug, min_area, margin, mirror)


def standard_transform(
    crop_size: int,
    rand_aug: bool = False,
    min_area: float = STANDARD_MIN_AREA_REL,
    random_erasing: float = 0.0,
    mirror: bool = True,
) -> StandardTransform:
    """torchvision's usual training transform; the same, and the probability of random erasing."""
    return StandardTransform(crop_size, rand_aug, min_area, random_erasing, mirror)


def transforms_of(cfg: Any) -> tuple[TrainTransform | StandardTransform, ValTransform]:
    """(training, validation) transform of the config section DATA."""
    val = val_transform(cfg.CROP_SIZE, cfg.INTERPOLATION, cfg.CENTER_MARGIN)
    if cfg.AUGMENT == "standard":
        train = standard_transform(
            cfg.CROP_SIZE, cfg.RAND_AUG, cfg.MIN_CROP_AREA, cfg.RANDOM_ERASING, cfg.MIRROR
        )
    else:
        train = train_transform(cfg.CROP_SIZE, cfg.RAND_AUG, cfg.MIN_CROP_AREA, cfg.CENTER_MARGIN,
                                cfg.MIRROR)
    return train, val


def _cropped(image, box, crop_size, resample):
    # Cropped first: PIL's resize(box=) would blend in pixels from outside the box.
    return image.crop(box).resize((crop_size, crop_size), resample)


def _normalised_levels(colour):
    """What ToTensor, adding `colour` [3] and Normalize make of each level, [3, 256] float32."""
    levels = IDENTITY / np.float32(255) + colour[:, None]
    levels -= _MEAN
    levels /= _STD
    return levels


def _sample_sides(area, scale, ratio, generator):
    """Two sides of a rectangle: its share of `area` in `scale`, first / second in `ratio`."""
    wanted = area * torch.empty(1).uniform_(*scale, generator=generator).item()
    log_ratio = torch.tensor(ratio).log()
    low, high = log_ratio.tolist()
    aspect = torch.exp(torch.empty(1).uniform_(low, high, generator=generator)).item()
    return round(math.sqrt(wanted * aspect)), round(math.sqrt(wanted / aspect))


def _sample_below(limit, generator):
    return int(torch.randint(0, limit, (1,), generator=generator).item())
