"""Writing a trained network in the form that other programs want; the file's suffix decides which.

Nothing counts as exported before the file was read back and gave the network's own numbers, also
for another batch and size where these are free.
"""

import contextlib
import copy
import importlib.util
import inspect
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.checkpoint.files import load_checkpoint, save_checkpoint
from models.facts import KEY, Facts, with_facts
from runtime.errors import InputError, SaveError, did_you_mean
from runtime.files import write_atomically

PACKAGES = {  # suffix -> what must be installed beside torch
    ".pth": (),                                         # bare state dict
    ".safetensors": ("safetensors",),                   # bare state dict
    ".pt2": (),                                         # torch.export program
    ".onnx": ("onnx", "onnxscript", "onnxruntime"),     # graph with its weights inside
}
WEIGHTS_ONLY = (".pth", ".safetensors")
FACTS_FILE = f"{KEY}.json"  # inside a .pt2; .onnx and .safetensors have it under the name KEY

# Largest difference from the network's own output, as a fraction of that output's largest value
# (of 1 if that is smaller). Folded norms and other orders of summation cost up to 1e-5 in deep
# float32 networks; an operator that means something else is off by far more than this.
TOLERANCE = 1e-3
TRACED_BATCH = 2  # torch takes a length of 1 for one that never changes
OTHER_BATCH = 3

AXES = ("batch", "height", "width")
Outputs = Mapping[str, torch.Tensor]
Compare = Callable[[Outputs, Outputs], float]
Free = tuple[str, ...]  # those of the AXES that a file leaves open
FIXED: Free = ()
ANY_BATCH: Free = ("batch",)
ANY_SIZE: Free = AXES


@dataclass(frozen=True)
class Exported:
    """difference: the largest absolute one after reading back; free: the axes that are open."""

    difference: float
    free: Free

    def __str__(self) -> str:
        open_axes = f"; any {', '.join(self.free)}" if self.free else ""
        return f"read back, it differs by {self.difference:.1e}{open_axes}"


def export_path(path: str | Path | None, form: str | None) -> Path | None:
    """The file that `--export PATH --export-format FORM` writes: the format becomes its suffix.

    Raises InputError when the path has another format's suffix, or there is no path.
    """
    if path is None:
        if form:
            raise InputError(f"--export-format {form}: nothing is exported; name a file by "
                             "--export PATH")
        return None
    path = Path(path)
    if form and path.suffix in PACKAGES and path.suffix != f".{form}":
        raise InputError(f"--export {path}: its suffix is not --export-format {form}; "
                         "leave one of the two out")
    return path if not form or path.suffix == f".{form}" else path.with_name(f"{path.name}.{form}")


def check_export(
    path: str | Path | None, form: str | None = None, detections: bool = False
) -> Path | None:
    """The file to write, see `export_path`; call it before hours of training.

    Raises InputError if `export` could not write it here: it names the suffix that is not known,
    the packages to install or the folder that is missing.
    path: None, where no export is asked for, passes
    detections: --export-detections, which needs a format that computes
    """
    path = export_path(path, form)
    if detections and (path is None or path.suffix in WEIGHTS_ONLY):
        what = "nothing is exported" if path is None else f"{path.suffix} files hold weights alone"
        raise InputError(f"--export-detections: {what}; use --export FILE.onnx or FILE.pt2")
    if path is None:
        return None
    if path.suffix not in PACKAGES:
        raise InputError(f"--export {path}: the suffix {path.suffix!r} is none of "
                         f"{', '.join(PACKAGES)}.{did_you_mean(path.suffix, PACKAGES)}")
    missing = [name for name in PACKAGES[path.suffix] if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"--export {path}: {path.suffix} files need {' and '.join(missing)}: "
                         f"pip install {' '.join(missing)}")
    if not path.parent.is_dir():
        raise InputError(f"--export {path}: the folder {path.parent} does not exist; make it")
    return path


