"""What other tools call things, and what becomes of their words and command lines here."""

from runtime.other_tools.command_lines import translated
from runtime.other_tools.tool import MANY, Translation
from runtime.other_tools.words import SCRIPTS, TABLE, answer_for, key_for

__all__ = ["MANY", "SCRIPTS", "TABLE", "Translation", "answer_for", "key_for", "translated"]
