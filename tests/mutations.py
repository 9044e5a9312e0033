"""What can be wrong with a document: odd values, missing keys, broken text, broken bytes.

Every function takes hypothesis' `draw`, so that a failing example is shrunk and can be repeated.
"""

import copy
import json
import string

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

ODD = [
    None, True, False, 0, 1, -1, 2, -0.5, 0.5, 1e-30, 1e30, 2**31, 2**63, -2**63, 10**400, 1e308,
    float("nan"), float("inf"), float("-inf"), "", " ", "x", "0", "1", "-1", "1e3", "1e-3", "nan",
    ".inf", "None", "null", "true", "off", "(1, 2)", "[1, 2", "{", "a/b", "../..", "/", "\0", "\n",
    "a\nb", "\x1b[31m", "é", "\ud800", "\u5b57" * 20, "x" * 5000, "9" * 5000, [], {}, [[]], [{}],
    [None], [0], [-1], [1.5], ["x"], [1, [2]], {"a": 1}, {"": None}, {"1": 2},
    {"a": {"b": {"c": {}}}}, list(range(1000)), [[1, 2], [3]], "2020-01-01", "0x10", "1_000", "~",
    "- a", "!!python/object:x",
]


def example_settings(count):
    """The same `count` examples in each run, whatever the machine's pace."""
    return settings(max_examples=count, derandomize=True, database=None, deadline=None,
                    suppress_health_check=list(HealthCheck), print_blob=False)


def places(value, path=()):
    """The path of everything inside a document of dicts and lists."""
    found = []
    if isinstance(value, dict):
        for key, item in value.items():
            found += [(*path, key), *places(item, (*path, key))]
    elif isinstance(value, list):
        for i, item in enumerate(value):
            found += [(*path, i), *places(item, (*path, i))]
    return found


@st.composite
def mutated_documents(draw, document, most=3):
    """`document` (dicts, lists, scalars) with one to `most` faults, or something else."""
    if draw(st.integers(0, 39)) == 0:
        return draw(st.sampled_from(ODD))
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        found = places(document)
        if found:
            path = draw(st.sampled_from(found))
            parent = document
            for step in path[:-1]:
                parent = parent[step]
            _mutate(draw, parent, path[-1], document)
    return document


def _mutate(draw, parent, key, document):
    change = draw(st.sampled_from(
        ("drop", "odd", "odd", "odd", "nest", "repeat", "rename", "copy", "huge", "text")))
    value = parent[key]
    if change == "drop":
        del parent[key]
    elif change == "odd":
        parent[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
    elif change == "nest":
        for _ in range(draw(st.sampled_from((1, 2, 60, 300)))):
            value = [value] if draw(st.booleans()) else {"a": value}
        parent[key] = value
    elif change == "repeat":
        parent[key] = [value] * draw(st.sampled_from((1, 2, 3, 500)))
    elif change == "rename" and isinstance(parent, dict):
        name = str(key)
        i = draw(st.integers(0, max(0, len(name) - 1)))
        parent[name[:i] + draw(st.sampled_from(string.ascii_letters + "_.")) + name[i + 1:]] = \
            parent.pop(key)
    elif change == "copy":
        other = draw(st.sampled_from(places(document)))
        for step in other:
            document = document[step]
        parent[key] = copy.deepcopy(document)
    elif change == "huge" and isinstance(value, (int, float)):
        parent[key] = value * draw(st.sampled_from((-1, 10**3, 10**6, 10**12, 10**30, 0.3)))
    elif change == "text":
        parent[key] = json.dumps(value) if len(str(value)) < 1000 else str(value)


@st.composite
def mutated_text(draw, text):
    """Text with up to two faults of a writer, an editor or a copy, as bytes."""
    for _ in range(draw(st.sampled_from((0, 0, 1, 2)))):
        i = draw(st.integers(0, len(text)))
        text = draw(st.sampled_from((
            text[:i], text[:i] + "\t" + text[i:], text[:i] + "\0" + text[i:],
            text[:i] + draw(st.text(max_size=4)) + text[i:], text[:i] + text[i + 1:],
            text[:i] + text[max(0, i - 40):i] + text[i:], "", text + "\n" + text,
            text.replace("\n", "\r\n"), text.replace(":", "", 1), text.replace(" ", "", 3),
            text[:i] + "{" + text[i:], text[:i] + "]" + text[i:], text[:i] + '"' + text[i:])))
    encoding = draw(st.sampled_from(("utf-8",) * 12 + ("utf-8-sig", "utf-16", "latin-1")))
    content = text.encode(encoding, "replace")
    return draw(mutated_bytes(content)) if draw(st.integers(0, 9)) == 0 else content


@st.composite
def mutated_bytes(draw, content):
    """Bytes that are cut off, flipped, zeroed, overwritten or put together wrongly."""
    i = draw(st.integers(0, max(0, len(content) - 1)))
    change = draw(st.sampled_from(
        ("cut", "flip", "flip", "zero", "noise", "tail", "twice", "head")))
    if change == "cut":
        return content[:i]
    if change == "flip":
        damaged = bytearray(content)
        for _ in range(draw(st.sampled_from((1, 1, 3, 20)))):
            if damaged:
                # headers are short and matter most
                limit = len(damaged) if draw(st.booleans()) else min(len(damaged), 64)
                at = draw(st.integers(0, limit - 1))
                damaged[at] ^= 1 << draw(st.integers(0, 7))
        return bytes(damaged)
    length = draw(st.sampled_from((1, 4, 100, 10_000)))
    if change == "zero":
        return content[:i] + bytes(min(length, len(content) - i)) + content[i + length:]
    if change == "noise":
        return content[:i] + draw(st.binary(max_size=16)) + content[i:]
    if change == "tail":
        return content + bytes(length)
    return content + content if change == "twice" else content[i:]
