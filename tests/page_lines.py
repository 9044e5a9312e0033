"""The command lines in the fenced blocks of README and docs/, and what each would start."""

import importlib
import re
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted(ROOT.glob("docs/*.md"))
SCRIPT = re.compile(r"(?:\S*/)?(train_(?:yolact|seg|resnest|queryinst)|split_coco)\.py")
FIRST = re.compile(r"[A-Z_]+=|\./|sbatch|srun|python|torchrun|docker|find")
STARTERS = ("dist_train.sh", "dist_test.sh", "slurm_train.sh", "slurm_test.sh")
ENDS = {"|", "&&", ";", ">", "&"}


def blocks(text):
    """The fenced blocks of a page, each as its lines."""
    return [block.splitlines() for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)]


def command_lines(page):
    """The commands of a page, with their continued lines joined."""
    joined = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [" ".join(line.split()) for block in blocks(joined) for line in block]
    return [line for line in lines if started(line) is not None]


def started(line):
    """(script, its words) that a command line starts, or None where it starts none of ours."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return None
    begin = next((i for i, word in enumerate(words) if is_start(word)), None)
    if begin is None or not FIRST.match(words[0]):
        return None
    end = next((i for i, word in enumerate(words) if i > begin and word in ENDS), len(words))
    first, rest = words[begin], words[begin + 1:end]
    name = Path(first).name
    if name not in STARTERS:
        return SCRIPT.fullmatch(first)[1], rest
    if rest and SCRIPT.fullmatch(rest[0]):
        return SCRIPT.fullmatch(rest[0])[1], rest[2 if name == "dist_train.sh" else 1:]
    return "train_queryinst", shell_words(name, rest)


def is_start(word):
    return bool(SCRIPT.fullmatch(word)) or Path(word).name in STARTERS


def shell_words(name, words):
    """What MMDetection's shell scripts give to train_queryinst."""
    if name == "dist_train.sh":
        config, gpus, *rest = words
        assert gpus.isdecimal(), words
        return [config, *rest]
    if name == "dist_test.sh":
        config, checkpoint, gpus, *rest = words
        assert gpus.isdecimal(), words
        return [config, checkpoint, *rest]
    _, _, config, other, *rest = words  # partition, name, config, then folder or checkpoint
    return [config, "--work-dir", other, *rest] if name == "slurm_train.sh" else [
        config, other, *rest]


def check(script, words):
    """Read a command as the script would, its config and overrides too; nothing is started.

    Raises InputError where the script would refuse it.
    """
    from runtime import cli
    from runtime.options.usage import parse
    if script == "split_coco":
        sys.path.insert(0, str(ROOT / "tools"))
        parse(importlib.import_module(script).flags, script, words)
        return
    module = importlib.import_module(script)
    if "--version" in words or "--help" in words:
        assert len(words) == 1, words  # what stands beside it is not read
        return
    flags = parse(module.flags, script, words)
    cli.check_predicting(vars(flags))
    options = flags.cfg_options or []
    if script == "train_yolact":
        from settings.yolact_recipes import load_yolact_config
        load_yolact_config(flags.config or "yolact_base", options=options)
    elif script == "train_seg":
        from settings.segmentation import load_seg_config
        load_seg_config(flags.cfg, cli.paired(flags.opts) + options)
    elif script == "train_resnest":
        from settings.resnest import load_resnest_config
        load_resnest_config(flags.config_file, cli.paired(flags.pairs) + options)
    else:
        from settings.queryinst.recipes import load_queryinst_config
        load_queryinst_config(flags.config, options=options)
