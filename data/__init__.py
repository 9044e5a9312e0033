"""Data sets: reading annotations, decoding, augmentation, batches. Each family has its own room.

loading/ and coco_format/ serve several families. Beside the rooms lie the users' data sets
(`data/coco/images`, `data/ADEChallengeData2016`), which is why no room is called `coco`.
"""

from runtime.lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, {
    "YolactTransform": "data.yolact.transform",
    "imagenet": "data.imagenet",
    "rescale_size": "data.queryinst.transform",
    "segmentation": "data.segmentation",
})
