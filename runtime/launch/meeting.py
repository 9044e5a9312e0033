"""How the ranks of one start find each other in a store that holds what earlier starts have left.

torchrun keeps one store for all starts of its processes, and torch puts nothing in front of their
keys: after a restart a rank may read the address that a peer had before, and connect to nobody
(pytorch issue 135712; with one rank a second late, 7 of 10 second starts failed so).
TORCHELASTIC_RESTART_COUNT does not tell the starts apart, as each node counts its own. So the ranks
that are alive now agree on a name first, and put it in front of all their keys.
"""

import time
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import Store

POLL_S = 0.02


def agree(
    store: "Store", rank: int, world_size: int, place: str, timeout_s: float
) -> tuple[str, list[str]]:
    """(name of this start, each rank's `place`), the same on all ranks (all ranks).

    place: where this rank runs
    Raises TimeoutError that says who has not come.
    """
    own = uuid.uuid4().hex
    deadline = time.monotonic() + timeout_s
    if rank == 0:
        name = _welcome(store, world_size, own, place, deadline)
    else:
        name = _come(store, rank, own, place, deadline)
    return name, [store.get(f"{name}/{other}").decode() for other in range(world_size)]


def _welcome(store: "Store", world_size: int, own: str, place: str, deadline: float) -> str:
    """Rank 0's name is the start's; it goes to every rank that asks, and waits for all."""
    welcomed = set()
    waiting = set(range(1, world_size))
    store.set(f"{own}/0", place)
    while waiting:
        for other in list(waiting):
            if store.check([f"{own}/{other}"]):
                waiting.discard(other)
            elif store.check([f"come/{other}"]):
                # of this start or of an earlier one: only a living rank reads the answer
                guest = store.get(f"come/{other}").decode()
                if guest not in welcomed:
                    store.set(f"welcome/{guest}", own)
                    welcomed.add(guest)
        if time.monotonic() > deadline:
            raise TimeoutError(f"not there: rank {', '.join(map(str, sorted(waiting)))}")
        time.sleep(POLL_S)
    store.set(f"{own}/complete", "")
    return own


def _come(store: "Store", rank: int, own: str, place: str, deadline: float) -> str:
    """The name that rank 0 gives; it may be started anew meanwhile and give another."""
    store.set(f"come/{rank}", own)
    name = ""
    while not (name and store.check([f"{name}/complete"])):
        if store.check([f"welcome/{own}"]):
            given = store.get(f"welcome/{own}").decode()
            if given != name:
                name = given
                store.set(f"{name}/{rank}", place)
        if time.monotonic() > deadline:
            raise TimeoutError("not there: rank 0" if not name else "some ranks are not there")
        time.sleep(POLL_S)
    return name
