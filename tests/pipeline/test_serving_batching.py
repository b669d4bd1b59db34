"""Requests share forward passes, within bounds, and none pays for another's image."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from components.decodable import Image, NoImage
from components.inspection import MAX_PIXELS
from pipeline.serving.batching import MAX_BATCH, Batcher, Unanswerable


class Model:
    """Answers with the image itself, unless it is bad; keeps which images each call computed."""

    def __init__(self):
        self.computed: list[list[bytes]] = []

    def __call__(self, items: list[bytes]) -> list[dict[str, np.ndarray]]:
        if b"bad" in items:
            raise Unanswerable
        self.computed.append(items)
        return [{"image": np.array([item])} for item in items]


async def repair(data: bytes) -> Image:
    raise NoImage("is bad")


@contextlib.contextmanager
def batching(call, repair=repair) -> Iterator[Batcher]:
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(call, repair, executor, asyncio.Lock())
        try:
            yield batcher
        finally:
            batcher.close()


def answers(model: Model, requests: list[list[Image]]) -> list[list]:
    async def ask() -> list[list]:
        with batching(model) as batcher:
            return await asyncio.gather(*(batcher.answers(images) for images in requests))

    return asyncio.run(ask())


def test_concurrent_requests_share_a_forward_pass_and_get_their_own_answers():
    model, names = Model(), [str(number).encode() for number in range(3 * MAX_BATCH)]
    rows = answers(model, [[Image(name, 1)] for name in names])
    assert [row[0]["image"][0] for row in rows] == names
    assert [len(items) for items in model.computed] == [MAX_BATCH] * 3


def test_one_large_request_gives_the_others_their_turn():
    model = Model()
    answers(model, [[Image(b"large", 1)] * 10 * MAX_BATCH, [Image(b"small", 1)]])
    assert b"small" in model.computed[1]


def test_images_in_a_batch_are_decoded_within_the_memory_of_the_largest_single_one():
    model = Model()
    answers(model, [[Image(b"large", MAX_PIXELS // 2)] * 5 + [Image(b"whole", MAX_PIXELS)]])
    assert [len(items) for items in model.computed] == [2, 2, 1, 1]


def test_bad_images_are_found_and_no_good_one_is_computed_twice():
    model = Model()
    images = [Image(b"bad" if number in (3, 17) else str(number).encode(), 1) for number in range(MAX_BATCH)]
    (rows,) = answers(model, [images])
    assert [number for number, row in enumerate(rows) if isinstance(row, NoImage)] == [3, 17]
    assert sorted(int(item) for items in model.computed for item in items) == [
        number for number in range(MAX_BATCH) if number not in (3, 17)
    ]


def test_failure_of_the_model_itself_is_no_fault_of_the_images_and_the_next_request_is_answered():
    calls = []

    def failing(items: list[bytes]) -> list[dict[str, np.ndarray]]:
        calls.append(items)
        if len(calls) == 1:
            raise MemoryError
        return [{"image": np.array([item])} for item in items]

    async def ask() -> None:
        with batching(failing) as batcher:
            first = await asyncio.gather(batcher.answers([Image(b"a", 1)] * 2), return_exceptions=True)
            second = await batcher.answers([Image(b"b", 1)])
        assert isinstance(first[0], MemoryError)
        assert second[0]["image"].tolist() == [b"b"]

    asyncio.run(ask())


def test_images_that_are_converted_keep_no_other_request_waiting_and_a_client_that_has_gone_none():
    begun, model = [], Model()

    async def ask() -> None:
        async def endless(data: bytes) -> Image:
            begun.append(data)
            started.set()
            await asyncio.Event().wait()

        started = asyncio.Event()
        with batching(model, endless) as batcher:
            slow = asyncio.create_task(batcher.answers([Image(str(n).encode(), 1, ready=False) for n in range(3)]))
            await started.wait()
            ((row,),) = await asyncio.gather(batcher.answers([Image(b"ready", 1)]))
            assert row["image"].tolist() == [b"ready"]
            slow.cancel()
            await asyncio.wait([slow])
        assert begun == [b"0"]

    asyncio.run(ask())


def test_one_request_at_a_time_converts_and_holds_no_more_pixels_than_one_image_may_have():
    model, held, most = Model(), set(), []

    def call(items: list[bytes]) -> list[dict[str, np.ndarray]]:
        held.difference_update(items)
        return model(items)

    async def convert(data: bytes) -> Image:
        held.add(data)
        most.append(len(held))
        await asyncio.sleep(0)
        return Image(data, MAX_PIXELS // 2)

    async def ask() -> None:
        names = [[b"%d %d" % (request, number) for number in range(4)] for request in (0, 1)]
        images = [[Image(name, MAX_PIXELS // 2, ready=False) for name in some] for some in names]
        with batching(call, convert) as batcher:
            rows = await asyncio.gather(*(batcher.answers(some) for some in images))
        assert [[row["image"][0] for row in some] for some in rows] == names

    asyncio.run(ask())
    assert max(most) <= 4  # of one request converted, of the other being computed
    assert [len(items) for items in model.computed] == [2] * 4


def test_request_whose_client_has_gone_is_not_computed():
    computed, go = [], threading.Event()

    def call(items: list[bytes]) -> list[dict[str, np.ndarray]]:
        go.wait(10)
        computed.extend(items)
        return [{"image": np.array([item])} for item in items]

    async def ask() -> None:
        with batching(call) as batcher:
            asked = [asyncio.create_task(batcher.answers([Image(name, MAX_PIXELS)])) for name in (b"a", b"gone", b"b")]
            await asyncio.sleep(0)
            asked[1].cancel()
            go.set()
            await asyncio.wait(asked)

    asyncio.run(ask())
    assert computed == [b"a", b"b"]
