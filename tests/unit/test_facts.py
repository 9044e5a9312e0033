"""Files of weights that say what they are for, and load as before all the same."""

import json
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch

from common.checkpoint import load_checkpoint, save_checkpoint
from common.checkpoint.state import check_same_run, differing_names
from data.segmentation import ADE20K_CLASSES
from models import queryinst, resnest, segmentation, yolact
from models.facts import Facts, Pixels, facts_in, with_facts
from models.foreign_weights import read_weights
from runtime.errors import InputError
from settings.datasets import COCO_CLASSES

NAMES = ("red", "green", "blue")


def yolact_net():
    cfg = yolact.load_yolact_config("yolact_shapes")
    dataset = replace(cfg.dataset, class_names=NAMES, label_map={1: 1, 2: 2, 3: 3})
    return yolact.build_yolact(replace(cfg, dataset=dataset, num_classes=4))


def seg_cfg(**dataset):
    cfg = segmentation.load_seg_config("shapes")
    return replace(cfg, DATASET=replace(cfg.DATASET, **dataset))


def query_cfg(num_classes):
    cfg = queryinst.load_queryinst_config("queryinst_shapes")
    return replace(cfg, model=replace(cfg.model, num_classes=num_classes))


@pytest.fixture
def facts():
    pixels = Pixels("fit", (300, 450), (1.5, 2.0, 3.0), (4.0, 5.0, 6.0), longest=1000, multiple=8)
    return Facts("resnest", "resnest14", 3, NAMES, pixels)


