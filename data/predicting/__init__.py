"""Images and frames as a trained network takes them, and what COCO's families make of them."""

from data.predicting.photos import BGR, RGB, Photos, Reader, stacked, turned_rgb

__all__ = ["BGR", "RGB", "Photos", "Reader", "stacked", "turned_rgb"]
