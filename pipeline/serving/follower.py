"""Which version answers: the newest one of a base path, as it is published, or one that never changes."""

import asyncio
import functools
import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.errors import UsageError
from components.publishing import newest, versions
from components.serving_places import SAVED_MODEL
from pipeline.serving.protocol import Refusal
from pipeline.serving.version import Loaded, Threads, Version, load

POLL = 1.0  # seconds between looks at the base path
RETRY = 60.0  # seconds until a version that could not be loaded is tried again
REMEMBERED = 100  # versions whose state the status answer still gives


@dataclass(frozen=True)
class State:
    """Of a version, in TensorFlow Serving's words: LOADING, AVAILABLE, UNLOADING or END."""

    state: str
    error: str = ""


class Follower:
    """Holds the version in service; loads the next one beside it and swaps."""

    def __init__(self, folder: Path, name: str, say: Callable[[str], None]):
        """Nothing is loaded yet.

        Args:
          folder: a serving base path, or a version folder.
          name: of the model, in the API.
          say: prints a line for the person who runs the server.
        """
        self.name = name
        self.fixed = (folder / SAVED_MODEL).is_file()
        self.states: dict[int, State] = {}
        self._folder, self._say = folder, say
        self._current: Version | None = None
        self._failed: dict[int, float] = {}  # when each version was last tried in vain
        self._retiring: set[asyncio.Task] = set()

    def check(self) -> None:
        """Looks whether anything was published.

        Raises:
          UsageError: nothing was.
        """
        if not self.fixed and newest(self._folder) is None:
            raise UsageError(
                f"There is no model in {self._folder} yet; give the serving folder of a run that published one, such "
                "as OUTPUT/serving."
            )

    def load_first(self) -> Loaded:
        """Loads the newest version that can be loaded, so that a broken one does not keep a restarted server down.

        Raises:
          UsageError: none can be.
        """
        if self.fixed:
            name = self._folder.resolve().name
            return load(self._folder, int(name) if name.isascii() and name.isdecimal() else 1)
        of_newest: UsageError | None = None
        for number in reversed(versions(self._folder)):
            try:
                return load(self._folder / str(number), number)
            except UsageError as error:
                self._refuse(number, error)
                of_newest = of_newest or error
        raise of_newest

    def put_in_service(self, loaded: Loaded, threads: Threads) -> None:
        """Swaps; requests that wait for the version until now get their answers from it."""
        old, self._current = self._current, Version(loaded, threads)
        self._set(loaded.number, State("AVAILABLE"))
        if old:
            task = asyncio.create_task(self._retire(old))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def version(self, name: str, number: int | None = None) -> Version:
        """The version that answers a request.

        Raises:
          Refusal: there is no such model, or this version of it is not loaded.
        """
        current = self._current
        if name != self.name or (number is not None and number != current.loaded.number):
            asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
            raise Refusal(404, f"Servable not found for request: {asked}")
        return current

    async def follow(self, threads: Threads) -> None:
        """Looks for new versions, for ever."""
        loop = asyncio.get_running_loop()
        while not self.fixed:
            await asyncio.sleep(POLL)
            try:
                found = await loop.run_in_executor(None, newest, self._folder)
            except OSError:
                continue  # a network drive that is away comes back
            if found is not None and self._is_due(int(found.name)):
                await self._change_to(found, threads)

    def _is_due(self, number: int) -> bool:
        if number == self._current.loaded.number:
            return False
        return time.monotonic() - self._failed.get(number, -math.inf) > RETRY

    async def _change_to(self, folder: Path, threads: Threads) -> None:
        number, began = int(folder.name), time.monotonic()
        self._set(number, State("LOADING"))
        try:
            loaded = await asyncio.get_running_loop().run_in_executor(None, functools.partial(load, folder, number))
        except UsageError as error:
            self._refuse(number, error)
            self._say(f"Version {self._current.loaded.number} stays in service.")
            return
        self._failed.pop(number, None)
        self.put_in_service(loaded, threads)
        self._say(f"Version {number} is in service (loaded in {time.monotonic() - began:.1f} s).")

    def _refuse(self, number: int, error: UsageError) -> None:
        self._set(number, State("END", str(error)))
        self._failed[number] = time.monotonic()
        self._say(f"Version {number} is not served: {error}")

    async def _retire(self, old: Version) -> None:
        number = old.loaded.number
        self._set(number, State("UNLOADING"))
        await old.finished()
        self._set(number, State("END"))
        del old
        # TensorFlow's objects refer to each other: without this, the weights would stay until some later collection.
        await asyncio.get_running_loop().run_in_executor(None, gc.collect)

    def _set(self, number: int, state: State) -> None:
        self.states[number] = state
        for other in sorted(self.states)[:-REMEMBERED]:
            del self.states[other]
