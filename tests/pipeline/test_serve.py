"""`graft serve`: a client that speaks TensorFlow Serving's REST protocol needs nothing else, whatever is sent to it."""

import asyncio
import contextlib
import gzip
import json
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from components.errors import UsageError
from components.publishing import publish, versions
from pipeline.serve import _listening, serve
from tests.conftest import ROOT
from tests.pipeline.served import BLUE, CLASSES, GREEN, RED, b64, picture, serving

PATIENCE = aiohttp.ClientTimeout(30)


def labels(answer) -> list[str]:
    return [row["label"] for row in answer["predictions"]]


def refused(answer, status: int, *words: str) -> None:
    code, body = answer
    assert code == status, body
    assert list(body) == ["error"]
    for word in words:
        assert word in body["error"]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int) -> bytes:
    """A PNG of a few bytes whose header claims `side` x `side` pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    )


# ---- the protocol ---------------------------------------------------------------------------------------------------


def test_row_format_in_both_forms_gives_a_prediction_an_instance(served):
    for instances in ([b64(picture(RED)), b64(picture(BLUE))], [{"image_bytes": b64(picture(c))} for c in (RED, BLUE)]):
        status, answer = served.predict(instances=instances)
        assert status == 200
        assert labels(answer) == [CLASSES[0], CLASSES[2]]
        for row in answer["predictions"]:
            assert set(row) == {"label", "score", "probabilities"}
            assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)
            assert max(row["probabilities"]) == row["score"]


def test_column_format_gives_one_list_an_output(served):
    for inputs in ([b64(picture(GREEN))], {"image_bytes": [b64(picture(GREEN))]}):
        status, answer = served.predict(inputs=inputs, signature_name="serving_default")
        assert status == 200
        assert answer["outputs"]["label"] == [CLASSES[1]]
        assert np.shape(answer["outputs"]["probabilities"]) == (1, len(CLASSES))


def test_served_probabilities_are_those_of_the_model_in_the_same_float32(served, colours):
    import tensorflow as tf

    files = [picture((r, 120, 90), kind) for r in (0, 77, 200) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP")]
    expected = tf.saved_model.load(str(colours)).signatures["serving_default"](tf.constant(files))["probabilities"]
    _, answer = served.predict(inputs=[b64(file) for file in files])
    np.testing.assert_allclose(np.float32(answer["outputs"]["probabilities"]), expected.numpy(), atol=1e-7)


def test_signatures_for_examples_are_served_and_a_single_output_has_no_name(served):
    from tensorflow.train import BytesList, Example, Feature, Features

    features = {"image/encoded": picture(GREEN), "image/class/text": b"blue"}
    wrapped = {name: Feature(bytes_list=BytesList(value=[value])) for name, value in features.items()}
    example = b64(Example(features=Features(feature=wrapped)).SerializeToString())
    status, answer = served.predict(signature_name="serving_examples", instances=[{"examples": example}])
    assert (status, labels(answer)) == (200, [CLASSES[1]])
    assert served.predict(signature_name="transform_features", instances=[example]) == (200, {"predictions": [2]})
    assert served.predict(signature_name="transform_features", inputs=[example]) == (200, {"outputs": [2]})


def test_status_and_metadata_are_as_tensorflow_serving_writes_them(served):
    _, status = served.ask()
    (row,) = status["model_version_status"]
    assert row == {"version": row["version"], "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert served.ask(f"/versions/{row['version']}") == (200, status)
    code, metadata = served.ask("/metadata")
    assert code == 200
    assert metadata["model_spec"] == {"name": "paint", "signature_name": "", "version": row["version"]}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "serving_examples", "transform_features"} <= set(signatures)
    image_bytes = signatures["serving_default"]["inputs"]["image_bytes"]
    assert image_bytes["dtype"] == "DT_STRING"
    assert image_bytes["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    assert served.ask(f"/versions/{row['version']}/metadata") == (200, metadata)


def test_published_signatures_make_the_request_that_a_grpc_client_sends(served, colours):
    import tensorflow as tf
    from google.protobuf import json_format
    from tensorflow_serving.apis import get_model_status_pb2, predict_pb2

    # What a gRPC client would send, answered by the model as TensorFlow Serving runs it: by the names in the signature.
    request = predict_pb2.PredictRequest()
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([picture(BLUE)]))
    graph = tf.Graph()
    with tf.compat.v1.Session(graph=graph) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(colours))
        signature = loaded.signature_def["serving_default"]
        feeds = {signature.inputs[name].name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        assert session.run(signature.outputs["label"].name, feeds).tolist() == [b"blue"]
    # And the status answer is one that the protocol's own message reads.
    json_format.ParseDict(served.ask()[1], get_model_status_pb2.GetModelStatusResponse())


def test_unknown_models_and_versions_are_404(served):
    body = {"instances": [b64(picture())]}
    refused(served.ask("/v1/models/other", root=served.url), 404, "other")
    refused(served.ask("/versions/7"), 404, "7")
    refused(served.ask("/versions/7:predict", body), 404, "Servable not found for request: Specific(paint, 7)")
    refused(
        served.ask("/v1/models/other:predict", body, root=served.url),
        404,
        "Servable not found for request: Latest(other)",
    )
    refused(served.ask("/favicon.ico", root=served.url), 404)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "JSON Parse error"),
        (b"{", "JSON Parse error"),
        (b"[" * 100_000, "JSON Parse error"),
        (b'"\xff"', "JSON Parse error"),
        (b"[1]", "object"),
        ({}, "'instances' or 'inputs'"),
        ({"instances": [1], "inputs": [1]}, "either"),
        ({"instances": []}, "No values"),
        ({"instances": 3}, "list"),
        ({"instances": [7]}, "instances[0]"),
        ({"instances": [{"wrong": 1}]}, "image_bytes"),
        ({"inputs": {"wrong": 1}}, "image_bytes"),
        ({"inputs": b64(b"scalar")}, "shape"),
        ({"inputs": [[b64(b"a")], [b64(b"a"), b64(b"b")]]}, "equal lengths"),
        ({"instances": ["x"], "signature_name": 3}, "string"),
        ({"instances": ["x"], "signature_name": "no"}, '"no" not found'),
        ({"instances": [{"b64": "?!"}]}, "base64"),
        ({"instances": ["x"], "signature_name": "transform_features"}, "Could not parse example"),
        ({"instances": ["x"], "signature_name": "serving_examples"}, "tf.Example"),
        ({"instances": [""] * 2000}, "at most 1024"),
        ({"inputs": [7] * 2000}, "at most 1024"),  # before anything is made of them
        ({"inputs": []}, "No values"),
        ({"inputs": {"image_bytes": []}}, "No values"),
        (b'{"inputs": ' + b"[" * 100 + b"]" * 100 + b"}", "nested too deep"),
        (b'{"inputs": ' + b"[" * 900 + b"]" * 900 + b"}", "nested too deep"),
        ({"instances": [{"b64": "//79"}], "signature_name": "transform_features"}, "cannot read"),
    ],
)
def test_malformed_request_is_400_and_one_sentence(served, body, words):
    refused(served.ask(":predict", body), 400, words)


def test_paths_that_are_not_in_the_protocol_are_refused(served):
    assert served.ask("/V1/Models/paint", root=served.url)[0] == 200
    refused(served.ask(":classify", {}), 400, "predict")
    refused(served.ask("/labels/stable"), 400, "label")
    refused(served.ask("/labels/stable:predict", {}), 400, "label")
    refused(served.ask("/../../../etc/passwd"), 400, "Malformed")
    refused(served.ask("/versions/%2e%2e%2f1"), 400, "Malformed")
    refused(served.ask("/%2e%2e/etc/passwd", root=served.url), 404)


# ---- bad images -----------------------------------------------------------------------------------------------------


def test_bad_image_is_named_by_its_place_and_what_is_wrong(served):
    good, truncated = picture(), picture(kind="JPEG", size=64)[:-200]
    for bad in (truncated, b"text", picture()[:30]):
        refused(served.predict(instances=[b64(good), b64(bad)]), 400, "Image 1 ", "no image that can be decoded")
    refused(served.predict(inputs=[b64(b""), b64(good)]), 400, "Image 0 ", "is empty")


def test_header_that_claims_a_huge_picture_costs_nothing(served):
    body = {"instances": [b64(bomb(60_000))]}
    served.ask(":predict", body)
    began = time.monotonic()
    refused(served.ask(":predict", body), 400, "Image 0 ", "60000x60000", "100000000")
    assert time.monotonic() - began < 0.1


def test_formats_that_only_pillow_reads_are_converted_as_predict_does(served):
    status, answer = served.predict(instances=[b64(picture(BLUE, "TIFF")), b64(picture(GREEN, "PPM"))])
    assert (status, labels(answer)) == (200, [CLASSES[2], CLASSES[1]])


def test_bad_image_fails_its_own_request_and_none_that_shares_the_batch(served):
    broken = picture(kind="JPEG", size=64)[:-200]

    async def ask(session, data: bytes) -> int:
        async with session.post(f"{served.model}:predict", json={"instances": [b64(data)]}) as response:
            return response.status

    async def all_at_once() -> list[int]:
        async with aiohttp.ClientSession(timeout=PATIENCE) as session:
            return await asyncio.gather(*(ask(session, broken if n % 5 == 0 else picture()) for n in range(40)))

    assert asyncio.run(all_at_once()) == [400 if n % 5 == 0 else 200 for n in range(40)]


# ---- bounds and headers ---------------------------------------------------------------------------------------------


def test_request_beyond_the_bound_is_413_packed_or_not(served):
    body = json.dumps({"instances": ["x" * 2**20]}).encode()
    refused(served.ask(":predict", body), 413, "at most 1 MiB")
    refused(served.ask(":predict", gzip.compress(body), {"Content-Encoding": "gzip"}), 413, "at most 1 MiB")
    status, _ = served.ask(
        ":predict", gzip.compress(json.dumps({"instances": [b64(picture())]}).encode()), {"Content-Encoding": "gzip"}
    )
    assert status == 200


def test_request_that_is_packed_badly_is_400(served):
    packed = gzip.compress(json.dumps({"instances": [b64(picture())]}).encode())
    gzipped = {"Content-Encoding": "gzip"}
    refused(served.ask(":predict", b"no gzip", gzipped), 400, "not valid gzip")
    refused(served.ask(":predict", packed[:-9], gzipped), 400, "cut off")
    refused(served.ask(":predict", packed, {"Content-Encoding": "br"}), 400, "gzip or deflate")


HEAD = b"POST /v1/models/paint:predict HTTP/1.1\r\nHost: localhost\r\n"


@contextlib.contextmanager
def connections(served, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Clients that send this and then nothing."""
    port = int(served.url.rsplit(":", 1)[1])
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(count)]
        for connection in sockets:
            connection.sendall(sent)
        yield sockets


