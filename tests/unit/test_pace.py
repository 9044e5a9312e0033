"""Validations where epochs are short: by updates, unless the user has said how often."""

from types import SimpleNamespace

import pytest
import yaml

from models import queryinst, resnest, yolact
from runtime.sizing.pace import epochs_between, paced
from settings.changes import is_own
from settings.files import RECIPES


class Talk:
    """A run that only talks."""

    log = staticmethod(print)
    writer = None


@pytest.mark.parametrize("per_epoch, total, every, epochs", [
    (3, 3000, 1, 34),  # 102 updates
    (100, 100_000, 1, 1),
    (99, 99_000, 1, 2),
    (99, 99_000, 2, 2),  # 198 updates are enough
    (3, 3000, 50, 50),
    (3, 300, 1, 10),  # a short training is validated ten times all the same
    (3, 30, 1, 1),
    (3, 3000, 0, 0),  # never is never
])
def test_a_hundred_updates_or_a_tenth_of_the_training_lie_between(per_epoch, total, every, epochs):
    assert epochs_between(per_epoch, total, every) == epochs


def test_what_is_chosen_is_said_and_what_the_user_sets_stays():
    said = []
    assert paced(3, 3000, 1, False, said.append, "validates", "--every 1") == 34
    assert len(said) == 1
    assert "Epochs have 3 updates: validates every 34 epochs, 102 updates; --every 1" in said[0]
    assert paced(3, 3000, 1, True, said.append, "validates", "--every 1") == 1
    assert paced(200, 9000, 1, False, said.append, "validates", "--every 1") == 1
    assert len(said) == 1


def test_a_key_is_the_users_in_an_option_or_in_a_file_of_theirs(tmp_path):
    recipe, key = RECIPES / "resnest" / "small.yaml", "TRAINING.EVAL_EVERY"
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({"_base_": str(recipe), "TRAINING": {"EPOCHS": 9}}))
    assert not is_own(key, recipe, [])
    assert not is_own(key, own, ["TRAINING.EPOCHS=4"])  # the recipe below it has 5
    assert not is_own(key, None, [])
    assert is_own(key, None, [f"{key}=5"])
    assert is_own(key, None, ["TRAINING={EVAL_EVERY: 5}"])
    assert not is_own(key, None, ["TRAIN=1"])
    own.write_text(yaml.safe_dump({"_base_": str(recipe), "TRAINING": {"EVAL_EVERY": 1}}))
    assert is_own(key, own, [])


def test_yolacts_flag_counts_where_it_is_typed():
    cfg, said = yolact.load_yolact_config("yolact_small"), []
    flags = SimpleNamespace(validation_epoch=2, given=frozenset())
    assert yolact.epochs_between_validations(cfg, flags, 6, said.append) == 17
    flags.given = {"validation_epoch"}
    assert yolact.epochs_between_validations(cfg, flags, 6, said.append) == 2


def test_resnests_recipe_for_photos_is_stretched_over_few_of_them(tmp_path):
    flags = SimpleNamespace(config_file="configs/resnest/small.yaml", options=[],
                            save_every=None)
    cfg = resnest.load_resnest_config(flags.config_file)

    def every(per_epoch):
        return resnest.paced_series(flags, Talk(), cfg, tmp_path, per_epoch)

    checkpoints, epochs = every(2)
    assert epochs == 12  # a tenth of 120
    assert not any(map(checkpoints.due, range(1, 100)))  # only with validations
    checkpoints, epochs = every(32)
    assert epochs == 5  # the recipe's own
    assert checkpoints.due(32)
    flags.options = ["TRAINING.EVAL_EVERY=5"]
    assert every(2)[1] == 5


def query_flags(config="queryinst_small", *options, patience=None):
    return SimpleNamespace(config=config, cfg_options=list(options), patience=patience,
                           accumulate=1)


def intervals(flags, per_epoch, *options):
    cfg = queryinst.load_queryinst_config(flags.config, options=[*flags.cfg_options, *options])
    loader = SimpleNamespace(steps_per_epoch=lambda accumulate: per_epoch)
    cfg, told = queryinst.with_pace(cfg, flags, loader, print)
    assert told == per_epoch
    return cfg.train_cfg.validate_every, cfg.default_hooks.checkpoint.interval


def test_queryinst_validates_and_saves_together():
    assert intervals(query_flags(), 13) == (4, 4)
    assert intervals(query_flags(), 250) == (1, 1)
    key = "train_cfg.val_interval=1"
    assert intervals(query_flags("queryinst_small", key), 13) == (1, 1)
    key = "default_hooks.checkpoint.interval=1"
    assert intervals(query_flags("queryinst_small", key), 13) == (4, 1)
    key = "default_hooks.checkpoint.interval=3"
    assert intervals(query_flags("queryinst_small", key), 13) == (4, 3)


def test_validations_that_the_config_counts_stay_where_they_are():
    stop = "custom_hooks=[{type: EarlyStoppingHook, monitor: coco/segm_mAP, patience: 3}]"
    assert intervals(query_flags("queryinst_small", stop), 13) == (1, 1)


def test_mmdetections_python_configs_have_all_of_them_the_interval_1(tmp_path):
    config = tmp_path / "mine.py"
    for number, expected in ((1, (4, 4)), (2, (2, 1))):
        config.write_text("train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=36, "
                          f"val_interval={number})\n")
        assert intervals(query_flags(str(config)), 13) == expected
