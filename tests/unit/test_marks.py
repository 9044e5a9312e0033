"""Every mark `parity:` or `differs:` names a section of docs/originals that is there.

A source has the form [yolact.md: Learning rate] and stands on one line. It is wanted in the comment
or docstring paragraph of each mark; sources elsewhere have to exist as well. `differs:` says the
way back to the original's behaviour too: a flag, a key, or `none` and why.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest
from rooms import ROOT, all_files

ORIGINALS = ROOT / "docs" / "originals"
SOURCE = re.compile(r"\[(\w+\.md): ([^\]\n]+)\]")
# one that a line's end cuts, or without a section
BROKEN = re.compile(r"\[\w+\.md\b(?!: [^\]\n]+\])")
MARK = re.compile(r"^\s*(?:#\s*)?(parity|differs): ", re.MULTILINE)
WAY_BACK = re.compile(r"Way\s+back:\s+(?P<word>\S+)")
WHY = re.compile(r"Way\s+back:\s+none,\s+\S+")
SPEC = re.compile(r"\bspecs/|\b(the|project)\s+specs?\b|\bspecs?,\s+section|\(specs?\b", re.I)


def python_files():
    """All but this one, which has broken marks to show."""
    return [path for path in all_files() if path != Path(__file__)]


def sections(name):
    """The headings of a page in docs/originals; none for a page that is not there."""
    path = ORIGINALS / name
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return set(re.findall(r"^## (.+?)\s*$", text, re.MULTILINE))


def texts(source):
    """(line, text) of each run of comment lines, of each comment behind code, of each docstring."""
    runs, last = [], (-1, -1)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        row, column = token.start
        alone = not token.line[:column].strip()
        if alone and last == (row - 1, column):
            runs[-1][1].append(token.string)
        else:
            runs.append((row, [token.string]))
        last = (row, column) if alone else (-1, -1)
    found = [(row, "\n".join(line.removeprefix("#") for line in lines)) for row, lines in runs]
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds) and ast.get_docstring(node):
            found.append((node.body[0].lineno, ast.get_docstring(node)))
    return found


def marks(text):
    """(kind, wording) of each mark: up to the next one, or to an empty line."""
    starts = [*MARK.finditer(text)]
    ends = [*(match.start() for match in starts), len(text)][1:]
    return [(match[1], text[match.end():end].split("\n\n")[0])
            for match, end in zip(starts, ends, strict=True)]


def faults_of(source):
    """(line, what is wrong) of a Python text."""
    faults = []
    for row, text in texts(source):
        if SPEC.search(text):
            faults.append((row, "cites a spec, which the project does not hold"))
        if BROKEN.search(text):
            faults.append((row, "has a source that is not on one line as [page.md: Section]"))
        for page, section in SOURCE.findall(text):
            if not sections(page):
                faults.append((row, f"names docs/originals/{page}, which is not there"))
            elif section not in sections(page):
                faults.append((row, f"names a section {section} that {page} does not have"))
        for kind, wording in marks(text):
            if not SOURCE.search(wording):
                faults.append((row, f"has a mark `{kind}:` without a source"))
            way = WAY_BACK.search(wording)
            if kind == "differs" and way is None:
                faults.append((row, "has a mark `differs:` without a way back"))
            elif way and way["word"].startswith("none") and not WHY.search(wording):
                faults.append((row, "has no way back and does not say why"))
    return faults


def test_every_mark_of_the_project_has_its_source():
    files = python_files()
    number = sum(len(marks(text)) for path in files for _, text in texts(path.read_text()))
    assert number > 60  # that they are found at all
    faults = [f"{path.relative_to(ROOT)}:{row}: {fault}"
              for path in files for row, fault in faults_of(path.read_text())]
    assert faults == []


def test_no_other_file_cites_a_spec():
    others = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("configs/**/*.yaml"),
              ROOT / "Makefile", ROOT / "pyproject.toml"]
    assert [str(path) for path in others if SPEC.search(path.read_text())] == []


def test_sources_in_configs_exist():
    for path in ROOT.glob("configs/**/*.yaml"):
        for page, section in SOURCE.findall(path.read_text()):
            assert section in sections(page), path


def test_every_page_says_what_the_original_is():
    pages = sorted(ORIGINALS.glob("*.md"))
    assert [page.stem for page in pages] == ["queryinst", "resnest", "segmentation", "yolact"]
    for page in pages:
        head = page.read_text(encoding="utf-8").partition("\n## ")[0]
        assert "github.com/" in head, page
        assert "licence" in head or "Apache" in head, page
        assert "arXiv:" in head, page


def test_every_fault_that_is_mended_has_a_way_back():
    for page in ORIGINALS.glob("*.md"):
        rows = page.read_text(encoding="utf-8").partition("## Known faults\n")[2]
        rows = rows.partition("\n## ")[0].strip().splitlines()[2:]
        assert len(rows) > 10, page
        for row in rows:
            cells = [cell.strip() for cell in row.strip("|").split("|")]
            assert len(cells) == 3, row
            assert all(cells), row
            assert cells[2] != "none", f"{row}: why?"


GOOD = "# parity: five modes act alike [yolact.md: Augmentation]\nx = 1\n"


@pytest.mark.parametrize("source, fault", [
    (GOOD, None),
    ("# differs: ignored [segmentation.md: Training batches]\n# Way back: DATASET.pad_label 0.\n",
     None),
    ('def f():\n    """Text.\n\n    parity: wrapped\n    [resnest.md: Blocks]\n    """\n', None),
    ("# parity: five modes act alike\nx = 1\n", "without a source"),
    ("x = 1  # parity: five modes act alike\n", "without a source"),
    ('def f():\n    """Text.\n\n    parity: wrapped\n    """\n', "without a source"),
    ("# parity: a [yolact.md: Priors]\n# parity: b\n", "without a source"),
    ("# parity: five modes [yolact.md: Augmentations]\n", "does not have"),
    ("# parity: five modes [yolakt.md: Augmentation]\n", "not there"),
    ("# parity: five modes [yolact.md:\n# Augmentation]\n", "not on one line"),
    ('"""Source: [yolact.md: Nothing]."""\n', "does not have"),
    ("# differs: ignored [segmentation.md: Training batches]\n", "without a way back"),
    ("# differs: ignored [segmentation.md: Scores]. Way back: none.\n", "does not say why"),
    ("# as in specs/yolact.md, section 8\n", "cites a spec"),
    ('"""The rule of the spec."""\n', "cites a spec"),
])
def test_a_broken_mark_is_found(source, fault):
    found = " ".join(what for _, what in faults_of(source))
    assert fault in found if fault else not found
