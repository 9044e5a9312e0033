"""MMDetection's Python configs, read through their syntax tree: nothing of them is ever run.

`reading.py` has a file from bytes to a tree of Nodes, `statements.py` what a line does,
`expressions.py` what a value is, `calls.py`, `functions.py` and `methods.py` what may be called,
`values.py` the values and how much of them there may be.
"""
