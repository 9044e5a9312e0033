"""A thousand broken configs and command lines: each is accepted, or told in lines that help.

The default run takes a sample; `-m slow` all of them, in a process of its own whose memory counts.
"""

import copy
import importlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st
from isolated import run_isolated
from mutations import ODD, example_settings, mutated_documents, mutated_text
from script_flags import SCHEMAS, dotted_keys, flag_names

from models import queryinst, resnest, yolact
from models.queryinst import load_queryinst_config
from models.yolact import load_yolact_config
from runtime.errors import InputError
from runtime.options.usage import parse
from runtime.other_tools import TABLE
from settings.loading import load_config, save_config, to_dict, to_yaml
from settings.resnest import load_resnest_config
from settings.segmentation import load_seg_config

ROOT = Path(__file__).resolve().parents[2]
LOADERS = {
    "train_yolact": load_yolact_config,
    "train_seg": load_seg_config,
    "train_resnest": load_resnest_config,
    "train_queryinst": load_queryinst_config,
}
RECIPES = {
    "train_yolact": "yolact_shapes",
    "train_seg": "shapes",
    "train_resnest": "shapes",
    "train_queryinst": "queryinst_shapes",
}
SLOWEST_S = 20  # one input; a nest of aliases takes a second or two
MOST_MB = 500
FULL = 1000  # of the four scripts together
QUICK = 80


def assert_told(faults, *names):
    """Each fault is one printable line that names where it is: a file, a key or a flag."""
    assert faults
    assert len(faults) <= 101
    for fault in faults:
        assert fault.isprintable(), fault
        assert fault.strip()
        assert len(fault) < 2100
        assert "Traceback" not in fault
        assert "object at 0x" not in fault
    named = [fault for fault in faults if any(name in fault for name in names)]
    assert named or not names, faults


# --- config files


@st.composite
def config_files(draw, document):
    """{file name: bytes}: a broken config.yaml, sometimes with a base that it is over."""
    changed = draw(mutated_documents(document))
    try:
        text = yaml.safe_dump(changed, sort_keys=False, allow_unicode=True)
    except (yaml.YAMLError, RecursionError, UnicodeError, ValueError):
        text = str(changed)
    extra = draw(st.sampled_from(["", "", "", "", "base", "loop", "self", "bomb", "merge", "deep",
                                  "twice", "tag", "merge_odd", "keys", "many_bases", "wide"]))
    files = {}
    if extra == "base":
        files["base.yaml"] = draw(mutated_text(yaml.safe_dump(document)))
        text = f"_base_: [base.yaml, missing.yaml]\n{text}"
    elif extra == "loop":
        files["base.yaml"] = b"_base_: config.yaml\n"
        text = f"_base_: base.yaml\n{text}"
    elif extra == "self":
        named = draw(st.sampled_from(["config.yaml", ".", "", "[]", "{}", "[[]]"]))
        text = f"_base_: {named}\n{text}"
    elif extra == "many_bases":  # each names the next three times
        for i in range(40):
            files[f"b{i}.yaml"] = (f"_base_: [{', '.join([f'b{i + 1}.yaml'] * 3)}]\n"
                                   if i < 39 else "{}\n").encode()
        text = f"_base_: b0.yaml\n{text}"
    elif extra == "bomb":
        levels = [f"z{i}: &z{i} [{', '.join([f'*z{i - 1}'] * 10)}]" for i in range(1, 12)]
        text = "\n".join(["z0: &z0 [x, x]", *levels, text])
    elif extra == "merge":
        text = f"_m: &m {{a: 1, b: {{c: 2}}}}\n<<: *m\n{text}"
    elif extra == "merge_odd":
        text = f"<<: {draw(st.sampled_from(['5', '[5]', '[]', 'x', '{}', '[[{}]]']))}\n{text}"
    elif extra == "deep":
        text += "\nz: " + "[" * draw(st.sampled_from((40, 60, 900, 30_000)))
    elif extra == "twice":
        text += "\n" + text
    elif extra == "tag":
        tag = draw(st.sampled_from(["!!python/object/apply:os.system", "!!set", "!!binary", "!x"]))
        text += f"\nz: {tag} [a]\n"
    elif extra == "keys":
        text += "\n? [a, b]\n: 1\n? {a: b}\n: 2\n1: 2\nnull: 3\n2.5: x\n"
    elif extra == "wide":
        text += "\n" + "\n".join(f"key{i}: {i}" for i in range(2000))
    files["config.yaml"] = draw(mutated_text(text))
    return files


def build(script, config):
    """The config's network, without memory for its weights: what was accepted must fit together."""
    with torch.device("meta"):
        if script == "train_yolact" and config.backbone is not None:
            yolact.build_yolact(config)
        elif script == "train_queryinst":
            queryinst.build_queryinst(config)
        elif script == "train_resnest":
            resnest.build_network(config, 10)


