"""Threads for work that lets other threads run: reading, hashing, decoding."""

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Of Apache Beam's arguments: by these a step knows that its work is done by other processes, perhaps on other machines.
# Ours (pipeline/job.py) is Beam's, which a person may name among `runner.beam_options`.
PORTABLE_RUNNER = "--runner=pipeline.job.Runner"
PORTABLE_RUNNERS = (PORTABLE_RUNNER, "--runner=PortableRunner")


def cores() -> int:
    """Processor cores that this process may use, where the system says so; otherwise those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of_a_worker(beam_arguments: Iterable[str]) -> int:
    """Threads for what one worker of Apache Beam does at a time.

    As many as there are cores, unless there is a worker for every core: worker processes here are so many, and an
    engine has as many slots.
    """
    return 1 if has_worker_processes(beam_arguments) else cores()


def has_worker_processes(beam_arguments: Iterable[str]) -> bool:
    """Whether what Apache Beam runs is done by processes of its own, here or on a cluster."""
    return any("multi_processing" in word or word in PORTABLE_RUNNERS for word in beam_arguments)


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


def ordered(
    executor: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """`executor.map` for any number of items: results in order, and memory for `ahead` of them.

    Args:
      executor: what calls the function.
      function: called once for each item.
      items: drawn in the caller's thread, as results are taken.
      ahead: calls that were begun and whose results nobody took yet, at most; at least 1.
    """
    begun: deque = deque()
    for item in items:
        begun.append(executor.submit(function, item))
        if len(begun) >= ahead:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()
