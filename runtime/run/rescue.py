"""What a training loop leaves behind, however it ends: the state before the update that failed."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

import torch
from torch import nn

from runtime.errors import SaveError, add_ending
from runtime.launch import peers
from runtime.launch.signals import Stopped
from runtime.run.run import Run
from runtime.spelling import plural

GO_ON = "--resume latest goes on from there"
Batch = TypeVar("Batch")


class Rescue:
    """Keeps the work of a training loop, whatever ends it.

    net:    whose buffers, BatchNorm's statistics, change before an update's loss is known
    save:   save(iteration) writes the state after that many updates as a stopped run's, from
            rank 0, and returns its file; None where nothing is written (evaluation, dry run)
    start:  updates behind the state that the run goes on from
    source: the file of that state; None when the run starts anew
    lost_by: names of the stop signals at which nothing is saved
    is_dry:  nothing is saved at all

    The loop says what it is doing: `begins`, then `undo` or `changes` and `done`.
    """

    def __init__(
        self,
        run: Run,
        net: nn.Module | None = None,
        save: Callable[[int], Path | str | None] | None = None,
        start: int = 0,
        source: Path | str | None = None,
        lost_by: Collection[str] = (),
        is_dry: bool = False,
    ):
        self._run, self._save, self._lost_by = run, None if is_dry else save, lost_by
        self._start = self._iteration = start
        self._last_good: tuple[int, Path | str | None] = (start, source)
        self._is_changing = False
        self._is_begun = False  # between `begins` and `done` there is something to take back
        self._buffers: list[torch.Tensor] = []
        if net is not None:
            # those that travel in checkpoints; others are constants or made anew
            names = set(net.state_dict())
            self._buffers = [b for name, b in net.named_buffers() if name in names]
        self._before = [buffer.clone() for buffer in self._buffers]

    def begins(self) -> None:
        """An update begins: what its forward pass may change is kept aside.

        Raises SaveError when the last checkpoint, written meanwhile, could not be.
        """
        self._run.writer.check()
        self._is_begun = True
        if self._buffers:
            torch._foreach_copy_(self._before, self._buffers)

    def undo(self) -> None:
        """Take back what the forward pass of the present update, if there is one, has changed."""
        if self._buffers and self._is_begun:
            torch._foreach_copy_(self._buffers, self._before)

    def changes(self) -> None:
        """From here to `done` the weights are neither before nor after the update."""
        self._is_changing = True

    def done(self, iteration: int) -> None:
        """`iteration` updates are behind the present state."""
        self._iteration, self._is_changing, self._is_begun = iteration, False, False

    def saved(self, iteration: int, path: Path | str | None) -> None:
        """The state after `iteration` updates is saved, or being saved, in `path`.

        That counts once it is on the disk. path: None where another rank writes it
        """
        self._run.writer.then(partial(self._is_good, iteration, path))

    def _is_good(self, iteration: int, path: Path | str | None) -> None:
        self._last_good = (iteration, path)
        self._run.saved(iteration, path)

    def path_of(self, iteration: int) -> Path | str | None:
        """The file of the state after `iteration` updates; None when it is not the last good one.

        On other ranks than 0 what `saved` was told there. Waits for what is being written.
        """
        self._run.writer.wait()
        last, path = self._last_good
        return path if last == iteration else None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """In it, an error that ends the loop has the state saved and says where (`ending_of`)."""
        peers.before_exit(self._last_call)
        try:
            yield
            self._run.writer.wait()
        except Stopped:
            raise
        except SaveError as error:
            self._finish_writing()
            add_ending(error, self._last_good_text())
            raise
        except Exception as error:
            add_ending(error, self.keep(error))
            raise
        finally:
            peers.before_exit(None)

    def keep(self, error: Exception | None = None) -> str:
        """Save the state before the present update; says in a sentence where it is.

        Only rank 0 saves; "" on the others.
        """
        if not self._run.is_main or self._save is None:
            return ""
        unsaved = self._finish_writing()
        if self._is_changing:
            return f"The update had begun to change the weights. {self._last_good_text()}"
        if self._iteration == self._last_good[0]:
            return self._last_good_text()
        try:
            with peers.held():  # a peer may be gone; this process is not to end in the middle
                self.undo()
                path = self._save(self._iteration)
                self.saved(self._iteration, path)
                self._run.writer.wait()
            if unsaved is not None:  # what was kept now holds more than what could not be written
                self._run.warn(str(unsaved))
            self._run.record({"event": "stop", "iteration": self._iteration,
                              "reason": f"{type(error).__name__}: {error}" if error else "lost"})
        except Exception as fault:  # the first fault is what must be told
            return f"The state could not be saved ({fault}). {self._last_good_text()}"
        return f"The state after {plural(self._iteration, 'update')} is saved in {path}; {GO_ON}."

    def _finish_writing(self) -> Exception | None:
        """Waits for the checkpoint that is being written; returns what was raised in that."""
        try:
            with peers.held():
                self._run.writer.wait()
        except Exception as error:
            return error
        return None

    def _last_call(self) -> str:
        # The thread that watches the peers ends a process that hangs in a GPU's collective. What
        # was computed before lies in memory; a stream of its own does not wait for the collective.
        if self._run.device.type != "cuda":
            return self.keep()
        with torch.cuda.stream(torch.cuda.Stream(self._run.device)):
            return self.keep()

    def leave_if_stopped(self) -> None:
        """Once the ranks agreed on a stop signal: save, note it, and end (all ranks)."""
        if self._run.stop_requested:
            self._leave(self._run.stop_requested)

    def in_step(
        self, batches: Iterator[Batch], total: int, batch_size: int
    ) -> Iterator[Batch]:
        """`Run.in_step` for an evaluation, which a stop signal ends as it ends the training.

        A bar shows how far it is.
        """
        rounds = -(-total // (batch_size * self._run.world_size))
        with self._run.progress(rounds, what="validation") as progress:
            for batch in self._run.in_step(batches, total, batch_size):
                self.leave_if_stopped()
                assert batch is not None  # without a stop every round has one
                yield batch
                progress.update()

    def _leave(self, name: str) -> NoReturn:
        run, iteration, path = self._run, self._iteration, None
        if self._save is not None and run.is_main and name not in self._lost_by:
            path = self._save(iteration)
            self.saved(iteration, path)
        run.writer.wait()
        run.record({"event": "stop", "iteration": iteration, "reason": name})
        if path is not None:
            run.log(f"Stopped by {name}. The state after {plural(iteration, 'update')} is saved in "
                    f"{path}; {GO_ON}.")
        run.barrier()  # a rank that left earlier would have the others ended by the launcher
        raise Stopped(name)

    def _last_good_text(self) -> str:
        iteration, path = self._last_good
        if self._iteration == self._start and not self._is_changing:
            # no update of this session is lost
            return "" if path is None else f"The state is still that of {path}."
        if path is None:
            return "No state had been saved before."
        return f"The last good state, after {plural(iteration, 'update')}, is {path}; {GO_ON}."
