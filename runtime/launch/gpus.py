"""Which GPUs a process drives: the segmentation original's --gpus beside our --device."""

import os
import re

import torch

from runtime.errors import InputError
from runtime.launch.ranks import read_launch


def parse_devices(text: str) -> list[int]:
    """GPU numbers of a list such as "0-3", "gpu1,gpu4-gpu6": in order, without duplicates.

    A reversed range is put in ascending order; "" and "cpu" give []. Raises InputError naming the
    piece that is none of `N`, `gpuN`, `A-B`, `gpuA-B`, `gpuA-gpuB` [segmentation.md: Command line].
    """
    text = text.strip().lower()
    if text in ("", "cpu"):
        return []
    numbers: list[int] = []
    for piece in text.split(","):
        match = re.fullmatch(r"(?:gpu)?(\d+)|(\d+)-(\d+)|gpu(\d+)-(?:gpu)?(\d+)", piece.strip())
        if match is None:
            raise InputError(f'Can not recognize device: "{piece.strip()}"')
        ends = [int(group) for group in match.groups() if group is not None]
        numbers.extend(range(min(ends), max(ends) + 1))
    return list(dict.fromkeys(numbers))


def pick_gpus(text: str, default: str, device: str | None) -> tuple[str | None, list[int]]:
    """(device for `start_run`, GPUs that this process drives) from `--gpus` and `--device`.

    text:    see `parse_devices`; `device`, if given, goes before it
    default: a text of which only the GPUs that are there are taken
    Several processes have a GPU each, whatever the text names: (None, []).
    Raises InputError for GPUs that are not there.
    """
    wanted = parse_devices(text)
    if device or not wanted:
        name, _, number = (device or "cpu").partition(":")
        return device or "cpu", [int(number or 0)] if name == "cuda" else []
    if read_launch(os.environ).world_size > 1:
        return None, []
    count = torch.cuda.device_count()
    there = [i for i in wanted if i < count]
    if there != wanted and text != default:
        raise InputError(
            f"--gpus {text}: torch {torch.__version__} sees {count} GPUs; name some of them, or cpu"
        )
    return (f"cuda:{there[0]}", there) if there else ("cpu", [])
