"""HTTP servers on loopback that stand for services which cannot be had here."""

import asyncio
import ssl
import threading

from aiohttp import web


class InThread:
    """Serves in a thread of its own; use as a context manager. Subclasses say what, in `begin`.

    Attributes:
      address: such as `http://127.0.0.1:1234`.
    """

    def __init__(self):
        self._loop = asyncio.new_event_loop()

    async def begin(self) -> str:
        """Begins to serve, and gives the address."""
        raise NotImplementedError

    async def finish(self) -> None:
        """Comes last, in the same thread."""

    def __enter__(self):
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        started.wait()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self.address = self._loop.run_until_complete(self.begin())
        started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self.finish())


class LocalServer(InThread):
    """Answers requests; subclasses say what, in `answer`.

    Attributes:
      tls: what it answers HTTPS with, set before it starts; None for HTTP.
    """

    def __init__(self):
        super().__init__()
        self.tls: ssl.SSLContext | None = None

    async def answer(self, request: web.Request) -> web.Response:
        raise NotImplementedError

    async def begin(self) -> str:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{rest:.*}", self.answer)
        # A request that waits ends when whoever asked has given up.
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        return f"http{'s' if self.tls else ''}://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    async def finish(self) -> None:
        await self._runner.cleanup()


class Refused(Exception):
    """An answer that is no success.

    Attributes:
      status: HTTP's.
      body: as JSON; text is sent as HTML.
    """

    def __init__(self, status: int, body: dict | str):
        super().__init__(status, body)
        self.status, self.body = status, body


class RestServer(LocalServer):
    """A service whose requests and answers are JSON. Subclasses give `reply`, and the form of errors in `error`.

    Attributes:
      requests: (method, path, query, body) of everything that was asked.
      wrong: what was asked that the service does not know: a test that leaves some here fails.
      faults: answers by (method, end of a path) instead of the service's own: `Refused`, or None for none at all.
      tokens: values of the header `Authorization`.
    """

    def __init__(self):
        super().__init__()
        self.requests: list[tuple] = []
        self.wrong: list[str] = []
        self.faults: dict[tuple[str, str], Refused | None] = {}
        self.tokens: set[str] = set()

    def reply(self, method: str, path: str, query: dict, body) -> dict:
        raise NotImplementedError

    def error(self, status: int, message: str) -> dict:
        raise NotImplementedError

    def sent(self, method: str, end: str) -> list[tuple]:
        """(query, body) of the requests whose path ends so."""
        return [(query, body) for verb, path, query, body in self.requests if verb == method and path.endswith(end)]

    def exactly(self, found, fields: set[str], optional: set[str] = frozenset()) -> None:
        """That an object has these fields, and no others but optional ones."""
        names = set(found or {})
        if names - fields - optional or fields - names:
            raise self.unknown(f"{sorted(names)} are not {sorted(fields)} and of {sorted(optional)}")

    def unknown(self, what: str) -> Refused:
        """The answer to what the service does not know."""
        self.wrong.append(what)
        return Refused(400, self.error(400, what))

    async def answer(self, request: web.Request) -> web.Response:
        body = await self.body_of(request)
        self.requests.append((request.method, request.path, dict(request.query), body))
        self.tokens.add(request.headers.get("Authorization", ""))
        try:
            for (method, end), fault in self.faults.items():
                if request.method == method and request.path.endswith(end):
                    if fault is None:
                        await asyncio.sleep(3600)
                    raise fault
            return web.json_response(self.reply(request.method, request.path, dict(request.query), body))
        except Refused as refused:
            if isinstance(refused.body, str):
                headers = {"Location": "/sign-in"} if 300 <= refused.status < 400 else None
                return web.Response(status=refused.status, text=refused.body, content_type="text/html", headers=headers)
            return web.json_response(refused.body, status=refused.status)
        except Exception as error:
            self.wrong.append(f"{request.method} {request.path}: {error!r}")
            raise

    async def body_of(self, request: web.Request):
        return await request.json() if request.can_read_body else None
