"""The part of Google Cloud Storage's API that Beam and TensorFlow use, on loopback.

Beam is sent there by `STORAGE_EMULATOR_HOST`. TensorFlow's own file system goes to Google's hosts whatever it is told,
and needs a `Tunnel`.
"""

import asyncio
import base64
import contextlib
import email
import json
import re
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import google_crc32c
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.conftest import ROOT
from tests.local_server import InThread, LocalServer

OBJECT = r"/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<name>[^?]+)"


class GcsServer(LocalServer):
    """Objects as `{(bucket, name): bytes}`; use as a context manager.

    Attributes:
      objects: what is stored.
      requests: method and path of everything that was asked.
      address: for `STORAGE_EMULATOR_HOST`.
    """

    def __init__(self):
        super().__init__()
        self.objects: dict[tuple[str, str], bytes] = {}
        self.requests: list[str] = []
        self._uploads: dict[tuple[str, str], bytes] = {}

    def credentials(self, path: Path) -> None:
        """Writes a service account's key, for `GOOGLE_APPLICATION_CREDENTIALS`, whose tokens come from here."""
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        about = {"client_email": "nobody@example.iam.gserviceaccount.com", "project_id": "example"}
        account = {"type": "service_account", "private_key": key.decode(), "token_uri": f"{self.address}/token"}
        path.write_text(json.dumps(about | account))

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append(f"{request.method} {request.path}")
        if request.path == "/token":
            token = {"access_token": "of nobody", "expires_in": 3600, "token_type": "Bearer"}
            return web.json_response(token)
        if request.path.startswith("/batch"):
            return self._batch(request, body)
        target = request.raw_path
        if request.host == "storage.googleapis.com":
            # The other form of the API, of which TensorFlow's file system reads.
            bucket, _, name = urlsplit(target).path.removeprefix("/").partition("/")
            target = f"/download/storage/v1/b/{bucket}/o/{name.replace('/', '%2F')}"
        status, headers, content = self._one(request.method, target, request.headers, body)
        return web.Response(status=status, headers=headers, body=content)

    def _one(self, method: str, target: str, headers, body: bytes) -> tuple[int, dict[str, str], bytes]:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        if upload := re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", path):
            if method == "POST":
                name = query.get("name", [""])[0] or json.loads(body)["name"]
                if query.get("uploadType") == ["media"]:
                    self.objects[upload[1], name] = body
                    return self._json(upload[1], name)
                # Whoever asked Google's host goes on there.
                here = f"https://{headers['Host']}" if headers["Host"].endswith(".com") else self.address
                session = f"{here}{path}?uploadType=resumable&upload_id=1&name={quote(name, safe='')}"
                return 200, {"Location": session}, b""
            # A chunk; the total is only known, and the object there, with the last one.
            key = upload[1], query["name"][0]
            self._uploads[key] = self._uploads.get(key, b"") + body
            if headers["Content-Range"].endswith("/*"):
                return 308, {"Range": f"bytes=0-{len(self._uploads[key]) - 1}"}, b""
            self.objects[key] = self._uploads.pop(key)
            return self._json(*key)
        if listing := re.fullmatch(r"/storage/v1/b/([^/]+)/o", path):
            return (
                200,
                {},
                json.dumps(self._listing(listing[1], **{name: each[0] for name, each in query.items()})).encode(),
            )
        if copied := re.fullmatch(rf"{OBJECT}/(?:copyTo|rewriteTo)/b/(?P<into>[^/]+)/o/(?P<as>[^?]+)", path):
            source, target = (copied["bucket"], unquote(copied["name"])), (copied["into"], unquote(copied["as"]))
            if source not in self.objects:
                return 404, {}, b'{"error": {"message": "No such object"}}'
            self.objects[target] = self.objects[source]
            if "/copyTo/" in path:
                return self._json(*target)
            return 200, {}, json.dumps({"done": True, "resource": self._about(*target)}).encode()
        if re.fullmatch(r"/storage/v1/b/[^/]+(/storageLayout)?", path):
            return 200, {}, b'{"hierarchicalNamespace": {"enabled": false}}'
        one = re.fullmatch(rf"(/download)?{OBJECT}", path)
        key = (one["bucket"], unquote(one["name"])) if one else None
        if method == "PUT":
            # Not of Google's API: for `Store`.
            self.objects[key] = body
            return self._json(*key)
        if key not in self.objects:
            return 404, {}, b'{"error": {"message": "No such object"}}'
        if method == "DELETE":
            del self.objects[key]
            return 204, {}, b""
        if one[1] is None and query.get("alt") != ["media"]:
            return self._json(*key)
        if "Range" not in headers:
            return 200, {}, self.objects[key]
        first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range", "bytes=0-")).groups()
        data, total = self.objects[key], len(self.objects[key])
        if int(first) >= total:
            return 416, {}, b""
        part = data[int(first) : int(last or total) + 1]
        return 206, {"Content-Range": f"bytes {first}-{int(first) + len(part) - 1}/{total}"}, part

    def _listing(self, bucket: str, prefix: str = "", delimiter: str = "", **_: str) -> dict:
        names = sorted(name for there, name in self.objects if there == bucket and name.startswith(prefix))
        deeper = [name for name in names if delimiter and delimiter in name[len(prefix) :]]
        prefixes = {prefix + name[len(prefix) :].partition(delimiter)[0] + delimiter for name in deeper}
        items = [self._about(bucket, name) for name in names if name not in deeper]
        return {"items": items} | ({"prefixes": sorted(prefixes)} if prefixes else {})

    def _about(self, bucket: str, name: str) -> dict:
        data = self.objects[bucket, name]
        sums = {"size": str(len(data)), "crc32c": base64.b64encode(google_crc32c.Checksum(data).digest()).decode()}
        return {"bucket": bucket, "name": name, "updated": "2026-01-01T00:00:00Z", "generation": "1"} | sums

    def _json(self, *key: str) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, json.dumps(self._about(*key)).encode()

    def _batch(self, request: web.Request, body: bytes) -> web.Response:
        header = f"Content-Type: {request.headers['Content-Type']}\n\n"
        answers = []
        for part in email.message_from_bytes(header.encode() + body).get_payload():
            method, target, _ = part.get_payload().split(None, 2)
            status, _, content = self._one(method, urlsplit(target)._replace(scheme="", netloc="").geturl(), {}, b"")
            answers.append(
                f"--b\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status} X\r\n"
                f"Content-Type: application/json\r\n\r\n{content.decode()}\r\n"
            )
        return web.Response(body="".join(answers) + "--b--", headers={"Content-Type": "multipart/mixed; boundary=b"})


