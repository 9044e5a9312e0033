"""CSAIL's eval.py, eval_multipro.py, test.py and train.py [segmentation.md: Command line].

Their flags and KEY VALUE pairs are ours as well, so that the program's name is all that tells them.
"""

from runtime.other_tools.tool import SAME, Part, Tool, ours

_WORDS = {"--cfg": SAME, "--gpu": SAME, "--gpus": SAME, "--imgs": SAME}


def _evaluates(parts: list[Part]) -> list[Part]:
    return [ours("--eval-only"), *parts]


EVAL = Tool("train_seg", ("eval.py", "eval_multipro.py"), _WORDS, adapt=_evaluates)
OTHERS = Tool("train_seg", ("train.py", "test.py"), _WORDS)
TOOLS = (EVAL, OTHERS)
