"""Runs a script with a fault put into it, as `python fault_driver.py KIND N SCRIPT WORDS ...`.

The fault comes in the N-th update of the session, counted from 1:
    odd         an exception in the backward pass
    memory      an allocation there that no machine can serve
    worker      the processes that load data are killed before it
    inf         a gradient is infinite although the loss is not
    nan         the network's input is NaN, so the loss is
    update      an exception when the weights have changed
    stop        no fault: SIGTERM arrives in the backward pass
    validation  an exception in the first evaluation, whatever N
    buffers     no fault: N is a folder, where each rank writes the sums of its network's buffers at
                the beginning of the first evaluation
What the machine lacks, from the first line on:
    filesize    no file can get larger than N bytes, as on a full disk
    cores       only N cores
"""

import multiprocessing
import os
import resource
import runpy
import signal
import sys
from pathlib import Path


def main():
    kind, number, script, *words = sys.argv[1:]
    sys.argv = [script, *words]
    sys.path[0] = str(Path(script).parent)
    if kind == "filesize":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit then fails
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(number),) * 2)
    elif kind == "cores":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(number)])
    import torch

    done = 0

    def counted(function, before=lambda *_: None, after=lambda *_: None):
        """`function`, with `before` or `after` called around its N-th call."""
        calls = 0

        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == int(number):
                before(*args)
            answer = function(*args, **kwargs)
            if calls == int(number):
                after(*args)
            return answer

        return call

    def fail(*_):
        raise ArithmeticError("odd numbers")

    def spoil(scaler, optimizer):
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        first = next(grad for grad in grads if grad is not None)
        first[(0,) * first.dim()] = float("inf")

    def to_nan(module, args):
        nonlocal done
        # the first layer of the N-th update
        if isinstance(module, torch.nn.Conv2d) and args[0].shape[1] == 3 and module.training:
            done += 1
            if done == int(number):
                return (args[0] * float("nan"), *args[1:])
        return None

    tensor, scaler = torch.Tensor, torch.amp.GradScaler
    if kind == "odd":
        tensor.backward = counted(tensor.backward, fail)
    elif kind == "memory":
        tensor.backward = counted(tensor.backward, lambda *_: torch.empty(10**15))
    elif kind == "stop":
        tensor.backward = counted(tensor.backward, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    elif kind == "worker":
        tensor.backward = counted(tensor.backward, _kill_children)
    elif kind == "inf":
        scaler.unscale_ = counted(scaler.unscale_, after=spoil)
    elif kind == "nan":
        torch.nn.modules.module.register_module_forward_pre_hook(to_nan)
    elif kind == "update":
        scaler.step = counted(scaler.step, after=fail)
    elif kind == "validation":
        torch.nn.Module.eval = fail
    elif kind == "buffers":
        torch.nn.Module.eval = _note_buffers(torch.nn.Module.eval, Path(number))
    runpy.run_path(script, run_name="__main__")


def _note_buffers(function, folder):
    def call(module):
        path = folder / f"rank{os.environ['RANK']}"
        if not path.exists():
            path.write_text("\n".join(str(b.double().sum().item()) for b in module.buffers()))
        return function(module)

    return call


def _kill_children(*_):
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
