import ast
from pathlib import Path

import numpy as np

from runtime.streams import Stream

ROOT = Path(__file__).resolve().parents[2]


def test_no_two_uses_give_the_same_numbers():
    # Three words and four words with a last 0 are one sequence to numpy: only the first word
    # tells a pass over the list from rank 0's update of the same number.
    sequences = [np.random.SeedSequence([stream, 7, 5]) for stream in Stream]
    sequences += [np.random.SeedSequence([stream, 7, 5, 1]) for stream in Stream]
    drawn = {sequence.generate_state(1)[0] for sequence in sequences}
    assert len(drawn) == 2 * len(Stream)


def test_every_seed_sequence_of_the_project_begins_with_a_stream_of_its_own():
    used = []
    rooms = ("common", "data", "models", "runtime")
    for path in (*ROOT.glob("*.py"), *(p for room in rooms for p in ROOT.glob(f"{room}/**/*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "SeedSequence":
                used.append(ast.unparse(node.args[0].elts[0]))
    assert sorted(used) == sorted(f"Stream.{stream.name}" for stream in Stream)
