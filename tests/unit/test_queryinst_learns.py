"""QueryInst learns photos: the loss of every stage halves."""

import json

import pytest
import torch

import data
from models.queryinst import build_queryinst, load_queryinst_config, lr_factor, param_groups

PHOTOS, UPDATES = 8, 300
MEAN_OF = 10  # updates at either end


@pytest.mark.slow
def test_eight_photos(datasets, tmp_path):
    folder = datasets("coco_small")
    document = json.loads((folder / "annotations" / "instances_train.json").read_text())
    document["images"] = document["images"][:PHOTOS]
    ids = {image["id"] for image in document["images"]}
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] in ids]
    info = tmp_path / "photos.json"
    info.write_text(json.dumps(document))
    cfg = load_queryinst_config("queryinst_shapes", options=[
        f"train_dataloader.dataset.ann_file={info}",
        f"train_dataloader.dataset.data_prefix.img={folder / 'images'}",
        "train_dataloader.dataset.pipeline.2.scale=(192,192)",
        "train_dataloader.batch_size=4", "model.num_classes=80", "model.rpn_head.num_proposals=40"])
    section = cfg.train_dataloader.dataset
    names, indexes = data.open_query_data({"train": section})
    dataset = data.QueryInstDataset(indexes["train"], section, names, train=True, divisor=32)
    loader = data.AspectRatioLoader(dataset, dataset.portrait, cfg.train_dataloader.batch_size,
                                    seed=0, collate=dataset.collate)
    torch.manual_seed(0)
    net = build_queryinst(cfg).train()
    optimizer = torch.optim.AdamW(param_groups(net), fused=True)
    factor, stages = lr_factor(cfg, 10**6), range(cfg.model.roi_head.num_stages)
    history = []
    for step, _, (batch,) in loader.steps(0, UPDATES):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor(step)
        optimizer.zero_grad(set_to_none=True)
        images = data.network_input(batch, torch.device("cpu"), cfg.model.data_preprocessor)
        losses = net.loss(images, batch["samples"])
        sum(value for name, value in losses.items() if "loss" in name).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), cfg.optim_wrapper.clip_grad.max_norm)
        optimizer.step()
        history.append([sum(value.item() for name, value in losses.items()
                            if name.startswith(f"s{stage}.loss")) for stage in stages])
    history = torch.tensor(history)
    first, last = history[:MEAN_OF].mean(0), history[-MEAN_OF:].mean(0)
    print(f"losses of the stages: {first.tolist()} -> {last.tolist()}")
    assert (last <= first / 2).all(), (first, last)
