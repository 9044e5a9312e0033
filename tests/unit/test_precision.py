import pytest
import torch

from common.config import InputError
from common.precision import Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("amp, dtype", [("off", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_in_the_dtype_asked_for(amp, dtype):
    precision = Precision(amp, CPU)
    with precision.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_the_scaler_changes_nothing_unless_fp16_needs_it():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    scaler = Precision("bf16", CPU).scaler
    scaler.scale(weight.sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert weight.tolist() == [0.5, 0.5]
    assert scaler.state_dict() == {}


def test_imitated_bfloat16_is_said_to_be_slow(monkeypatch):
    lines = []
    for has_it in (True, False):
        monkeypatch.setattr("common.precision.cpu_has_bf16", lambda has_it=has_it: has_it)
        Precision("bf16", CPU, lines.append)
        Precision("off", CPU, lines.append)
    assert len(lines) == 1
    assert "--amp bf16" in lines[0]


def test_float16_is_refused_on_a_cpu():
    with pytest.raises(InputError, match=r"--amp fp16: .*bf16 or off"):
        Precision("fp16", CPU)
    with pytest.raises(InputError, match="off, bf16, fp16"):
        Precision("int8", CPU)
