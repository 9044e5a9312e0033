"""A thousand broken COCO and odgt files: each is read, or told in lines that name the file.

What is accepted must also give samples. The default run takes a sample; `-m slow` all of them, in a
process of its own whose memory counts.
"""

import json
import resource
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from coco_maker import annotation, crowd, document, write
from hypothesis import given
from hypothesis import strategies as st
from isolated import run_isolated
from mutations import example_settings, mutated_documents, mutated_text

from data import segmentation
from data.coco_format import open_coco
from data.loading.loader import SampleKey
from data.queryinst import QueryInstDataset, open_query_data
from data.yolact import InstanceDataset, collate_instances
from models.yolact import load_yolact_config
from runtime.errors import InputError
from settings.queryinst.config import QueryInstConfig
from settings.queryinst.data import DataPrefix
from settings.segmentation import DatasetConfig as SegDataset

SLOWEST_S = 20
MOST_MB = 1000
FULL = 1000  # COCO and odgt files together
QUICK = 60

RLE = {"size": [60, 80], "counts": [100, 20, 40, 20, 4620]}
COCO = document([
    annotation(1, 1), annotation(2, 1, 2, (30, 20, 25.5, 30)),
    annotation(3, 2, segmentation=[[1, 1, 20, 1, 20, 20], [30, 30, 40, 30, 40, 50, 30, 50]],
               box=(1, 1, 39, 49), area=380.5),
    annotation(4, 2, segmentation=RLE, iscrowd=1, box=(1, 40, 2, 20)),
    crowd(5, 3, (60, 80), (5, 5, 30, 20)),
    annotation(6, 3, 2),
])


@st.composite
def coco_files(draw):
    """Bytes of a broken info.json."""
    content = draw(mutated_documents(COCO))
    try:
        text = json.dumps(content, indent=draw(st.sampled_from((None, 1))))
    except (RecursionError, ValueError):
        text = "[" * 100_000
    return draw(mutated_text(text))


def assert_told(faults, *names):
    """Printable lines, each of which names its file."""
    assert faults
    for fault in faults:
        assert fault.isprintable(), fault
        assert any(name in fault for name in names), fault
        assert len(fault) < 2100
        assert "object at 0x" not in fault


def coco_sections(folder):
    """(YOLACT's config, QueryInst's {part: data set section}) for the files in `folder`."""
    info, images = str(folder / "info.json"), str(folder / "images")
    cfg = load_yolact_config("yolact_shapes", options=["max_size=64"])
    own = replace(cfg.dataset, train_info=info, valid_info=info, train_images=images,
                  valid_images=images, class_names=(), label_map=None)
    query = replace(QueryInstConfig().train_dataloader.dataset, data_root=str(folder),
                    ann_file="info.json", data_prefix=DataPrefix("images"))
    pipeline = [replace(step, scale=(80, 60)) if step.type == "Resize" else step
                for step in query.pipeline]
    still = [step for step in pipeline if step.type != "RandomFlip"]
    sections = {"train": replace(query, pipeline=tuple(pipeline)),
                "valid": replace(query, pipeline=tuple(still))}
    return replace(cfg, dataset=own), sections


def read_yolact(cfg):
    dataset, indexes = open_coco(cfg.dataset, ["train", "valid"], own_data=True, deep=True)
    cfg = replace(cfg, dataset=dataset, num_classes=len(dataset.class_names) + 1)
    train = InstanceDataset(indexes["train"], dataset.train_images, cfg, train=True, seed=0)
    valid = InstanceDataset(indexes["valid"], dataset.valid_images, cfg, train=False, seed=0)
    samples = [train[SampleKey(0, 0, 0)], *(valid[i] for i in range(min(3, len(valid))))]
    assert collate_instances(samples)


def read_queryinst(sections):
    names, indexes = open_query_data(sections, deep=True)
    for part, section in sections.items():
        train = part == "train"
        dataset = QueryInstDataset(indexes[part], section, names, train=train, divisor=32)
        keys = [SampleKey(0, i, i) if train else i for i in range(min(3, len(dataset)))]
        assert dataset.collate([dataset[key] for key in keys])


def check_coco(count, last_input):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        info, _ = write(folder, COCO)
        cfg, sections = coco_sections(folder)
        seen = {"read": 0, "told": 0}

        @example_settings(count)
        @given(coco_files())
        def check(content):
            info.write_bytes(content)
            if last_input:
                Path(last_input).write_bytes(content)
            started = time.process_time()
            for read, argument in ((read_yolact, cfg), (read_queryinst, sections)):
                try:
                    read(argument)
                    seen["read"] += 1
                except InputError as error:
                    assert_told(error.faults, str(folder), "info.json")
                    seen["told"] += 1
            assert time.process_time() - started < SLOWEST_S

        check()
        assert min(seen.values()) > 0, seen


