"""Five updates of each script on a tiny set, and the numbers that must come out.

    python tests/expected_numbers.py    writes tests/scripts/expected/*.json anew

Write them anew only for a change that is meant to change the numbers, and say in the commit why.
What the numbers are compared with is this project's own result of the day on which the golden
values of the originals (tests/parity) held, so a later change cannot move both sides at once.
"""

import json
import math
import tempfile
from pathlib import Path

import torch
import yaml
from preloaded import ROOT, Preloaded
from query_runs import TINY as QUERY

from data.scenes import CLASSES
from data.shapes import write_ade, write_class_folders, write_coco

FOLDER = ROOT / "tests" / "scripts" / "expected"
UPDATES = 5
SCRIPTS = ("yolact", "seg", "resnest", "queryinst")
VARIANTS = {  # name: flags behind the plain run's
    "plain": [],
    "accumulate": ["--accumulate", "2"],
    "ema": ["--ema", "0.9"],
    "clip": ["--clip-grad", "0.5"],
}
MIXED = {"mixup": ["DATA.MIXUP", "0.2", "DATA.LABEL_SMOOTHING", "0.1"],
         "cutmix": ["DATA.CUTMIX", "1.0"]}


def variants(script):
    """{name: flags} of a script."""
    return VARIANTS | (MIXED if script == "resnest" else {})


class Inputs:
    """Configs and drawn pictures in `folder`, and the command lines that use them."""

    def __init__(self, folder):
        folder = Path(folder)
        scenes = write_coco(folder / "coco", 24, 4, 64, seed=3)
        ade = write_ade(folder / "ade", 12, 4, 64, seed=3).root
        classes = folder / "classes"
        write_class_folders(classes, 10, 3, 40, seed=3, classes=CLASSES[:3])
        coco = [f"dataset.{key}={getattr(scenes, key)}"
                for key in ("train_info", "train_images", "valid_info", "valid_images")]
        paths = {}
        for name, config in self._configs(scenes).items():
            paths[name] = folder / f"{name}.yaml"
            paths[name].write_text(yaml.safe_dump(config))
        self.words = {
            "yolact": ["--config", paths["yolact"], "--num_workers", "0", "--batch_size", "6",
                       "--save_folder", "out", "--log_folder", "out/logs", "--no_autoscale",
                       "--validation_epoch", "0", "--cfg-options", *coco],
            "seg": ["--cfg", paths["seg"], "DIR", "out", "DATASET.root_dataset", ade,
                    "DATASET.list_train", ade / "training.odgt",
                    "DATASET.list_val", ade / "validation.odgt"],
            "resnest": ["--config-file", paths["resnest"], "--outdir", "out", "DATA.ROOT", classes],
            "queryinst": [paths["queryinst"], "--work-dir", "out"],
        }

    def _configs(self, scenes):
        query = QUERY | {"optim_wrapper": QUERY["optim_wrapper"] | {"clip_grad": None}}
        for loader, info in (("train_dataloader", scenes.train_info),
                             ("val_dataloader", scenes.valid_info)):
            data = QUERY[loader]["dataset"] | {"data_root": str(scenes.train_info.parents[1]),
                                               "ann_file": str(info)}
            query[loader] = QUERY[loader] | {"dataset": data}
        return {
            # masks_to_train: a subset of the positives is drawn in each update
            "yolact": {"_base_": str(ROOT / "configs/yolact/yolact_shapes.yaml"), "name": "tiny",
                       "max_size": 64, "lr_warmup_until": 4, "masks_to_train": 3,
                       "backbone": {"args": {"width": 8}}},
            # the pyramid pooling decoder has dropout
            "seg": {"_base_": str(ROOT / "configs/seg/shapes.yaml"),
                    "DATASET": {"imgSizes": [48], "imgMaxSize": 64, "segm_downsampling_rate": 8},
                    "MODEL": {"arch_encoder": "resnet10small", "fc_dim": 256,
                              "arch_decoder": "ppm_deepsup"},
                    "TRAIN": {"batch_size_per_gpu": 2, "epoch_iters": 10, "num_epoch": 1,
                              "workers": 0, "disp_iter": 2, "lr_encoder": 0.02,
                              "lr_decoder": 0.02},
                    "VAL": {"interval": 0}},
            "resnest": {"DATA": {"CROP_SIZE": 32},
                        "MODEL": {"NAME": "resnest14_small", "FINAL_DROP": 0.3},
                        "TRAINING": {"BATCH_SIZE": 4, "TEST_BATCH_SIZE": 4, "EPOCHS": 2,
                                     "WORKERS": 0, "EVAL_EVERY": 10},
                        "OPTIMIZER": {"LR": 0.005, "LR_SCHEDULER": "cos", "WARMUP_EPOCHS": 0}},
            "queryinst": query,
        }