class Tunnel(InThread):
    """A proxy for HTTPS that leads to one server, whatever host of Google's is asked for; use as a context manager.

    Args:
      server: answers HTTP.
      tls: stands for those hosts.

    Attributes:
      address: for `https_proxy`.
    """

    def __init__(self, server: GcsServer, tls: ssl.SSLContext):
        super().__init__()
        self._port, self._tls = int(server.address.rpartition(":")[2]), tls

    async def begin(self) -> str:
        self._server = await asyncio.start_server(self._lead, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await writer.start_tls(self._tls)
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(self._pass_on(reader, there_writer), self._pass_on(there_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if data.startswith((b"POST ", b"PUT ")):
                    # TensorFlow tells the length of a body in two ways at a time, which servers may refuse.
                    data = data.replace(b"\r\nTransfer-Encoding: identity", b"", 1)
                    data = re.sub(
                        rb"(?s)(\r\nTransfer-Encoding: chunked.*?)\r\nContent-Length: \d+", rb"\1", data, count=1
                    )
                writer.write(data)
                await writer.drain()
        writer.close()


class Store(MutableMapping):
    """What a server in another process holds, as `GcsServer.objects`.

    Args:
      address: of the server.
    """

    def __init__(self, address: str):
        self._address = f"{address}/storage/v1/b"

    def __getitem__(self, key: tuple[str, str]) -> bytes:
        try:
            return self._ask("GET", f"/{key[0]}/o/{quote(key[1], safe='')}?alt=media")
        except urllib.error.HTTPError:
            raise KeyError(key) from None

    def __setitem__(self, key: tuple[str, str], data: bytes) -> None:
        self._ask("PUT", f"/{key[0]}/o/{quote(key[1], safe='')}", data)

    def __delitem__(self, key: tuple[str, str]) -> None:
        self._ask("DELETE", f"/{key[0]}/o/{quote(key[1], safe='')}")

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter([(each["bucket"], each["name"]) for each in json.loads(self._ask("GET", "/bucket/o"))["items"]])

    def __len__(self) -> int:
        return len(list(self))

    def _ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(self._address + path, data, method=method)
        with urllib.request.urlopen(request) as answer:
            return answer.read()


@contextlib.contextmanager
def google_storage(monkeypatch, folder: Path) -> Iterator[Store]:
    """Has Beam and TensorFlow, in this process, go to a server here instead of Google's; gives what lies in `bucket`.

    The server is another process: TensorFlow lets no other thread run while it asks for some things.

    Args:
      monkeypatch: of pytest.
      folder: takes a certificate.
    """
    from apache_beam.internal.gcp import auth

    # Beam's client takes no credentials where the store is an emulator, but looks for some.
    monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
    monkeypatch.setattr(auth._Credentials, "_credentials", None)
    command = [sys.executable, "-m", "tests.gcs_server", str(folder / "google.pem")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            server, tunnel = process.stdout.readline().split()
            environment = {
                "STORAGE_EMULATOR_HOST": server,
                "https_proxy": tunnel,
                "CURL_CA_BUNDLE": str(folder / "google.pem"),
                "NO_GCE_CHECK": "true",
            }
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            yield Store(server)
        finally:
            process.terminate()


def main() -> None:
    """Prints the addresses of a server and of a tunnel to it, and serves until it is ended."""
    from tests.pipeline.deployed import certificate

    tls = certificate(Path(sys.argv[1]), "www.googleapis.com", "storage.googleapis.com")
    with GcsServer() as server, Tunnel(server, tls) as tunnel:
        print(server.address, tunnel.address, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
