"""What every parity test needs: golden files, rebuilt weights and inputs, summary comparison."""

import importlib.util
import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "parity" / "golden"

_spec = importlib.util.spec_from_file_location("detfill", FOLDER / "detfill.py")
_detfill_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_detfill_module)
detfill = _detfill_module.detfill
image_batch = _detfill_module.image_batch


def load_golden(name):
    """The JSON of tests/parity/golden/<name>.json."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def calm(state_dict):
    """detfill, scaled key by key so that deep residual stacks stay small ("calm rule")."""
    filled = detfill(state_dict)
    tenth = ("bbox_layer.weight", "conf_layer.weight", "mask_layer.weight",
             "semantic_seg_conv.weight", "proto_net.10.weight")
    for key, value in filled.items():
        darknet_norm = key.startswith("backbone.layers.") and key.endswith(".conv2.1.weight")
        if key.endswith(".bn3.weight") or darknet_norm:
            filled[key] = value * 0.2
        elif key.endswith((".conv_offset_mask.weight", *tenth)):
            filled[key] = value * 0.1
    return filled


def check_summary(tensor, record, atol, every=1):
    """Assert that shape, mean, std, absmax and the 64 samples of `tensor` are the record's.

    `record["samples"]` may hold every `every`-th of the 64 samples only.
    """
    assert list(tensor.shape) == record["shape"]
    flat = tensor.detach().double().reshape(-1).numpy()
    n = flat.size
    samples = flat[[(i * (n - 1)) // 63 for i in range(64)]][::every]
    # records are rounded to 8 or 9 significant digits
    rtol = 2e-8
    np.testing.assert_allclose(samples, record["samples"], rtol=rtol, atol=atol)
    np.testing.assert_allclose(flat.mean(), record["mean"], rtol=rtol, atol=atol)
    np.testing.assert_allclose(flat.std(), record["std"], rtol=rtol, atol=atol)
    np.testing.assert_allclose(np.abs(flat).max(), record["absmax"], rtol=rtol, atol=atol)
