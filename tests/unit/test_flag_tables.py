"""The tables of flags on the pages of the scripts are those of the code."""

import re

import pytest
from flag_tables import PAGES, rows, written_anew
from script_flags import flag_names

from runtime.options.usage import common_options


@pytest.mark.parametrize("script", PAGES)
def test_the_page_has_the_flags_of_today(script):
    page = PAGES[script].read_text(encoding="utf-8")
    assert written_anew(script) == page, "write it anew: python tests/flag_tables.py"


@pytest.mark.parametrize("script", PAGES)
def test_no_flag_is_left_out_or_without_a_word(script):
    own, added = rows(script)
    assert own
    assert added
    named = {name for cells in own + added for name in re.findall(r"--[\w-]+", cells[0])}
    common = {name for option in common_options(script) for name in option.opts}
    assert named == {*flag_names(script), *common}
    assert all(cells[3] for cells in own + added), script