def test_facts_survive_the_file_and_any_strict_loading(facts, tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    save_checkpoint(tmp_path / "net.pth", with_facts(net.state_dict(), facts))
    plain = torch.load(tmp_path / "net.pth", weights_only=True)  # as the originals read it
    assert set(plain) == set(net.state_dict())
    net.load_state_dict(plain)
    torch.nn.DataParallel(net).module.load_state_dict(plain, strict=True)
    assert facts_in(load_checkpoint(tmp_path / "net.pth"), "resnest") == facts
    # torch's own record of module versions is still there
    assert plain._metadata["1"] == net.state_dict()._metadata["1"]
    assert set(read_weights(tmp_path / "net.pth")) == set(net.state_dict())


def test_another_image_size_is_told(facts):
    said = []
    facts.warn_of_size(facts, said.append)
    assert said == []
    facts.warn_of_size(replace(facts, pixels=replace(facts.pixels, sizes=(300, 600))), said.append)
    assert said == ["the checkpoint was trained on images of 450 px, and they are made 600 px now; "
                    "--image-size 450 has them as in training"]


def test_facts_are_plain_json(facts):
    assert Facts.of(json.loads(json.dumps(facts.plain()))) == facts


@pytest.mark.parametrize("spoil", [
    lambda plain: None, lambda plain: 5, lambda plain: {}, lambda plain: [1],
    lambda plain: plain | {"classes": ["one"]}, lambda plain: plain | {"classes": 7},
    lambda plain: plain | {"num_classes": "3"}, lambda plain: plain | {"num_classes": -1},
    lambda plain: plain | {"pixels": {}}, lambda plain: plain | {"classes": [1, 2, 3]},
    lambda plain: plain | {"pixels": plain["pixels"] | {"mean": ["a", "b", "c"]}},
    lambda plain: plain | {"pixels": plain["pixels"] | {"std": [0, 1, 1]}},
    lambda plain: plain | {"pixels": plain["pixels"] | {"sizes": []}},
    lambda plain: plain | {"pixels": plain["pixels"] | {"resize": "melt"}},
    lambda plain: plain | {"pixels": plain["pixels"] | {"unheard": 1}},
])
def test_what_a_stranger_wrote_is_no_fact(facts, spoil):
    assert Facts.of(spoil(facts.plain())) is None


def test_metadata_of_any_kind_are_no_facts(facts):
    for metadata in (3, {"": 4}, {"": {"facts": 5}}):
        state = OrderedDict(a=torch.zeros(1))
        state._metadata = metadata
        assert facts_in(state, "resnest") is None
    assert facts_in(with_facts({"a": torch.zeros(1)}, facts), "yolact") is None


def test_yolact(tmp_path):
    net = yolact_net()
    save_checkpoint(tmp_path / "a.pth", yolact.weights_of(net))
    loaded = load_checkpoint(tmp_path / "a.pth")
    yolact_net().load_state_dict(loaded)
    other = yolact.load_yolact_config("yolact_base")
    said = yolact.said_in(loaded, other)
    assert said.classes == NAMES
    assert said.num_classes == 3
    assert said.config == "yolact_shapes"
    pixels = said.pixels
    assert (pixels.resize, pixels.sizes) == ("stretch", (net.cfg.max_size,))
    assert (pixels.mean, pixels.std) == ((123.68, 116.78, 103.94), (58.40, 57.12, 57.38))  # RGB


def test_yolact_of_the_original_says_its_class_count_alone():
    cfg = yolact.load_yolact_config("yolact_base")
    bare = dict(yolact_net().state_dict())
    said = yolact.said_in(bare, cfg)
    assert said.num_classes == 3
    assert said.classes == ()
    assert said.names()[2] == "class 2"
    heads = {"prediction_layers.0.bbox_layer.weight": torch.zeros(12, 1),
             "prediction_layers.0.conf_layer.weight": torch.zeros(3 * 81, 1)}
    small = yolact_net().cfg
    assert yolact.said_in({f"module.{key}": value for key, value in heads.items()},
                          small).classes == COCO_CLASSES
    darknet = yolact.load_yolact_config("yolact_darknet53")
    assert yolact.facts_of(darknet).pixels.std == (255, 255, 255)


def test_cocos_names_are_those_of_the_recipe():
    assert yolact.load_dataset_config("coco2017_dataset").class_names == COCO_CLASSES
    assert len(ADE20K_CLASSES) == 150


def test_segmentation(tmp_path):
    cfg = seg_cfg(num_class=3, class_names=NAMES, imgSizes=(64, 96), imgMaxSize=128)
    module = segmentation.build_module(cfg, torch.device("cpu"), torch.contiguous_format)
    weights = segmentation.weights_of(module, cfg)
    for net, state in weights.items():
        save_checkpoint(tmp_path / f"{net}.pth", state)
        said = segmentation.said_in(load_checkpoint(tmp_path / f"{net}.pth"), seg_cfg())
        assert said.classes == NAMES
        assert said.pixels.sizes == (64, 96)
        assert said.pixels.longest == 128
        assert said.pixels.mean[0] == pytest.approx(123.675)
    bare = {net: dict(state) for net, state in weights.items()}
    assert segmentation.said_in(bare, seg_cfg(num_class=7, class_names=())).num_classes == 3
    ade = {"decoder": {"conv_last.4.weight": torch.zeros(150, 1), "conv_last.1.weight":
                       torch.zeros(512)}}
    assert segmentation.said_in(ade, seg_cfg()).classes == ADE20K_CLASSES


def test_resnest(tmp_path):
    cfg = resnest.load_resnest_config("shapes")
    net = resnest.build_network(cfg, 3)
    save_checkpoint(tmp_path / "a.pth", {"epoch": 1, "state_dict": resnest.weights_of(
        net, cfg, NAMES)})
    loaded = load_checkpoint(tmp_path / "a.pth")
    said = resnest.said_in(loaded, resnest.load_resnest_config())
    assert said.classes == NAMES
    assert said.config == cfg.MODEL.NAME
    assert said.pixels.sizes == (cfg.DATA.CROP_SIZE,)
    assert said.pixels.resize == "centre"
    bare = {"state_dict": dict(net.state_dict())}
    assert resnest.said_in(bare, cfg).names() == ("class 0", "class 1", "class 2")
    assert resnest.said_in(bare, cfg, NAMES).classes == NAMES
    assert resnest.said_in({"fc.weight": torch.zeros(1000, 4)}, cfg, NAMES).num_classes == 1000


def test_queryinst_and_mmdetections_meta(tmp_path):
    cfg = query_cfg(3)
    net = queryinst.build_queryinst(cfg)
    optimizer, _ = queryinst.build_optimizer(net, 1)
    state = {"epoch": 0, "iteration": 0, "config": "", "optimizer": optimizer.state_dict(),
             "scaler": {}, "best": {}}
    content = queryinst.checkpoint_of(queryinst.MmengineForm(net, NAMES, 0, 1), state)
    for each in (content, queryinst.scored_of(content, net)):
        save_checkpoint(tmp_path / "a.pth", each)
        said = queryinst.said_in(load_checkpoint(tmp_path / "a.pth"), query_cfg(80))
        assert said.classes == NAMES
        assert said.pixels == queryinst.facts_of(cfg).pixels
    head = {"roi_head.bbox_head.0.fc_cls.weight": torch.zeros(3, 2)}
    for meta in ({"dataset_meta": {"classes": NAMES}}, {"CLASSES": NAMES},
                 {"dataset_meta": {"CLASSES": list(NAMES)}}):
        assert queryinst.said_in({"meta": meta, "state_dict": head}, query_cfg(80)).classes == NAMES
    assert queryinst.said_in({"state_dict": head}, query_cfg(80)).names()[0] == "class 0"
    head = {"roi_head.bbox_head.0.fc_cls.weight": torch.zeros(80, 2)}
    assert queryinst.said_in({"state_dict": head}, query_cfg(3)).classes == COCO_CLASSES


def test_other_names_for_as_many_classes_are_said(facts):
    said = []
    facts.warn_of_others(NAMES, said.append)
    facts.warn_of_others(("red", "green"), said.append)  # another count is said where it is loaded
    assert said == []
    facts.warn_of_others(("red", "blue", "green"), said.append)
    [line] = said
    assert "class 1 was green, is now blue, class 2 was blue, is now green" in line
    assert differing_names("abcde", "vwxyz").endswith("and 2 more")


def test_a_resume_with_other_class_names_is_refused():
    saved, warned = {"seed": 0, "classes": ["cat", "dog"]}, []
    check_same_run(saved, dict(saved), False, warned.append)
    check_same_run({"seed": 0}, saved, False, warned.append)  # an older checkpoint
    assert warned == []
    now = saved | {"classes": ["dog", "cat"]}
    told = "class 0 was cat, is now dog, class 1 was dog, is now cat"
    with pytest.raises(InputError, match=rf"{told}\. Use"):
        check_same_run(saved, now, False, warned.append)
    check_same_run(saved, now, True, warned.append)
    assert warned == [f"resumed by force: {told}"]