def export(
    module: nn.Module,
    example_inputs: torch.Tensor | Sequence[torch.Tensor],
    path: str | Path,
    output_names: Sequence[str] | None = None,
    method: str = "forward",
    input_names: Sequence[str] | None = None,
    facts: Facts | None = None,
    free: Sequence[Free] = (FIXED,),
    grid: int = 32,
    compare: Compare | None = None,
) -> Exported:
    """Write the network to `path` and return what came of reading it back.

    module: any network; it is copied to the CPU, in eval mode, and itself left as it is.
    example_inputs: what `method` is called with: one tensor, or a sequence of them, batch first.
    path: `.pth` and `.safetensors` get the bare state dict; `.pt2` (torch.export) and `.onnx` the
        computation of `method`.
    output_names: for .onnx, in the order of the outputs; by default the keys of the returned dict,
        joined with a dot where dicts and lists are nested, `output` for a bare tensor.
    method: the method to export, for a `forward` that cannot be traced.
    input_names: for .onnx; by default the parameters of `method`
    facts: what the file says of itself: as JSON under `facts` in .onnx's metadata_props and
        .safetensors' header, in `facts.json` of .pt2, as in our checkpoints in .pth
    free: the axes that .pt2 and .onnx leave open, the first choice that the network allows:
        "batch" of all inputs, "height" and "width" of the first one. The examples' shapes hold
        where none is open.
    grid: heights and widths are multiples of it, as far as a check tells
    compare: the difference of two sets of outputs {name: tensor}, as a fraction; None: the largest
        absolute one of any number, which must be small beside its output's largest value
    Raises InputError (`check_export`; or a file that computes something else, which is then not
    kept), SaveError if it cannot be written.
    """
    path = Path(path)
    check_export(path)
    if isinstance(example_inputs, torch.Tensor):
        example_inputs = (example_inputs,)
    inputs = tuple(tensor.detach().cpu() for tensor in example_inputs)
    wrapped = _Method(copy.deepcopy(module).cpu(), method).eval()
    with torch.no_grad(), _plain_attention():
        wanted = dict(_tensors(wrapped(*inputs)))
        if path.suffix == ".pth":
            state = _state(wrapped.module)
            save_checkpoint(path, with_facts(state, facts) if facts else state)
            found = _run_weights(path, wrapped, load_checkpoint(path), inputs)
            return Exported(_checked(path, wanted, found), FIXED)
        names = list(output_names or wanted)
        if len(names) != len(wanted):
            raise ValueError(f"{len(names)} output names for {len(wanted)} outputs: {list(wanted)}")
        both = list(input_names or _parameters(wrapped))[: len(inputs)], names
        if path.suffix in WEIGHTS_ONLY:
            free = (FIXED,)
        for choice in free[:-1]:
            try:
                return _write_and_check(path, wrapped, inputs, both, wanted, facts, choice, grid,
                                        compare)
            except (SaveError, OSError):
                raise
            # what torch raises where an axis cannot stay open has no type of its own
            except Exception:
                continue
        return _write_and_check(path, wrapped, inputs, both, wanted, facts, free[-1], grid, compare)


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
        run.log(f"Exported to {path}; {export(module, example_inputs, path, **how)}.")


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention as its parts: torch's fused operator for evaluation is one that ONNX lacks."""
    was_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fast)


class _Method(nn.Module):
    """The module with `method` as its forward; with `flat`, a tuple of all tensors comes back."""

    def __init__(self, module, method, flat=False):
        super().__init__()
        self.module, self.method, self.flat = module, method, flat

    def forward(self, *inputs):
        """Tensors [B, ...] that `method` takes to what it returns, with `flat` as a flat tuple."""
        outputs = getattr(self.module, self.method)(*inputs)
        return tuple(tensor for _, tensor in _tensors(outputs)) if self.flat else outputs


def _write_and_check(path, wrapped, inputs, names, wanted, facts, free, grid, compare):
    if facts and path.suffix not in WEIGHTS_ONLY and "height" not in free and inputs[0].ndim == 4:
        facts = facts.of_one_size(*inputs[0].shape[2:])
    text = json.dumps(facts.plain()) if facts else None
    difference = 0.0
    trials = [(inputs, wanted)]
    if free:
        others = _others(inputs, free, grid)
        trials.append((others, dict(_tensors(wrapped(*others)))))

    def write(file):
        nonlocal difference
        if path.suffix == ".safetensors":
            file.write(_safetensors_bytes(wrapped.module, text))
        elif path.suffix == ".pt2":
            extra = {FACTS_FILE: text} if text else None
            torch.export.save(_program(wrapped, inputs, free), file, extra_files=extra)
        else:
            file.write(_onnx_bytes(wrapped, inputs, names, free, text))
        file.flush()
        file.seek(0)
        outputs = _run_file(path, file.read(), wrapped, [given for given, _ in trials])
        difference = max(_checked(path, expected, found, compare)
                         for (_, expected), found in zip(trials, outputs, strict=True))

    write_atomically(path, write)
    return Exported(difference, free)


