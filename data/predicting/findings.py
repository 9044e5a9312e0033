"""The pictures of a validation of instances, drawn from what was found on whole images."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle_codec

from data.coco_format.dataset import IndexedImages
from runtime.curves import plot_confusion, plot_precision_recall
from runtime.files import write_text
from runtime.pictures import (
    MOST_DRAWN,
    draw_grid,
    instances_tile,
    save_image,
    shrunk,
    side_by_side,
    with_note,
)

PICTURED = 9  # images in the grid of predictions
PAIRS_PER_ROW = 2  # of ground truth and prediction
LONGEST_TABLE = 30  # classes whose scores go to the log; those of more go to a file alone
TABLE = "classes.txt"
KINDS = {"bbox": ("box", "boxes"), "segm": ("mask", "masks")}


def classes_of(run: Any, found: Any) -> dict[str, dict[str, float | None]] | None:
    """The scores of each class for `Run.record_scores`; their table goes to classes.txt, too, and
    to the log where it is short.

    run: the Run; found: its InstanceScores, None on other ranks. Raises SaveError.
    """
    if found is None:
        return None
    lines = found.table()
    write_text(run.folder / TABLE, "\n".join(lines) + "\n")
    if len(found.names) <= LONGEST_TABLE:
        run.log("\n".join(lines))
    else:
        run.log(f"The scores of {len(found.names)} classes are in {run.folder / TABLE}.")
    return found.by_class()


def save_findings(run: Any, dataset: Any, found: Any, which: str) -> None:
    """predictions.png, extremes.png, precision_recall.png and the confusion matrices.

    run:     the Run, whose folder they go to
    dataset: IndexedImages, those that were validated
    found:   their InstanceScores, None on other ranks and where nothing was scored
    which:   the weights that they are of, for the titles
    Raises SaveError.
    """
    if found is None:
        return
    folder, ids = run.folder, found.given_ids
    spread = ids[:: max(1, len(ids) // PICTURED)][:PICTURED]
    _save_pairs(dataset, found, spread, folder / "predictions.png", which)
    if not found.has_objects:
        return
    extremes = [*(("worst", *row) for row in found.extremes.worst),
                *(("best", *row) for row in found.extremes.best)]
    notes = [f"{kind}, quality {score:.2f}: {dataset.file_name(image_id)}"
             for kind, score, _, image_id in extremes]
    _save_pairs(dataset, found, [row[-1] for row in extremes], folder / "extremes.png", which,
                notes)
    for iou_type, counts in found.confusion.items():
        word, plural = KINDS[iou_type]
        plot_confusion(counts, [*found.names, "background"], folder / f"confusion_{word}.png",
                       f"{which}: {plural} at IoU 0.5", plural)
    plot_precision_recall(
        {KINDS[iou_type][1]: curves for iou_type, curves in found.precision.items()}, found.names,
        folder / "precision_recall.png", f"{which}: precision at IoU 0.5")


def _save_pairs(
    dataset: IndexedImages, found: Any, image_ids: Iterable[int], path: Any, title: str,
    notes: Sequence[str] = (),
) -> None:
    """Objects and predictions of images beside each other."""
    pairs = []
    for i, image_id in enumerate(image_ids):
        pixels = dataset.pixels(image_id)
        truth = instance_picture(pixels, found.truth(image_id))
        pairs.append((with_note(truth, notes[i]) if notes else truth,
                      instance_picture(pixels, found.found(image_id))))
    titles = ["ground truth", "prediction"] * min(PAIRS_PER_ROW, max(1, len(pairs)))
    save_image(with_note(draw_grid(side_by_side(pairs, PAIRS_PER_ROW), titles), title), path)


def instance_picture(pixels: np.ndarray, instances: Mapping[str, Any]) -> np.ndarray:
    """The image [h, w, 3] uint8 RGB with its instances drawn, smaller where it is large.

    instances: boxes [n, 4] xyxy px, names [n], rles [n] or None, and, of predictions, scores [n]
    """
    scores = instances.get("scores")
    kept = range(len(instances["names"]))
    if scores is not None:  # masks of those that are not drawn need not be made
        kept = np.argsort(-scores, kind="stable")[:MOST_DRAWN].tolist()
    boxes = instances["boxes"][list(kept)]
    size = pixels.shape[:2]
    masks = np.zeros((len(kept), *size), np.uint8)
    if instances["rles"] is not None and len(kept):
        masks = rle_codec.decode([instances["rles"][i] for i in kept]).transpose(2, 0, 1)
    pixels, boxes, masks = shrunk(pixels, boxes, masks)
    names = [instances["names"][i] for i in kept]
    tile = instances_tile(pixels, boxes, masks, names,
                          None if scores is None else scores[list(kept)])
    if scores is not None and not names:
        return with_note(tile, "nothing sure enough to be drawn")
    more = len(instances["names"]) - len(names)
    return with_note(tile, f"the {len(names)} surest of {len(names) + more}" if more else "")
