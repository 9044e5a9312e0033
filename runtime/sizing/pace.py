"""How many epochs lie between two validations where an epoch is a matter of seconds.

Numbers of updates decide, no clock: a resumed run has to validate where the unbroken one does.
"""

from collections.abc import Callable

from runtime.spelling import plural

FEWEST_UPDATES = 100  # between two validations: minutes on a CPU, and no crowd on a GPU
FEWEST_TIMES = 10  # validations of a whole training, whatever its length


def epochs_between(per_epoch: int, total: int, every: int) -> int:
    """`every` epochs, or as many more as make `FEWEST_UPDATES`, or a tenth of the training.

    per_epoch: updates in an epoch; total: of the whole training; every: 0 is never, and stays
    """
    wanted = min(FEWEST_UPDATES, total // FEWEST_TIMES)
    return max(every, -(-wanted // per_epoch)) if every > 0 else every


def paced(per_epoch: int, total: int, every: int, is_own: bool, log: Callable[[str], object],
          what: str, way_back: str) -> int:
    """`epochs_between`, said in a line where it is more than `every`; what the user has set stays.

    is_own: whether the user has set `every`
    what:   what is done so often, "validates"; way_back: the flag or key that brings `every` back
    """
    epochs = every if is_own else epochs_between(per_epoch, total, every)
    if epochs != every:
        log(f"Epochs have {plural(per_epoch, 'update')}: {what} every {epochs} epochs, "
            f"{epochs * per_epoch} updates; {way_back} is as often as without this rule.")
    return epochs
