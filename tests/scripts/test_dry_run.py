"""--dry-run writes nothing, also where a validation, a save and a checkpoint are at hand."""

import hashlib
import re
import sys

import pytest

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
