"""What the outputs of `--predict` are called, and that none replaces an input."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from runtime.errors import InputError
from runtime.predicting.inputs import Inputs, find_inputs

FOLDER = "predictions"  # in the run folder


class Plan(NamedTuple):
    """inputs: what is looked at; folder: of all outputs; names: of each image's picture in it;
    only_times: nothing is drawn or written, `--benchmark`"""

    inputs: Inputs
    folder: Path
    names: tuple[str, ...]
    only_times: bool

    @property
    def video_path(self) -> Path:
        """Where a video's pictures go."""
        return self.folder / f"{Path(str(self.inputs.video)).stem}.mp4"

    def image_ids(self) -> list[int]:
        """COCO ids of the images: the numbers that they are called by, else 1, 2, 3, ..."""
        stems = [Path(path).stem for path in self.inputs.images]
        if all(stem.isascii() and stem.isdecimal() and len(stem) < 19 for stem in stems):
            numbers = [int(stem) for stem in stems]
            if len(set(numbers)) == len(numbers):
                return numbers
        return list(range(1, len(stems) + 1))


def plan_predictions(
    run: Any, flags: Any, run_folder: str | Path, name_of: Callable[[str], str] | None = None,
    within: Sequence[str] = (), default: str | Path | None = None,
) -> Plan:
    """What to look at and where the outputs go (all ranks).

    run:        the Run
    flags:      predict, predict_to, benchmark
    run_folder: outputs go to its folder `predictions`, unless there is a `default` or --predict-to
    name_of:    the name that a picture gets for an image's path; None: the image's, as .png
    within:     folders in that folder which get further files, and so may hold no input
    Raises InputError when there is no image, and when an output would replace an input.
    """
    folder = Path(flags.predict_to or default or Path(run_folder) / FOLDER)
    inputs: Inputs = run.from_main(lambda: (find_inputs(flags.predict, folder), None))[0]
    if inputs.left and run.is_main:
        run.warn(inputs.left)
    if inputs.video and run.world_size > 1:
        raise InputError(f"--predict {inputs.video}: a video's frames come one after the other; "
                         "start a single process, without torchrun")
    names = picture_names(inputs.images, name_of or as_png)
    plan = Plan(inputs, folder, tuple(names), flags.benchmark)
    if not plan.only_times:
        _require_no_input_replaced(plan, within)
    return plan


def as_png(path: str) -> str:
    """The image's own name, with .png as its suffix."""
    return f"{Path(path).stem}.png"


def picture_names(paths: Sequence[str], name_of: Callable[[str], str] = as_png) -> list[str]:
    """A name for the picture of each image, no two alike, whatever the case of their letters.

    name_of's, and where several would get the same: the whole file name, then the folders
    before it, then a number
    """
    names = [name_of(path) for path in paths]
    common = os.path.commonpath([os.path.abspath(os.path.dirname(path)) for path in paths]) \
        if paths else ""
    for rule in (_whole_name, lambda path: _with_folders(path, common)):
        for i in _alike(names):
            names[i] = rule(paths[i])
    for i in _alike(names):
        names[i] = f"{Path(names[i]).stem}_{i + 1}.png"
    return names


def _whole_name(path: str) -> str:
    return f"{os.path.basename(path)}.png"


def _with_folders(path: str, common: str) -> str:
    return f"{os.path.relpath(os.path.abspath(path), common).replace(os.sep, '_')}.png"


def _alike(names: Sequence[str]) -> list[int]:
    counts = Counter(name.casefold() for name in names)
    return [i for i, name in enumerate(names) if counts[name.casefold()] > 1]


def _require_no_input_replaced(plan: Plan, within: Sequence[str]) -> None:
    own = {os.path.realpath(path) for path in (*plan.inputs.images, plan.inputs.video) if path}
    pairs = list(zip(plan.inputs.images, plan.names, strict=True))
    if plan.inputs.video:
        pairs = [(plan.inputs.video, plan.video_path.name)]
    remedy = "name another folder, for example --predict-to predictions"
    for source, name in pairs:
        target = plan.folder / name
        if os.path.realpath(target) in own:
            raise InputError(f"{plan.folder}: the picture of {source} would replace the image "
                             f"{target}: {remedy}")
    for folder in (os.path.realpath(plan.folder / sub) for sub in within):
        inside = next((path for path in own if path.startswith(os.path.join(folder, ""))), None)
        if inside:
            raise InputError(f"{folder}: outputs go there, and {inside} is looked at: {remedy}")
