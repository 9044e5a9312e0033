"""The table of other tools' words: what an answer names must exist in that script."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from script_flags import SCHEMAS, dotted_keys, flag_names

from runtime.errors import InputError
from runtime.options.usage import parse
from runtime.other_tools import SCRIPTS, TABLE, answer_for, key_for

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = {"--nnodes", "--nproc_per_node"}  # torchrun's
# answers that need not name a flag: there is none
STATEMENT = ":"


def answers(script):
    i = SCRIPTS.index(script)
    return [row.answers[i] for row in TABLE if row.answers[i]]


@pytest.mark.parametrize("script", SCRIPTS)
def test_answers_name_flags_that_exist(script):
    flags = {flag.replace("_", "-") for flag in flag_names(script)}
    for answer in answers(script):
        if "train_seg --predict" in answer and script != "train_seg":
            answer = answer.replace("train_seg --predict", "")
            assert "--predict" in flag_names("train_seg")
        named = set(re.findall(r"--[a-zA-Z][\w-]*", answer)) - LAUNCHER
        missing = {flag for flag in named if flag.replace("_", "-") not in flags}
        assert not missing, answer


@pytest.mark.parametrize("script", SCRIPTS)
def test_answers_name_config_keys_that_exist(script):
    keys = set(dotted_keys(SCHEMAS[script]))
    count = 0
    for answer in answers(script):
        for key in named_keys(answer):
            count += 1
            assert re.sub(r"\.\d+", "", key) in keys, answer
    assert count > 12


def named_keys(answer):
    """KEY=... behind --cfg-options, and KEY VALUE pairs, which have capitals."""
    found = re.findall(r"([a-z][\w.]*)=", answer)
    found += [key for key in re.findall(r"\b[A-Z]{2,}\.\w+", answer) if key[:5] != "FILE."]
    found += [key for key in re.findall(r"\b[a-z_]+(?:\.\w+)+", answer)
              if not key.endswith((".py", ".jsonl", ".sh")) and key not in found]
    return found


@pytest.mark.parametrize("script", SCRIPTS)
def test_answers_name_something_or_are_statements(script):
    for answer in answers(script):
        assert answer.startswith(STATEMENT) or named_keys(answer) or "--" in answer \
            or answer.startswith("DIR FOLDER") or answer.startswith("the first word"), answer


def test_each_word_stands_once_and_four_answers_in_each_row():
    words = [word for row in TABLE for word in row.words]
    assert {word for word in words if words.count(word) > 1} == set()
    assert all(len(row.answers) == len(SCRIPTS) for row in TABLE)
    assert all(any(row.answers) for row in TABLE)


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_row_is_dead(script):
    """A word that has become a flag of every script must leave the table."""
    everywhere = set.intersection(*({flag[2:].replace("_", "-") for flag in flag_names(s)}
                                    for s in SCRIPTS))
    for row in TABLE:
        assert not everywhere.issuperset(row.words), row.words


COMMON_WORDS = """
    epochs imgsz img-size data batch batch-size lr0 weights name project patience
    save-period gpu gpus output-dir outdir work-dir num-workers wd opt model arch
    num-classes evaluate test eval auto-resume checkpoint dataset config cfg seed
    num-gpus config-file resume-from gpu-ids print-freq img-scale lr weight-decay
    momentum val-interval fp16 model-ema accum-iter clip-grad-norm local-rank
"""


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("word", COMMON_WORDS.split())
def test_common_words_are_answered(script, word):
    if f"--{word}" in {flag.replace("_", "-") for flag in flag_names(script)}:
        return  # it is one of the script's own
    for flag in (f"--{word}", f"--{word.replace('-', '_')}", f"--{word.upper()}"):
        fault = fault_of(script, flag)
        assert fault.startswith(f"no such option {flag}"), fault
        assert "in this script it is" in fault or f"{flag}: " in fault or "Did you mean" in fault
        assert len(fault) < 330


def fault_of(script, *words):
    module = __import__(script)
    with pytest.raises(InputError) as caught:
        parse(module.flags, script, list(words))
    assert len(caught.value.faults) == 1
    return caught.value.faults[0]


@pytest.mark.parametrize("script, flag, answer", [
    ("train_seg", "--wd", "; in this script it is TRAIN.weight_decay X (behind the flags)"),
    ("train_resnest", "--nepochs",
     "; in this script it is --epochs N, or TRAINING.EPOCHS N"),
    ("train_queryinst", "--nepochs",
     "; in this script it is --epochs N, or --cfg-options train_cfg.max_epochs=N"),
    ("train_yolact", "-j", "; in this script it is --num_workers N"),
    ("train_seg", "-c", "; in this script it is --cfg FILE"),
    ("train_yolact", "--display", ": no script opens windows; a validation draws some "
     "predictions into the run folder"),
    ("train_seg", "--top_k", ": a label map has one class for each pixel"),
    ("train_queryinst", "--show-dir", ": no script opens windows; a validation draws some "
     "predictions into the run folder"),
    ("train_queryinst", "--cfg-option", ". Did you mean --cfg-options?"),
    ("train_yolact", "--frobnicate", ". --help lists them."),
])
def test_messages(script, flag, answer):
    fault = fault_of(script, flag, "3")
    if flag == "--cfg-option":
        assert "--cfg-options" in fault
    else:
        assert fault == f"no such option {flag}{answer}"


def test_keys_of_other_tools_find_ours():
    keys = {script: dotted_keys(schema) for script, schema in SCHEMAS.items()}
    assert key_for("epochs", keys["train_seg"]) == "TRAIN.num_epoch"
    assert key_for("epochs", keys["train_queryinst"]) == "train_cfg.max_epochs"
    assert key_for("lr0", keys["train_resnest"]) == "OPTIMIZER.LR"
    assert key_for("imgsz", keys["train_yolact"]) == "max_size"
    assert key_for("frobnicate", keys["train_yolact"]) is None
    assert answer_for("another_script", "--epochs") is None


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_script_itself_says_it_in_one_line(script):
    done = subprocess.run([sys.executable, f"{script}.py", "--lr0", "3"], cwd=ROOT,
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{script}: no such option --lr0; in this script it is ")
    assert done.stderr.count("\n") == 1
