"""train_seg's config: the shipped files, typing rules, combinations that cannot work."""

import dataclasses

import pytest

from models.segmentation import load_seg_config, network
from runtime.cli import paired
from runtime.errors import InputError
from settings.loading import save_config
from settings.segmentation import CONFIG_FOLDER, DECODERS, ENCODERS, SegConfig

# encoder, decoder, fc_dim, padding, rate, batch, epochs, checkpoint [segmentation.md: Recipes]
SHIPPED = {
    "ade20k-mobilenetv2dilated-c1_deepsup":
        ("mobilenetv2dilated", "c1_deepsup", 320, 8, 8, 3, 20, "epoch_20.pth"),
    "ade20k-resnet18dilated-ppm_deepsup":
        ("resnet18dilated", "ppm_deepsup", 512, 8, 8, 2, 20, "epoch_20.pth"),
    "ade20k-resnet50dilated-ppm_deepsup":
        ("resnet50dilated", "ppm_deepsup", 2048, 8, 8, 2, 20, "epoch_20.pth"),
    "ade20k-resnet101dilated-ppm_deepsup":
        ("resnet101dilated", "ppm_deepsup", 2048, 8, 8, 2, 25, "epoch_25.pth"),
    "ade20k-resnet50-upernet": ("resnet50", "upernet", 2048, 32, 4, 2, 30, "epoch_30.pth"),
    "ade20k-resnet101-upernet": ("resnet101", "upernet", 2048, 32, 4, 2, 40, "epoch_50.pth"),
    "ade20k-hrnetv2": ("hrnetv2", "c1", 720, 32, 4, 2, 30, "epoch_30.pth"),
}
BASE = "ade20k-resnet50dilated-ppm_deepsup"


@pytest.mark.parametrize("name", list(SHIPPED))
def test_shipped_files(name):
    cfg = load_seg_config(name)
    model, data, train = cfg.MODEL, cfg.DATASET, cfg.TRAIN
    assert SHIPPED[name] == (
        model.arch_encoder, model.arch_decoder, model.fc_dim, data.padding_constant,
        data.segm_downsampling_rate, train.batch_size_per_gpu, train.num_epoch,
        cfg.VAL.checkpoint)
    assert cfg.TEST.checkpoint == cfg.VAL.checkpoint
    stem = "ade20k-hrnetv2-c1" if name == "ade20k-hrnetv2" else name
    assert f"ckpt/{stem}" == cfg.DIR
    assert data.imgSizes == (300, 375, 450, 525, 600)
    # all else is the default
    default = SegConfig()
    own = {"batch_size_per_gpu", "num_epoch"}
    for field in dataclasses.fields(train):
        if field.name not in own:
            assert getattr(train, field.name) == getattr(default.TRAIN, field.name)
    assert data.pad_label == -1


@pytest.mark.parametrize("path", sorted(CONFIG_FOLDER.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_loads_and_reads_back(path, tmp_path):
    cfg = load_seg_config(path)
    save_config(cfg, tmp_path / "config.yaml")
    assert load_seg_config(tmp_path / "config.yaml") == cfg


def test_the_originals_default_path_names_our_recipe():
    assert load_seg_config(f"config/{BASE}.yaml") == load_seg_config(BASE)
    with pytest.raises(InputError, match=f"Did you mean {BASE}"):
        load_seg_config("config/ade20k-resnet50dilated-ppm_deepsupp.yaml")


@pytest.mark.parametrize(
    "words, section, key, value",
    [
        (("TRAIN.lr_encoder", "1"), "TRAIN", "lr_encoder", 1.0),
        (("TRAIN.weight_decay", "1e-3"), "TRAIN", "weight_decay", 1e-3),
        (("TRAIN.fix_bn", "True"), "TRAIN", "fix_bn", True),
        (("DATASET.imgSizes", "(450,)"), "DATASET", "imgSizes", (450,)),
        (("DATASET.imgSizes", "[450]"), "DATASET", "imgSizes", (450,)),
        (("DATASET.imgSizes", "450"), "DATASET", "imgSizes", (450,)),
        (("DATASET.pad_label", "0"), "DATASET", "pad_label", 0),
        (("VAL.interval", "5"), "VAL", "interval", 5),
    ],
)
def test_pairs(words, section, key, value):
    cfg = load_seg_config(BASE, paired(words))
    assert getattr(getattr(cfg, section), key) == value


@pytest.mark.parametrize(
    "words, fault",
    [
        (("TRAIN.lr_encodr", "0.1"), "unknown key TRAIN.lr_encodr. Did you mean TRAIN.lr_encoder?"),
        (("TRAIN.num_epoch", "10.0"), "TRAIN.num_epoch wants an integer"),
        (("TRAIN.fix_bn", "1"), "TRAIN.fix_bn wants true or false"),
        (("TRAIN.optim", "Adam"), "wants SGD, got Adam"),
        (("DATASET.num_class", "300"), "8-bit"),
        (("DATASET.imgSizes", "()"), "imgSizes"),
        (("DATASET.padding_constant", "12"), "multiple"),
        (("MODEL.fc_dim", "512"), "wants the 2048 channels that resnet50dilated gives, got 512"),
        (("MODEL.arch_decoder", "upernet"), "segm_downsampling_rate wants 4, got 8"),
        (("MODEL.arch_encoder", "resnet18", "MODEL.fc_dim", "512", "MODEL.arch_decoder", "upernet",
          "DATASET.padding_constant", "32", "DATASET.segm_downsampling_rate", "4"),
         "upernet wants the maps of resnet50 or"),
        (("MODEL.arch_decoder", "upernet_small", "DATASET.segm_downsampling_rate", "4"),
         "upernet_small wants the maps of resnet10small, not of resnet50dilated"),
        (("MODEL.arch_encoder", "resnet34"), "got resnet34. Did you mean resnet18?"),
        (("TRAIN.start_epoch", "21"), "start_epoch wants at most num_epoch 20, got 21"),
        (("TRAIN.lr_encoder",), "TRAIN.lr_encoder has no value"),
    ],
)
def test_faults(words, fault):
    with pytest.raises(InputError) as caught:
        load_seg_config(BASE, paired(words))
    assert fault in str(caught.value)
    assert len(caught.value.faults) == 1


def test_deep_supervision_whatever_the_case():
    cfg = load_seg_config(BASE, {"MODEL.arch_decoder": "PPM_DeepSup"})
    assert cfg.MODEL.is_deep_supervised


def test_the_config_knows_the_networks_by_name():
    assert tuple(ENCODERS) == tuple(network._ENCODERS)
    assert tuple(network._DECODERS) == DECODERS


def test_names_of_another_class_count_are_dropped():
    assert load_seg_config("small").DATASET.class_names[0] == "sky"
    assert load_seg_config("small", ["DATASET.num_class=3"]).DATASET.class_names == ()
    assert load_seg_config("small", [("DATASET.num_class", "11")]).DATASET.class_names[0] == "sky"
    with pytest.raises(InputError, match="wants num_class 3 names, got 2"):
        load_seg_config("small", ["DATASET.num_class=3", "DATASET.class_names=[a,b]"])
