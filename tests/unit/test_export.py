import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import models.export
from models.export import (
    ANY_BATCH,
    ANY_SIZE,
    FIXED,
    PACKAGES,
    check_export,
    export,
    export_path,
)
from models.facts import Facts, Pixels, facts_in
from runtime.errors import InputError, SaveError


class Net(nn.Module):
    """Heads in a dict, a norm layer that modes change, weights that no output needs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.unused = nn.Linear(2, 2)
        self.register_buffer("priors", torch.rand(5, 4))

    def forward(self, images):
        raise RuntimeError("as in training: not what is exported")

    def forward_heads(self, images):
        x = torch.relu(self.norm(self.conv(images)))
        wide = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return {"loc": x.flatten(1), "proto": torch.tanh(wide), "priors": self.priors,
                "levels": [x.sum((2, 3)), x.mean(1)]}


NAMES = ["loc", "proto", "priors", "levels.0", "levels.1"]


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Net()
    net.norm.running_mean.uniform_(-1, 1)
    return net


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def heads(net, images):
    with torch.no_grad():
        outputs = net.eval().forward_heads(images)
    return [outputs["loc"], outputs["proto"], outputs["priors"], *outputs["levels"]]


@pytest.mark.parametrize("suffix", list(PACKAGES))
def test_every_form_computes_the_same(net, images, tmp_path, suffix, recwarn):
    for package in PACKAGES[suffix]:
        pytest.importorskip(package)
    path = tmp_path / f"net{suffix}"
    before = {key: value.clone() for key, value in net.state_dict().items()}
    exported = export(net.train(), images, path, method="forward_heads")
    # the same operators on the same machine; only .onnx runs in another library
    assert exported.difference <= (1e-5 if suffix == ".onnx" else 0)
    assert exported.free == ()
    assert net.training
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert list(tmp_path.iterdir()) == [path]
    assert not [warning for warning in recwarn if "export.py" in warning.filename]


def test_pth_is_a_bare_state_dict(net, images, tmp_path):
    export(net, images, tmp_path / "net.pth", method="forward_heads")
    state = torch.load(tmp_path / "net.pth", weights_only=True)
    assert {key for key in state if key in net.state_dict()} == set(net.state_dict())
    other = Net()
    other.load_state_dict({key: state[key] for key in net.state_dict()})
    for ours, theirs in zip(heads(net, images), heads(other, images), strict=True):
        assert torch.equal(ours, theirs)


def test_pt2_stands_alone(net, images, tmp_path):
    export(net, (images,), tmp_path / "net.pt2", method="forward_heads")
    outputs = torch.export.load(tmp_path / "net.pt2").module()(images)
    assert list(outputs) == ["loc", "proto", "priors", "levels"]
    assert torch.equal(outputs["proto"], heads(net, images)[1])


def test_onnx_has_named_inputs_and_outputs(net, images, tmp_path):
    for package in PACKAGES[".onnx"]:
        pytest.importorskip(package)
    import onnxruntime

    for given, expected in ((None, NAMES), (list("abcde"), list("abcde"))):
        path = tmp_path / "net.onnx"
        export(net, images, path, given, method="forward_heads")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        assert [one.name for one in session.get_inputs()] == ["images"]
        assert [one.name for one in session.get_outputs()] == expected
        outputs = session.run(None, {"images": images.numpy()})
        for ours, theirs in zip(heads(net, images), outputs, strict=True):
            # float32 sums in another order
            np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-4)


FACTS = Facts("resnest", "resnest14", 2, ("cat", "dog"),
              Pixels("centre", (16,), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)))


@pytest.mark.parametrize("suffix", list(PACKAGES))
def test_every_form_says_what_it_is_for(net, images, tmp_path, suffix):
    for package in PACKAGES[suffix]:
        pytest.importorskip(package)
    path = tmp_path / f"net{suffix}"
    export(net, images, path, method="forward_heads", facts=FACTS)
    if suffix == ".pth":
        assert facts_in(torch.load(path, weights_only=True), "resnest") == FACTS
        return
    if suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            text = file.metadata()["facts"]
    elif suffix == ".pt2":
        extra = {"facts.json": ""}
        torch.export.load(path, extra_files=extra)
        text = extra["facts.json"]
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        text = session.get_modelmeta().custom_metadata_map["facts"]
    assert Facts.of(json.loads(text)) == FACTS


def test_a_file_of_one_size_says_that_images_are_stretched_to_it(net, images, tmp_path):
    """An image that keeps its ratio would not go in."""
    fits = replace(FACTS, pixels=replace(FACTS.pixels, resize="fit", longest=40, multiple=8))
    for free, resize, longest in ((FIXED, "stretch", None), (ANY_SIZE, "fit", 40)):
        path = tmp_path / f"{resize}.pt2"
        export(net, images, path, method="forward_heads", facts=fits, free=(free,), grid=8)
        extra = {"facts.json": ""}
        torch.export.load(path, extra_files=extra)
        said = Facts.of(json.loads(extra["facts.json"])).pixels
        assert (said.resize, said.sizes, said.longest) == (resize, (16,), longest)


class Pool(nn.Module):
    """Any size; with `side` only that one, with `batch` only so many images."""

    def __init__(self, side=None, batch=None):
        super().__init__()
        self.conv, self.batch = nn.Conv2d(3, 4, 3), batch
        self.fc = nn.Linear(4 * (side - 2) ** 2, 4) if side else None

    def forward(self, images):
        x = self.conv(images)
        if self.batch is not None:
            x = torch.stack([x[i] for i in range(len(x))])  # unrolled for the batch traced
        return x.mean((2, 3)) if self.fc is None else self.fc(x.flatten(1))


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize("how, free", [({}, ANY_SIZE), ({"side": 16}, ANY_BATCH),
                                       ({"side": 16, "batch": 1}, FIXED)])
def test_the_first_choice_of_open_axes_that_the_network_allows(tmp_path, suffix, how, free):
    for package in PACKAGES[suffix]:
        pytest.importorskip(package)
    pool, path = Pool(**how), tmp_path / f"pool{suffix}"
    image = torch.randn(1, 3, 16, 16)
    exported = export(pool, image, path, free=(ANY_SIZE, ANY_BATCH, FIXED), input_names=["x"])
    assert exported.free == free
    assert str(exported).startswith("read back, it differs by ")
    assert str(exported).endswith(free[-1] if free else exported.difference.__format__(".1e"))
    other = torch.randn(5 if free else 1, 3, *((20, 33) if free == ANY_SIZE else (16, 16)))
    for given in (image, other):  # a single image as well
        if suffix == ".pt2":
            found = torch.export.load(path).module()(given)
        else:
            import onnxruntime

            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            [found] = map(torch.from_numpy, session.run(None, {"x": given.numpy()}))
            axes = session.get_inputs()[0].shape
            assert [axis for axis in axes if isinstance(axis, str)] == list(free)
        torch.testing.assert_close(found, pool(given).detach())


def test_the_format_of_a_file():
    assert export_path("net", "onnx").name == "net.onnx"
    assert export_path("net.v2", "pt2").name == "net.v2.pt2"
    assert export_path("net.pt2", "pt2").name == "net.pt2"
    assert export_path("net.pt2", None).name == "net.pt2"
    assert export_path(None, None) is None
    with pytest.raises(InputError, match="its suffix is not --export-format onnx"):
        export_path("net.pt2", "onnx")
    with pytest.raises(InputError, match="name a file by --export"):
        export_path(None, "onnx")


def test_detections_need_a_format_that_computes(tmp_path):
    check_export(tmp_path / "net.pt2", detections=True)
    with pytest.raises(InputError, match="weights alone; use --export"):
        check_export(tmp_path / "net.pth", detections=True)
    with pytest.raises(InputError, match="nothing is exported"):
        check_export(None, detections=True)


def test_forward_and_two_inputs(tmp_path):
    class Sum(nn.Module):
        def forward(self, left, right):
            return left + right

    for suffix in (".pth", ".pt2"):
        exported = export(Sum(), (torch.ones(2), torch.ones(2)), tmp_path / f"sum{suffix}")
        assert exported.difference == 0


def test_a_file_that_computes_something_else_is_not_kept(tmp_path):
    calls = []

    class Counting(nn.Module):
        """Gives other numbers at each call: what is traced is not what was computed before."""

        def forward(self, x):
            calls.append(0)
            return x * len(calls)

    path = tmp_path / "counting.pt2"
    path.write_text("the one before")
    with pytest.raises(InputError, match=r"counting\.pt2: output output differs by 1 "):
        export(Counting(), torch.ones(2), path)
    assert path.read_text() == "the one before"
    assert list(tmp_path.iterdir()) == [path]


def test_weights_that_reach_no_output_are_compared_too(net, images, tmp_path, monkeypatch):
    def damaged(path):
        return net.state_dict() | {"unused.weight": torch.zeros(2, 2)}

    monkeypatch.setattr(models.export, "load_checkpoint", damaged)
    with pytest.raises(InputError, match="does not hold the weights"):
        export(net, images, tmp_path / "net.pth", method="forward_heads")


def test_not_a_number_is_not_the_same(tmp_path):
    class Log(nn.Module):
        def forward(self, x):
            return x.log()

    with pytest.raises(InputError, match="differs by nan"):
        export(Log(), -torch.ones(2), tmp_path / "log.pt2")


def test_wrong_number_of_names(net, images, tmp_path):
    with pytest.raises(ValueError, match="2 output names for 5 outputs"):
        export(net, images, tmp_path / "net.pt2", ["a", "b"], method="forward_heads")


def test_unknown_suffix_names_the_known_ones(net, images, tmp_path):
    with pytest.raises(InputError) as caught:
        export(net, images, tmp_path / "net.onx")
    [fault] = caught.value.faults
    assert fault.endswith("the suffix '.onx' is none of .pth, .safetensors, .pt2, .onnx. "
                          "Did you mean .onnx?")


def test_missing_packages_are_named(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    absent = {"onnxscript", "onnxruntime", "safetensors"}
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name: None if name in absent else find(name) or object())
    with pytest.raises(InputError, match=r"\.safetensors files need safetensors: pip install"):
        check_export(tmp_path / "net.safetensors")
    with pytest.raises(InputError, match=r"pip install onnxscript onnxruntime$"):
        check_export(tmp_path / "net.onnx")
    check_export(tmp_path / "net.pt2")


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match="absent does not exist"):
        check_export(tmp_path / "absent" / "net.pth")


def test_unwritable_target_is_a_save_error(net, images, tmp_path):
    (tmp_path / "net.pt2").mkdir()
    with pytest.raises(SaveError, match=r"net\.pt2"):
        export(net, images, tmp_path / "net.pt2", method="forward_heads")
