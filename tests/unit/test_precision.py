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


def test_float16_is_refused_on_a_cpu():
    with pytest.raises(InputError, match=r"--amp fp16: .*bf16 or off"):
        Precision("fp16", CPU)
    with pytest.raises(InputError, match="off, bf16, fp16"):
        Precision("int8", CPU)
