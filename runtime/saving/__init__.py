"""Checkpoints written behind the training loop: a copy of the state, a thread, forks between.

Nothing is imported here; see `copies`, `writer`, `archive` and `forks`.
"""
