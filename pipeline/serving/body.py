"""The bodies of requests: read and unpacked piece by piece, within bounds that hold however many clients there are."""

import asyncio
import zlib
from collections.abc import AsyncIterator

from aiohttp import web

from pipeline.serving.protocol import Refusal

MAX_REQUESTS = 256  # that may wait for an answer
BYTES_IN_FLIGHT = 8  # requests of the largest size that may be in memory
BODY_SECONDS = 60  # that a client may take to send its request
PIECE_SECONDS = 10  # that it may send nothing in
PIECE = 1 << 18  # bytes that are unpacked at a time


class Memory:
    """What all requests hold together: what has arrived, not what their headers announce."""

    def __init__(self, max_request_bytes: int):
        """Nothing is held.

        Args:
          max_request_bytes: a larger request is refused.
        """
        self.max_request_bytes = max_request_bytes
        self.requests, self.bytes = 0, 0


class Held:
    """The part of one request, from its first byte to the end of the `with` block."""

    def __init__(self, memory: Memory):
        self._memory = memory
        self._requests, self._bytes = 0, 0

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.requests -= self._requests
        self._memory.bytes -= self._bytes

    async def read(self, request: web.Request) -> bytearray:
        """The body, unpacked.

        Raises:
          Refusal: it is too large, too slow or broken, or the server holds as much as it can.
        """
        if (request.content_length or 0) > self._memory.max_request_bytes:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for piece in _unpacked(request):
                    self._add(len(piece))
                    body += piece
        except TimeoutError:
            raise Refusal(
                408, f"The request did not arrive within {BODY_SECONDS} s, or nothing of it for {PIECE_SECONDS} s."
            ) from None
        # Chunks that are none, and a client that has gone, whom nobody tells.
        except (web.RequestPayloadError, ConnectionError):
            raise Refusal(400, "The request did not arrive as a whole.") from None
        if self._memory.requests >= MAX_REQUESTS:
            raise _busy()
        self._requests = 1
        self._memory.requests += 1
        return body

    def _add(self, size: int) -> None:
        if self._bytes + size > self._memory.max_request_bytes:
            raise self._too_large()
        if self._memory.bytes + size > BYTES_IN_FLIGHT * self._memory.max_request_bytes:
            raise _busy()
        self._bytes += size
        self._memory.bytes += size

    def _too_large(self) -> Refusal:
        allowed = f"{self._memory.max_request_bytes / 2**20:g} MiB"
        return Refusal(413, f"A request may have at most {allowed}; send fewer or smaller images.")


def _busy() -> Refusal:
    return Refusal(503, "The server has as many requests as it can hold; try again in a second.")


async def _unpacked(request: web.Request) -> AsyncIterator[bytes]:
    """The body in pieces of bounded size; aiohttp, which could unpack it, takes one that is cut off for whole."""
    packing = request.headers.get("Content-Encoding", "identity").lower()
    if packing == "identity":
        async for piece in _arriving(request):
            yield piece
        return
    if packing not in ("gzip", "deflate"):
        raise Refusal(400, "The request may be packed with gzip or deflate only (Content-Encoding).")
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # either of them, by its first bytes
    try:
        async for piece in _arriving(request):
            while piece and not unpacker.eof:
                yield unpacker.decompress(piece, PIECE)
                piece = unpacker.unconsumed_tail
            # What follows the end is ignored, as gzip itself does with padding.
        yield unpacker.flush()
    except zlib.error:
        raise Refusal(400, f"The request is not valid {packing}.") from None
    if not unpacker.eof:
        raise Refusal(400, f"The request is {packing} that was cut off.")


async def _arriving(request: web.Request) -> AsyncIterator[bytes]:
    while True:
        async with asyncio.timeout(PIECE_SECONDS):
            piece = await request.content.readany()
        if not piece:
            return
        yield piece