def _is_small(value):
    """Whether no number is so large that building would take minutes."""
    if isinstance(value, dict):
        return all(_is_small(item) for key, item in value.items() if key != "lr_steps")
    if isinstance(value, list):
        return all(map(_is_small, value))
    return not isinstance(value, (int, float)) or value < 5000


def check_configs(script, count, last_input, builds=False):
    """Try `count` broken files on the script's loader; what is accepted is built, too, if asked."""
    document = to_dict(LOADERS[script](RECIPES[script]))
    keys = [key.rpartition(".")[2] for key in dotted_keys(SCHEMAS[script])]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")

        @example_settings(count)
        @given(config_files(document))
        def check(files):
            for old in Path(folder).iterdir():
                old.unlink()
            for name, content in files.items():
                Path(folder, name).write_bytes(content)
            if last_input:
                Path(last_input).write_bytes(files["config.yaml"])
            started = time.process_time()
            try:
                config = LOADERS[script](path)
            except InputError as error:
                assert_told(error.faults, folder, *keys)
            else:
                assert load_config(SCHEMAS[script], None, to_dict(config)) == config
                assert to_yaml(config)
                if builds and _is_small(to_dict(config)):
                    build(script, config)
            assert time.process_time() - started < SLOWEST_S

        check()


@pytest.mark.fault
@pytest.mark.parametrize("script", SCHEMAS)
def test_broken_configs(script):
    check_configs(script, QUICK // 4, None)


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("script", SCHEMAS)
def test_a_thousand_broken_configs(script, tmp_path):
    last = tmp_path / "last.yaml"
    grown_mb = run_isolated(check_configs, script, FULL // 4, last, True, last_input=last)
    assert grown_mb < MOST_MB


@pytest.mark.fault
@pytest.mark.parametrize("text, words", [
    ("z0: &z0 [x]\n" + "".join(f"z{i}: &z{i} [{', '.join([f'*z{i - 1}'] * 20)}]\n"
                               for i in range(1, 30)), "too large"),
    ("a: &a {b: *a}\n", ""),
    ("_base_: config.yaml\n", "based on this file itself"),
    ("<<: 5\n", "<< wants a mapping, got 5"),
    ("- a\n", "a config is a mapping of keys"),
    ("TRAIN: [1]\nTRAIN: 2\n", "stands twice"),
    ("\tTRAIN: 1\n", "not valid YAML"),
    ("TRAIN: " + "[" * 100_000, "nested too deep"),
    ("DIR: " + "x" * 1_100_000, "too large to be a config"),
    ("? [a, b]\n: 1\n", "a key must be one word"),
])
def test_hostile_yaml(tmp_path, text, words):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    with pytest.raises(InputError) as caught:
        load_seg_config(path)
    assert time.process_time() - started < SLOWEST_S
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MB * 1024
    assert_told(caught.value.faults, str(path))
    assert words in caught.value.faults[0]


@pytest.mark.fault
def test_bases_that_multiply_are_read_once(tmp_path):
    for i in range(19):
        (tmp_path / f"b{i}.yaml").write_text(f"_base_: [{', '.join([f'b{i + 1}.yaml'] * 4)}]\n")
    (tmp_path / "b19.yaml").write_text("DIR: deep\n")
    assert load_seg_config(tmp_path / "b0.yaml").DIR == "deep"  # 4^19 readings would not end
    for i in range(19, 60):
        (tmp_path / f"b{i}.yaml").write_text(f"_base_: b{i + 1}.yaml\n")
    (tmp_path / "b60.yaml").write_text("DIR: deep\n")
    with pytest.raises(InputError, match="more than 20 files below each other"):
        load_seg_config(tmp_path / "b0.yaml")


@pytest.mark.fault
def test_many_faults_are_cut_off(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("".join(f"TRAIN_{i}: 1\n" for i in range(5000)))
    with pytest.raises(InputError) as caught:
        load_seg_config(path)
    assert len(caught.value.faults) == 101
    assert caught.value.faults[-1] == "... and 4900 faults more"


# --- command lines

BASES = {
    "train_yolact": ["--config", "yolact_shapes", "--batch_size", "4", "--lr", "1e-3", "--amp",
                     "bf16", "--cfg-options", "max_iter=10", "lr_steps=[5]", "--ema", "0.9"],
    "train_seg": ["--cfg", "shapes", "--gpus", "0", "TRAIN.num_epoch", "2", "DATASET.imgSizes",
                  "(64, 96)", "DIR", "out", "--amp", "--seed", "1"],
    "train_resnest": ["--config-file", "configs/resnest/shapes.yaml", "--outdir", "out",
                      "TRAINING.EPOCHS", "2", "OPTIMIZER.MILESTONES", "[1,2]", "--resume"],
    "train_queryinst": ["queryinst_shapes", "--work-dir", "out", "--auto-scale-lr", "--resume",
                        "--cfg-options", "train_cfg.max_epochs=2", "param_scheduler.0.end=5"],
}
ODD_WORDS = [str(odd) for odd in ODD if len(str(odd)) < 6000] + [
    "-", "--", "---", "=", "--=", "--=1", "-1", "-x", "-hx", "--no-", "a=b=c", "=b", "a=", ".",
    "..", "a..b=1", ".a=1", "a.=1", "\u2013x", "--\u2013", "[", "{a: 1", "'", "model.0.x=1",
    "param_scheduler.9.end=1", "param_scheduler.-1.end=1", "pipeline.x=1", "TRAIN.1", "TRAIN",
    "train_dataloader.dataset.pipeline.2.scale=[1,2]", "_base_=x", "<<=x", "dataset=coco2017",
    "backbone=resnet50_backbone", "fpn=fpn_base", "dataset.label_map={1: 1}", "a" * 3000 + "=1",
    "mask_proto_net=[[8, 3, {padding: 1}], ['cat', [], {}]]", "cfg.pth", "~", "~nobody/x",
]


@st.composite
def command_lines(draw, script):
    words = list(BASES[script])
    foreign = [word for row in TABLE for word in row.words]
    for _ in range(draw(st.integers(1, 4))):
        i = draw(st.integers(0, len(words)))
        j = draw(st.integers(0, max(0, len(words) - 1)))
        change = draw(st.sampled_from(("odd", "odd", "drop", "twice", "flag", "foreign", "slip",
                                       "swap", "key")))
        if change == "odd":
            words.insert(i, draw(st.sampled_from(ODD_WORDS)))
        elif change == "flag":
            words.insert(i, draw(st.sampled_from(flag_names(script))))
        elif change == "foreign":
            words.insert(i, "--" + draw(st.sampled_from(foreign)))
        elif change == "key":
            key = draw(st.sampled_from(dotted_keys(SCHEMAS[script])))
            value = draw(st.sampled_from(ODD_WORDS))
            words[i:i] = ["--cfg-options", f"{key}={value}"]
        elif words and change == "drop":
            del words[j]
        elif words and change == "twice":
            words.insert(i, words[j])
        elif words and change == "swap":
            words[j], words[0] = words[0], words[j]
        elif words and words[j]:
            k = draw(st.integers(0, len(words[j]) - 1))
            letter = draw(st.sampled_from(["", "x", "-", "_", "=", " ", "é", "0", words[j][k] * 2]))
            words[j] = words[j][:k] + letter + words[j][k + 1:]
    return words


def read_config(script, words):
    """What the script does with its words before it looks at any data."""
    module = importlib.import_module(script)
    flags = parse(module.flags, script, list(words))
    if script == "train_yolact":
        return load_yolact_config(flags.config, options=flags.cfg_options or [])
    if script == "train_queryinst":
        return queryinst.read_settings(flags)
    return module.read_settings(flags)


def check_lines(script, count, last_input):
    lines = []

    @example_settings(count)
    @given(command_lines(script))
    def check(words):
        if last_input:
            Path(last_input).write_text(repr(words))
        started = time.process_time()
        try:
            assert read_config(script, copy.copy(words)) is not None
        except InputError as error:
            assert_told(error.faults)
            lines.append(words)
        except typer.Exit:  # --help or --version came up
            assert {"--help", "-h", "--version"} & {w[:9] for w in words} or "-hx" in words
        assert time.process_time() - started < SLOWEST_S

    check()
    return lines


@pytest.mark.fault
@pytest.mark.parametrize("script", SCHEMAS)
def test_broken_command_lines(script, capsys):
    lines = check_lines(script, QUICK // 4, None)
    assert len(lines) > QUICK // 8  # most are faulty
    run_lines(script, lines, 2)


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.parametrize("script", SCHEMAS)
def test_a_thousand_broken_command_lines(script, tmp_path):
    last = tmp_path / "last.txt"
    grown_mb = run_isolated(check_lines, script, FULL // 4, last, last_input=last)
    assert grown_mb < MOST_MB
    run_lines(script, check_lines(script, 60, None), 20)


def run_lines(script, lines, count):
    """Some of the faulty lines, through the real script: exit status 2, no traceback."""
    possible = [words for words in lines
                if "--debug" not in words  # it asks for the traceback
                and all(word.isprintable() and len(word) < 500 for word in words)
                and _is_parse_fault(script, words)]
    for words in possible[:count]:
        done = subprocess.run([sys.executable, f"{script}.py", *words], cwd=ROOT, text=True,
                              capture_output=True, timeout=60)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert all(line.startswith(f"{script}: ") for line in done.stderr.splitlines()), done.stderr


def _is_parse_fault(script, words):
    """Whether the line fails before torch is imported, which costs seconds."""
    try:
        parse(importlib.import_module(script).flags, script, list(words))
    except InputError:
        return True
    except typer.Exit:
        pass
    return False


def test_saved_config_is_a_config(tmp_path):
    """The fuzzers' starting points are valid, or they would try nothing."""
    for script, loader in LOADERS.items():
        config = loader(RECIPES[script])
        save_config(config, tmp_path / "saved.yaml")
        assert loader(tmp_path / "saved.yaml") == config
        assert read_config(script, BASES[script]) is not None
