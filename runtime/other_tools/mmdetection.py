"""MMDetection's tools/test.py and tools/train.py [queryinst.md: Trainer flags].

tools/test.py takes two words without a flag, config and checkpoint, which tells it without its
name.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from runtime.other_tools.tool import (
    MANY,
    SAME,
    Part,
    Tool,
    Word,
    becomes,
    nothing,
    ours,
    refused,
    without,
)

WEIGHTS = (".pth", ".pt", ".safetensors")
_NO_WINDOWS = "no script opens windows; an evaluation draws predictions.png into the work directory"
_NO_PICKLE = "no pickle is written; predictions go to COCO's JSON files"
_GATHERED = "what processes found is always gathered over the network"


@dataclass(frozen=True)
class _Test(Tool):
    def is_told_by(self, parts: Sequence[Part]) -> bool:
        """Config and checkpoint are its two words without a flag."""
        bare = [part.values[0] for part in parts if not part.flag]
        return len(bare) == 2 and bare[1].endswith(WEIGHTS)


def _adapt(parts: list[Part]) -> list[Part]:
    """Config and checkpoint; --eval's metrics; --out's file, which is a pickle there."""
    bare = [part for part in parts if not part.flag]
    keys = [f"test_evaluator.metric=[{','.join(part.values)}]"
            for part in parts if part.name == "--eval"]
    rest: list[Part] = []
    for part in without(parts, "--eval"):
        if part.name == "--out":
            name = PurePath(" ".join(part.values))
            keys.append(f"test_evaluator.outfile_prefix={name.with_suffix('')}")
            rest += [] if name.suffix == ".json" else [replace(part, refused=_NO_PICKLE)]
        elif part.flag:
            rest.append(part)
    chosen = [ours("--cfg-options", *keys)] if keys else []
    if len(bare) < 2:
        return [*bare, ours("--eval-only"), *rest, *chosen]
    return [bare[0], ours("--eval-only", "--resume", *bare[1].values), *bare[2:], *rest, *chosen]


TEST = _Test(
    "train_queryinst", ("tools/test.py",),
    {
        "--work-dir": SAME, "--launcher": SAME, "--local-rank": SAME,
        "--cfg-options": Word(MANY), "--eval": Word(MANY),
        "--out": SAME,
        "--format-only": becomes("--cfg-options test_evaluator.format_only=True "
                                 "test_evaluator.outfile_prefix=results", 0),
        "--show": refused(_NO_WINDOWS), "--wait-time": nothing(_NO_WINDOWS, 1),
        "--show-dir": refused("the pictures of an evaluation are predictions.png in the work "
                              "directory; --predict FOLDER --predict-to DIR draws each image", 1),
        "--show-score-thr": nothing("predictions.png shows scores from 0.3", 1),
        "--tta": refused("each image is evaluated once"),
        "--fuse-conv-bn": nothing("it would change the speed alone"),
        "--gpu-collect": nothing(_GATHERED), "--tmpdir": nothing(_GATHERED, 1),
        "--gpu-id": becomes("--device cuda:{}"), "--gpu-ids": becomes("--device cuda:{}"),
    },
    (frozenset(),),
    _adapt,
)
TRAIN = Tool("train_queryinst", ("tools/train.py",), {})
TOOLS = (TEST, TRAIN)
