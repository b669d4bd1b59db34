"""Notices: what a webhook and a program get, what is tried again, and what is never written down."""

import asyncio
import contextlib
import json
import socket
import sys
import threading
import time

import pytest
from aiohttp import web
from click.testing import CliRunner

from components.errors import UsageError
from pipeline import cli
from pipeline.config import Config, NoticesConfig
from pipeline.output import Output, write_json
from pipeline.schedule import delivery, notices
from pipeline.schedule.attempt import Answer
from pipeline.schedule.places import Places
from pipeline.schedule.ticks import Tick
from tests.local_server import LocalServer
from tests.pipeline.scheduled import runs

SECRET = "s3cret-of-the-webhook"


class Hook(LocalServer):
    """A webhook.

    Attributes:
      answers: of the next requests, the last one again and again: a status, or what it does instead.
      got: (path, headers, body) of each.
    """

    def __init__(self, *answers: int | str):
        super().__init__()
        self.answers, self.got = list(answers), []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.got.append((request.path, dict(request.headers), await request.json()))
        now = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if now == "silent":
            await asyncio.sleep(3600)
        if now == "redirect":
            return web.Response(status=303, headers={"Location": f"http://localhost:1/{SECRET}"})
        if now == "slow":
            response = web.StreamResponse(headers={"Content-Length": "1000000"})
            await response.prepare(request)
            for _ in range(3600):
                await response.write(b".")
                await asyncio.sleep(0.05)
        return web.Response(status=now)


@pytest.fixture
def places(tmp_path) -> Places:
    output = Output(tmp_path / "out")
    output.prepare()
    places = Places(output)
    places.prepare()
    return places


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr(notices, "WAIT", 0.001)


def config_of(**settings) -> Config:
    return Config.model_validate({"name": "signs", "schedule": {"notices": {"timeout_seconds": 0.5, **settings}}})


def payload(places: Places, status: str = "published", **values) -> dict:
    tick = Tick(time="2026-01-05T03:00:00+00:00", status=status, run_id="20260105-030000", **values)
    return notices.payload_of(tick, Answer(status, 0, drift=("image/height",)), places.output)


def waiting(places: Places) -> list[str]:
    return sorted(path.name.partition("-")[2] for path in places.outbox.iterdir())


def told(places: Places, config: Config, event: str = "published", **values) -> int:
    notices.tell(config, places, event, payload(places, **values))
    return notices.deliver(config, places)


def test_webhook_gets_the_story_of_the_tick(places):
    run = places.output.runs / "20260105-030000"
    run.mkdir()
    (run / "report.html").touch()
    failed = {"metric": "accuracy", "slice": "overall", "value": 0.7, "bound": 0.8, "passed": False}
    summary = {
        "metrics": {"test": {"accuracy": 0.912, "baseline_accuracy": 0.9}},
        "gate": {"baseline_version": 17, "checks": [failed, {**failed, "passed": True}]},
    }
    write_json(run / "summary.json", summary)
    with Hook(200) as hook:
        assert told(places, config_of(webhook=f"{hook.address}/in"), version="18", failures=0, exit_code=0) == 0
    ((path, headers, body),) = hook.got
    assert (path, headers["Content-Type"]) == ("/in", "application/json")
    host = socket.gethostname()
    assert body["text"] == (
        f"signs on {host}: published version 18 with test accuracy 0.912 (in service until now: 0.900)."
    )
    assert (body["schema_version"], body["event"], body["name"], body["host"]) == (1, "published", "signs", host)
    assert (body["accuracy"], body["baseline"]) == (0.912, {"version": 17, "accuracy": 0.9})
    assert body["checks"] == [failed]
    assert body["drift"] == ["image/height"]
    assert (body["run_id"], body["report"]) == (run.name, str(run / "report.html"))
    assert body["output"] == str(places.output.root)
    assert waiting(places) == []


@pytest.mark.parametrize("event", ["published", "refused", "failed", "failing", "recovered", "drift"])
def test_each_event_has_a_sentence(places, event):
    with Hook(200) as hook:
        told(places, config_of(webhook=hook.address), event, error="The disk was full.", failures=3)
    ((_, _, body),) = hook.got
    assert body["event"] == event
    assert body["text"].startswith("signs on ") and body["text"].endswith(".") and "\n" not in body["text"]


def test_only_what_people_want_to_know_is_told(places):
    with Hook(200) as hook:
        config = config_of(webhook=hook.address, events=["failing"])
        told(places, config, "failed")
        told(places, config, "failing")
    assert [body["event"] for _, _, body in hook.got] == ["failing"]
    notices.tell(Config(), places, "failed", payload(places))
    assert waiting(places) == []


