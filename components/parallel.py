"""Threads for work that lets other threads run: reading, hashing, decoding."""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor


def cores() -> int:
    """Processor cores that this process may use, where the system says so; otherwise those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool that an interruption ends at once: what was not begun is not waited for."""
    executor = ThreadPoolExecutor(threads)
    try:
        yield executor
    except BaseException:
        executor.shutdown(cancel_futures=True)
        raise
    executor.shutdown()
