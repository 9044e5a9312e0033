"""What every `forward` of a network says of its tensors."""

import ast
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[2] / "models"
FORWARDS = [
    pytest.param(function, id=f"{path.relative_to(MODELS)}-{owner.name}")
    for path in sorted(MODELS.rglob("*.py"))
    for owner in ast.walk(ast.parse(path.read_text()))
    if isinstance(owner, ast.ClassDef)
    for function in owner.body
    if isinstance(function, ast.FunctionDef) and function.name == "forward"
]


def test_all_networks_are_looked_at():
    assert len({parameter.id.split("/")[0] for parameter in FORWARDS}) >= 4


@pytest.mark.parametrize("forward", FORWARDS)
def test_forward_states_its_shapes(forward):
    assert "[" in (ast.get_docstring(forward) or "")