@pytest.mark.parametrize(
    ("answers", "tries", "left"),
    [
        ([200], 1, 0),
        ([500, 200], 2, 0),
        ([429, 503, 204], 3, 0),
        ([500], 4, 1),
        ([404], 1, 1),
        (["redirect"], 1, 1),
        (["slow"], 1, 0),
    ],
)
def test_answers_of_a_webhook(places, answers, tries, left):
    with Hook(*answers) as hook:
        assert told(places, config_of(webhook=f"{hook.address}/hook", headers={"X-Of": "graft"}, retries=3)) == left
    assert len(hook.got) == tries
    assert len({body["id"] for _, _, body in hook.got}) == 1
    assert len(waiting(places)) == left
    assert SECRET not in (places.log.read_text() if places.log.exists() else "")


def test_webhook_that_never_answers_is_given_up_in_time(places):
    with Hook("silent") as hook:
        began = time.monotonic()
        assert told(places, config_of(webhook=hook.address, timeout_seconds=0.2, retries=1)) == 1
        assert time.monotonic() - began < 5
    assert len(hook.got) == 2
    assert "gave no answer within 0.2 s." in places.log.read_text()


def test_answer_that_comes_byte_by_byte_is_given_up_in_time(places):
    """Each byte comes within the time-out of a socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            with contextlib.suppress(OSError), server.accept()[0] as connection:
                connection.recv(1 << 16)
                for byte in b"HTTP/1.1 200 " + b"O" * 1000:
                    connection.send(bytes([byte]))
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        settings = NoticesConfig(webhook=f"http://127.0.0.1:{server.getsockname()[1]}/", timeout_seconds=0.4)
        began = time.monotonic()
        with pytest.raises(delivery.NotDelivered, match=r"gave no answer within 0\.4 s") as caught:
            delivery.post(settings, {"event": "test"})
        assert time.monotonic() - began < 3
        assert caught.value.may_pass


def test_what_could_not_be_sent_is_sent_by_the_next_tick_oldest_first(places):
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = f"http://127.0.0.1:{server.getsockname()[1]}/"
    assert told(places, config_of(webhook=nobody), "failed") == 1
    assert "was not reached (ConnectionRefusedError)" in places.log.read_text()
    identity = json.loads(next(places.outbox.iterdir()).read_text())["notice"]["id"]
    with Hook(200) as hook:
        assert told(places, config_of(webhook=hook.address), "recovered") == 0
    assert [body["event"] for _, _, body in hook.got] == ["failed", "recovered"]
    assert hook.got[0][2]["id"] == identity


def test_network_that_is_away_does_not_hold_a_tick_up_for_each_notice_that_waits(places):
    with Hook(503) as hook:
        config = config_of(webhook=hook.address, retries=2)
        for _ in range(20):
            notices.tell(config, places, "failed", payload(places))
        assert notices.deliver(config, places) == 20
    # All tries of the oldest, and one each of the next.
    assert len(hook.got) == 3 + 1 + 1


def test_notice_is_not_sent_again_by_the_way_that_worked(places, tmp_path):
    sink = tmp_path / "told"
    command = ["sh", "-c", f"cat >/dev/null; echo $GRAFT_EVENT >> {sink}"]
    with Hook(404, 200) as hook:
        config = config_of(webhook=hook.address, command=command)
        assert told(places, config) == 1
        assert notices.deliver(config, places) == 0
    assert (len(hook.got), sink.read_text()) == (2, "published\n")


def test_old_notices_are_tried_once_more_and_dropped(places, monkeypatch):
    with Hook(404) as hook:
        config = config_of(webhook=hook.address)
        notices.tell(config, places, "failed", payload(places))
        now = time.time()
        monkeypatch.setattr(notices.time, "time", lambda: now + 8 * 86400)
        assert notices.deliver(config, places) == 0
    assert len(hook.got) == 1
    assert "1 notices could not be delivered and are dropped." in places.log.read_text()


def test_outbox_holds_the_newest_hundred(places):
    config = config_of(command=["false"], retries=0)
    for number in range(105):
        notices.tell(config, places, "failed", payload(places, failures=number))
    assert notices.deliver(config, places) == 100
    oldest = json.loads(min(places.outbox.iterdir()).read_text())
    assert oldest["notice"]["failures"] == 5


def test_damaged_notice_is_dropped_and_the_others_are_sent(places):
    (places.outbox / "0-failed.json").write_text("{")
    with Hook(200) as hook:
        assert told(places, config_of(webhook=hook.address)) == 0
    assert len(hook.got) == 1


# ---- the command ----------------------------------------------------------------------------------------------------


def test_command_gets_the_notice_on_its_standard_input_and_no_shell(places, tmp_path):
    code = "import json, os, sys; json.dump([sys.argv[2:], os.environ['GRAFT_EVENT'], json.load(sys.stdin)], "
    code += "open(sys.argv[1], 'w'))"
    sink = tmp_path / "told.json"
    assert told(places, config_of(command=[sys.executable, "-c", code, str(sink), "$HOME; x"], timeout_seconds=20)) == 0
    arguments, event, notice = json.loads(sink.read_text())
    assert (arguments, event, notice["event"]) == (["$HOME; x"], "published", "published")


def test_command_that_fails_is_tried_again(places, tmp_path):
    count = tmp_path / "count"
    assert told(places, config_of(command=["sh", "-c", f"echo >> {count}; test $(wc -l < {count}) = 3"])) == 0
    assert count.read_text() == "\n\n\n"


def test_command_that_hangs_is_killed_with_what_it_started(places, tmp_path):
    child = tmp_path / "child"
    hanging = ["sh", "-c", f"sleep 600 & echo $! > {child}; wait"]
    assert told(places, config_of(command=hanging, timeout_seconds=0.3, retries=0)) == 1
    assert "did not end within 0.3 s and was killed." in places.log.read_text()
    late = time.monotonic() + 5
    while runs(int(child.read_text())):
        assert time.monotonic() < late


def test_command_that_is_not_there_is_said_and_waits(places):
    assert told(places, config_of(command=["/nowhere/tell"])) == 1
    assert "/nowhere/tell could not be started (No such file or directory)." in places.log.read_text()


# ---- secrets --------------------------------------------------------------------------------------------------------


def test_secrets_come_from_the_environment_and_are_written_nowhere(places, monkeypatch):
    monkeypatch.setenv("TOKEN", SECRET)
    with Hook(404, 200) as hook:
        monkeypatch.setenv("HOOK", f"{hook.address}/{SECRET}")
        config = config_of(webhook="${HOOK}", headers={"Authorization": "Bearer ${TOKEN}"})
        assert told(places, config) == 1
        assert notices.deliver(config, places) == 0
    assert {(path, headers["Authorization"]) for path, headers, _ in hook.got} == {(f"/{SECRET}", f"Bearer {SECRET}")}
    assert SECRET not in json.dumps(config.resolved)
    for path in places.output.root.rglob("*"):
        assert not path.is_file() or SECRET not in path.read_text()


def test_missing_variable_is_named_and_nothing_is_sent_without_it(places):
    with Hook(200) as hook:
        config = config_of(webhook=hook.address, headers={"X-Token": "${GRAFT_NO_SUCH}"})
        assert told(places, config) == 1
    assert hook.got == []
    assert "needs the environment variable GRAFT_NO_SUCH, which is not set" in places.log.read_text()
    with pytest.raises(UsageError, match="GRAFT_NO_SUCH"):
        notices.check(config)


@pytest.mark.parametrize(
    "settings",
    [
        {"webhook": "https://ann:pw@hooks.example.org/x"},
        {"webhook": "ftp://hooks.example.org"},
        {"webhook": "hooks.example.org/x"},
        {"webhook": "https://hooks.slack.com/services/T00000000/B00000000/abcdefghijklmnopqrstuvw1"},
        {"webhook": "https://chat.example.org/v1?key=abcdefghijklmnopqrstuvw1"},
        {"headers": {"Authorization": "Bearer abc"}},
        {"headers": {"X-Api-Key": "abc"}},
        {"headers": {"X-Of": "a\nX-More: b"}},
    ],
)
def test_what_would_be_kept_with_every_run_must_hold_no_secret(settings):
    with pytest.raises(ValueError, match=r"schedule\.notices"):
        config_of(**settings)


def test_variables_are_no_way_around_what_an_address_may_be(places, monkeypatch):
    for value in ("file:///etc/passwd", f"http://ann:{SECRET}@127.0.0.1/", f"http://127.0.0.1/\r\nX: {SECRET}", "x"):
        monkeypatch.setenv("HOOK", value)
        assert told(places, config_of(webhook="${HOOK}")) > 0
    log = places.log.read_text()
    assert "must be a URL that begins with" in log and SECRET not in log


# ---- graft schedule notify ------------------------------------------------------------------------------------------


def test_notices_can_be_tried_before_they_are_needed(tmp_path):
    def notify(address: str):
        options = ["--output", tmp_path / "out", "--set", f"schedule.notices.webhook={address}"]
        options += ["--set", "schedule.notices.retries=0"]
        return CliRunner().invoke(cli.graft, ["schedule", "notify", *map(str, options)])

    with Hook(200, 404) as hook:
        assert notify(hook.address).output == "delivered by webhook\n"
        refused = notify(hook.address)
    assert hook.got[0][2]["event"] == "test"
    assert "answered 404 (Not Found)" in str(refused.exception) and refused.exception.exit_code == 1
    nothing = CliRunner().invoke(cli.graft, ["schedule", "notify", "--output", str(tmp_path / "out")])
    assert "No notices are set up" in str(nothing.exception)
    assert not (tmp_path / "out").exists()
