import math

import pytest
import torch
from host_waits import HostWaits

from common.optim.precision import Precision
from runtime.errors import InputError

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
        monkeypatch.setattr("common.optim.precision.cpu_has_bf16", lambda has_it=has_it: has_it)
        Precision("bf16", CPU, lines.append)
        Precision("off", CPU, lines.append)
    assert len(lines) == 1
    assert "--amp bf16" in lines[0]


def test_float16_is_refused_on_a_cpu():
    with pytest.raises(InputError, match=r"--amp fp16: .*bf16 or off"):
        Precision("fp16", CPU)
    with pytest.raises(InputError, match="off, bf16, fp16"):
        Precision("int8", CPU)


def test_the_norm_is_of_all_gradients_and_clipping_uses_it():
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    optimizer = torch.optim.SGD(weights, lr=1.0)
    precision = Precision("off", CPU)
    (3 * weights[0] + 4 * weights[1]).sum().backward()  # the third has no gradient
    norm = precision.grad_norm(optimizer)
    assert norm.item() == 5.0
    precision.step(optimizer, 1.0, norm)
    assert [round(w.item(), 4) for w in weights] == [-0.6, -0.8, 0.0]
    optimizer.zero_grad()
    (3 * weights[0]).sum().backward()
    precision.step(optimizer, None, precision.grad_norm(optimizer))
    assert round(weights[0].item(), 4) == -3.6


@pytest.mark.parametrize("gradient, weight, scale", [(2.0, -1.0, 4.0), (math.inf, 1.0, 2.0)])
def test_a_scaler_waits_only_where_the_norm_is_not_finite(gradient, weight, scale):
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    precision = Precision("off", CPU)
    precision.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)  # as fp16 has on a GPU
    precision.scaler.scale(parameter.sum() * gradient).backward()
    norm = precision.grad_norm(optimizer)
    is_finite = math.isfinite(norm.item())
    with HostWaits() as seen:
        precision.step(optimizer, None, norm, is_finite)
    assert bool(seen.found) is not is_finite
    assert (parameter.item(), precision.scaler.get_scale()) == (weight, scale)
