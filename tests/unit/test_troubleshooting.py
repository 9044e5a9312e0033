"""docs/troubleshooting.md quotes messages that the code has."""

import re

from rooms import ROOMS, ROOT, SCRIPTS, modules

TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (.+?) \| .+ \| .+ \|$", re.MULTILINE)
SHORTEST = 8  # characters that say something


def source_text():
    """The code with the pieces of its texts joined, and each value in them as three dots."""
    paths = [path for room in ROOMS for path in modules(room)]
    paths += [ROOT / f"{script}.py" for script in SCRIPTS]
    text = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    text = re.sub(r'"\s*\n?\s*f?"', "", text)
    return " ".join(re.sub(r"\{[^{}\"]*\}", "...", text).split())


def quoted():
    """The pieces of the messages, between dots."""
    cells = [row for row in ROW.findall(TEXT) if row.startswith("`")]
    for cell in cells:
        for message in re.findall(r"`([^`]+)`", cell):
            yield from (piece.strip() for piece in message.split("...")
                        if len(piece.strip()) >= SHORTEST)


def test_the_messages_are_those_of_the_code():
    source = source_text()
    pieces = list(quoted())
    assert len(pieces) >= 25
    assert [piece for piece in pieces if piece not in source] == []
