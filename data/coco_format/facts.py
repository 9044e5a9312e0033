"""What a run's env.json and page tell of its annotation files."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from data.coco_format.index import CocoIndex


def data_facts(indexes: Mapping[str, CocoIndex]) -> dict[str, Any]:
    """Facts for `Run.describe` of the indexes, by part: images, objects and classes.

    Crowds are no objects. Categories of the same name are counted together.
    """
    facts = {}
    for part, index in indexes.items():
        ids, counts = np.unique(index.ann_categories[~index.ann_crowd], return_counts=True)
        by_id = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        classes: dict[str, int] = {}
        for i, name in index.categories.items():
            classes[name] = classes.get(name, 0) + by_id.get(i, 0)
        facts[part] = {
            "source": index.path, "images": len(index.image_ids), "objects": sum(counts.tolist()),
            "num_classes": len(index.category_ids), "unit": "objects", "classes": classes}
    return facts
