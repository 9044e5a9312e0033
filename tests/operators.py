"""torchvision's compiled operators: whether they load here, and which tests compare with them.

Part of tests/conftest.py. Tests that compare with torchvision are marked `operators` and take the
fixture `torchvision_here`, which skips them where there is nothing to compare with.
"""

import functools
from importlib.metadata import PackageNotFoundError, version

import pytest

OPTION = "--operators"
REAL, OWN = "real", "own"  # the option's values; without it: whatever loads


def add_option(parser):
    parser.addoption(
        OPTION, choices=(REAL, OWN),
        help="real: torchvision's compiled operators must load, and YOLACT++ uses them on a CPU "
             "too; own: they are hidden. make operators runs both")


@functools.lru_cache(maxsize=1)
def load_fault():
    """Why torchvision's operators do not load, or None: they do."""
    try:
        import torch
        from torchvision.ops import deform_conv2d, nms

        nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
        deform_conv2d(torch.zeros(1, 1, 1, 1), torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, 1))
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return str(error).splitlines()[0]
    return None


def fault_of(config):
    """Why this session has no operators of torchvision's, or None: it has them."""
    return f"hidden by {OPTION} {OWN}" if config.getoption(OPTION) == OWN else load_fault()


def report_line(fault, comparing):
    """What a session says of its operators; comparing: how many of its tests want torchvision's."""
    torch, torchvision = _version("torch"), _version("torchvision")
    if fault is None:
        return (f"operators: torchvision {torchvision}'s deformable convolution, NMS and RoIAlign "
                f"(torch {torch}); {comparing} tests compare ours with them")
    if fault.startswith("hidden"):
        reason = f"torchvision's are {fault}"
    elif torchvision is None:
        reason = "torchvision is not installed"
    else:
        reason = f"torchvision {torchvision} does not fit torch {torch} ({fault})"
    return (f"operators: our own deformable convolution, NMS and RoIAlign; {reason}; {comparing} "
            "tests have nothing to compare with and skip: make operators runs them")


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@pytest.fixture(scope="session")
def torchvision_here(pytestconfig):
    """Skips a test that compares with torchvision where its operators do not load."""
    fault = fault_of(pytestconfig)
    if fault is not None:
        pytest.skip(f"torchvision's operators: {fault}")


@pytest.fixture(autouse=True)
def chosen_operators(request, monkeypatch):
    """With --operators every deformable layer uses the one that was asked for, on any device."""
    choice = request.config.getoption(OPTION)
    if choice is None:
        return
    from models.yolact import deform_conv

    if choice == OWN:
        monkeypatch.setattr(deform_conv, "compiled_deform_conv2d", lambda: None)
    elif load_fault() is None:
        from torchvision.ops import deform_conv2d

        # what a layer calls on a CPU; tests that compare have imported ours by its own name
        monkeypatch.setattr(deform_conv, "deform_conv2d", deform_conv2d)
