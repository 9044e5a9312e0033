"""The loop of `--predict`: batches in, pictures and data out, with speed told at the end."""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from runtime.errors import InputError
from runtime.launch.signals import Stopped
from runtime.pictures import save_image
from runtime.predicting.outputs import Plan
from runtime.predicting.videos import VideoFile
from runtime.run.run import Run

MOST_THREADS = 8  # that draw and encode pictures beside the network
WAITING = 2  # pictures in hand for each of them: more would only fill the memory
NAMED_FAULTS = 3  # unreadable images that the warning names

Sample = dict[str, Any]


class Item(NamedTuple):
    """An image or a frame: its number in order, COCO image id, path (a video's for its frames),
    and file name of the picture ("" for frames)."""

    number: int
    image_id: int
    path: str
    name: str


class Source(Protocol):
    """Where the samples are from."""

    rate: float  # frames a second of a video
    count: int  # images, or frames as far as known

    def batches(
        self, batch_size: int, workers: int, rank: int, world_size: int
    ) -> Generator[list[Sample], None, None]:
        """A rank's samples: `number` of the image in the plan, or of the frame; `skipped`, fault
        lines, where it could not be read; `pixels`, uint8 RGB, of frames; `kind`: only neighbours
        of the same kind go through the network together."""

    def pixels(self, number: int) -> np.ndarray:
        """The image of that number, [h, w, 3] uint8 RGB; called from several threads."""


class Results(Protocol):
    """What a family makes of what its network finds; one object on each rank."""

    def add(self, item: Item, found: Any) -> None:
        """Take the data of an image, which come in order."""

    def draw(self, pixels: np.ndarray, found: Any, is_frame: bool) -> np.ndarray:
        """The picture, uint8 RGB, of `pixels` [h, w, 3] uint8 RGB; of a frame as large as that.

        In a thread of its own."""

    def save_beside(self, plan: Plan, item: Item, found: Any) -> None:
        """Write what belongs to one image besides the picture; in a thread of its own."""

    def collected(self) -> Any:
        """What `merge` of rank 0's takes, picklable."""

    def merge(self, other: Any) -> None:
        """Add what another rank has collected."""

    def save(self, plan: Plan) -> list[str]:
        """Write the data; the names of the files."""