def test_more_bytes_than_it_can_hold_are_503_and_then_answered_again(served):
    size = 2**20
    # Nine requests of almost the largest size, of which none ends: whichever is too much is told so.
    with connections(served, 9, HEAD + b"Content-Length: %d\r\n\r\n" % size + bytes(size - 1)) as sockets:
        refused_one, *_ = select.select(sockets, [], [], 30)[0]
        assert b" 503 " in refused_one.recv(100)
    while (answer := served.predict(instances=[b64(picture())]))[0] == 503:
        pass
    assert answer[0] == 200


def test_clients_that_announce_much_and_send_nothing_keep_nobody_waiting(served):
    with connections(served, 100, HEAD + b"Content-Length: 1048576\r\n\r\n"):
        assert [served.predict(instances=[b64(picture())])[0] for _ in range(3)] == [200] * 3


def test_bodies_whose_length_is_not_announced_take_only_what_arrives(served):
    async def chunks() -> AsyncIterator[bytes]:
        yield json.dumps({"instances": [b64(picture())]}).encode()

    async def all_at_once() -> list[int]:
        async def ask(session) -> list[int]:
            statuses = []
            for _ in range(3):
                async with session.post(f"{served.model}:predict", data=chunks()) as response:
                    statuses.append(response.status)
            return statuses

        async with aiohttp.ClientSession(timeout=PATIENCE) as session:
            answered = await asyncio.gather(*(ask(session) for _ in range(64)))
            return [status for statuses in answered for status in statuses]

    assert asyncio.run(all_at_once()) == [200] * 192


