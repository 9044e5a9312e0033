"""What pip meets in place of a builder: the scripts run from this folder, there is no package.

pyproject.toml names it as its build backend, so that `pip install .` ends in one line.
"""

import sys
from typing import NoReturn

LINE = ("revived-trainers is no package: its scripts run from their folder. Install what they need "
        "with: pip install -r requirements.txt")


def build_wheel(*arguments: object) -> NoReturn:
    """Whatever pip asks a builder for: the line, and status 2."""
    print(LINE, file=sys.stderr)
    sys.exit(2)


build_sdist = build_editable = build_wheel
get_requires_for_build_wheel = get_requires_for_build_editable = build_wheel
get_requires_for_build_sdist = build_wheel
