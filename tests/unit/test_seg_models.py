"""Building segmentation networks, weights files, momentum schedule."""

import pytest
import torch
from torch import nn

from common.checkpoint import save_checkpoint
from models.segmentation import (
    IMAGENET_FILES,
    NormMomentum,
    SegmentationModule,
    average_scores,
    build_decoder,
    build_encoder,
    corrected_momentum,
    group_weight,
    imagenet_file,
    load_original_state_dict,
    to_original_state_dict,
)
from runtime.errors import InputError


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(1)
    return build_encoder("mobilenetv2dilated", 320)


def faults_of(function, *arguments, **options):
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    return caught.value.faults


def test_names_in_any_case_and_unknown_ones():
    with torch.device("meta"):
        build_decoder("C1_DeepSup", 64, 5)
    (fault,) = faults_of(build_encoder, "resnet34", 512)
    assert "MODEL.arch_encoder" in fault
    (fault,) = faults_of(build_decoder, "ppm_deepsupp", 512, 150)
    assert "Did you mean ppm_deepsup?" in fault


def test_start_without_a_file():
    torch.manual_seed(0)
    encoder = build_encoder("resnet18", 512)
    weight = encoder.layer3[0].conv1.weight
    # 295,000 draws: the deviation is off by 0.4 % at three sigma
    assert weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    assert encoder.bn1.weight.unique().tolist() == [1.0]
    grouped = build_encoder("resnext101", 2048).layer1[0].conv2.weight  # 32 groups
    assert grouped.std().item() == pytest.approx((2 / (9 * 128 // 32)) ** 0.5, rel=0.05)
    decoder = build_decoder("c1", 512, 20)
    kaiming = (2 / (512 * 9)) ** 0.5
    assert decoder.cbr[0].weight.std().item() == pytest.approx(kaiming, rel=0.01)
    assert torch.allclose(decoder.cbr[1].bias, torch.tensor(1e-4))


def test_original_form_and_back(encoder, tmp_path):
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    state = to_original_state_dict(encoder)
    for key in [key for key in state if key.endswith("_running_iter")]:
        start = key.removesuffix("_running_iter")
        assert state[key].tolist() == [1000.0]  # 1 / momentum
        for name in ("running_mean", "running_var"):
            restored = state[f"{start}_tmp_{name}"] / state[key]
            # one float32 product and quotient
            torch.testing.assert_close(restored, state[start + name], rtol=2e-7, atol=0)
    save_checkpoint(tmp_path / "encoder.pth", state)
    again = build_encoder("mobilenetv2dilated", 320, weights=tmp_path / "encoder.pth")
    for key, value in encoder.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_extras_counts_and_classifier_may_come_or_not(encoder):
    native = encoder.state_dict()
    again = build_encoder("mobilenetv2dilated", 320)
    without = {k: v + 1 for k, v in native.items() if not k.endswith("num_batches_tracked")}
    load_original_state_dict(again, without)
    assert all(torch.equal(again.state_dict()[key], value) for key, value in without.items())
    imagenet = {**native, "classifier.1.weight": torch.zeros(1000, 1280),
                "features.18.0.weight": torch.zeros(1280, 320, 1, 1)}
    load_original_state_dict(again, imagenet)
    assert all(torch.equal(again.state_dict()[key], value) for key, value in native.items())


def test_other_keys_are_refused(encoder, tmp_path):
    state = to_original_state_dict(encoder)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    wrong = {key: value + 1 for key, value in state.items()}
    del wrong["features.0.0.weight"]
    wrong["features.1.conv.0.weigth"] = torch.zeros(1)
    wrong["features.0.1.bias"] = torch.zeros(31)
    save_checkpoint(tmp_path / "wrong.pth", wrong)
    with pytest.raises(InputError) as caught:
        build_encoder("mobilenetv2dilated", 320, weights=str(tmp_path / "wrong.pth"))
    text = str(caught.value)
    assert text.count("wrong.pth") == 3
    for words in ("missing features.0.0.weight", "unexpected features.1.conv.0.weigth",
                  "features.0.1.bias is (31,), the model wants (32,)"):
        assert words in text
    with pytest.raises(InputError):
        load_original_state_dict(encoder, wrong)
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items())
    faults_of(load_original_state_dict, encoder, {**state, "fc.weight": torch.zeros(1)})


def test_decoder_of_another_data_set():
    state = to_original_state_dict(build_decoder("c1", 64, 150))
    faults = faults_of(load_original_state_dict, build_decoder("c1", 64, 11), state)
    assert any("trained for 150 classes, DATASET.num_class is 11" in fault for fault in faults)


def test_missing_weights_file(tmp_path):
    (fault,) = faults_of(build_encoder, "resnet18", 512, tmp_path / "none.pth")
    assert "none.pth" in fault


@pytest.mark.parametrize("arch", ["resnet18dilated", "resnet101", "resnext101", "hrnetv2",
                                  "mobilenetv2dilated"])
def test_imagenet_file_names(arch):
    address, _ = IMAGENET_FILES[imagenet_file(arch.upper())]
    assert address.endswith(imagenet_file(arch))


def test_groups_cover_every_parameter_once():
    decoder = build_decoder("c1_deepsup", 64, 5)
    decay, rest = group_weight(decoder)
    assert {id(p) for p in decay["params"]} | {id(p) for p in rest["params"]} == {
        id(p) for p in decoder.parameters()}
    assert all(p.dim() == 4 for p in decay["params"])
    assert rest["weight_decay"] == 0.0


def tiny_module(use_softmax=False):
    torch.manual_seed(2)
    encoder = build_encoder("mobilenetv2dilated", 320)
    decoder = build_decoder("c1_deepsup", 320, 5, use_softmax=use_softmax)
    return SegmentationModule(encoder, decoder, nn.NLLLoss(ignore_index=-1), 0.4)


def test_module_in_any_mode():
    module = tiny_module()
    feed = {"img_data": torch.randn(2, 3, 32, 40), "seg_label": torch.randint(-1, 5, (2, 4, 5))}
    for mode in (True, False):
        loss, accuracy = module.train(mode)(feed)
        assert loss.shape == accuracy.shape == ()
        assert 0 <= accuracy <= 1
    terms, _ = module.loss_terms(feed)
    loss, _ = module(feed)
    assert torch.equal(loss, terms["main"] + 0.4 * terms["deepsup"])


def test_mean_of_scales():
    module = tiny_module(use_softmax=True).eval()
    images = [torch.randn(1, 3, side, side) for side in (32, 40, 48)]
    with torch.no_grad():
        each = [module({"img_data": x}, segSize=(37, 29)) for x in images]
        scores = average_scores(module, images, (37, 29))
    assert scores.shape == (1, 5, 37, 29)
    torch.testing.assert_close(scores, sum(each) / 3)
    torch.testing.assert_close(scores.sum(1), torch.ones(1, 37, 29))


def test_momentum_schedule():
    norm = nn.BatchNorm2d(2, momentum=0.001)
    schedule = NormMomentum(norm, corrected=True)
    schedule.set(0)
    assert norm.momentum == pytest.approx(1 / 1.999)
    schedule.set(1_000_000)
    assert norm.momentum == pytest.approx(0.001)
    assert corrected_momentum(0.1, 5) > corrected_momentum(0.1, 6) > 0.1
    NormMomentum(norm, momentum=0.05).set(3)
    assert norm.momentum == 0.05


def test_our_small_encoder():
    encoder = build_encoder("ResNet10Small", 256)
    maps = encoder(torch.zeros(1, 3, 64, 96), return_feature_maps=True)
    assert [tuple(x.shape[1:]) for x in maps] == [
        (32, 16, 24), (64, 8, 12), (128, 8, 12), (256, 8, 12)]
    for decoder in ("c1_deepsup", "ppm_deepsup"):
        main, auxiliary = build_decoder(decoder, 256, 5).eval()(maps)
        assert main.shape == auxiliary.shape == (1, 5, 8, 12)
    scores = build_decoder("UPerNet_Small", 256, 5).eval()(maps)
    assert scores.shape == (1, 5, 16, 24)
    assert torch.allclose(scores.exp().sum(1), torch.ones(1, 16, 24))
    with pytest.raises(InputError, match=r"MODEL\.weights_encoder none"):
        imagenet_file("resnet10small")
