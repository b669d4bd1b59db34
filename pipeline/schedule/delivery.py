"""How a notice gets out: a JSON POST, or a program. One try each; who calls knows what to do about one that failed."""

import contextlib
import functools
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import SplitResult, urlsplit

from components.errors import UsageError, printable
from pipeline.config import NoticesConfig
from pipeline.schedule.secrets import filled_in

# Answers that another try may change, beside those from 500 on.
TRY_AGAIN = (408, 425, 429)


class NotDelivered(Exception):
    """One sentence without secrets: of an address there is only the host in it.

    Attributes:
      may_pass: whether another try may end otherwise.
    """

    def __init__(self, sentence: str, may_pass: bool):
        super().__init__(sentence)
        self.may_pass = may_pass


def post(settings: NoticesConfig, notice: dict[str, Any]) -> None:
    """Sends it to the webhook.

    Raises:
      NotDelivered: there was no answer in time, or one that is no success.
    """
    try:
        address = filled_in(settings.webhook, "schedule.notices.webhook")
        headers = {name: filled_in(value, "schedule.notices.headers") for name, value in settings.headers.items()}
    except UsageError as error:
        raise NotDelivered(str(error), may_pass=False) from None
    parts = _split(address)
    one_line = all(value.isprintable() and value.isascii() for value in (address, *headers.values()))
    if parts is None or not one_line:
        raise NotDelivered(
            "schedule.notices: with its variables filled in, webhook must be a URL that begins with http:// or "
            "https:// and has no user and password, and each header one line of ASCII.",
            may_pass=False,
        )
    host = parts.netloc
    headers = {"Content-Type": "application/json", "User-Agent": "graft", **headers}
    request = urllib.request.Request(address, json.dumps(notice).encode(), headers, method="POST")
    try:
        _send(request, settings.timeout_seconds)
    except urllib.error.HTTPError as error:
        # Where to is not told: an address may be a secret. Nor is it followed, with headers that are meant for one.
        hint = "; give the address itself" if 300 <= error.code < 400 else ""
        said = f"{host} answered {error.code} ({printable(str(error.reason))[:100]}){hint}."
        raise NotDelivered(said, error.code >= 500 or error.code in TRY_AGAIN) from None
    except TimeoutError:
        raise NotDelivered(f"{host} gave no answer within {settings.timeout_seconds:g} s.", True) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise NotDelivered(f"{host} was not reached ({type(reason).__name__}).", True) from None


def _split(address: str) -> SplitResult | None:
    try:
        parts = urlsplit(address)
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        return None
    return parts if known and "@" not in parts.netloc and " " not in address else None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _send(request: urllib.request.Request, seconds: float) -> None:
    """Until the status of an answer is there; what it says besides is not read."""
    connections: list[http.client.HTTPConnection] = []
    late = threading.Event()

    def give_up() -> None:
        # A time-out of sockets is one for each piece, and an answer may come in many.
        late.set()
        for connection in connections:
            with contextlib.suppress(OSError, AttributeError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def noted(kind: type[http.client.HTTPConnection], *arguments: Any, **more: Any) -> http.client.HTTPConnection:
        connections.append(kind(*arguments, **more))
        return connections[-1]

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(functools.partial(noted, http.client.HTTPConnection), request)

    class Encrypted(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> Any:
            return self.do_open(functools.partial(noted, http.client.HTTPSConnection), request)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        urllib.request.build_opener(Plain, Encrypted, _NoRedirect).open(request, timeout=seconds).close()
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            raise
        if late.is_set() or isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", 0), TimeoutError):
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()


def run_command(settings: NoticesConfig, notice: dict[str, Any]) -> None:
    """Hands it to the program, which finds the event in GRAFT_EVENT, too.

    Raises:
      NotDelivered: it cannot be started, did not end in time, or ended with another code than 0.
    """
    program, environment = settings.command[0], os.environ | {"GRAFT_EVENT": notice["event"]}
    try:
        process = subprocess.Popen(settings.command, stdin=subprocess.PIPE, env=environment, start_new_session=True)
    except (OSError, ValueError) as error:
        sentence = f"{program} could not be started ({getattr(error, 'strerror', None) or error})."
        raise NotDelivered(sentence, may_pass=False) from None
    try:
        process.communicate(json.dumps(notice).encode(), settings.timeout_seconds)
    except subprocess.TimeoutExpired:
        sentence = f"{program} did not end within {settings.timeout_seconds:g} s and was killed."
        raise NotDelivered(sentence, may_pass=True) from None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        ended = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
        raise NotDelivered(f"{program} ended with {ended}.", may_pass=True)
