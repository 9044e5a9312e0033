"""What pages say of files beside them: the batch script, the image for containers."""

import fnmatch
import re

from rooms import ROOT, all_files


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_batch_script_has_the_lines_that_the_page_explains():
    explained = re.findall(r"^\| `(--[^`]+)` \|", read("docs/several_gpus.md"), re.MULTILINE)
    assert len(explained) >= 3
    head = [line.removeprefix("#SBATCH ") for line in read("slurm_train.sh").splitlines()]
    assert [line for line in explained if line not in head] == []


def test_the_image_gets_all_code():
    """A pattern of .dockerignore takes what it names with all below it, and no code is there."""
    patterns = [line for line in read(".dockerignore").splitlines() if line and line[0] != "#"]
    needed = [path.relative_to(ROOT) for path in all_files()]
    needed += [path.relative_to(ROOT) for path in ROOT.glob("configs/**/*.yaml")]
    assert len(needed) > 200
    lost = [str(path) for path in needed for part in (path, *path.parents)
            for pattern in patterns if matches(part.parts, pattern.split("/"))]
    assert lost == []


def matches(parts, pattern):
    if pattern[:1] == ["**"]:
        return any(matches(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return len(parts) == len(pattern) and all(map(fnmatch.fnmatchcase, parts, pattern))


def test_the_dockerfile_names_files_that_are_there():
    text = read("Dockerfile")
    named = re.findall(r"\b[\w/]+\.(?:txt|py|md)\b", text)
    assert {"requirements.txt", "train_yolact.py"} <= set(named)
    assert all((ROOT / name).exists() for name in named)


def test_each_page_is_in_the_readme_or_on_a_page_that_is():
    linked = set(re.findall(r"\]\(docs/([\w]+\.md)\)", read("README.md")))
    pages = {path.name for path in ROOT.glob("docs/*.md")}
    assert linked <= pages
    assert pages - linked == set()
