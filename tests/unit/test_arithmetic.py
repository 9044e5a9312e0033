"""--tf32, cuDNN's timing of its algorithms, and which script asks for what."""

import importlib

import pytest
import torch

from runtime import cli
from runtime.arithmetic import refuse_unrepeatable, set_up_gpu
from runtime.run.run import start_run


@pytest.fixture(autouse=True)
def put_back(monkeypatch):
    backends = torch.backends
    before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
    rest = backends.cudnn.benchmark, backends.cudnn.deterministic
    is_strict = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = before
    backends.cudnn.benchmark, backends.cudnn.deterministic = rest
    torch.use_deterministic_algorithms(is_strict, warn_only=only_warns)


def in_force():
    backends = torch.backends
    return (backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32, backends.cudnn.benchmark)


@pytest.mark.parametrize("tf32, fixed_shapes, wanted", [
    (None, False, (False, True, False)),  # torch's own
    (None, True, (False, True, True)),
    (True, False, (True, True, False)),
    (False, True, (False, False, True)),
])
def test_what_a_gpu_computes_in(tf32, fixed_shapes, wanted):
    set_up_gpu(tf32, fixed_shapes)
    assert in_force() == wanted


def test_repeatable_goes_before_fast(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    set_up_gpu(None, True)
    refuse_unrepeatable()
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("tf32, said", [(True, "--tf32"), (False, "--no-tf32"), (None, "")])
def test_a_cpu_has_none_and_says_so(capsys, tf32, said):
    start_run("train_test", "cpu", tf32=tf32).close()
    assert (f"{said} changes nothing on a CPU" in capsys.readouterr().err) is bool(said)
    assert in_force()[:2] == (False, True)


class Asked(Exception):
    """What a script asks `start_run` for."""


@pytest.mark.parametrize("script, words, fixed_shapes", [
    ("train_yolact", ["--config", "yolact_shapes"], True),
    ("train_seg", ["--cfg", "configs/seg/shapes.yaml", "--gpus", "cpu"], False),
    ("train_resnest", ["--config-file", "configs/resnest/shapes.yaml", "--device", "cpu"], True),
    ("train_queryinst", ["queryinst_shapes"], False),
])
@pytest.mark.parametrize("flag, wanted", [([], None), (["--tf32"], True), (["--no-tf32"], False)])
def test_what_each_script_asks_for(monkeypatch, script, words, fixed_shapes, flag, wanted):
    module = importlib.import_module(script)

    def ask(*_, **how):
        raise Asked(how.get("tf32"), how.get("fixed_shapes", False))

    monkeypatch.setattr(module, "start_run", ask)
    flags = cli.read_flags(module.flags, script, [*words, *flag])
    with pytest.raises(Asked) as asked:
        module.main(flags, None)
    assert asked.value.args == (wanted, fixed_shapes)
