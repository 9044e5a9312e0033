"""docs/mmdetection.md: each key of MMDetection's has its class there, and none is unknown here."""

import pytest

from tests.mmdetection_tables import DOCUMENTED, PAGE, page, rows


@pytest.fixture(scope="module")
def found():
    return rows()


def test_no_key_is_unknown_or_silently_dropped(found):
    left = [f"{line}: {kind}: {why}" for line, kind, why in found
            if kind not in ("obeyed", "without effect", "refused")]
    assert not left, "\n".join(left)


def test_what_is_not_obeyed_has_a_reason(found):
    assert all(why for _, kind, why in found if kind != "obeyed")


def test_the_documented_lines_are_all_there(found):
    assert len(DOCUMENTED) >= 73
    assert {line for line, _, _ in found} >= set(DOCUMENTED)


@pytest.mark.parametrize("line, kind", [
    ("train_dataloader.batch_size=4", "obeyed"),
    ("default_hooks.checkpoint.save_optimizer=False", "obeyed"),
    ("model.backbone.with_cp=True", "obeyed"),
    ("val_evaluator.classwise=True", "obeyed"),
    ("optim_wrapper.paramwise_cfg.norm_decay_mult=0.0", "obeyed"),
    ("env_cfg.cudnn_benchmark=True", "without effect"),
    ("log_level=DEBUG", "without effect"),
    ("custom_imports={imports: [mine]}", "refused"),
])
def test_some_of_them(found, line, kind):
    assert (line, kind) in {(each, its) for each, its, _ in found}


def test_the_page_is_of_today(found):
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "write it anew: python -m tests.mmdetection_tables"
