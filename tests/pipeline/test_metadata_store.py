"""Runs of several people on one server: nobody sees, takes or disturbs what is another's, and no password is kept."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.errors import UsageError
from pipeline import cli, lineage, metadata_store
from pipeline import config as configuration
from pipeline.failure import Scene, explain
from pipeline.output import Output
from pipeline.retention import clean, recorded
from tests.conftest import ROOT
from tests.e2e.graft import TINY, Graft, write_shapes
from tests.pipeline.mariadb import MariaDB, free_port, started
from tests.pipeline.outputs import Recorder

FIRST, SECOND = "20260101-000000", "20260102-000000"
# What needs quoting wherever somebody builds a string of it.
PASSWORDS = {"ann": "Ann's sec:ret@/%41", "ben": "ben-pw-7351", "eve": "eve-pw-9024"}
SMALL = (*TINY, "--set", "training.frozen.epochs=5", "--set", "training.fine_tune.epochs=0")
LENIENT = ("--set", "evaluation.default_rules=false", "--set", "evaluation.min_accuracy=0.1")
FEW = ("--set", "evaluation.min_examples=1", "--set", "evaluation.min_class_examples=1")


# ---- what may be configured -----------------------------------------------------------------------------------------


def test_password_in_the_url_is_refused_and_not_repeated():
    for url in ("mysql://ann:s3cret@db/graft", "mysql://ann:s3cret@db:notaport/graft", "mysql//ann:s3cret@db/graft"):
        with pytest.raises(UsageError) as raised:
            configuration.load(None, [f"runner.metadata={url}"])
        assert "s3cret" not in str(raised.value)
    with pytest.raises(UsageError, match=r"leave the password out of the URL, .* GRAFT_METADATA_PASSWORD"):
        configuration.load(None, ["runner.metadata=mysql://ann:s3cret@db/graft"])


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://ann@db:5432/graft", "PostgreSQL cannot be used, .* backslash .* MySQL or MariaDB"),
        ("sqlite:///graft.db", "must be a URL such as mysql://user@host:3306/database"),
        ("mysql://db/graft", "must be a URL"),
        ("mysql://ann@db", "must be a URL"),
        ("mysql://ann@db/graft?ssl=1", "must be a URL"),
        ("mysql://ann@db/graft; DROP TABLE x", "the database's name may hold"),
    ],
)
def test_other_urls_are_refused_with_what_is_allowed(url, said):
    with pytest.raises(UsageError, match=f"runner.metadata: .*{said}"):
        configuration.load(None, [f"runner.metadata={url}"])


def test_url_says_where_with_the_usual_port_if_it_names_none():
    assert configuration.load(None, []).runner.metadata is None
    assert configuration.load(None, ["runner.metadata=mysql://a%40b@db/graft"]).runner.metadata == (
        "mysql://a%40b@db:3306/graft"
    )
    assert metadata_store.parse("mysql://a%40b@[::1]:7/graft") == metadata_store.Server("a@b", "::1", 7, "graft")


# ---- a server -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    with started() as server:
        for user in PASSWORDS:
            server.sql(documented(user, PASSWORDS[user], "graft"))
        server.sql("CREATE DATABASE other; GRANT ALL ON other.* TO 'ann'@'%'")
        yield server


def documented(user: str, password: str, database: str) -> str:
    """The statements of the page, for another user and database."""
    page = (ROOT / "docs" / "metadata.md").read_text()
    lines = [line.strip() for line in page.splitlines() if line.startswith(("    CREATE", "    GRANT"))]
    statements = "\n".join(lines).replace("CREATE DATABASE", "CREATE DATABASE IF NOT EXISTS")
    quoted = password.replace("'", "''")
    return statements.replace("'ann'", f"'{user}'").replace("a long password", quoted).replace("graft", database)


@pytest.fixture(autouse=True)
def anns_password(monkeypatch):
    monkeypatch.setenv(metadata_store.PASSWORD, PASSWORDS["ann"])


@pytest.fixture
def url(server) -> str:
    return server.url("ann", "graft")


def folder_in(parent: Path, name: str) -> Output:
    output = Output(parent / name)
    output.prepare()
    return output


def recorder_of(url: str, output: Output) -> Recorder:
    store = metadata_store.settle(url, output)
    return Recorder(output, metadata_store.connect(store), store.suffix)


# ---- what can be wrong with it --------------------------------------------------------------------------------------


def refused(*arguments: object) -> str:
    """The one sentence with which a command ends."""
    with pytest.raises(UsageError) as raised:
        cli.graft.main(list(map(str, arguments)), standalone_mode=False)
    (line,) = str(raised.value).splitlines()
    return line


@pytest.fixture
def said_by_check(tmp_path, capfd):
    """What `graft check` says, before it looks at the images, of which there are none."""

    def check(setting: str) -> str:
        line = refused("check", "--images", tmp_path, "--set", f"runner.metadata={setting}")
        assert capfd.readouterr() == ("", ""), "what the client prints is not for people"
        return line

    return check


def test_server_that_is_not_there_is_told(said_by_check):
    port = free_port()
    said = said_by_check(f"mysql://ann@127.0.0.1:{port}/graft")
    assert f"mysql://ann@127.0.0.1:{port}/graft, cannot be reached (Connection refused); see that it runs" in said


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "is no MySQL or MariaDB server; see which port it listens on."),
        (b"", "is no MySQL or MariaDB server"),
        (
            b"\x1d\0\0\0\xff\x6a\x04Host 'pc' is not allowed\x1b[2J",
            r"turns this machine away (Host 'pc' is not allowed\x1b[2J).",
        ),
        (None, "cannot be reached (timed out)"),
    ],
)
def test_what_greets_otherwise_than_a_server_that_lets_this_machine_in_is_told(
    said_by_check, monkeypatch, greeting, said
):
    monkeypatch.setattr(metadata_store, "SECONDS_TO_REACH", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet():
            with listening.accept()[0] as connection:
                connection.sendall(greeting)

        if greeting is not None:
            threading.Thread(target=greet, daemon=True).start()
        assert said in said_by_check(f"mysql://ann@127.0.0.1:{listening.getsockname()[1]}/graft")


@pytest.mark.parametrize(
    ("password", "hint"), [("wrong", "see that GRAFT_METADATA_PASSWORD is right"), (None, "is set, which it is not")]
)
def test_user_who_is_not_let_in_is_told(url, said_by_check, monkeypatch, password, hint):
    monkeypatch.delenv(metadata_store.PASSWORD)
    if password:
        monkeypatch.setenv(metadata_store.PASSWORD, password)
    said = said_by_check(url)
    assert f"{url}, does not let ann in" in said and hint in said


@pytest.mark.parametrize("database", ["nowhere", "mysql"])
def test_database_that_the_user_has_not_is_told(server, said_by_check, database):
    said = said_by_check(server.url("ann", database))
    assert f"has no database {database} that ann may use; create it, or grant it to that user." in said


def test_user_who_may_not_make_tables_is_told(server, said_by_check):
    server.sql("CREATE DATABASE mean; GRANT SELECT ON mean.* TO 'ann'@'%'")
    said = said_by_check(server.url("ann", "mean"))
    assert "CREATE command denied to user 'ann'" in said and "all of it granted" in said


@pytest.mark.parametrize("version", [9, 11])
def test_tables_of_another_release_of_ml_metadata_are_told_and_left_alone(server, said_by_check, version):
    url = server.url("ann", "other")
    metadata_store.connect(metadata_store.Store(Path(), metadata_store.parse(url)))
    server.sql(f"UPDATE MLMDEnv SET schema_version = {version}", "other")
    said = said_by_check(url)
    assert f"has version {version} of ML Metadata's tables, and the one installed here reads 10" in said
    assert server.sql("SELECT schema_version FROM MLMDEnv", "other").split() == [str(version)]
    server.sql("UPDATE MLMDEnv SET schema_version = 10", "other")


def test_what_a_server_says_reaches_the_terminal_as_text():
    said = metadata_store.cause("mysql_query failed: errno: Success, error: no such thing \x1b[2J\nmore")
    assert said == r"no such thing \x1b[2J"


def test_run_is_refused_before_anything_is_done(tmp_path, capfd):
    images = tmp_path / "images"
    write_shapes(images, 1)
    setting = f"runner.metadata=mysql://ann@127.0.0.1:{free_port()}/graft"
    said = refused("run", "--images", images, "--output", tmp_path / "out", "--set", setting)
    assert "cannot be reached" in said
    assert "Look at the images" not in capfd.readouterr().out
    assert not list((tmp_path / "out" / "runs").iterdir()) and not (tmp_path / "out" / "metadata.json").exists()


def test_server_that_goes_away_in_the_middle_of_a_run_is_named_and_what_to_try(url, tmp_path):
    import ml_metadata

    output = folder_in(tmp_path, "out")
    connection = metadata_store.settle(url, output).connection()
    connection.mysql.port = free_port()
    with pytest.raises(RuntimeError) as gone:
        ml_metadata.MetadataStore(connection)
    failure = explain(gone.value, Scene("Train", output.root, tmp_path / "log.txt"))
    assert failure.sentence == f"The server of runner.metadata, {url}, failed (without a reason)."
    assert failure.advice == "See that it runs, and run the same command again."


# ---- folders that share it ------------------------------------------------------------------------------------------


def test_folders_with_runs_and_versions_of_the_same_names_are_told_apart(url, tmp_path):
    ann, ben, new = (folder_in(tmp_path, name) for name in ("ann", "ben", "new"))
    for output in (ann, ben):
        recorder_of(url, output).run(FIRST, pushed=f"{output.serving}/7")
    recorder_of(url, ben).run(SECOND, pushed=f"{ben.serving}/8")
    metadata_store.settle(url, new)
    with lineage.of(ann) as history:
        assert history.run_ids() == [FIRST]
        assert history.run(SECOND) == {}
        assert history.pushed(8) is None, "it is ben's"
        # The folder may have been moved: then the number is enough, but only among her own.
        model = history.pushed(7, "/moved/serving/7")
        assert Path(model.uri).is_relative_to(ann.root)
        made = history.origins(model)
        assert {step.run_id for step in made.values()} == {FIRST} and made.keys() >= {"Trainer", "AtomicPusher"}
    with lineage.of(ben) as history:
        assert history.run_ids() == [FIRST, SECOND]
        assert Path(history.run(FIRST)["Trainer"].outputs["model"].uri).is_relative_to(ben.root)
    with lineage.of(new) as history:
        assert history.run_ids() == []


def test_values_come_back_as_they_were_given(url, tmp_path):
    value = "é'\\\"`%\n日本 \U0001f600 \\u00e9 \\"
    output = folder_in(tmp_path, "out")
    recorder_of(url, output).run(FIRST, properties={"Trainer": {"custom_config": value, "long": "x" * 3_000_000}})
    with lineage.of(output) as history:
        properties = history.run(FIRST)["Trainer"].properties
    assert properties["custom_config"] == value and len(properties["long"]) == 3_000_000


MAKES_TABLES = """
import sys
from pathlib import Path
from pipeline import metadata_store
store = metadata_store.Store(Path(), metadata_store.parse(sys.argv[1]))
import ml_metadata
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
metadata_store.connect(store).get_contexts()
"""


def test_people_who_begin_at_once_on_an_empty_database_are_all_let_in(server):
    server.sql("CREATE DATABASE fresh; GRANT ALL ON fresh.* TO 'ann'@'%'")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", MAKES_TABLES, server.url("ann", "fresh")]
    people = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(6)]
    for one in people:
        assert one.stdout.readline() == "ready\n", one.stderr.read()
    for one in people:
        one.stdin.write("\n")
        one.stdin.flush()
    assert [(one.communicate()[1], one.returncode) for one in people] == [("", 0)] * 6


def test_name_that_is_too_long_with_the_folders_is_cut():
    store = metadata_store.Store(Path(), metadata_store.parse("mysql://ann@db/graft"), "0123456789abcdef")
    assert store.pipeline_name("x" * 63) == f"{'x' * 46}@0123456789abcdef"
    assert store.pipeline_name("signs") == "signs@0123456789abcdef"
    assert metadata_store.Store(Path("metadata.db")).pipeline_name("signs") == "signs"


def test_s5_housekeeping_of_one_folder_leaves_what_another_has_on_the_server(url, tmp_path):
    outputs = [folder_in(tmp_path, name) for name in ("first", "second")]
    for output in outputs:
        recorder = recorder_of(url, output)
        for run_id in (FIRST, SECOND, "20260103-000000"):
            recorder.run(run_id)
            (output.runs / run_id).mkdir()
            (output.runs / run_id / "log.txt").touch()
    removed = clean.apply(configuration.load(None, ["schedule.retention.runs=1"]), outputs[0])["removed"]
    assert [item["kind"] for item in removed].count("artifact") == 14
    assert all(item["path"].startswith(str(outputs[0].root)) for item in removed)
    live = []
    for output in outputs:
        with recorded.of(output) as known:
            live.append(sum(not each.deleted for each in known.artifacts.values()))
            assert set(known.uses) == {FIRST, SECOND, "20260103-000000"}
    assert live == [7, 21] and len(list(outputs[1].artifacts.glob("*/*/*"))) == 21


# ---- one folder, one place for its history --------------------------------------------------------------------------


def test_folder_keeps_its_history_where_it_began(url, server, tmp_path):
    shared, own = folder_in(tmp_path, "shared"), folder_in(tmp_path, "own")
    recorder_of(url, shared).run(FIRST)
    Recorder(own).run(FIRST)
    note = (shared.root / "metadata.json").read_bytes()
    for output, setting, there in (
        (shared, None, url),
        (shared, server.url("ann", "other"), url),
        (own, url, str(own.metadata)),
    ):
        with pytest.raises(UsageError, match="give --output another folder") as raised:
            metadata_store.settle(setting, output)
        assert there in str(raised.value)
    assert (shared.root / "metadata.json").read_bytes() == note and not (own.root / "metadata.json").exists()


def test_another_user_of_the_folder_and_a_moved_database_go_on_with_the_history(url, server, tmp_path, monkeypatch):
    output = folder_in(tmp_path, "shared")
    recorder_of(url, output).run(FIRST)
    server.sql("CREATE DATABASE moved; GRANT ALL ON moved.* TO 'ann'@'%'")
    metadata_store.connect(metadata_store.Store(Path(), metadata_store.parse(server.url("ann", "moved"))))
    for table in ("Context", "Type"):
        server.sql(f"REPLACE INTO moved.{table} SELECT * FROM graft.{table}")
    assert metadata_store.settle(server.url("ann", "moved"), output).folder == metadata_store.of(output).folder
    assert metadata_store.of(output).server.database == "moved"
    metadata_store.settle(url, output)
    monkeypatch.setenv(metadata_store.PASSWORD, PASSWORDS["ben"])
    metadata_store.settle(server.url("ben", "graft"), output)
    with lineage.of(output) as history:
        assert history.run_ids() == [FIRST]


def test_copy_of_a_folder_gets_no_history_in_common_with_it_and_a_moved_one_keeps_its_own(url, tmp_path):
    output = folder_in(tmp_path, "ann")
    recorder_of(url, output).run(FIRST)
    copy = Output(tmp_path / "copy")
    shutil.copytree(output.root, copy.root)
    with pytest.raises(UsageError, match=r"is a copy of .*ann.*: remove metadata.json and artifacts from the copy"):
        metadata_store.settle(url, copy)
    folder = metadata_store.of(output).folder
    shutil.rmtree(output.root)
    assert metadata_store.settle(url, copy).folder == folder


@pytest.mark.parametrize("content", ["", "{}", '{"server": "mysql://ann:pw@db/graft", "folder": "x", "root": "/"}'])
def test_damaged_note_of_where_the_history_is_is_told(output, content):
    (output.root / "metadata.json").write_text(content)
    with pytest.raises(UsageError, match=r"metadata.json, which says where the history of .* is, cannot be read"):
        metadata_store.of(output)


def test_looking_back_goes_on_without_the_server_and_says_so(url, server, tmp_path, monkeypatch):
    output = folder_in(tmp_path, "out")
    recorder_of(url, output).run(FIRST)
    (output.runs / FIRST).mkdir()
    (output.runs / FIRST / "log.txt").touch()
    monkeypatch.setenv(metadata_store.PASSWORD, "wrong")
    runs = CliRunner().invoke(cli.graft, ["runs", str(output.root)])
    assert runs.exit_code == 0 and FIRST in runs.output and "does not let ann in" in " ".join(runs.output.split())
    assert "does not let ann in" in refused("report", output.runs / FIRST)


def test_user_who_may_only_read_can_look_back(url, server, tmp_path, monkeypatch):
    output = folder_in(tmp_path, "out")
    recorder_of(url, output).run(FIRST)
    server.sql("CREATE USER 'reader'@'%' IDENTIFIED BY 'r'; GRANT SELECT ON graft.* TO 'reader'@'%'")
    note = output.root / "metadata.json"
    note.write_text(note.read_text().replace("//ann@", "//reader@"))
    monkeypatch.setenv(metadata_store.PASSWORD, "r")
    with lineage.of(output) as history:
        assert history.run_ids() == [FIRST]


# ---- whole runs -----------------------------------------------------------------------------------------------------


class Person(Graft):
    """Somebody with an output folder and a password of their own."""

    def __init__(self, folder: Path, server: MariaDB, name: str, images: Path):
        self.name, self._images = name, images
        self.source, self.output = ROOT, folder / name
        self._url = server.url(name, "graft")

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(metadata_store.PASSWORD, PASSWORDS[self.name])
            return super().start(*arguments, **options)

    def start_run(self, *more: str) -> subprocess.Popen:
        settings = (*SMALL, *LENIENT, *FEW, "--set", f"runner.metadata={self._url}", *more)
        return self.start("run", "--images", self._images, "--output", self.output, *settings)

    def finish(self, process: subprocess.Popen) -> tuple[str, dict]:
        """What was printed, and the summary of the run."""
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, out + error
        return out + error, json.loads((self.output / "runs" / "latest" / "summary.json").read_text())


@pytest.fixture(scope="module")
def people(server, tmp_path_factory):
    """Two who ran the same images at the same time, the first of them twice more; what each run left."""
    folder = tmp_path_factory.mktemp("people")
    write_shapes(folder / "images", 12)
    ann, ben = (Person(folder, server, name, folder / "images") for name in ("ann", "ben"))
    processes = ann.start_run(), ben.start_run()
    left = {"ann": [ann.finish(processes[0])], "ben": [ben.finish(processes[1])]}
    left["ann"].append(ann.finish(ann.start_run("--set", "push.keep=4")))
    left["ann"].append(ann.finish(ann.start_run("--set", "push.keep=4")))
    return ann, ben, left


def test_two_people_run_at_once_and_each_has_a_result_of_their_own(people):
    ann, ben, left = people
    for person in (ann, ben):
        _, summary = left[person.name][0]
        assert summary["status"] == "published" and summary["cached"] == []
        assert Path(summary["model"]["path"], "saved_model.pb").is_file()
        assert Path(summary["model"]["path"]).is_relative_to(person.output)
        assert not (person.output / "metadata.db").exists()


def test_second_run_takes_its_own_results_from_the_cache_and_an_unchanged_one_does_nothing(people):
    _, _, left = people
    _, (_, again), (printed, third) = left["ann"]
    assert set(again["cached"]) >= {"ImageExampleGen", "StatisticsGen", "Transform", "Trainer"}
    assert again["status"] == "published"
    assert "unchanged: images, configuration and code are those of run" in printed
    assert third["run_id"] == again["run_id"]


def test_each_looks_back_on_their_own_runs_only(people):
    ann, ben, left = people
    for person in (ann, ben):
        known = {summary["run_id"] for _, summary in left[person.name]}
        told = person.told("runs", person.output)
        assert {row["run_id"] for row in told["runs"]} == known and told["problems"] == []
    version = ann.told("show", "--model", "in-service", ann.output)
    first, again = (left["ann"][number][1]["run_id"] for number in (0, 1))
    assert version["published_by"] == {"run_id": again, "folder": str(ann.output / "runs" / again)}
    assert version["trained_by"]["run_id"] == first and version["problems"] == []


def test_retention_of_one_leaves_the_models_of_the_other(people):
    ann, ben, _ = people
    shutil.rmtree(ann.output / "artifacts")
    told = ben.told("show", "--model", "in-service", ben.output)
    assert told["there"] and told["problems"] == [] and told["data"]["listed_in"]


def test_password_is_kept_and_printed_nowhere(people, server):
    ann, ben, left = people
    secret = re.compile("|".join(re.escape(word) for word in PASSWORDS.values()).encode())
    for person in (ann, ben):
        for printed, _ in left[person.name]:
            assert not secret.search(printed.encode())
        for folder, _, files in os.walk(person.output):
            for name in files:
                with contextlib.suppress(FileNotFoundError):
                    assert not secret.search(Path(folder, name).read_bytes()), Path(folder, name)
    # Of what was recorded itself; of the whole dump, users are no part.
    for table in ("ExecutionProperty", "ArtifactProperty", "ContextProperty"):
        assert not secret.search(server.sql(f"SELECT string_value FROM {table}", "graft").encode())
