"""Which files lie there after each save of a run, in each family.

The sets were taken from the four rules that stood here before there was one series.
"""

from pathlib import Path

import pytest
import torch

from common.checkpoint.series import (
    CheckpointSeries,
    Occasion,
    resnest_series,
    seg_series,
    yolact_series,
)
from models.queryinst.series import queryinst_series, read_last_checkpoint
from settings.queryinst.hooks import CheckpointHookConfig

PER_EPOCH = 4
# A line is a save after so many updates: "!" of a stopped run, "." the last one; ">" goes on in a
# new process. Then the checkpoints that lie there; c_ stands for ResNeSt's checkpoint_.
RUNS = [
    ("yolact", {"save_every": 3}, """
        2    : n_0_2
        3!   : n_0_2 n_0_3_interrupt
        >
        3    : n_0_2 n_0_3
        4    : n_0_2 n_0_3 n_0_4
        6    : n_0_2 n_0_3 n_0_4 n_1_6
        8    : n_0_2 n_0_3 n_0_4 n_1_6 n_1_8
        9!   : n_0_2 n_0_3 n_0_4 n_1_6 n_1_8 n_2_9_interrupt
        >
        10   : n_0_2 n_0_3 n_0_4 n_1_6 n_1_8 n_2_10
        12   : n_0_2 n_0_3 n_0_4 n_1_6 n_1_8 n_2_10 n_2_12
        11!  : n_0_2 n_0_3 n_0_4 n_1_6 n_1_8 n_2_10 n_2_11_interrupt n_2_12
        13.  : n_0_2 n_0_3 n_0_4 n_1_6 n_1_8 n_2_10 n_2_12 n_3_13
    """),
    ("yolact", {"keep_latest": True, "keep_latest_interval": 6}, """
        2    : n_0_2
        3!   : n_0_2 n_0_3_interrupt
        >
        3    : n_0_2 n_0_3
        4    : n_0_2 n_0_4
        6    : n_0_2 n_1_6
        8    : n_0_2 n_1_6 n_1_8
        9!   : n_0_2 n_1_6 n_1_8 n_2_9_interrupt
        >
        10   : n_0_2 n_1_6 n_2_10
        12   : n_0_2 n_1_6 n_2_12
        11!  : n_0_2 n_1_6 n_2_11_interrupt n_2_12
        13.  : n_0_2 n_1_6 n_2_12 n_3_13
    """),
    ("seg", {"save_every": 1}, """
        1    : iter_1
        2    : iter_1 iter_2
        3!   : iter_2 iter_3
        >
        3    : iter_2 iter_3
        4!   : iter_3 iter_4
        >
        4    : epoch_1
        5    : epoch_1 iter_5
        6    : epoch_1 iter_5 iter_6
        7!   : epoch_1 iter_6 iter_7
        >
        8    : epoch_1 epoch_2
        9    : epoch_1 epoch_2 iter_9
        10   : epoch_1 epoch_2 iter_9 iter_10
        11.  : epoch_1 epoch_2 iter_11
    """),
    ("resnest", {}, """
        4    : c_0
        6!   : c_0 c_iter_6
        >
        8    : c_0 c_1
        8!   : c_0 c_1 c_iter_8
        >
        8    : c_0 c_1
        9    : c_0 c_1 c_iter_9
        12   : c_0 c_1 c_2
        16   : c_0 c_1 c_2 c_3
        20   : c_0 c_2 c_3 c_4
        21!  : c_0 c_2 c_3 c_4 c_iter_21
        >
        24   : c_0 c_3 c_4 c_5
        48   : c_0 c_4 c_5 c_11
        26.  : c_0 c_4 c_5 c_11 c_iter_26
    """),
    ("resnest", {"save_every": 3}, """
        4    : c_0
        6!   : c_0 c_iter_6
        >
        8    : c_0 c_1 c_iter_6
        8!   : c_0 c_1 c_iter_6 c_iter_8
        >
        8    : c_0 c_1 c_iter_6
        9    : c_0 c_1 c_iter_6 c_iter_9
        12   : c_0 c_1 c_2 c_iter_6 c_iter_9
        16   : c_0 c_1 c_2 c_3 c_iter_6 c_iter_9
        20   : c_0 c_2 c_3 c_4 c_iter_6 c_iter_9
        21!  : c_0 c_2 c_3 c_4 c_iter_6 c_iter_9 c_iter_21
        >
        24   : c_0 c_3 c_4 c_5 c_iter_6 c_iter_9 c_iter_21
        48   : c_0 c_iter_6 c_4 c_5 c_iter_9 c_11 c_iter_21
        26.  : c_0 c_iter_6 c_4 c_5 c_iter_9 c_11 c_iter_21 c_iter_26
    """),
    ("queryinst", {"interval": 1, "by_epoch": True, "keep": -1}, """
        3    : iter_3
        4    : epoch_1
        6!   : epoch_1 iter_6
        >
        8    : epoch_1 epoch_2
        9    : epoch_1 epoch_2 iter_9
        12   : epoch_1 epoch_2 epoch_3
        13!  : epoch_1 epoch_2 epoch_3 iter_13
        >
        14!  : epoch_1 epoch_2 epoch_3 iter_14
        >
        15   : epoch_1 epoch_2 epoch_3 iter_15
        16   : epoch_1 epoch_2 epoch_3 epoch_4
        18   : epoch_1 epoch_2 epoch_3 epoch_4 iter_18
        20   : epoch_1 epoch_2 epoch_3 epoch_4 epoch_5
        22.  : epoch_1 epoch_2 epoch_3 epoch_4 epoch_5 iter_22
    """),
    ("queryinst", {"interval": 1, "by_epoch": True, "keep": 2}, """
        3    : iter_3
        4    : epoch_1
        6!   : epoch_1 iter_6
        >
        8    : epoch_1 epoch_2
        9    : epoch_1 epoch_2 iter_9
        12   : epoch_2 epoch_3
        13!  : epoch_2 epoch_3 iter_13
        >
        14!  : epoch_2 epoch_3 iter_14
        >
        15   : epoch_2 epoch_3 iter_15
        16   : epoch_3 epoch_4
        18   : epoch_3 epoch_4 iter_18
        20   : epoch_4 epoch_5
        22.  : epoch_5 iter_22
    """),
    ("queryinst", {"interval": 3, "by_epoch": False, "keep": 1, "save_every": 5}, """
        3    : iter_3
        4    : iter_3 iter_4
        6!   : iter_6
        >
        8    : iter_6 iter_8
        9    : iter_9
        12   : iter_12
        13!  : iter_12 iter_13
        >
        14!  : iter_12 iter_14
        >
        15   : iter_15
        16   : iter_15 iter_16
        18   : iter_18
        20   : iter_20
        22.  : iter_22
    """),
]
WEIGHTS = {"w": torch.ones(1)}
OCCASIONS = {"!": Occasion.STOP, ".": Occasion.LAST}


