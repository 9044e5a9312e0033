"""Python's garbage collector around the imports, which leave 300,000 objects to go through."""

import atexit
import functools
import gc


def pause() -> None:
    """No collections while modules are imported: a fifth of the time that torch takes for it."""
    gc.disable()


def resume() -> None:
    """Collections again, of what comes from now on; what is there now stays to the end.

    At the process's end nothing is gone through either: that took longer than a second.
    """
    gc.enable()
    _keep_what_is_there()


@functools.cache  # once a process: again, it would keep what a run has left to be collected
def _keep_what_is_there() -> None:
    gc.freeze()
    atexit.register(gc.freeze)