def run(server, inputs, script, flags, folder, updates=UPDATES):
    """What five updates give: a dict of plain numbers.

    updates: a list, one for each: iteration, lr, losses by name, grad_norm and others
    weights, statistics, momentum: norms of the final weights, of BatchNorm's running statistics
             and of the optimizer's buffers
    layers:  norms of a few parameters, spread over the network
    ema_gap: norm of the difference of the average and the weights, with --ema
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    words = ["--max-iters", updates, "--log-every", "1", *flags, *inputs.words[script]]
    if script in ("seg", "resnest"):  # KEY VALUE pairs come last
        words = ["--max-iters", updates, "--log-every", "1", *inputs.words[script], *flags]
    status, _, err = server.run(f"train_{script}.py", words, folder)
    assert status == 0, err
    logs = folder / "out" / ("logs/tiny" if script == "yolact" else "")
    lines = map(json.loads, (logs / "metrics.jsonl").read_text().splitlines())
    kept = ("iteration", "lr", "lr_decoder", "loss", "losses", "grad_norm", "accuracy", "top1")
    events = [{key: event[key] for key in kept if key in event}
              for event in lines if event["event"] == "train"]
    return {"updates": events, **_norms(*_final(script, folder / "out"))}


def _final(script, out):
    """(weights, optimizer state, EMA state or None) of the last checkpoint."""
    def load(name):
        (path,) = out.glob(name)
        return torch.load(path, weights_only=True)

    if script == "yolact":
        state = load("tiny_*_5.state.pth") if list(out.glob("tiny_*_5.state.pth")) else None
        state = state or load("tiny_*.state.pth")
        (path,) = (p for p in out.glob("tiny_*.pth") if ".state" not in p.name)
        return torch.load(path, weights_only=True), state["optimizer"], state["ema"]
    if script == "seg":
        state = load("encoder_*.state.pth")
        nets = {f"{net}.{key}": value for net in ("encoder", "decoder")
                for path in out.glob(f"{net}_*.pth") if ".state" not in path.name
                for key, value in torch.load(path, weights_only=True).items()
                if "_tmp_" not in key and "_running_iter" not in key}
        return nets, state["optimizer"], state["ema"]
    content = load("checkpoint_final.pth" if script == "resnest" else "iter_*.pth")
    ema = content["ema"] if script == "resnest" else content["training"]["ema"]
    return content["state_dict"], content["optimizer"], ema


def _norm(tensors):
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))


def _norms(weights, optimizer, ema):
    floats = {key: value for key, value in weights.items() if value.is_floating_point()}
    statistics = {key: value for key, value in floats.items() if "running_" in key}
    trained = {key: value for key, value in floats.items() if key not in statistics}
    spread = sorted(trained)[:: max(1, len(trained) // 8)]
    states = optimizer.values() if "state" not in optimizer else [optimizer]
    buffers = [tensor for each in states for slot in each["state"].values()
               for tensor in slot.values() if torch.is_tensor(tensor) and tensor.dim()]
    found = {
        "weights": _norm(trained.values()), "statistics": _norm(statistics.values()),
        "momentum": _norm(buffers), "layers": {key: _norm([trained[key]]) for key in spread},
    }
    if ema is not None:
        pairs = [(trained[key], ema[f"module.{key}"]) for key in trained if f"module.{key}" in ema]
        assert pairs
        found["ema_gap"] = _norm([a - b for a, b in pairs])
    return found


def main():
    FOLDER.mkdir(exist_ok=True)
    with Preloaded() as server, tempfile.TemporaryDirectory() as folder:
        inputs = Inputs(Path(folder) / "inputs")
        for script in SCRIPTS:
            numbers = {name: run(server, inputs, script, flags, Path(folder) / script / name)
                       for name, flags in variants(script).items()}
            text = json.dumps(numbers, indent=1)
            (FOLDER / f"{script}.json").write_text(text + "\n")
            print(f"{script}: {len(numbers)} variants")


if __name__ == "__main__":
    main()
