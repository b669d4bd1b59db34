"""The web application: TensorFlow Serving's REST API, and the page."""

import asyncio
import base64
import hashlib
import ipaddress
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from urllib.parse import unquote, urlsplit

from aiohttp import web

from components.decodable import Image
from pipeline.serving.body import Held, Memory
from pipeline.serving.follower import Follower, State
from pipeline.serving.protocol import Asked, Refusal, read_request, write_answer
from pipeline.serving.version import Version

# As TensorFlow Serving's, whose paths do not care for the case either.
PREDICT = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
    r":(?P<method>classify|regress|predict)",
    re.IGNORECASE | re.ASCII,
)
STATUS = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?(?P<metadata>/metadata)?",
    re.IGNORECASE | re.ASCII,
)


class Application:
    """The handlers, and what they share."""

    def __init__(
        self,
        follower: Follower,
        executor: ThreadPoolExecutor,
        max_request_bytes: int,
        host: str,
        say: Callable[[str], None],
    ):
        """Makes the handlers.

        Args:
          follower: knows the version that answers.
          executor: where requests are read and answers written.
          max_request_bytes: a larger request is refused.
          host: that the server listens on; on a loopback address, requests for other hosts are refused.
          say: prints a line for the person who runs the server.
        """
        self._follower, self._executor, self._say = follower, executor, say
        self._memory = Memory(max_request_bytes)
        self._stopping = False
        self._own_host = host if _is_loopback(host) else None
        self._page, self._policy = _page()

    def build(self) -> web.Application:
        """The application for aiohttp's runner."""
        app = web.Application(middlewares=[self._guard])
        app.router.add_get("/", self._show_page)
        app.router.add_get("/about", self._about)
        app.router.add_route("*", "/{v1:[vV]1}/{path:.*}", self._api)
        return app

    def stop(self) -> None:
        """From now on each answer tells its client not to send another request on its connection."""
        self._stopping = True

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable) -> web.StreamResponse:
        """Errors are JSON with one sentence; every answer is taken for what it says it is.

        What is no HTTP never gets here: aiohttp answers it with 400 and plain text.
        """
        try:
            self._check_host(request)
            self._check_origin(request)
            response = await handler(request)
        except Refusal as refusal:
            response = _json({"error": refusal.reason}, refusal.status)
            if refusal.status == 503:
                response.headers["Retry-After"] = "1"
        except web.HTTPException as error:
            response = _json({"error": f"{error.reason}: {request.method} {request.path}"}, error.status)
        except Exception as error:
            self._say(f"Unexpected {type(error).__name__} in {request.method} {request.path!r}: {str(error)[:300]!r}")
            response = _json({"error": f"The server failed at this request ({type(error).__name__})."}, 500)
        if self._stopping:
            response.force_close()
        response.headers.update({"X-Content-Type-Options": "nosniff", "Server": "graft"})
        return response

    def _check_host(self, request: web.Request) -> None:
        """Keeps web sites out that let their own name point to this machine (DNS rebinding)."""
        if self._own_host is None or "Host" not in request.headers:
            return
        try:
            name = request.url.host or ""
        except ValueError:
            name = ""
        if name.lower() != self._own_host.lower() and not _is_loopback(name):
            raise Refusal(403, "This server answers on this machine only, by the name localhost or 127.0.0.1.")

    def _check_origin(self, request: web.Request) -> None:
        """Keeps other web sites from having this server work: a browser sends their text/plain unasked."""
        if request.method != "POST":
            return
        # Browsers that do not say the first (to plain HTTP on another machine) say the second.
        site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
        if site is not None:
            own = site in ("same-origin", "none")
        else:
            own = origin is None or _authority(origin) == request.headers.get("Host", "").lower()
        if not own:
            raise Refusal(403, "This server answers no requests that a browser sends for another web site.")

    # ---- the page ---------------------------------------------------------------------------------------------------

    async def _show_page(self, _: web.Request) -> web.Response:
        headers = {
            "Content-Security-Policy": self._policy,
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }
        return web.Response(body=self._page, content_type="text/html", charset="utf-8", headers=headers)

    async def _about(self, _: web.Request) -> web.Response:
        loaded = self._follower.version(self._follower.name).loaded
        return _json(
            {
                "name": self._follower.name,
                "version": str(loaded.number),
                "classes": loaded.classes,
                "max_request_bytes": self._memory.max_request_bytes,
            }
        )

    # ---- TensorFlow Serving's API -----------------------------------------------------------------------------------

    async def _api(self, request: web.Request) -> web.Response:
        path = request.rel_url.raw_path
        match = {"POST": PREDICT, "GET": STATUS}.get(request.method, re.compile("(?!)")).fullmatch(path)
        if match is None:
            raise Refusal(400, f"Malformed request: {request.method} {path[:200]}")
        if match["label"]:
            raise Refusal(400, f"Unrecognized servable version label: {unquote(match['label'])[:200]}")
        name = unquote(match["name"])
        number = int(match["version"][:20]) if match["version"] else None
        if request.method == "POST":
            if match["method"].lower() != "predict":
                raise Refusal(400, "This model's signatures are for ':predict' only.")
            return await self._predict(request, self._follower.version(name, number))
        if match["metadata"]:
            return self._metadata(self._follower.version(name, number))
        return self._status(name, number)

    def _status(self, name: str, number: int | None) -> web.Response:
        states = self._follower.states if name == self._follower.name else {}
        chosen = {n: state for n, state in sorted(states.items(), reverse=True) if number in (None, n)}
        if not chosen:
            which = f"version {number} of model {name}" if number is not None else f"any versions of model {name}"
            raise Refusal(404, f"Could not find {which}")
        return _json({"model_version_status": [_status(n, state) for n, state in chosen.items()]})

    def _metadata(self, version: Version) -> web.Response:
        spec = {"name": self._follower.name, "signature_name": "", "version": str(version.loaded.number)}
        definitions = {"signature_def": version.loaded.definitions}
        return _json({"model_spec": spec, "metadata": {"signature_def": definitions}})

    async def _predict(self, request: web.Request, version: Version) -> web.Response:
        loop = asyncio.get_running_loop()
        with version, Held(self._memory) as held:
            body = await held.read(request)
            asked, images = await loop.run_in_executor(self._executor, _understood, body, version)
            del body
            outputs = await version.answer(asked, images)
            answer = await loop.run_in_executor(self._executor, write_answer, outputs, asked.rows)
        return web.Response(body=answer, content_type="application/json")


def _understood(body: bytearray, version: Version) -> tuple[Asked, list[Image] | None]:
    asked = read_request(body, version.inputs)
    return asked, version.images(asked)


def _status(number: int, state: State) -> dict:
    status = {"error_code": "UNKNOWN" if state.error else "OK", "error_message": state.error}
    return {"version": str(number), "state": state.state, "status": status}


def _json(value: dict, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(value, indent=1).encode(), status=status, content_type="application/json")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _page() -> tuple[bytes, str]:
    """The page, and the policy that lets no script and style but its own run, and lets it talk to this server only."""
    page = resources.files("pipeline.serving").joinpath("page.html").read_bytes()
    policy = (
        f"default-src 'none'; script-src {_source(page, b'script')}; style-src {_source(page, b'style')}; "
        "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy


def _source(page: bytes, tag: bytes) -> str:
    """How a policy names what stands inside the page's only element of this name."""
    inside = re.search(rb"<%s>(.*?)</%s>" % (tag, tag), page, re.DOTALL)[1]
    return f"'sha256-{base64.b64encode(hashlib.sha256(inside).digest()).decode()}'"
