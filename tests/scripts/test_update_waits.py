"""One update of each script, as a GPU would run it: where the host would wait, and nowhere else.

A wait that is not listed here fails with its file and line. So does one that is listed and gone.
"""

import collections
import json
import re
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).resolve().parents[1] / "host_waits.py"
# of every update: how often, and why it may stand
LOOP = {
    # the losses are looked at before the weights change
    "runtime/launch/group.py read_means: tolist": 1,
    # AveragedModel's count of updates lies on the host, whatever the device
    "common/optim/learner.py update_parameters: _local_scalar_dense": 1,
}
OWN = {
    "train": {
        # where objects lie in the maps is read on a CPU only: `image_blocks` serves a GPU
        "common/losses/multibox_masks.py object_blocks: tolist": 2,
        "common/losses/multibox_masks.py object_blocks: bincount": 1,
    },
    "segment": {},
    "classify": {},
    "classify DATA.MIXUP 0.2 DATA.CUTMIX 0.2": {
        # torch's one_hot looks at labels on a CPU only
        "common/losses/classification.py mixed_targets: _local_scalar_dense": 2,
    },
    "query_train": {
        # the assignment of proposals to objects is computed on the host
        "common/losses/set_matching.py assign_all: cpu": 1,
        "common/losses/set_matching.py assign_all: numpy": 1,
        # torch's one_hot looks at labels on a CPU only
        "common/losses/set_prediction.py focal_terms: _local_scalar_dense": 2,
    },
}


@pytest.mark.parametrize("name", OWN)
def test_an_update_waits_only_where_it_must(request, tmp_path, name):
    fixture, *words = name.split()
    found = tmp_path / "found.json"
    launcher = [sys.executable, str(DRIVER), str(found)]
    run = request.getfixturevalue(fixture)(
        "--dry-run --ema 0.9 --clip-grad 1 --channels-last", *words, launcher=launcher)
    assert run.status == 0, run.err_text
    waits = json.loads(found.read_text())
    counts = collections.Counter(re.sub(r":\d+ ", " ", wait) for wait in waits)
    assert counts == LOOP | OWN[name], "\n".join(waits)
