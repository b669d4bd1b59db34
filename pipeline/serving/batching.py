"""Dynamic batching: images of many requests share a forward pass."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np

from components.decodable import UNREADABLE, Image, NoImage
from components.inspection import MAX_PIXELS

MAX_BATCH = 32  # images
# Seconds that the first image of a batch waits for others. Under load they come while the batch before is computed.
WAIT = 0.001

Row = dict[str, np.ndarray]  # outputs by name, for a batch of one image


class Unanswerable(Exception):
    """What a `call` raises when one or more of its images cannot be decoded."""


class Batcher:
    """Classifies images in batches on an executor's threads; for one event loop."""

    def __init__(self, call: Callable[[list[bytes]], list[Row]], repair: Callable[[bytes], Image], executor: Executor):
        """Starts waiting for images.

        Args:
          call: files to one row of outputs each; raises `Unanswerable`.
          repair: another form of a file that `call` could not answer; raises `NoImage`.
          executor: where they run.
        """
        self._call, self._repair, self._executor = call, repair, executor
        self._waiting: deque[tuple[Image, asyncio.Future]] = deque()
        self._arrived = asyncio.Event()
        self._task = asyncio.create_task(self._work())

    async def answers(self, images: list[Image]) -> list[Row | NoImage]:
        """One row, or what is wrong, an image. Many images are queued a batch at a time, so that others get a turn."""
        rows: list[Row | NoImage] = []
        for start in range(0, len(images), MAX_BATCH):
            loop = asyncio.get_running_loop()
            queued = [(image, loop.create_future()) for image in images[start : start + MAX_BATCH]]
            self._waiting.extend(queued)
            self._arrived.set()
            rows += await asyncio.gather(*(future for _, future in queued))
        return rows

    def close(self) -> None:
        """Ends the waiting; only when nothing is queued."""
        self._task.cancel()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if len(self._waiting) < MAX_BATCH:
                await asyncio.sleep(WAIT)
            batch = self._next()
            if not self._waiting:
                self._arrived.clear()
            try:
                rows = await loop.run_in_executor(self._executor, self._run, [image for image, _ in batch])
            except Exception as error:
                for _, future in batch:
                    _finish(future, error=error)
            else:
                for (_, future), row in zip(batch, rows, strict=True):
                    _finish(future, row)

    def _next(self) -> list[tuple[Image, asyncio.Future]]:
        """The images that waited longest, as many as are decoded within the memory that one image may take."""
        batch = [self._waiting.popleft()]
        pixels = batch[0][0].pixels
        while self._waiting and len(batch) < MAX_BATCH:
            pixels += self._waiting[0][0].pixels
            if pixels > MAX_PIXELS:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _run(self, images: list[Image]) -> list[Row | NoImage]:
        try:
            return self._call([image.data for image in images])
        except Unanswerable:
            if len(images) == 1:
                return [self._alone(images[0])]
        # One bad image fails the batch. Halving it finds the image at the cost of decoding some of the others again:
        # the network never ran on a batch that failed.
        middle = len(images) // 2
        return self._run(images[:middle]) + self._run(images[middle:])

    def _alone(self, image: Image) -> Row | NoImage:
        try:
            repaired = self._repair(image.data)
        except NoImage as error:
            return error
        try:
            return self._call([repaired.data])[0]
        except Unanswerable:
            return NoImage(UNREADABLE)


def _finish(future: asyncio.Future, row: Row | NoImage | None = None, error: Exception | None = None) -> None:
    if future.done():
        return
    if error:
        future.set_exception(error)
    else:
        future.set_result(row)
