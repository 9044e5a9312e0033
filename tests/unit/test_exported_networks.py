"""Each family's exported network, beside the network itself."""

import contextlib
import io
import json
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from rooms import ROOT

from data import YolactTransform
from data.drawn.scenes import CLASSES
from models import queryinst, resnest, segmentation, yolact
from models.export import export
from models.queryinst.exporting import Detector as QueryDetector
from models.same_detections import largest_difference
from models.yolact.exporting import OUTPUTS
from models.yolact.exporting import Detector as YolactDetector
from runtime.errors import InputError


class Log:
    is_main = True

    def __init__(self):
        self.lines = []

    def log(self, text):
        self.lines.append(text)


def yolact_net(threshold=0.05):
    torch.manual_seed(0)
    cfg = yolact.load_yolact_config("yolact_shapes")
    args = replace(cfg.backbone.args, width=8)
    dataset = replace(cfg.dataset, class_names=CLASSES)
    cfg = replace(cfg, max_size=64, dataset=dataset, num_classes=len(CLASSES) + 1,
                  backbone=replace(cfg.backbone, args=args),
                  nms_conf_thresh=threshold, nms_top_k=30, max_num_detections=20)
    net = yolact.build_yolact(cfg).eval()
    net.init_weights()
    for layer in net.prediction_layers:  # so that scores differ between classes and cells
        torch.nn.init.normal_(layer.conf_layer.weight, std=0.05)
    return net


@pytest.mark.parametrize("cross_class", [False, True])
@pytest.mark.parametrize("threshold", [0.05, 0.35, 0.99])
def test_yolacts_detector_finds_what_detect_and_postprocess_find(threshold, cross_class):
    net = yolact_net(threshold)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = YolactDetector(net, cross_class)(images)
        wanted = yolact.detect(net.forward_heads(images), net.cfg, cross_class_nms=cross_class)
    counts = [len(each["score"]) for each in wanted]
    as_wanted = {0.05: cross_class or counts == [20, 20], 0.99: counts == [0, 0]}
    assert as_wanted.get(threshold, max(counts) > 0)
    for i, detection in enumerate(wanted):
        k = counts[i]
        shown = yolact.postprocess(detection, 64, 64, net)
        torch.testing.assert_close(found["scores"][i, :k], shown["score"])
        assert torch.equal(found["labels"][i, :k], shown["class"])
        assert torch.equal(found["boxes"][i, :k].long(), shown["box"])
        assert torch.equal(found["masks"][i, :k], shown["mask"])
        assert not found["scores"][i, k:].any()
        assert not found["masks"][i, k:].any()


def test_yolacts_traditional_nms_is_not_exported(tmp_path):
    net = yolact_net()
    with pytest.raises(InputError, match=r"--fast_nms=False: .*leave it out"):
        exported(yolact, tmp_path, ".onnx", net, yolact.facts_of(net.cfg), detections=True,
                 fast_nms=False)
    assert not list(tmp_path.iterdir())


def query_net():
    torch.manual_seed(0)
    cfg = queryinst.load_queryinst_config("queryinst_shapes")
    model = replace(cfg.model, neck=replace(cfg.model.neck, out_channels=16),
                    backbone=replace(cfg.model.backbone, base_channels=8))
    net = queryinst.build_queryinst(replace(cfg, model=model)).eval()
    for head in net.roi_head["bbox_head"]:
        torch.nn.init.normal_(head.fc_reg.weight, std=0.2)  # so that boxes move
        torch.nn.init.normal_(head.fc_cls.weight, std=0.5)
    return net


