"""`graft serve`: answers TensorFlow Serving's REST predict API with one model, and shows a page to try it on."""

import asyncio
import contextlib
import errno
import gc
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from components.errors import UsageError, printable
from pipeline.noise import noise_to
from pipeline.serving.follower import Follower
from pipeline.serving.version import Loaded, Threads

STOP_SECONDS = 60  # that requests get to finish in
LAST_SECONDS = 1  # that a client has for one more request on a connection that it keeps open, and is told to close it


def serve(folder: Path, name: str, host: str, port: int, max_request_mib: int) -> None:
    """Serves until SIGTERM or SIGINT, then finishes the requests that wait.

    Args:
      folder: a serving base path, whose new versions are followed, or a version folder.
      name: of the model, in the API's paths.
      host: name or address to listen on.
      port: 0 for any that is free.
      max_request_mib: size in MiB of the largest request.

    Raises:
      UsageError: there is no model, the name cannot be part of a path, or the port cannot be had.
    """
    if not name or set(name) & set("/:") or printable(name) != name:
        raise UsageError(
            f"--name is part of the address, and must have no '/' and no ':'. Received: {printable(name)!r}."
        )
    if not folder.is_dir():
        # A Path has one slash left of the two.
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(folder)):
            raise UsageError(f"A model is served from a folder on this machine, not from a URI. Received: {folder}.")
        raise UsageError(f"There is no folder {folder}; give a serving folder, such as OUTPUT/serving.")
    # Before the model is loaded: that takes seconds, a port that is taken shows at once.
    with _listening(host, port) as listener, noise_to(Path(os.devnull)) as person:

        def say(line: str) -> None:
            with contextlib.suppress(OSError):
                print(f"{time.strftime('%H:%M:%S')}  {printable(line)}", file=person, flush=True)

        follower = Follower(folder, name, say)
        say(f"Loading the model in {folder} ...")
        loaded = _loaded(follower)
        asyncio.run(_serve(follower, loaded, listener, host, max_request_mib * 2**20, say))


def _loaded(follower: Follower) -> Loaded:
    follower.check()
    import tensorflow  # noqa: F401

    # A collection is due after each version that is unloaded. Without what TensorFlow's modules hold, it keeps the
    # server from answering for 0.13 s instead of 0.38 s.
    gc.collect()
    gc.freeze()
    return follower.load_first()


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens at once: of two servers that begin together, one is told that the port is taken.

    Raises:
      UsageError: host and port cannot be had.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
        return listener
    # A name such as a..b is no host name in any encoding.
    except (OSError, UnicodeError) as error:
        number, reason = getattr(error, "errno", None), getattr(error, "strerror", "it is no host name")
        option = "--port" if number in (errno.EADDRINUSE, errno.EACCES) else "--host"
        place = f"{printable(host)!r}, port {port},"
        raise UsageError(f"{place} cannot be listened on ({reason}); give another {option}.") from None


async def _serve(
    follower: Follower, loaded: Loaded, listener: socket.socket, host: str, max_bytes: int, say: Callable[[str], None]
) -> None:
    # Not at the top: `graft --help` reaches this module.
    from aiohttp import web

    from pipeline.serving.app import Application

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    threads, readers = Threads(), ThreadPoolExecutor(2)
    follower.put_in_service(loaded, threads)
    application = Application(follower, readers, max_bytes, host, say)
    runner = web.AppRunner(
        application.build(),
        access_log=None,
        auto_decompress=False,
        handler_cancellation=True,  # nothing more is computed for a client that has gone
        shutdown_timeout=STOP_SECONDS,
    )
    await runner.setup()
    site = web.SockSite(runner, listener)
    await site.start()
    _say_where(follower, loaded, listener, say)
    following = asyncio.create_task(follower.follow(threads))
    await stopped.wait()
    # A second signal ends it at once.
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)
    say("Stopping: requests that wait are answered first.")
    _end_in_time(say)
    following.cancel()
    application.stop()
    await site.stop()
    # Cleaning up closes connections that look idle, also those whose next request is on its way.
    until = loop.time() + LAST_SECONDS
    while runner.server.connections and loop.time() < until:
        await asyncio.sleep(0.01)
    await runner.cleanup()
    threads.shutdown()
    readers.shutdown(wait=False, cancel_futures=True)


def _end_in_time(say: Callable[[str], None]) -> None:
    """Ends the process if it has not ended by itself: whatever a thread computes cannot be stopped otherwise."""

    def end() -> None:
        say(f"Stopped: not all was answered within {STOP_SECONDS} s.")
        os._exit(1)

    timer = threading.Timer(STOP_SECONDS, end)
    timer.daemon = True
    timer.start()


def _say_where(follower: Follower, loaded: Loaded, listener: socket.socket, say: Callable[[str], None]) -> None:
    address, port = listener.getsockname()[:2]
    url = f"http://{f'[{address}]' if ':' in address else address}:{port}"
    follows = "" if follower.fixed else "; newer versions are taken up as they are published"
    say(f"Version {loaded.number} of {len(loaded.classes)} classes is in service{follows}.")
    say(f"Page: {url}/   REST: {url}/v1/models/{quote(follower.name)}:predict")
