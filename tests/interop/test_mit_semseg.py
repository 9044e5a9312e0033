"""PyPI's `mit-semseg`, CSAIL's own package, beside train_seg: files both ways, the same outputs."""

import pytest
import torch

from common.checkpoint.series import seg_series
from models.segmentation import SegmentationModule, build_decoder, build_encoder
from models.segmentation.weights import load_weights_file, original_weights

pytestmark = pytest.mark.slow

CLASSES = 11
PAIRS = [  # the seven recipes' networks: encoder, decoder, channels between them
    ("mobilenetv2dilated", "c1_deepsup", 320), ("resnet18dilated", "ppm_deepsup", 512),
    ("resnet50dilated", "ppm_deepsup", 2048), ("resnet101dilated", "ppm_deepsup", 2048),
    ("resnet50", "upernet", 2048), ("resnet101", "upernet", 2048), ("hrnetv2", "c1", 720),
]


@pytest.fixture(scope="module")
def builder():
    models = pytest.importorskip(
        "mit_semseg.models", reason="mit-semseg is not installed: make interop")
    return models.ModelBuilder


def ours(encoder, decoder, channels):
    """The two networks, with running statistics that a fresh one does not have."""
    torch.manual_seed(0)
    module = SegmentationModule(build_encoder(encoder, channels),
                                build_decoder(decoder, channels, CLASSES, use_softmax=True),
                                torch.nn.NLLLoss(ignore_index=-1), 0.4)
    disturb(module)
    return module.eval()


def disturb(module):
    for each in module.modules():
        if hasattr(each, "running_var"):
            each.running_mean.normal_(std=0.1)
            each.running_var.uniform_(0.5, 1.5)


def check_same_outputs(module, encoder, decoder):
    """In float64: random weights make large logits, of which a softmax shows every rounding."""
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)).double()
    module, encoder, decoder = (net.double().eval() for net in (module, encoder, decoder))
    with torch.no_grad():
        own = module.encoder(images, return_feature_maps=True)
        other = encoder(images, return_feature_maps=True)
        for a, b in zip(own, other, strict=True):
            assert (a - b).abs().max() <= 1e-10 * b.abs().max()
        a = module.decoder(own, segSize=(64, 96))
        b = decoder(other, segSize=(64, 96))
    assert a.shape == (1, CLASSES, 64, 96)
    assert a.std() > 1e-3
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)  # probabilities


@pytest.mark.parametrize("encoder, decoder, channels", PAIRS)
def test_our_files_there(tmp_path, builder, encoder, decoder, channels):
    module = ours(encoder, decoder, channels)
    path = seg_series(tmp_path, 10).save(10, original_weights(module), {"iteration": 10},
                                         history={})
    files = {net: str(path.with_name(f"{net}_epoch_1.pth")) for net in ("encoder", "decoder")}
    other = (builder.build_encoder(encoder, channels, files["encoder"]),
             builder.build_decoder(decoder, channels, CLASSES, files["decoder"], use_softmax=True))
    for net, file in zip(other, files.values(), strict=True):
        net.load_state_dict(torch.load(file, weights_only=True), strict=True)
    check_same_outputs(module, *other)


@pytest.mark.parametrize("encoder, decoder, channels", PAIRS)
def test_their_files_here(tmp_path, builder, encoder, decoder, channels):
    seed = ours(encoder, decoder, channels)  # without a file the package fetches ImageNet's
    torch.save(original_weights(seed)["encoder"], tmp_path / "seed.pth")
    other = {
        "encoder": builder.build_encoder(encoder, channels, str(tmp_path / "seed.pth")),
        "decoder": builder.build_decoder(decoder, channels, CLASSES, use_softmax=True),
    }
    for net in other.values():
        disturb(net)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
    for name, net in other.items():  # as the original's train.py saves them
        torch.save(net.state_dict(), tmp_path / f"{name}_epoch_3.pth")
    module = ours(encoder, decoder, channels)
    for name, net in (("encoder", module.encoder), ("decoder", module.decoder)):
        load_weights_file(net, tmp_path / f"{name}_epoch_3.pth")
    check_same_outputs(module, other["encoder"], other["decoder"])
