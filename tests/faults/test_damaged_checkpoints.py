"""Truncated files and flipped bits: named and passed over, never loaded as something else."""

import random

import pytest
from save_kinds import KINDS

pytestmark = pytest.mark.fault
UPDATES = 7  # the last two checkpoints are of different updates, in each kind


def truncated(content, rng):
    return content[: rng.randrange(len(content))]


def flipped(content, rng):
    content = bytearray(content)
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def harm(kind, folder, ways, count, rng):
    """Harms a file of the newest checkpoint, `count` times in each way. Returns how many held."""
    KINDS[kind](folder).train(0, UPDATES, lambda position: None)
    newest = KINDS[kind](folder).find(pytest.fail)
    assert newest == 2 * UPDATES + 1
    # states and histories count as well; a best file is not what "latest" looks at
    of_newest = [path for path in sorted(folder.glob("*.pth"))
                 if "best" not in path.name and str(UPDATES) in path.stem.replace(".", "_")]
    assert len(of_newest) == {"single": 1, "pair": 2, "group": 3, "series": 1}[kind]
    held = 0
    for way in ways:
        for _ in range(count):
            path = rng.choice(of_newest)
            content = path.read_bytes()
            path.write_bytes(way(content, rng))
            warnings = []
            found = KINDS[kind](folder).find(warnings.append)  # checks every number in it
            if found == newest:
                assert not warnings  # the file's own checksum was hit, the records' are whole
                assert way is flipped
            else:
                assert found == newest - 2  # of the update before
                assert len(warnings) == 1
                assert path.name in warnings[0]
            path.write_bytes(content)
            held += 1
    assert KINDS[kind](folder).find(pytest.fail) == newest
    return held


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_of_each(tmp_path, kind):
    assert harm(kind, tmp_path, (truncated, flipped), 5, random.Random(3)) == 10


@pytest.mark.slow
def test_two_hundred_of_each(tmp_path):
    held = 0
    for number, kind in enumerate(KINDS):
        (tmp_path / kind).mkdir()
        held += harm(kind, tmp_path / kind, (truncated, flipped), 50, random.Random(number))
    assert held == 400
