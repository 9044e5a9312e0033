"""Checkpoints of encoder and decoder: written together, found, fallen back from, replaced."""

import pytest
import torch

from common.checkpoint.forms import net_path
from common.checkpoint.series import Loaded, Occasion, seg_series
from runtime.errors import InputError


@pytest.fixture
def series(tmp_path):
    """An epoch has ten updates."""
    return seg_series(tmp_path, 10)


def weights(value):
    return {"encoder": {"w": torch.full((9,), value)}, "decoder": {"w": torch.full((9,), -value)}}


def save(series, iteration, history=None, occasion=Occasion.REGULAR):
    return series.save(iteration, weights(float(iteration)), {"iteration": iteration}, occasion,
                       history=history)


def newest(series, warn):
    return series.find_start("latest", warn)


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def names(series):
    return sorted(path.name for path in series.folder.iterdir())


def test_a_checkpoint_is_four_files(series):
    path = save(series, 10, {"train": {"loss": [0.5]}})
    assert names(series) == ["decoder_epoch_1.pth", "encoder_epoch_1.pth",
                             "encoder_epoch_1.state.pth", "history_epoch_1.pth"]
    found = newest(series, pytest.fail)
    assert found.path == path == series.folder / "encoder_epoch_1.pth"
    assert found.weights["decoder"]["w"][0] == -10
    assert found.state == {"iteration": 10}


@pytest.mark.parametrize("part", ["encoder_epoch_2.pth", "decoder_epoch_2.pth",
                                  "encoder_epoch_2.state.pth"])
def test_a_damaged_part_falls_back(series, part):
    save(series, 10)
    save(series, 20)
    damage(series.folder / part)
    warnings = []
    assert newest(series, warnings.append).state == {"iteration": 10}
    assert len(warnings) == 1
    assert part in warnings[0]
    with pytest.raises(InputError, match=part):
        series.find_start(str(series.folder / "encoder_epoch_2.pth"), pytest.fail)


def test_all_damaged_files_are_named(series):
    save(series, 20, {"train": {}})
    for name in names(series):
        damage(series.folder / name)
    with pytest.raises(InputError) as caught:
        newest(series, lambda line: None)
    for name in names(series):
        assert name in str(caught.value)


def test_a_damaged_history_is_a_warning(series):
    save(series, 20, {"train": {}})
    damage(series.folder / "history_epoch_2.pth")
    warnings = []
    assert newest(series, warnings.append).state == {"iteration": 20}
    assert "history_epoch_2.pth" in warnings[0]


def test_halves_of_two_checkpoints_are_not_taken_for_one(series):
    save(series, 10)
    save(series, 20)
    (series.folder / "decoder_epoch_1.pth").replace(series.folder / "decoder_epoch_2.pth")
    with pytest.raises(InputError, match="does not belong to the weights"):
        series.find_start(str(series.folder / "epoch_2.pth"), pytest.fail)


def test_a_missing_decoder_is_named(series):
    save(series, 10)
    (series.folder / "decoder_epoch_1.pth").unlink()
    with pytest.raises(InputError, match=r"decoder_epoch_1\.pth"):
        newest(series, lambda line: None)


def test_what_a_new_checkpoint_replaces(series):
    for i in (1, 2, 3):
        save(series, i)
    assert [name for name in names(series) if "encoder_iter" in name and "state" not in name] == [
        "encoder_iter_2.pth", "encoder_iter_3.pth"]
    series.save_best(weights(5.0), {"iteration": 3})
    save(series, 10)
    assert not any("iter" in name for name in names(series))
    assert series.best_path.exists()
    save(series, 15, occasion=Occasion.LAST)
    assert {"encoder_iter_15.pth", "encoder_epoch_1.pth"} <= set(names(series))


def test_what_is_named_and_what_is_found(series):
    with pytest.raises(InputError, match="holds no checkpoint"):
        series.find_trained(None, pytest.fail, "epoch_20.pth")
    assert series.find_start("latest", pytest.fail) is None
    assert series.find_start(None, pytest.fail) is None
    save(series, 10)
    save(series, 12)
    series.save_best(weights(3.0), {"iteration": 3})

    def trained(resume, checkpoint="", is_meant=False):
        found = series.find_trained(resume, pytest.fail, checkpoint, is_meant)
        return found.state["iteration"]

    assert trained(None, "epoch_1.pth") == 3
    assert trained(None, "epoch_1.pth", True) == 10
    assert trained("latest", "epoch_1.pth", True) == 12
    for name in ("encoder_epoch_1.pth", "decoder_epoch_1.pth", "epoch_1.pth",
                 "encoder_epoch_1.state.pth"):
        assert trained(str(series.folder / name)) == 10
    assert series.find_start("interrupt", pytest.fail, start_epoch=1).state == {"iteration": 12}
    assert series.find_start(None, pytest.fail, start_epoch=1).state == {"iteration": 10}
    with pytest.raises(InputError, match=r"encoder_epoch_7\.pth"):
        series.find_start(None, pytest.fail, start_epoch=7)
    series.best_path.unlink()
    net_path(series.best_path, "decoder").unlink()
    assert trained(None, "epoch_1.pth") == 10  # of the config, before the newest
    assert trained(None, "epoch_9.pth") == 12


def test_names(tmp_path):
    for name in ("decoder_epoch_12.pth", "epoch_12.pth", "encoder_epoch_12.state.pth"):
        assert str(net_path(f"a/b/{name}", "encoder")) == "a/b/encoder_epoch_12.pth"
    assert str(net_path("a/encoder_best.pth", "*")) == "a/*_best.pth"
    series = seg_series(tmp_path, 50)
    for name, iteration in (("epoch_12", 600), ("iter_12", 12), ("best", 0)):
        loaded = Loaded(tmp_path / f"encoder_{name}.pth", {}, None)
        assert series.iteration_of(loaded) == iteration


def test_beside_a_state_without_weights_nothing_else_goes(series):
    """A user has taken one file of three away; the rest of it stays theirs."""
    save(series, 10)
    (series.folder / "encoder_epoch_1.pth").unlink()
    save(series, 20)
    assert names(series) == ["decoder_epoch_1.pth", "decoder_epoch_2.pth", "encoder_epoch_2.pth",
                             "encoder_epoch_2.state.pth"]
