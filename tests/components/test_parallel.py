"""Thread pools that end when they are interrupted."""

import time

import pytest

from components import parallel


def test_interrupted_pool_does_not_wait_for_what_was_not_begun():
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), parallel.pool(2) as pool:
        for _ in range(200):
            pool.submit(time.sleep, 0.05)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 1


def test_finished_pool_has_done_everything():
    done = []
    with parallel.pool(2) as pool:
        for number in range(50):
            pool.submit(done.append, number)
    assert len(done) == 50


def test_cores_are_those_that_this_process_may_use():
    assert parallel.cores() >= 1


def test_results_come_in_order_and_only_so_many_are_drawn_ahead():
    drawn = []

    def numbers():
        for number in range(20):
            drawn.append(number)
            yield number

    with parallel.pool(4) as pool:
        results = parallel.ordered(pool, lambda number: (time.sleep((20 - number) / 5000), number)[1], numbers(), 3)
        assert next(results) == 0
        assert drawn == [0, 1, 2]
        assert list(results) == list(range(1, 20))