def test_pixels_of_a_request_are_bounded_together(served):
    refused(served.predict(instances=[b64(bomb(9_900))] * 6), 413, "500000000 pixels together")


def test_other_host_names_are_refused_on_loopback(served):
    refused(served.ask(headers={"Host": "attacker.example"}), 403, "localhost")
    assert served.ask(headers={"Host": "localhost:1"})[0] == 200


def test_requests_that_a_browser_sends_for_another_site_are_refused(served):
    body = {"instances": [b64(picture())]}
    own = served.url
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://other.example"}, {"Origin": "null"}):
        refused(served.ask(":predict", body, headers | {"Content-Type": "text/plain"}), 403, "another web site")
    for headers in ({"Sec-Fetch-Site": "same-origin", "Origin": "https://proxy.example"}, {"Origin": own}, {}):
        assert served.ask(":predict", body, headers)[0] == 200


def test_page_runs_its_own_script_only_and_no_answer_allows_other_sites(served):
    async def headers() -> list:
        async with aiohttp.ClientSession(timeout=PATIENCE) as session:
            answers = []
            for path in ("/", "/about", "/v1/models/paint", "/nothing"):
                async with session.get(served.url + path, headers={"Origin": "http://other.example"}) as response:
                    answers.append(response.headers)
            return answers

    page, *others = asyncio.run(headers())
    assert "default-src 'none'" in page["Content-Security-Policy"]
    assert "unsafe" not in page["Content-Security-Policy"]
    for answer in (page, *others):
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert not [name for name in answer if name.startswith("Access-Control")]


