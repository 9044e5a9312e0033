"""Writing a trained network in the form that other programs want; the file's suffix decides which.

Nothing counts as exported before the file was read back and gave the network's own numbers.
"""

import copy
import importlib.util
import inspect
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.checkpoint.files import load_checkpoint, save_checkpoint
from runtime.errors import InputError, did_you_mean
from runtime.files import write_atomically

PACKAGES = {  # suffix -> what must be installed beside torch
    ".pth": (),                                         # bare state dict
    ".safetensors": ("safetensors",),                   # bare state dict
    ".pt2": (),                                         # torch.export program
    ".onnx": ("onnx", "onnxscript", "onnxruntime"),     # graph with its weights inside
}

# Largest difference from the network's own output, as a fraction of that output's largest value
# (of 1 if that is smaller). Folded norms and other orders of summation cost up to 1e-5 in deep
# float32 networks; an operator that means something else is off by far more than this.
TOLERANCE = 1e-3


def check_export(path: str | Path | None) -> None:
    """Raise InputError if `export` could not write `path` here: call it before hours of training.

    It names the suffix that is not known, the packages to install or the folder that is missing.
    path: None, where no export is asked for, passes
    """
    if path is None:
        return
    path = Path(path)
    if path.suffix not in PACKAGES:
        raise InputError(f"--export {path}: the suffix {path.suffix!r} is none of "
                         f"{', '.join(PACKAGES)}.{did_you_mean(path.suffix, PACKAGES)}")
    missing = [name for name in PACKAGES[path.suffix] if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"--export {path}: {path.suffix} files need {' and '.join(missing)}: "
                         f"pip install {' '.join(missing)}")
    if not path.parent.is_dir():
        raise InputError(f"--export {path}: the folder {path.parent} does not exist; make it")


def export(
    module: nn.Module,
    example_inputs: torch.Tensor | Sequence[torch.Tensor],
    path: str | Path,
    output_names: Sequence[str] | None = None,
    method: str = "forward",
) -> float:
    """Write the network to `path` and return the largest difference after reading it back.

    module: any network; it is copied to the CPU, in eval mode, and itself left as it is.
    example_inputs: what `method` is called with; the shapes are those that .pt2 and .onnx will
        accept. One tensor, or a sequence of them.
    path: `.pth` and `.safetensors` get the bare state dict; `.pt2` (torch.export) and `.onnx` the
        computation of `method`: inputs named as its parameters, outputs as `output_names` says.
    output_names: for .onnx, in the order of the outputs; by default the keys of the returned dict,
        joined with a dot where dicts and lists are nested, `output` for a bare tensor.
    method: the method to export, for a `forward` that cannot be traced.
    Returns the largest absolute difference between the file's outputs and the module's.
    Raises InputError (`check_export`; or a file that computes something else, which is then not
    kept), SaveError if it cannot be written.
    """
    path = Path(path)
    check_export(path)
    if isinstance(example_inputs, torch.Tensor):
        example_inputs = (example_inputs,)
    inputs = tuple(tensor.detach().cpu() for tensor in example_inputs)
    wrapped = _Method(copy.deepcopy(module).cpu(), method).eval()
    with torch.no_grad():
        wanted = dict(_tensors(wrapped(*inputs)))
        if path.suffix == ".pth":
            save_checkpoint(path, _state(wrapped.module))
            loaded = load_checkpoint(path)
            return _checked(path, wanted, _run_weights(path, wrapped, loaded, inputs))
        names = list(output_names or wanted)
        if len(names) != len(wanted):
            raise ValueError(f"{len(names)} output names for {len(wanted)} outputs: {list(wanted)}")
        return _write_and_check(path, wrapped, inputs, names, wanted)


def export_once(
    run: Any,
    module: nn.Module,
    example_inputs: torch.Tensor | Sequence[torch.Tensor],
    path: str | Path,
    **how: Any,
) -> None:
    """`export` on rank 0, and a line of the log that says how well it went.

    run: the Run; how: further arguments of `export`
    """
    if run.is_main:
        difference = export(module, example_inputs, path, **how)
        run.log(f"Exported to {path}; read back, it differs by {difference:.1e}.")


