"""What the tests of `graft deploy` share: the command in this process, as TFX takes seconds to import."""

import datetime
import json
import re
import socket
import ssl
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pipeline import cli

# A pipeline that compiles without a download.
PIPELINE = ("--images", "gs://bucket/photos", "--set", "name=signs", "--set", "model.backbone=graft_tiny")
PIPELINE += ("--set", "model.weights=bundled", "--set", "runner.image=registry.example/graft:1")


class Command:
    """Calls the command; its exit code and everything that it printed are kept.

    Attributes:
      printed: everything that all calls printed.
    """

    def __init__(self, monkeypatch, capsys):
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.printed = ""

    def __call__(self, *words: str) -> tuple[int, str]:
        self._monkeypatch.setattr(sys, "argv", ["graft", "deploy", *words])
        code = 0
        try:
            cli.main()
        except SystemExit as exit_:
            code = exit_.code
        out, err = self._capsys.readouterr()
        self.printed += out + err
        assert "Traceback" not in out + err
        return code, out + err

    def done(self, *words: str) -> str:
        """What a call printed that must succeed."""
        code, text = self(*words)
        assert code == 0, text
        return text

    def refused(self, *words: str, code: int = 2) -> str:
        """The one sentence of a call that must fail."""
        found, text = self(*words)
        assert found == code, text
        assert text.count("\n") == 1 and text.startswith("graft: ") and text[-2] in ".?)", text
        return text

    def dry(self, *words: str) -> dict:
        """What a dry run says; it must not open a connection."""

        def connect(*_):
            raise AssertionError("a dry run opened a connection")

        with self._monkeypatch.context() as patched:
            patched.setattr(socket.socket, "connect", connect)
            patched.setattr(socket, "getaddrinfo", connect)
            return json.loads(self.done(*words, "--dry-run"))


def id_in(text: str) -> str:
    """The id that a deployment printed."""
    return re.search(r"id (\S+)", text)[1]


def same_requests(dry: list[dict], sent: list[tuple]) -> None:
    """That a dry run named the requests that were sent, in their order."""

    def without_ids(path: str) -> str:
        return re.sub("[A-Z]+_ID|(pipeline|experiment)-[0-9]+", "ID", path)

    assert [(each["method"], without_ids(each["path"])) for each in dry] == [
        (method, without_ids(path)) for method, path, _, _ in sent
    ]


def certificate(path: Path, *hosts: str) -> ssl.SSLContext:
    """For a server at 127.0.0.1, or one that stands for hosts: signed by itself, in a file for who is to trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    names = [x509.IPAddress(IPv4Address("127.0.0.1")), *map(x509.DNSName, hosts)]
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(made.public_bytes(Encoding.PEM))
    both = path.with_suffix(".both")
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    both.write_bytes(private + path.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context


@pytest.fixture
def command(monkeypatch, capsys) -> Command:
    """`graft deploy`."""
    return Command(monkeypatch, capsys)