# ---- new versions ---------------------------------------------------------------------------------------------------


def test_versions_published_under_load_are_taken_up_without_a_lost_request_and_sigterm_finishes_what_waits(
    colours, tmp_path
):
    base = tmp_path / "serving"
    first = publish(colours, base, 9)
    unreadable = publish_broken(base)
    with serving(base, "--host", "localhost") as server:
        # A broken newest version does not keep a server down that is started again.
        assert f"Version {unreadable} is not served" in "".join(server.lines)
        assert server.states() == {unreadable: "END", first.name: "AVAILABLE"}
        url = f"{server.model}:predict"
        statuses: list[int] = []

        async def client(session, stop: asyncio.Event) -> None:
            while not stop.is_set():
                async with session.post(url, json={"instances": [b64(picture())]}) as response:
                    statuses.append(response.status)
                    assert labels(await response.json()) == [CLASSES[0]]

        async def load_and_publish() -> tuple[str, str]:
            stop = asyncio.Event()
            async with aiohttp.ClientSession(timeout=PATIENCE) as session:
                clients = [asyncio.create_task(client(session, stop)) for _ in range(8)]
                second = await asyncio.to_thread(publish, colours, base, 9)
                taken = await asyncio.to_thread(server.line)
                broken = await asyncio.to_thread(publish_broken, base)
                kept = await asyncio.to_thread(server.line) + await asyncio.to_thread(server.line)
                stop.set()
                await asyncio.gather(*clients)
            assert f"Version {second.name} is in service" in taken
            assert f"Version {broken} is not served" in kept
            assert f"Version {second.name} stays in service" in kept
            return second.name, broken

        second, broken = asyncio.run(load_and_publish())
        assert set(statuses) == {200}
        assert server.states() == {broken: "END", second: "AVAILABLE", unreadable: "END", first.name: "END"}
        _, status = server.ask(f"/versions/{broken}")
        assert "cannot be loaded" in status["model_version_status"][0]["status"]["error_message"]
        assert server.predict(instances=[b64(picture())])[0] == 200
        # Requests that were sent before the signal are answered after it; no connection is closed without notice.
        answered, closed = asyncio.run(stopped_while_answering(server))
        assert answered == [200] * 32
        assert closed == ["close"] * 16
        assert server.process.wait(timeout=30) == 0


