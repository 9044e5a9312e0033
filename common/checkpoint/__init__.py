"""Checkpoints: files that are whole or absent, which of them is the newest, where a run starts."""

from common.checkpoint.files import (
    load_checkpoint,
    load_pair,
    remove_checkpoint,
    save_checkpoint,
    save_pair,
    verify,
)
from common.checkpoint.names import (
    checkpoint_path,
    find_interrupt,
    find_latest,
    parse_checkpoint_name,
    state_path,
)
from runtime.errors import SaveError

__all__ = [
    "SaveError",
    "checkpoint_path",
    "find_interrupt",
    "find_latest",
    "load_checkpoint",
    "load_pair",
    "parse_checkpoint_name",
    "remove_checkpoint",
    "save_checkpoint",
    "save_pair",
    "state_path",
    "verify",
]
