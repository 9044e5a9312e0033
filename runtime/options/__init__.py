"""The command line: what options may be, what is wrong with a line, how a shell completes one.

Light: it is imported before torch.
"""
