"""Dynamic batching: images of many requests share a forward pass."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
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

    def __init__(
        self,
        call: Callable[[list[bytes]], list[Row]],
        repair: Callable[[bytes], Awaitable[Image]],
        executor: Executor,
        repairing: asyncio.Lock,
    ):
        """Starts waiting for images.

        Args:
          call: files to one row of outputs each; raises `Unanswerable`.
          repair: another form of a file that `call` cannot answer; raises `NoImage`.
          executor: where `call` runs.
          repairing: held by the request whose images are repaired, so that only one holds what they unpack to.
        """
        self._call, self._repair, self._executor, self._repairing = call, repair, executor, repairing
        self._waiting: deque[tuple[Image, asyncio.Future]] = deque()
        self._arrived = asyncio.Event()
        self._task = asyncio.create_task(self._work())

    async def answers(self, images: list[Image]) -> list[Row | NoImage]:
        """One row, or what is wrong, an image."""
        rows: list[Row | NoImage | None] = [None] * len(images)
        await self._fill(rows, {number: image for number, image in enumerate(images) if image.ready})
        unread = deque(number for number, row in enumerate(rows) if row is None)
        while unread:
            async with self._repairing:
                repaired = await self._repaired(images, unread, rows)
            await self._fill(rows, repaired)
        return [NoImage(UNREADABLE) if row is None else row for row in rows]

    async def _fill(self, rows: list[Row | NoImage | None], images: dict[int, Image]) -> None:
        """Rows by number, None where the image cannot be read; a batch at a time, so that others get a turn."""
        numbers = list(images)
        for start in range(0, len(numbers), MAX_BATCH):
            some = numbers[start : start + MAX_BATCH]
            loop = asyncio.get_running_loop()
            queued = [(images[number], loop.create_future()) for number in some]
            self._waiting.extend(queued)
            self._arrived.set()
            for number, row in zip(some, await asyncio.gather(*(future for _, future in queued)), strict=True):
                rows[number] = row

    async def _repaired(
        self, images: list[Image], unread: deque[int], rows: list[Row | NoImage | None]
    ) -> dict[int, Image]:
        """Takes as many as make a batch from `unread`; of one that cannot be repaired, the reason becomes the row."""
        repaired: dict[int, Image] = {}
        pixels = 0
        while unread and len(repaired) < MAX_BATCH:
            pixels += images[unread[0]].pixels
            if repaired and pixels > MAX_PIXELS:
                break
            number = unread.popleft()
            try:
                repaired[number] = await self._repair(images[number].data)
            except NoImage as error:
                rows[number] = error
        return repaired

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
            if not batch:
                continue
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
        batch: list[tuple[Image, asyncio.Future]] = []
        pixels = 0
        while self._waiting and len(batch) < MAX_BATCH:
            image, future = self._waiting[0]
            if not future.cancelled():  # by a client that has gone
                pixels += image.pixels
                if batch and pixels > MAX_PIXELS:
                    break
                batch.append((image, future))
            self._waiting.popleft()
        return batch

    def _run(self, images: list[Image]) -> list[Row | None]:
        try:
            return self._call([image.data for image in images])
        except Unanswerable:
            if len(images) == 1:
                return [None]
        # One bad image fails the batch. Halving it finds the image at the cost of decoding some of the others again:
        # the network never ran on a batch that failed.
        middle = len(images) // 2
        return self._run(images[:middle]) + self._run(images[middle:])


def _finish(future: asyncio.Future, row: Row | None = None, error: Exception | None = None) -> None:
    if future.done():
        return
    if error:
        future.set_exception(error)
    else:
        future.set_result(row)
