"""The part of Google Cloud Storage's JSON API that Beam uses, on loopback: for `STORAGE_EMULATOR_HOST`."""

import base64
import email
import json
import re
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.local_server import LocalServer

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
        status, headers, content = self._one(request.method, request.raw_path, request.headers, body)
        return web.Response(status=status, headers=headers, body=content)

    def _one(self, method: str, target: str, headers, body: bytes) -> tuple[int, dict[str, str], bytes]:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        if upload := re.fullmatch(r"/upload/storage/v1/b/([^/]+)/o", path):
            if method == "POST":
                name = query.get("name", [""])[0] or json.loads(body)["name"]
                session = f"{self.address}{path}?uploadType=resumable&upload_id=1&name={name}"
                return 200, {"Location": session}, b""
            # A chunk; the total is only known, and the object there, with the last one.
            key = upload[1], query["name"][0]
            self._uploads[key] = self._uploads.get(key, b"") + body
            if headers["Content-Range"].endswith("/*"):
                return 308, {"Range": f"bytes=0-{len(self._uploads[key]) - 1}"}, b""
            self.objects[key] = self._uploads.pop(key)
            return self._json(*key)
        if listing := re.fullmatch(r"/storage/v1/b/([^/]+)/o", path):
            prefix = query.get("prefix", [""])[0]
            names = sorted(key for key in self.objects if key[0] == listing[1] and key[1].startswith(prefix))
            return 200, {}, json.dumps({"items": [self._about(*key) for key in names]}).encode()
        one = re.fullmatch(rf"(/download)?{OBJECT}", path)
        key = (one["bucket"], unquote(one["name"])) if one else None
        if key not in self.objects:
            return 404, {}, b'{"error": {"message": "No such object"}}'
        if method == "DELETE":
            del self.objects[key]
            return 204, {}, b""
        if one[1] is None and query.get("alt") != ["media"]:
            return self._json(*key)
        first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("Range", "bytes=0-")).groups()
        data, total = self.objects[key], len(self.objects[key])
        if int(first) >= total:
            return 416, {}, b""
        part = data[int(first) : int(last or total) + 1]
        return 206, {"Content-Range": f"bytes {first}-{int(first) + len(part) - 1}/{total}"}, part

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