def test_queryinsts_detector_finds_what_predict_finds():
    net = query_net()
    images, sizes = torch.randn(2, 3, 64, 96), torch.tensor([[64, 90], [50, 96]])
    metas = [{"img_shape": tuple(size), "ori_shape": (64, 96), "scale_factor": (1.0, 1.0)}
             for size in sizes.tolist()]
    with torch.no_grad():
        found = QueryDetector(net)(images, sizes)
        wanted = net.predict(images, metas)
    for i, each in enumerate(wanted):
        torch.testing.assert_close(found["boxes"][i], each["boxes"], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(found["scores"][i], each["scores"])
        assert torch.equal(found["labels"][i], each["labels"])
        assert each["masks"].any()
        assert (found["masks"][i] != each["masks"]).float().mean() < 1e-3  # at the threshold


def test_the_same_detections_in_another_order():
    torch.manual_seed(0)
    wanted = {"boxes": 50 * torch.rand(1, 4, 4), "labels": torch.tensor([[0, 1, 2, 0]]),
              "scores": torch.tensor([[0.9, 0.5, 0.50001, 0.1]]),
              "masks": torch.rand(1, 4, 40, 40) > 0.5}
    order = [0, 2, 1, 3]
    assert largest_difference(wanted, {key: each[:, order] for key, each in wanted.items()}) < 1e-4
    for key, spoilt in (("boxes", wanted["boxes"] + 1), ("labels", wanted["labels"] + 1),
                        ("scores", wanted["scores"] * 0.9), ("masks", ~wanted["masks"])):
        assert largest_difference(wanted, wanted | {key: spoilt}) > 0.01


def exported(family, folder, suffix, *arguments, **options):
    run, path = Log(), folder / f"net{suffix}"
    family.export_trained(run, *arguments, path, **options)
    return run.lines[0], path


def families():
    """(name, network, facts, example, options of export_trained) of each."""
    cfg = resnest.load_resnest_config("shapes", {"MODEL.NAME": "resnest14_small"})
    facts = replace(resnest.facts_of(cfg, ("a", "b", "c")),
                    pixels=replace(resnest.facts_of(cfg, "abc").pixels, sizes=(32,)))
    yield "resnest", resnest, resnest.build_network(cfg, 3).eval(), facts, {}
    cfg = segmentation.load_seg_config("shapes")
    module = segmentation.build_module(cfg, torch.device("cpu"), torch.contiguous_format)
    yield "segmentation", segmentation, module, segmentation.facts_of(cfg), {}
    net = yolact_net()
    yield "yolact", yolact, net, yolact.facts_of(net.cfg), {"detections": True}
    net = query_net()
    yield "queryinst", queryinst, net, queryinst.facts_of(net.cfg), {"detections": True}


FREE = {"resnest": "batch, height, width", "segmentation": "batch",  # its decoder pools to a grid
        "yolact": "batch", "queryinst": "batch, height, width"}


@pytest.mark.slow  # tracing with free sizes takes half a minute each
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("family", list(FREE))
def test_exported_with_facts_and_open_axes(family, suffix, tmp_path):
    if suffix == ".onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)
    _, module, net, facts, options = next(each for each in families() if each[0] == family)
    line, path = exported(module, tmp_path, suffix, net, facts, **options)
    assert f"; any {FREE[family]}." in line
    if suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        text = session.get_modelmeta().custom_metadata_map["facts"]
        assert session.get_inputs()[0].name == "images"
        assert session.get_inputs()[0].shape[0] == "batch"
        if options:
            assert [one.name for one in session.get_outputs()] == [
                "boxes", "scores", "labels", "masks"]
    else:
        extra = {"facts.json": ""}
        torch.export.load(path, extra_files=extra)
        text = extra["facts.json"]
    if "height" not in FREE[family]:
        facts = facts.of_one_size(*2 * facts.pixels.sizes)
    assert json.loads(text) == facts.plain()


def test_the_pages_example_runs_and_finds_what_the_network_finds(tmp_path, monkeypatch):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    net = yolact_net()
    facts = yolact.facts_of(net.cfg)
    photo = np.random.RandomState(0).randint(0, 256, (40, 90, 3)).astype(np.uint8)
    photo = cv2.GaussianBlur(photo, (0, 0), 3)
    cv2.imwrite(str(tmp_path / "photo.jpg"), photo)
    photo = cv2.imread(str(tmp_path / "photo.jpg"))
    export(YolactDetector(net), torch.randn(1, 3, 64, 64), tmp_path / "net.onnx", facts=facts,
           input_names=["images"], output_names=OUTPUTS, compare=largest_difference)
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    assert len(code.splitlines()) <= 11
    code = code.replace("> 0.3", "> 0.16")  # seven classes at random
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "export.md", "exec"), {})

    empty = np.zeros((0, 40, 90)), np.zeros((0, 4)), np.zeros(0), 0
    image = torch.from_numpy(YolactTransform(net.cfg)(photo, *empty)[0])
    with torch.no_grad():
        [found] = yolact.detect(net.forward_heads(image[None]), net.cfg)
    found = yolact.postprocess(found, 90, 40, net, 0.16)
    lines = printed.getvalue().splitlines()
    assert len(lines) == len(found["score"]) > 0
    for line, label, score, box in zip(lines, found["class"], found["score"], found["box"],
                                       strict=True):
        name, first, *corners = re.sub(r"[\[\]]", " ", line).split()
        assert name == net.cfg.dataset.class_names[label]
        assert float(first) == pytest.approx(score.item(), abs=1e-4)
        assert np.allclose([float(x) for x in corners], box, atol=1.1)  # whole pixels in ours
