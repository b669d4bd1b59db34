"""A headless Chromium, driven over the DevTools protocol with aiohttp's websocket client."""

import asyncio
import base64
import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    """The browser's path; None where there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Page:
    """One tab.

    Attributes:
      errors: what its scripts threw or wrote to the console as an error, and what its policy blocked.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse):
        self._socket, self._numbers = socket, itertools.count(1)
        self._waiting: dict[int, asyncio.Future] = {}
        self._session: str | None = None
        self.errors: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(message | ({"sessionId": self._session} if self._session else {}))
        return await asyncio.wait_for(self._waiting[number], 30)

    async def listen(self) -> None:
        """Takes in what the browser sends, until it is cancelled."""
        async for message in self._socket:
            data = message.json()
            if "id" in data:
                future = self._waiting.pop(data["id"])
                if "error" in data:
                    future.set_exception(AssertionError(data["error"]["message"]))
                else:
                    future.set_result(data["result"])
                continue
            method, parameters = data["method"], data["params"]
            if method == "Runtime.exceptionThrown":
                self.errors.append(str(parameters["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "assert"):
                self.errors.append(str(parameters["args"]))
            elif method == "Log.entryAdded" and _is_the_pages(parameters["entry"]):
                self.errors.append(parameters["entry"]["text"])

    async def open(self, url: str) -> None:
        """Opens a new tab there."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Runtime", "Log", "Page", "DOM"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)

    async def value(self, expression: str) -> Any:
        """What a JavaScript expression gives; a promise is waited for."""
        answer = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, condition: str) -> None:
        """Waits until a JavaScript expression is true."""
        async with asyncio.timeout(20):
            while not await self.value(f"Boolean({condition})"):
                await asyncio.sleep(0.02)

    async def choose(self, selector: str, file: Path) -> None:
        """Chooses a file as its dialogue would."""
        root = await self.call("DOM.getDocument")
        node = await self.call("DOM.querySelector", nodeId=root["root"]["nodeId"], selector=selector)
        await self.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node["nodeId"])

    async def drop(self, file: Path, x: int, y: int) -> None:
        """Drags a file in and lets it go."""
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            await self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    async def key(self, name: str, code: int, text: str = "") -> None:
        """Presses a key that types a text, or none."""
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, text=text
            )

    async def look(self, file: Path, width: int, height: int, dark: bool = False) -> None:
        """Writes a screenshot of a window of that size, in a light or the dark scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        # Without motion, so that no transition to the scheme is caught half-way.
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme, still])
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))


def _is_the_pages(entry: dict[str, Any]) -> bool:
    """Whether it is an error of the page; an answer of 400 is logged, too, as one of the network."""
    return entry["level"] == "error" and entry["source"] != "network"


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    """A browser of its own, gone with its profile afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        command = [find(), *flags, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | {"HOME": profile}
        )
        try:
            url = next(line.split()[-1] for line in process.stderr if "DevTools listening on" in line)
            async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
                page = Page(socket)
                listening = asyncio.create_task(page.listen())
                yield page
                listening.cancel()
        finally:
            process.kill()
            process.communicate()
