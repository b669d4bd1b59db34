"""Something that is done again and again beside the work."""

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def repeatedly(do: Callable[[], None], seconds: float) -> Iterator[None]:
    """Calls a function in a thread while the body runs; it has ended when the body is left.

    Args:
      do: is called for the first time after that many seconds.
      seconds: between two calls.
    """
    stopped = threading.Event()

    def work() -> None:
        while not stopped.wait(seconds):
            do()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
