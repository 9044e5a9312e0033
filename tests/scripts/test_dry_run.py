"""--dry-run writes nothing, also where a validation, a save and a checkpoint are at hand."""

import hashlib
import re
import sys

import pytest

from data.drawn.shapes import write_ade, write_class_folders, write_coco

SCRIPTS = {  # trained to an epoch's end; then what makes the dry run want to validate there
    "yolact": ("train", "--max-iters 4", "--max-iters 8 --validation_epoch 1 --save_interval 1"),
    "seg": ("segment", "--max-iters 4", "--max-iters 8 VAL.interval 1 --save-every 1"),
    "resnest": ("classify", "--max-iters 6", "--max-iters 12 --save-every 1"),
    "queryinst": ("query_train", "--max-iters 4 --cfg-options train_cfg.val_interval=1",
                  "--max-iters 8 --save-every 1 --cfg-options train_cfg.val_interval=1"),
}


def contents(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
            for path in files}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_dry_run_beside_a_finished_run_changes_no_file(request, name):
    fixture, first, then = SCRIPTS[name]
    run = request.getfixturevalue(fixture)
    done = run(first, launcher=[sys.executable])
    assert done.status == 0, done.err_text
    before = contents(done.out)
    dry = run(f"{then} --resume latest --dry-run", launcher=[sys.executable])
    assert dry.status == 0, dry.err_text
    assert "Dry run done" in dry.text
    for said in (r"Network: [\d.]+( million)? parameters, .* trained; .*\d+ x 3 x \d+ x \d+",
                 r"Operations: 0\.\d+ GFLOPs", r"weights .* \+ optimizer .*; at its peak .* MB"):
        assert re.search(said, dry.text), said
    assert contents(done.out) == before


@pytest.mark.parametrize("name", SCRIPTS)
def test_large_photos_are_told_of(request, name, tmp_path):
    """Photos of 320 px where the network sees 64 of them, or less."""
    run = request.getfixturevalue(SCRIPTS[name][0])
    if name == "resnest":
        write_class_folders(tmp_path / "large", 3, 1, 320, seed=3)
        large = run("--dry-run", root=tmp_path / "large")
    elif name == "seg":
        root = write_ade(tmp_path / "large", 8, 2, 320, seed=3).root
        large = run(f"--dry-run DATASET.root_dataset {root} DATASET.list_train "
                    f"{root / 'training.odgt'} DATASET.list_val {root / 'validation.odgt'}")
    else:
        files = write_coco(tmp_path / "large", 8, 2, 320, seed=3)
        keys = ([f"dataset.train_info={files.train_info}",
                 f"dataset.train_images={files.train_images}"] if name == "yolact" else
                [f"train_dataloader.dataset.ann_file={files.train_info}",
                 f"train_dataloader.dataset.data_root={files.train_info.parents[1]}"])
        large = run("--dry-run --cfg-options", *keys)
    assert large.status == 0, large.err_text
    said = re.findall(r"The photos are (\d+) x (\d+) pixels .* sees them at (\d+) x (\d+)",
                      large.text)
    assert len(said) == 1, large.text
    width, height, *seen = map(int, said[0])
    assert max(width, height) == 320
    assert max(seen) <= 64