@pytest.mark.fault
def test_the_unbroken_file_is_read(tmp_path):
    write(tmp_path, COCO)
    cfg, sections = coco_sections(tmp_path)
    read_yolact(cfg)
    read_queryinst(sections)


@pytest.mark.fault
def test_broken_coco_files():
    check_coco(QUICK, None)


@pytest.mark.slow
@pytest.mark.fault
def test_a_thousand_broken_coco_files(tmp_path):
    last = tmp_path / "last.json"
    assert run_isolated(check_coco, FULL * 3 // 4, last, last_input=last) < MOST_MB


@pytest.mark.fault
@pytest.mark.parametrize("size, counts", [
    ([10**6, 10**6], [10**12]), ([2**31, 2**31], [0]), ([60, 80], [2**63, 2**63]),
    ([60, 80], [1] * 4800), ([60, 80], "0" * 10**6), ([0, 0], []), ([-60, 80], [4800]),
])
def test_huge_run_lengths_cost_no_memory(tmp_path, size, counts):
    info, _ = write(tmp_path, COCO)
    content = document([annotation(1, 1, iscrowd=1, segmentation={"size": size, "counts": counts}),
                        annotation(2, 1)], 1)
    info.write_text(json.dumps(content))
    cfg, sections = coco_sections(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read, argument in ((read_yolact, cfg), (read_queryinst, sections)):
        try:
            read(argument)
        except InputError as error:
            assert_told(error.faults, str(tmp_path), "info.json")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


# --- lists of train_seg


def write_seg_set(folder):
    """Four pictures with labels 0 to 3; returns the list's records."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    records = []
    for i in range(4):
        names = f"images/{i}.png", f"annotations/{i}.png"
        for name, pixels in zip(names, (rng.integers(0, 256, (24, 32, 3), np.uint8),
                                        rng.integers(0, 4, (24, 32), np.uint8)), strict=True):
            (folder / name).parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / name)
        records.append({"fpath_img": names[0], "fpath_segm": names[1], "width": 32, "height": 24})
    return records


@st.composite
def odgt_files(draw, records):
    """Bytes of a broken list: one JSON object a line."""
    changed = draw(mutated_documents(records))
    lines = changed if isinstance(changed, list) else [changed]
    joint = draw(st.sampled_from(["\n", "\n", "\n", "\r\n", "\n\n", " ", ", ", "\r"]))
    try:
        text = joint.join(json.dumps(line) for line in lines)
    except (RecursionError, ValueError):
        text = "[" * 100_000
    end = draw(st.sampled_from(["\n", "", "\n[]\n", "\n{}\n", "\nnull\n"]))
    return draw(mutated_text(text + end))


def check_odgt(count, last_input):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = write_seg_set(folder)
        listed = folder / "training.odgt"
        cfg = SegDataset(root_dataset=name, list_train=str(listed), list_val=str(listed),
                         num_class=3, imgSizes=(24,), imgMaxSize=64)
        seen = {"read": 0, "told": 0}

        @example_settings(count)
        @given(odgt_files(records))
        def check(content):
            listed.write_bytes(content)
            if last_input:
                Path(last_input).write_bytes(content)
            started = time.process_time()
            try:
                section, lists = segmentation.open_lists(cfg, ["train", "val"], name,
                                                         lambda line: None, deep=True)
                read_lists(section, lists)
                seen["read"] += 1
            except InputError as error:
                assert_told(error.faults, name)
                seen["told"] += 1
            assert time.process_time() - started < SLOWEST_S

        check()
        assert min(seen.values()) > 0, seen


def read_lists(section, lists):
    records = [lists["train"][i] for i in range(min(2, len(lists["train"])))]
    batch = segmentation.train_batch(records, section, 24, [0] * len(records))
    assert batch["img_data"].isfinite().all()
    assert segmentation.eval_item(lists["val"][0], section)["seg_label"].max() < 3


@pytest.mark.fault
def test_broken_odgt_files():
    check_odgt(QUICK, None)


@pytest.mark.slow
@pytest.mark.fault
def test_a_thousand_broken_odgt_files(tmp_path):
    last = tmp_path / "last.odgt"
    assert run_isolated(check_odgt, FULL // 4, last, last_input=last) < MOST_MB
