"""Nearest names: nearly every slip finds its name, and what merely looks alike finds none.

All flags and config keys of the four scripts are misspelt in all ways that one slip can do; the
default run takes each 40th of these words, the long one all of them.
"""

import string

import pytest
from script_flags import SCHEMAS, flag_groups, flag_names, sections

from runtime.errors import InputError
from runtime.spelling import count_slips, nearest
from settings.loading import load_config

EACH = [40, pytest.param(1, marks=pytest.mark.slow)]
WANTED = 0.95  # of the misspellings find their name


def slips(word):
    """Every word that is one dropped, doubled, swapped or replaced letter away."""
    found = set()
    for i, letter in enumerate(word):
        found.add(word[:i] + word[i + 1:])
        found.add(word[:i] + letter + word[i:])
        if i + 1 < len(word):
            found.add(word[:i] + word[i + 1] + letter + word[i + 2:])
        found |= {word[:i] + other + word[i + 1:] for other in string.ascii_lowercase}
    return found - {word, ""}


def spellings(word):
    """Changes that are no slip of a letter: separators and case."""
    return {word.replace("_", "-"), word.replace("-", "_"), word.upper(), word.title(),
            word.replace("_", "").replace("-", "")} - {word}


def share_found(words_and_names):
    """(share of right answers, some of the wrong ones)."""
    wrong = [(word, name, found) for word, name, found in words_and_names if found != name]
    return 1 - len(wrong) / len(words_and_names), wrong[:20]


@pytest.mark.parametrize("each", EACH)
@pytest.mark.parametrize("script", SCHEMAS)
def test_misspelt_flags_find_theirs(script, each):
    groups = flag_groups(script)
    names = [name for group in groups for name in group]
    plain = {name.replace("_", "-") for name in names}
    option_of = {name: group for group in groups for name in group}
    tried = []
    for name in names:
        words = {f"--{slip}" for slip in slips(name[2:])} | {f"--{s}" for s in spellings(name[2:])}
        words |= {name[1:], name[2:]}  # missing dashes
        words = sorted(word for word in words if word.replace("_", "-") not in plain)
        for word in words[::each]:
            near = nearest(word, names)
            tried.append((word, option_of[name], option_of.get(near)))
    share, wrong = share_found(tried)
    assert len(tried) > 5000 / each
    assert share >= WANTED, wrong


@pytest.mark.parametrize("each", EACH)
@pytest.mark.parametrize("script", SCHEMAS)
def test_misspelt_config_keys_find_theirs(script, each):
    tried = []
    for keys in sections(SCHEMAS[script]).values():
        for key in keys:
            for word in sorted((slips(key) | spellings(key)) - set(keys))[::each]:
                tried.append((word, key, nearest(word, keys)))
    share, wrong = share_found(tried)
    assert len(tried) > 5000 / each
    assert share >= WANTED, wrong


@pytest.mark.parametrize("script", SCHEMAS)
def test_messages_about_config_keys_name_the_whole_key(script):
    """The same through `load_config`, with a slip of each kind at each key."""
    tried = []
    for section, keys in sections(SCHEMAS[script]).items():
        if any(part in section for part in ("param_scheduler", "pipeline")):  # lists
            continue
        for key in keys:
            for word in _few_slips(key):
                if word in keys:
                    continue
                dotted = f"{section}.{word}" if section else word
                with pytest.raises(InputError) as caught:
                    load_config(SCHEMAS[script], None, {dotted: 1})
                wanted = f"Did you mean {section + '.' if section else ''}{key}?"
                tried.append((word, wanted, caught.value.faults[0].rpartition(". ")[2]))
    share, wrong = share_found(tried)
    assert len(tried) > 100
    assert share >= WANTED, wrong


def _few_slips(key):
    middle = len(key) // 2
    return {key[:middle] + key[middle + 1:], key[0] + key,
            key[:middle - 1] + key[middle] + key[middle - 1] + key[middle + 1:],
            key[:-1] + "q", key.swapcase()} - {key, ""}


FAR_WORDS = """
    epochs iterations imgsz img-size patience name project version fraction resize rect
    hyp evolve bucket multi-scale adam entity freeze quiet verbose profile split fold
    validate-frequency single-cls cos-lr optimizer backbone classes annotations
    mean std crop flip aug train metric warmup augmentation distributed opt wd top-k
    display x foo zzz help-me learning teacher student token prompt
"""


@pytest.mark.parametrize("script", SCHEMAS)
def test_far_words_have_no_neighbour(script):
    names = flag_names(script)
    real = {name.strip("-").replace("_", "-") for name in names}
    got = {word: nearest(f"--{word}", names) for word in FAR_WORDS.split() if word not in real}
    # one slip, or the beginning of a flag, is near by any measure
    allowed = {("train_seg", "imgsz"), ("train_yolact", "learning"), (script, "img-size")}
    assert [item for item in got.items() if item[1] and (script, item[0]) not in allowed] == []


@pytest.mark.parametrize("word, options, near", [
    ("--epochs", ["--export", "--ema"], None),
    ("--resize", ["--resume"], None),
    ("lr_decodr", ["lr_encoder", "lr_decoder"], "lr_decoder"),
    ("fb16", ["fp16", "bf16"], "bf16"),  # the same letters win
    ("train", ["TRAIN", "DATA"], "TRAIN"),
    ("--conf", ["--config", "--cuda"], "--config"),  # a beginning, as argparse took it
    ("--save", ["--save_folder", "--save_interval"], None),  # of two
    ("yolact_bse", ["yolact_base", "yolact_im400"], "yolact_base"),
    ("restnet50", ["resnet50", "resnest50", "resnet101"], "resnet50"),
    ("xyz", ["abc"], None),
    ("", ["abc"], None),
    ("-", ["--a"], None),
    ("a" * 10**6, ["a" * 5], None),
])
def test_nearest(word, options, near):
    assert nearest(word, options) == near


def test_slips_are_counted():
    assert count_slips("ab", "ba", 2) == 1
    assert count_slips("abcd", "acbd", 2) == 1
    assert count_slips("abc", "abc", 0) == 0
    assert count_slips("kitten", "sitting", 3) == 3
    assert count_slips("kitten", "sitting", 2) is None