def _parameters(wrapped):
    return inspect.signature(getattr(wrapped.module, wrapped.method)).parameters


def _program(wrapped, inputs, free):
    """The exported program; traced at a batch of two where that is free."""
    # one name for all inputs' batch says that they are equal; sides may turn out to be multiples
    marks = dict.fromkeys(AXES, torch.export.Dim.DYNAMIC) | {"batch": torch.export.Dim("batch")}
    return torch.export.export(wrapped, _traced(inputs, free),
                               dynamic_shapes=_shapes(inputs, free, marks))


def _shapes(inputs, free, marks):
    """torch's `dynamic_shapes` of a forward(*inputs); marks: {axis: how it is marked}."""
    if not free:
        return None
    first, rest = {}, {}
    for name, axis in (("batch", 0), ("height", 2), ("width", 3)):
        if name in free:
            first[axis] = marks[name]
    if "batch" in free:
        rest[0] = marks["batch"]
    return (tuple(first if i == 0 else dict(rest) for i in range(len(inputs))),)


def _traced(inputs, free):
    if "batch" not in free:
        return inputs
    return tuple(torch.cat([tensor[:1]] * TRACED_BATCH) for tensor in inputs)


def _others(inputs, free, grid):
    """Inputs of another batch and size, random where they are images."""
    generator = torch.Generator().manual_seed(0)
    first, *rest = inputs
    batch = OTHER_BATCH if "batch" in free else len(first)
    more = (grid * ("height" in free), 2 * grid * ("width" in free))
    size = [side + extra for side, extra in zip(first.shape[2:], more, strict=True)]
    images = torch.randn(batch, first.shape[1], *size, generator=generator, dtype=first.dtype)
    return (images, *(torch.cat([tensor[:1]] * batch) for tensor in rest))


def _run_file(path, blob, wrapped, trials):
    """The outputs, in order, that the file's content computes of each of the trials' inputs."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load

        return [_run_weights(path, wrapped, load(blob), inputs) for inputs in trials]
    if path.suffix == ".pt2":
        program = torch.export.load(io.BytesIO(blob)).module()
        return [[tensor for _, tensor in _tensors(program(*inputs))] for inputs in trials]
    import onnxruntime

    session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    feeds = ({name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
             for inputs in trials)
    return [[torch.from_numpy(array) for array in session.run(None, feed)] for feed in feeds]


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


def _checked(path, wanted, found, compare=None):
    """The largest difference; InputError naming the output that is off."""
    largest = 0.0
    if compare is not None:
        largest = compare(wanted, dict(zip(wanted, found, strict=True)))
        if not largest <= TOLERANCE:
            raise InputError(f"--export {path}: the file's detections differ by {largest:.3g} from "
                             "the network's; the file was not kept")
        return largest
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


def _safetensors_bytes(module, text):
    from safetensors.torch import save

    # the format knows no two names for one memory
    tensors = {key: value.clone() for key, value in _state(module).items()}
    return save(tensors, {KEY: text} if text else None)


def _onnx_bytes(wrapped, inputs, names, free, text):
    flat = _Method(wrapped.module, wrapped.method, flat=True).eval()
    with warnings.catch_warnings():
        # torch's exporter warns about torch's own code, which no user can change
        warnings.simplefilter("ignore", FutureWarning)
        program = torch.onnx.export(
            flat,
            _traced(inputs, free),
            dynamo=True,
            verbose=False,
            input_names=names[0],
            output_names=names[1],
            dynamic_shapes=_shapes(inputs, free, {axis: axis for axis in AXES}),
        )
    model = program.model_proto
    if text:
        entry = model.metadata_props.add()
        entry.key, entry.value = KEY, text
    return model.SerializeToString()
