"""The config of a file of YOLACT weights: told by its names and shapes, then by its name."""

import pytest
import torch

from common.checkpoint import save_checkpoint
from models.facts import with_facts
from models.yolact import load_fitting_config, load_yolact_config
from models.yolact.facts import facts_of
from models.yolact.network import Yolact
from runtime.errors import InputError


def state_of(config, **changes):
    """A state dict of the config's names and shapes, whose tensors share one small storage."""
    with torch.device("meta"):
        net = Yolact(load_yolact_config(config, **changes))
    flat = torch.zeros(max(value.numel() for value in net.state_dict().values()))
    return {key: flat[:value.numel()].view(value.shape) if value.is_floating_point()
            else torch.tensor(0) for key, value in net.state_dict().items()}


@pytest.fixture
def saved(tmp_path):
    """`saved(config, file name)` -> the file's path, as text."""

    def save(config, name, **changes):
        torch.save(state_of(config, **changes), tmp_path / name)
        return str(tmp_path / name)

    return save


def chosen(named, resume, *options):
    """(name of the config in force, the lines that were said)."""
    lines = []
    return load_fitting_config(named, resume, options, lines.append).name, lines


def fault_of(*args):
    with pytest.raises(InputError) as caught:
        chosen(*args)
    assert len(caught.value.faults) == 1
    return caught.value.faults[0]


@pytest.mark.parametrize("resume", [None, "latest", "interrupt"])
def test_without_a_file_it_is_the_originals_default(resume):
    assert chosen(None, resume) == ("yolact_base", [])
    assert chosen("yolact_im700", resume) == ("yolact_im700", [])


@pytest.mark.parametrize("config", ["yolact_plus_resnet50", "yolact_shapes"])
def test_names_and_shapes_tell_the_config_whatever_the_file_is_called(saved, config):
    name, lines = chosen(None, saved(config, "w.pth"))
    assert name == config
    assert len(lines) == 1
    assert f"these are weights of {config}, whose config is taken" in lines[0]


def test_of_networks_that_are_alike_the_files_name_decides_then_the_classes(saved):
    file = "yolact_resnet50_pascal_3_100.pth"
    assert chosen(None, saved("yolact_resnet50", file))[0] == "yolact_resnet50_pascal"
    name, lines = chosen(None, saved("yolact_resnet50_pascal", "w.pth"))
    assert name == "yolact_resnet50_pascal"
    assert "The same network is that of yolact_resnet50: --config chooses" in lines[0]


@pytest.mark.parametrize("file", ["yolact_shapes_54_800000_interrupt.pth",
                                  "yolact_shapes_best.pth", "yolact_shapes_config_1_2.pth"])
def test_the_files_name_is_read_in_all_its_forms(saved, file):
    name, lines = chosen(None, saved("yolact_shapes", file))
    assert name == "yolact_shapes"
    assert "--config chooses" not in lines[0]


def test_a_name_that_the_weights_contradict_does_not_count(saved):
    assert chosen(None, saved("yolact_shapes", "yolact_small_1_2.pth"))[0] == "yolact_shapes"


def test_what_our_own_files_say_counts_more_than_their_names(tmp_path):
    cfg = load_yolact_config("yolact_im700")
    state = with_facts(state_of("yolact_im700"), facts_of(cfg))
    torch.save(state, tmp_path / "yolact_base_54_800000.pth")
    assert chosen(None, str(tmp_path / "yolact_base_54_800000.pth"))[0] == "yolact_im700"


def test_weights_of_other_classes_are_recognised(saved):
    names = tuple(f"c{i}" for i in range(4))
    file = saved("yolact_shapes", "mine.pth", num_classes=5, dataset={"class_names": names})
    assert chosen(None, file)[0] == "yolact_shapes"
    assert chosen("yolact_shapes", file)[0] == "yolact_shapes"  # the data say the classes


def test_options_belong_to_the_config(saved):
    file = saved("yolact_shapes", "yolact_shapes_best.pth", fpn={"num_features": 32})
    assert chosen(None, file, "fpn.num_features=32")[0] == "yolact_shapes"
    assert "fits no config of ours" in fault_of(None, file)


def test_a_misfit_names_the_config_that_fits(saved):
    file = saved("yolact_shapes", "yolact_small_1_2.pth")
    assert fault_of("yolact_small", file) == (
        f"{file}: these are weights of yolact_shapes, not of config yolact_small; "
        "use --config yolact_shapes")


def test_a_file_that_fits_nothing_says_what_differs(saved):
    file = saved("yolact_shapes", "w.pth", fpn={"num_features": 32})
    fault = fault_of("yolact_shapes", file)
    assert "does not fit config yolact_shapes, nor another of ours" in fault
    assert "fpn.lat_layers.0.weight" in fault


def test_a_backbones_file_is_no_network(tmp_path):
    file = tmp_path / "resnet50-19c8e357.pth"
    save_checkpoint(file, {"conv1.weight": torch.zeros(2, 2)})
    assert "it holds no YOLACT network" in fault_of(None, str(file))
    assert "it holds no YOLACT network" in fault_of("yolact_base", str(file))


def test_both_damaged_files_are_named(tmp_path):
    for name in ("w.pth", "w.state.pth"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(InputError) as caught:
        chosen(None, str(tmp_path / "w.pth"))
    assert [fault.partition(":")[0] for fault in caught.value.faults] == [
        str(tmp_path / "w.pth"), str(tmp_path / "w.state.pth")]


def test_a_missing_file_is_said_at_once():
    assert fault_of(None, "not_there.pth") == "not_there.pth: does not exist"
