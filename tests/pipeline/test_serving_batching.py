"""Requests share forward passes, within bounds, and none pays for another's image."""

import asyncio
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


def repair(data: bytes) -> Image:
    raise NoImage("is bad")


def answers(model: Model, requests: list[list[Image]]) -> list[list]:
    async def ask() -> list[list]:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(model, repair, executor)
            try:
                return await asyncio.gather(*(batcher.answers(images) for images in requests))
            finally:
                batcher.close()

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
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(failing, repair, executor)
            first = await asyncio.gather(batcher.answers([Image(b"a", 1)] * 2), return_exceptions=True)
            second = await batcher.answers([Image(b"b", 1)])
            batcher.close()
        assert isinstance(first[0], MemoryError)
        assert second[0]["image"].tolist() == [b"b"]

    asyncio.run(ask())