def series_of(family: str, folder: Path, options: dict) -> CheckpointSeries:
    """As the family's script makes it; `per_epoch` is PER_EPOCH, YOLACT's save_interval is 2."""
    if family == "yolact":
        return yolact_series(folder, "n", 2, **options, per_epoch=PER_EPOCH)
    if family == "seg":
        return seg_series(folder, PER_EPOCH, **options)
    if family == "resnest":
        return resnest_series(folder, PER_EPOCH, **options)
    hook = CheckpointHookConfig(out_dir=None, save_best=None, rule=None,
                                **{key: options[key] for key in ("interval", "by_epoch")},
                                max_keep_ckpts=options["keep"])
    return queryinst_series(hook, folder, PER_EPOCH, [], options.get("save_every"))[0]


def save(family: str, series: CheckpointSeries, iteration: int, occasion: Occasion) -> Path:
    """As the family's script does it."""
    state, more = {"iteration": iteration}, {}
    if family == "seg":
        weights, more = {"encoder": WEIGHTS, "decoder": WEIGHTS}, {"history": {"loss": [1.0]}}
    elif family == "yolact":
        weights = WEIGHTS
    else:
        record = series.record_after(iteration, occasion)
        content = {"training": state | {"series": record}} if family == "queryinst" else state
        weights, state = content | {"state_dict": WEIGHTS}, None
    return series.save(iteration, weights, state, occasion, **more)


def files_of(family: str, stems: list[str]) -> set[str]:
    """All the files of these checkpoints, and of the run."""
    files = {"last_checkpoint"} if family == "queryinst" else set()
    for stem in stems:
        names = [stem.replace("c_", "checkpoint_", 1)]
        if family == "yolact":
            names.append(f"{stem}.state")
        elif family == "seg":
            names = [f"encoder_{stem}", f"decoder_{stem}", f"encoder_{stem}.state"]
            names += [f"history_{stem}"] if stem.startswith("epoch") else []
        files.update(f"{name}.pth" for name in names)
    return files


@pytest.mark.parametrize("family, options, run", RUNS)
def test_what_lies_there_after_each_save(tmp_path, family, options, run):
    series, path = series_of(family, tmp_path, options), None
    for line in run.strip().splitlines():
        words = line.replace(":", " ").split()
        if words == [">"]:
            series = series_of(family, tmp_path, options)
            found = series.find_start(str(path), pytest.fail)
            series.restore(found.weights.get("training", {}).get("series", {}))
            continue
        occasion = OCCASIONS.get(words[0][-1], Occasion.REGULAR)
        iteration = int(words[0].rstrip("!."))
        path = save(family, series, iteration, occasion)
        assert {each.name for each in tmp_path.iterdir()} == files_of(family, words[1:]), words[0]
        assert path == series.path(iteration, occasion)
        if family == "queryinst":
            assert read_last_checkpoint(tmp_path) == path
        loaded = series.find_start(str(path), pytest.fail)
        assert loaded.path == path
        assert series.iteration_of(loaded) == iteration
