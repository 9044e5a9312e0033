"""Typed configs: precedence, coercion by declared type, and every fault with its line."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import InputError, did_you_mean
from settings.loading import load_config, save_config, to_dict


@dataclass(frozen=True)
class Data:
    sizes: tuple[int, ...] = (300, 375)
    padding: int = 8
    flip: bool = True
    root: str = "./data"
    labels: dict[int, str] = field(default_factory=lambda: {1: "cat"})


@dataclass(frozen=True)
class Train:
    lr: float = 0.02
    optim: Literal["SGD", "Adam"] = "SGD"
    weights: str | None = None
    scale: int | tuple[int, int] = 3
    steps: list[int] = field(default_factory=list)
    extra: Any = None

    def __post_init__(self):
        if self.lr < 0:
            raise ValueError("lr must not be negative")


@dataclass(frozen=True)
class Config:
    DATA: Data = Data(padding=4)
    TRAIN: Train = Train()
    DIR: str = "ckpt"


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="a.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write_file


def faults_of(*args):
    with pytest.raises(InputError) as caught:
        load_config(*args)
    return caught.value.faults


def test_defaults_without_a_file():
    assert load_config(Config) == Config()


def test_values_are_read_by_declared_type(write):
    path = write(
        "DATA: {flip: off}\nTRAIN:\n  lr: 1e-3\n  weights: None\n  scale: [3, 4]\n"
        "  steps: (280000, 600000,)\n  optim: Adam\n  extra: {a: [1, 2.5], 7: '1e-3', c: 1e-3}\n"
        "DIR: off\n"
    )
    config = load_config(Config, path)
    assert config.DATA.flip is False
    assert config.DIR == "off"  # YAML alone would make it False
    assert config.TRAIN.lr == 1e-3
    assert config.TRAIN.weights is None
    assert config.TRAIN.scale == (3, 4)
    assert config.TRAIN.steps == [280000, 600000]
    assert config.TRAIN.extra == {"a": (1, 2.5), 7: "1e-3", "c": 1e-3}


@pytest.mark.parametrize("text", ["(300, 375, 450)", "[300, 375, 450]", "'(300, 375, 450)'"])
def test_tuple_spellings(write, text):
    assert load_config(Config, write("DATA: {}\n")).DATA.sizes == (300, 375)
    config = load_config(Config, write(f"DATA:\n  sizes: {text}\n"))
    assert config.DATA.sizes == (300, 375, 450)


def test_a_section_keeps_the_defaults_of_its_owner(write):
    # Config's own default for DATA has padding 4, Data's class default is 8.
    assert load_config(Config, write("DATA: {flip: false}")).DATA.padding == 4
    assert load_config(Config, write("DATA: {flip: false, _delete_: true}")).DATA.padding == 8


def test_int_is_accepted_for_float_only(write):
    assert load_config(Config, write("TRAIN: {lr: 1}")).TRAIN.lr == 1.0
    for text in ("1e3", "8.0", "true", "abc", "[8]", "null"):
        (fault,) = faults_of(Config, write(f"DATA:\n  padding: {text}\n"))
        assert ":2: DATA.padding wants an integer" in fault
    assert fault.startswith(str(write("")))
    for text in ("true", ".nan", "abc", "9" * 400):
        assert "TRAIN.lr wants a number" in faults_of(Config, write(f"TRAIN: {{lr: {text}}}"))[0]
    assert "DATA.flip wants true or false" in faults_of(Config, write("DATA: {flip: 1}"))[0]


def test_every_fault_in_one_error_with_its_line(write):
    path = write(
        "DATA:\n  paddin: 3\n  sizes: 5\n  flip: true\n  flip: false\n"
        "TRAIN:\n  optim: Adm\n  root: x\n  scale: [1, 2, 3]\nDIRR: x\nnothing_like_it: 1\n"
    )
    assert faults_of(Config, path) == [
        f"{path}:5: key flip stands twice, first at {path}:4",
        f"{path}:2: unknown key DATA.paddin. Did you mean DATA.padding?",
        f"{path}:3: DATA.sizes wants a list of integers, got 5",
        f"{path}:7: TRAIN.optim wants one of SGD, Adam, got Adm. Did you mean Adam?",
        f"{path}:8: unknown key TRAIN.root. Did you mean DATA.root?",
        f"{path}:9: TRAIN.scale wants an integer or a list of 2 values, got a list of 3",
        f"{path}:10: unknown key DIRR. Did you mean DIR?",
        f"{path}:11: unknown key nothing_like_it.",
    ]


def test_impossible_values_are_placed_too(write):
    path = write("DIR: x\nTRAIN:\n  lr: -1\n")
    assert faults_of(Config, path) == [f"{path}:3: TRAIN: lr must not be negative"]


@pytest.mark.parametrize(
    "text, part",
    [
        ("a: [1", ":1: not valid YAML"),
        ("- 1", "a config is a mapping"),
        ("DIR: !!python/object:os.system x", ":1: tag tag:yaml.org,2002:python/object"),
        ("[" * 5000, ""),
        ("TRAIN:\n  extra: &a [*a]", "nested too deep"),
        (
            "TRAIN:\n  extra:\n    a0: &a0 [1]\n"
            + "".join(f"    a{i}: &a{i} [{f'*a{i - 1},' * 9}]\n" for i in range(1, 12)),
            "too large",
        ),
    ],
)
def test_files_that_are_no_config(write, text, part):
    faults = faults_of(Config, write(text))
    assert part in faults[0]
    assert len(faults) == 1


def test_missing_and_unreadable_files(write, tmp_path):
    write("DIR: x", "base.yaml")
    wanted = tmp_path / "bse.yaml"
    assert faults_of(Config, wanted) == [f"{wanted}: no such config file. Did you mean base.yaml?"]
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    assert "UTF-8" in faults_of(Config, tmp_path / "binary.yaml")[0]


def test_bases_merge_in_order_and_the_file_over_them(write):
    write("DATA: {padding: 1, root: one}\nTRAIN: {steps: [1, 2]}\n", "one.yaml")
    write("DATA: {padding: 2}\nTRAIN: {steps: [3]}\n", "two.yaml")
    path = write("_base_: [one.yaml, two.yaml]\nDATA: {flip: false}\n")
    config = load_config(Config, path)
    data = config.DATA
    assert data == Data(padding=2, root="one", flip=False)
    assert config.TRAIN.steps == [3]
    # _delete_: what the bases say of the section is dropped.
    path = write("_base_: [one.yaml]\nDATA: {flip: false, _delete_: true}\n")
    data = load_config(Config, path).DATA
    assert data == Data(flip=False)


def test_faults_of_bases_are_placed_in_the_base(write):
    base = write("DATA: {paddin: 1}", "one.yaml")
    path = write("_base_: [one.yaml, none.yaml]\nDIR: x\nTRAINN: {}\n")
    assert faults_of(Config, path) == [
        f"{path}:1: _base_ names {path.parent / 'none.yaml'}, which does not exist",
        f"{base}:1: unknown key DATA.paddin. Did you mean DATA.padding?",
        f"{path}:3: unknown key TRAINN. Did you mean TRAIN?",
    ]


def test_a_circle_of_bases(write):
    write("_base_: a.yaml", "b.yaml")
    assert "based on this file itself" in faults_of(Config, write("_base_: b.yaml"))[0]


def test_overrides_win_over_the_file(write):
    path = write("DATA:\n  padding: 1\n  sizes: (1, 2, 3)\n")
    overrides = ["DATA.padding=2", "DATA.sizes.1=9", "TRAIN.lr=1e-4", "DIR=a=b", "DATA.labels.2=x"]
    config = load_config(Config, path, overrides)
    assert config.DATA.padding == 2
    assert config.DATA.sizes == (1, 9, 3)
    assert config.TRAIN.lr == 1e-4
    assert config.DIR == "a=b"
    assert config.DATA.labels == {1: "cat", 2: "x"}  # an entry changed, the default kept
    assert load_config(Config, None, ["DATA.sizes.0=7"]).DATA.sizes == (7, 375)
    for text in ("1,2", "(1,2)", "[1, 2]", "[1,2]"):
        assert load_config(Config, path, [f"DATA.sizes={text}"]).DATA.sizes == (1, 2)
    assert load_config(Config, path, {"DATA.sizes": [4], "TRAIN.extra": "1"}).TRAIN.extra == "1"
    data = load_config(Config, None, {"DATA": Data(padding=3)}).DATA
    assert data == Data(padding=3)


def test_faults_of_overrides_name_the_flag(write):
    path = write("DATA: {paddin: 1}")
    overrides = ["TRAIN.lrr=1", "DATA.padding=x", "DIR", "DATA.sizes.5=1", "DATA.root.x=1"]
    assert faults_of(Config, path, overrides) == [
        "--cfg-options DIR: want KEY=VALUE, for example TRAIN.lr=0.01",
        "--cfg-options DATA.sizes.5=1: DATA.sizes has no item 5",
        f"{path}:1: unknown key DATA.paddin. Did you mean DATA.padding?",
        "--cfg-options DATA.padding=x: DATA.padding wants an integer, got x",
        "--cfg-options DATA.root.x=1: DATA.root wants text, got a mapping",
        "--cfg-options TRAIN.lrr=1: unknown key TRAIN.lrr. Did you mean TRAIN.lr?",
    ]


def test_to_dict_is_plain():
    assert to_dict(Config())["DATA"]["sizes"] == [300, 375]


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=8)
SCALARS = (
    st.integers()
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False)
    | TEXTS
    | st.sampled_from(["1e-3", "(1, 2)", "off", "None", "", "~", "[", "- a", "{}", "inf", "0x1"])
)
KEYS = st.text("abc", min_size=1, max_size=3) | st.integers(0, 9)
VALUES = st.recursive(
    SCALARS, lambda inner: st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=3)
)


@settings(max_examples=60, deadline=None)
@given(extra=VALUES, text=TEXTS, lr=st.floats(0, allow_nan=False, allow_infinity=False))
def test_saved_configs_load_back_equal(tmp_path_factory, extra, text, lr):
    path = tmp_path_factory.mktemp("saved") / "config.yaml"
    config = Config(DATA=Data(root=text), TRAIN=Train(extra=extra, lr=lr, steps=[1]), DIR="1e-3")
    save_config(config, path)
    assert load_config(Config, path) == config


def test_did_you_mean():
    assert did_you_mean("lr_decodr", ["lr_decoder", "lr_encoder"]) == " Did you mean lr_decoder?"
    assert did_you_mean("train", ["TRAIN", "DATA"]) == " Did you mean TRAIN?"
    assert did_you_mean("xyz", ["abc"]) == ""


def test_texts_and_pairs_may_be_mixed(tmp_path):
    @dataclass(frozen=True)
    class Small:
        a: int = 1
        b: int = 2

    assert load_config(Small, None, [("a", 3), "b=4", ("a", 5)]) == Small(5, 4)