def predict_all(
    run: Run, plan: Plan, source: Source, batch_size: int, workers: int,
    forward: Callable[[list[Sample]], Any],
    finish: Callable[[Any, list[Sample]], Sequence[Any]], results: Results,
) -> None:
    """Predict all there is, write pictures and data, say how long it took (all ranks).

    source:  where the samples are from, `batch_size` at a time (a benchmark: 1), read ahead by
             `workers` processes
    forward: samples -> what the network says; finish: that and the samples -> a result for each
    A stop signal ends it with what is there whole, and raises Stopped. Raises InputError when no
    image could be read; SaveError.
    """
    inputs, ids = plan.inputs, plan.image_ids()
    clock, faults = _Clock(run.device, plan.only_times), list[str]()
    video = VideoFile(plan.video_path, source.rate) if inputs.video else None
    size = 1 if plan.only_times else batch_size
    batches = source.batches(size, workers, run.rank, run.world_size)

    def written(sample: Sample, item: Item, found: Any) -> np.ndarray | None:
        if inputs.video:
            return results.draw(sample["pixels"], found, True)
        save_image(results.draw(source.pixels(item.number), found, False), plan.folder / item.name)
        results.save_beside(plan, item, found)
        return None

    with closing(batches), _Hands(video) as hands, torch.no_grad(), \
            run.progress(-(-source.count // run.world_size)) as progress:
        for samples in _until_stopped(run, batches, None if inputs.video else source.count, size):
            faults += [line for sample in samples for line in sample.get("skipped", [])]
            for alike in _alike([sample for sample in samples if "skipped" not in sample]):
                for sample, found in zip(alike, clock.timed(forward, finish, alike), strict=True):
                    if plan.only_times:
                        continue
                    i = sample["number"]
                    item = (Item(i, i, inputs.video, "") if inputs.video
                            else Item(i, ids[i], inputs.images[i], plan.names[i]))
                    results.add(item, found)
                    hands.take(written, sample, item, found)
            progress.update(len(samples))
    _end(run, plan, clock, faults, results)


def _end(run: Run, plan: Plan, clock: "_Clock", faults: list[str], results: Results) -> None:
    """Rank 0 writes the data of all ranks and says what came of it."""
    parts = run.gather((results.collected(), clock, faults)) or []
    for data, other, unread in parts[1:]:
        results.merge(data)
        clock.merge(other)
        faults += unread
    count, fault = clock.images, None
    if run.is_main:
        if not count and faults:
            fault = InputError(faults[:NAMED_FAULTS])
        elif faults:
            more = "" if len(faults) <= NAMED_FAULTS else "; ..."
            run.warn(f"{len(faults)} of {count + len(faults)} images could not be read and are "
                     f"left out: {'; '.join(faults[:NAMED_FAULTS])}{more}")
        if count and not plan.only_times:
            names = results.save(plan)
            first = plan.video_path.name if plan.inputs.video else "Pictures"
            run.log(f"{', '.join([first, *names])} are in {plan.folder}.")
        if count:
            for line in clock.lines("frame" if plan.inputs.video else "image"):
                run.log(line)
    fault = run.broadcast(fault)
    if fault:
        raise fault
    if run.stop_requested:
        raise Stopped(run.stop_requested)


def _until_stopped(
    run: Run, batches: Iterator[list[Sample]], total: int | None, batch_size: int
) -> Iterator[list[Sample]]:
    """The batches, until the ranks agree on a stop. total: images of all ranks; None: unknown"""
    for batch in batches if total is None else run.in_step(batches, total, batch_size):
        if total is None:
            run.agree_on_stop()
        if run.stop_requested:
            return
        if batch is not None:
            yield batch


def _alike(samples: list[Sample]) -> Iterator[list[Sample]]:
    """The samples in order, neighbours of one kind together."""
    begun: list[Sample] = []
    for sample in samples:
        if begun and begun[-1].get("kind") != sample.get("kind"):
            yield begun
            begun = []
        begun.append(sample)
    if begun:
        yield begun


class _Hands:
    """Threads that draw and encode pictures while the network computes; frames stay in order."""

    def __init__(self, video: VideoFile | None):
        self._video = video
        count = max(1, min(MOST_THREADS, (os.cpu_count() or 1) - 1))
        self._most = count * WAITING
        self._pool = ThreadPoolExecutor(count)
        self._begun: deque[Future] = deque()

    def __enter__(self) -> "_Hands":
        return self

    def take(self, work: Callable[..., np.ndarray | None], *arguments: Any) -> None:
        """Have the work done, and what was taken long ago finished. Raises what that raised."""
        self._begun.append(self._pool.submit(work, *arguments))
        while len(self._begun) > self._most:
            self._finish_first()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            while self._begun and kind is None:
                self._finish_first()
        finally:
            self._pool.shutdown(cancel_futures=True)
            if self._video is not None:
                self._video.close()

    def _finish_first(self) -> None:
        picture = self._begun.popleft().result()
        if picture is not None and self._video is not None:
            self._video.write(picture)


class _Clock:
    """Times of the images: of all that is done, and with `is_exact` of the network by itself.

    device: the network's; is_exact: wait for it before each reading, after an untimed first pass
    """

    def __init__(self, device: torch.device, is_exact: bool):
        self.images, self._device, self._is_exact = 0, str(device), is_exact
        self._begin = time.perf_counter()
        self._network_s = self._both_s = 0.0

    def timed(
        self, forward: Callable[[list[Sample]], Any],
        finish: Callable[[Any, list[Sample]], Sequence[Any]], samples: list[Sample],
    ) -> Sequence[Any]:
        """finish(forward(samples), samples)"""
        if self._is_exact and not self.images:
            finish(forward(samples), samples)  # the first pass chooses algorithms and allocates
        begin = self._now()
        said = forward(samples)
        network = self._now()
        found = finish(said, samples)
        self._network_s += network - begin
        self._both_s += self._now() - begin
        self.images += len(samples)
        return found

    def merge(self, other: "_Clock") -> None:
        """Add the images of another rank, which computed at the same time."""
        self.images += other.images
        self._network_s += other._network_s
        self._both_s += other._both_s

    def lines(self, what: str) -> list[str]:
        """The speed in words; `what` is counted, in the singular."""
        seconds, count = time.perf_counter() - self._begin, self.images
        things = what if count == 1 else f"{what}s"
        if not self._is_exact:
            return [f"{count} {things} in {seconds:.2f} s: {count / seconds:.2f} images/s, reading "
                    "and drawing included"]
        return [f"Benchmark over {count} {things}, one at a time, nothing drawn or written:",
                *(f"  {name:20} {1000 * s / count:9.2f} ms an image {count / s:9.2f} images/s"
                  for name, s in (("model alone", self._network_s),
                                  ("with postprocessing", self._both_s),
                                  ("and reading", seconds)))]

    def _now(self) -> float:
        if self._is_exact and self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
