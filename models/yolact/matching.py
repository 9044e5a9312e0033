"""Which prior learns which object, found where a batch is loaded, so that no update waits for it.

It hangs on the targets and the priors alone, not on what the network says of the images.
"""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from common.losses.multibox_match import LossSettings, find_positives, match, split_crowds, starts
from models.yolact.network import Yolact, priors_of

Matching = Callable[[Sequence[Tensor], Sequence[int]], list[dict[str, Tensor]]]


def matching(net: Yolact) -> Matching | None:
    """match(targets, num_crowds) for the batches that train `net`: see `match_images`.

    None where thresholds of the matching change in mid-run, of which a batch cannot know.
    """
    changes = {key for _, changed in net.cfg.delayed_settings for key in changed}
    if any(key.endswith("_iou_threshold") for key in changes):
        return None
    return partial(match_images, priors=priors_of(net), cfg=net.cfg)


def match_images(
    targets: Sequence[Tensor], num_crowds: Sequence[int], *, priors: Tensor, cfg: LossSettings
) -> list[dict[str, Tensor]]:
    """What MultiBoxLoss takes as `matched`, a dict for each image.

    targets, num_crowds: as MultiBoxLoss; priors: [P, 4] cx cy w h relative
    classes [P] int16: label + 1, 0 background, -1 neither; priors and objects [T] int32: the
    positives, by object, counted in the image.
    """
    objects, crowds = split_crowds(targets, [t[:, 4] for t in targets], num_crowds)
    classes, prior_object = match(objects, crowds, priors, cfg)
    counts = (classes > 0).sum(1).tolist()
    found = find_positives(classes, prior_object, counts)
    rows = zip(classes, found.priors.split(counts), found.object.split(counts),
               starts(objects.counts), strict=True)
    return [{"classes": own.short(), "priors": (flat - i * len(priors)).int(),
             "objects": (of - first).int()} for i, (own, flat, of, first) in enumerate(rows)]