class _Method(nn.Module):
    """The module with `method` as its forward; with `flat`, a tuple of all tensors comes back."""

    def __init__(self, module, method, flat=False):
        super().__init__()
        self.module, self.method, self.flat = module, method, flat

    def forward(self, *inputs):
        """Tensors [B, ...] that `method` takes to what it returns, with `flat` as a flat tuple."""
        outputs = getattr(self.module, self.method)(*inputs)
        return tuple(tensor for _, tensor in _tensors(outputs)) if self.flat else outputs


def _write_and_check(path, wrapped, inputs, names, wanted):
    difference = None

    def write(file):
        nonlocal difference
        if path.suffix == ".safetensors":
            file.write(_safetensors_bytes(wrapped.module))
        elif path.suffix == ".pt2":
            torch.export.save(torch.export.export(wrapped, inputs), file)
        else:
            file.write(_onnx_bytes(wrapped, inputs, names))
        file.flush()
        file.seek(0)
        difference = _checked(path, wanted, _run_file(path, file.read(), wrapped, inputs))

    write_atomically(path, write)
    return difference


def _run_file(path, blob, wrapped, inputs):
    """The outputs, in order, that the file's content computes."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load

        return _run_weights(path, wrapped, load(blob), inputs)
    if path.suffix == ".pt2":
        program = torch.export.load(io.BytesIO(blob)).module()
        return [tensor for _, tensor in _tensors(program(*inputs))]
    import onnxruntime

    session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
    return [torch.from_numpy(array) for array in session.run(None, feed)]


def _run_weights(path, wrapped, loaded, inputs):
    """The outputs of a copy of the module that holds the weights that were read back."""
    # some weights may not reach the outputs at all, so the tensors themselves are compared too
    state = _state(wrapped.module)
    same = loaded.keys() == state.keys() and all(
        torch.equal(loaded[key], value) for key, value in state.items())
    if not same:
        raise InputError(f"--export {path}: the file does not hold the weights that were written")
    copied = _Method(copy.deepcopy(wrapped.module), wrapped.method)
    copied.module.load_state_dict(loaded)
    return [tensor for _, tensor in _tensors(copied(*inputs))]


def _checked(path, wanted, found):
    """The largest difference; InputError naming the output that is off."""
    largest = 0.0
    for (name, expected), got in zip(wanted.items(), found, strict=True):
        if got.shape != expected.shape:
            raise InputError(f"--export {path}: output {name} is {list(got.shape)} from the file "
                             f"and {list(expected.shape)} from the network")
        if not expected.numel():
            continue
        difference = (got.double() - expected.double()).abs().max().item()
        if not difference <= TOLERANCE * max(1.0, expected.double().abs().max().item()):
            raise InputError(f"--export {path}: output {name} differs by {difference:.3g} between "
                             "the file and the network; the file was not kept")
        largest = max(largest, difference)
    return largest


def _tensors(outputs, name="") -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of every tensor in nested dicts, lists and tuples, in their order."""
    if isinstance(outputs, torch.Tensor):
        yield name or "output", outputs
    elif isinstance(outputs, Mapping | list | tuple):
        items = outputs.items() if isinstance(outputs, Mapping) else enumerate(outputs)
        for key, value in items:
            yield from _tensors(value, f"{name}.{key}" if name else str(key))


def _state(module):
    return {key: value.detach().contiguous() for key, value in module.state_dict().items()}


def _safetensors_bytes(module):
    from safetensors.torch import save

    # the format knows no two names for one memory
    return save({key: value.clone() for key, value in _state(module).items()})


def _onnx_bytes(wrapped, inputs, names):
    parameters = inspect.signature(getattr(wrapped.module, wrapped.method)).parameters
    flat = _Method(wrapped.module, wrapped.method, flat=True).eval()
    with warnings.catch_warnings():
        # torch's exporter warns about torch's own code, which no user can change
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            flat,
            inputs,
            dynamo=True,
            verbose=False,
            input_names=list(parameters)[: len(inputs)],
            output_names=names,
        )
    return program.model_proto.SerializeToString()