def publish_broken(base) -> str:
    """A newer version folder that holds no model."""
    version = str(versions(base)[-1] + 1)
    (base / ".unfinished").mkdir()
    (base / ".unfinished" / "saved_model.pb").write_bytes(b"no model")
    (base / ".unfinished").rename(base / version)
    return version


async def stopped_while_answering(server) -> tuple[list[int], list[str]]:
    """Statuses of requests that waited at SIGTERM, and how connections ended that were kept in use."""
    body = json.dumps({"instances": [b64(picture(kind="PNG", size=600))] * 4}).encode()
    async with aiohttp.ClientSession(timeout=PATIENCE) as session:
        arrived = asyncio.Event()

        async def ask() -> int:
            async with session.post(f"{server.model}:predict", data=body) as response:
                arrived.set()
                await response.read()
                return response.status

        asked = [asyncio.create_task(ask()) for _ in range(32)]
        used = [asyncio.create_task(until_closed(server)) for _ in range(16)]
        await arrived.wait()
        server.process.send_signal(signal.SIGTERM)
        return await asyncio.gather(*asked), await asyncio.gather(*used)


async def until_closed(server) -> str:
    """One request after the other on a connection, until an answer says that it will be closed."""
    host, port = server.url.removeprefix("http://").rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        while True:
            writer.write(f"GET /v1/models/model HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            (length,) = re.findall(r"content-length: (\d+)", head)
            await reader.readexactly(int(length))
            if "connection: close" in head:
                return "close"
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        return type(error).__name__
    finally:
        writer.close()


# ---- what cannot be started -----------------------------------------------------------------------------------------


def cannot_start(folder, *options: str) -> str:
    command = [sys.executable, "-m", "pipeline", "serve", str(folder), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_no_model_yet_is_one_sentence(tmp_path):
    assert "There is no model in" in cannot_start(tmp_path, "--port", "0")
    with pytest.raises(UsageError, match="There is no folder"):
        serve(tmp_path / "none", "model", "127.0.0.1", 0, 1)
    with pytest.raises(UsageError, match="not from a URI"):
        serve(Path("gs://bucket/serving"), "model", "127.0.0.1", 0, 1)


def test_port_that_is_taken_is_one_sentence(served, tmp_path):
    port = served.url.rsplit(":", 1)[1]
    message = cannot_start(tmp_path, "--port", port)
    assert f"port {port}" in message
    assert "give another --port" in message


def test_address_that_is_not_this_machines_is_one_sentence(tmp_path):
    assert "give another --host" in cannot_start(tmp_path, "--port", "0", "--host", "192.0.2.1")
    for host in ("a..b", ""):
        with pytest.raises(UsageError, match="give another --host"):
            _listening(host, 0)


def test_two_servers_that_begin_together_do_not_get_one_port():
    with _listening("127.0.0.1", 0) as first, pytest.raises(UsageError, match="give another --port"):
        _listening("127.0.0.1", first.getsockname()[1])


def test_name_that_cannot_be_part_of_the_address_is_one_sentence(tmp_path):
    assert "--name" in cannot_start(tmp_path, "--name", "a/b")
