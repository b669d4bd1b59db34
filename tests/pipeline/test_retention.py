"""S5: old runs, what their steps left, and versions go; never what is in service, nor what a person put there."""

import json
import os
import shutil
import signal
import time

import pytest

from components.errors import OutputBusy, UsageError
from components.publishing import rollback
from pipeline.again import report
from pipeline.diff import diff
from pipeline.output import Output
from pipeline.retention import clean, disk
from pipeline.runs import runs
from pipeline.show import show
from pipeline.show_version import show_version
from tests.pipeline.outputs import Recorder
from tests.pipeline.retained import (
    DELETED,
    Retained,
    clean_in_a_process,
    run_id,
    settings,
    states,
    tree,
    versions,
)


@pytest.fixture
def made(tmp_path, monkeypatch) -> Retained:
    monkeypatch.setenv("COLUMNS", "80")
    return Retained(tmp_path / "out")


def applied(made, dry_run: bool = False, **retention) -> dict:
    return clean.apply(settings(**retention), made.output, dry_run)


def folders(made) -> list[str]:
    return sorted(path.name for path in made.output.all_runs())


KINDS = ("artifact", "leftover", "run")


# ---- how much stays -------------------------------------------------------------------------------------------------


def test_s5_disk_is_flat_over_many_runs_and_what_is_in_service_stays(made):
    sizes, counts, database = [], [], []
    for number in range(32):
        # A week in which nothing passes: the model in service gets older than what count alone would keep.
        blessed = not 12 <= number < 24
        made.run(run_id(number), blessed=blessed)
        if blessed:
            published = run_id(number)
        if number == 30:
            rollback(made.output.serving)
        applied(made, runs=5)
        sizes.append(disk.size(made.output.root) - disk.size(made.output.metadata))
        counts.append(len(tree(made.output)))
        database.append(disk.size(made.output.metadata))
        assert (made.output.runs / published / "summary.json").is_file()
        assert made.folders_of(published)
    # 5 runs, or 5 and those that made what is in service and what that was compared with.
    assert len(folders(made)) <= 5 + 2
    assert max(sizes[20:]) < max(sizes[6:12]) * 1.5 and max(counts[20:]) < max(counts[6:12]) * 1.5
    assert max(database) - database[0] < 32 * 40_000
    assert not any("removed" in path for path in tree(made.output))


def test_artifacts_that_a_kept_run_took_from_the_cache_stay(made):
    made.run(run_id(0))
    ingested = {path for path in made.folders_of(run_id(0)) if "/ImageExampleGen/" in path or "/Transform/" in path}
    for number in (1, 2, 3):
        made.run(run_id(number), cached=("ImageExampleGen", "Transform"))
    applied(made, runs=1)
    assert folders(made) == [run_id(2), run_id(3)]  # the last is in service, the one before it its baseline
    left = tree(made.output, "artifacts")
    assert ingested and all(str(path).removeprefix(f"{made.output.root}/") in left for path in ingested)
    assert not [path for path in left if path.startswith("artifacts/Trainer/model/") and path.endswith(("/3", "/8"))]
    gone = {uri for uri, state in states(made.output).items() if state == DELETED}
    assert gone and not gone & ingested and not any(os.path.exists(uri) for uri in gone)


def test_newest_run_the_newest_finished_one_and_where_latest_points_always_stay(made):
    for number in range(3):
        made.run(run_id(number), blessed=number != 1)
    made.output.point_latest(made.output.runs / run_id(0))
    for number in (3, 4):
        made.recorder.run(run_id(number), ends="Trainer")
        (made.output.runs / run_id(number)).mkdir()
        (made.output.runs / run_id(number) / "log.txt").touch()
    applied(made, runs=1)
    assert folders(made) == [run_id(0), run_id(2), run_id(4)]


def test_age_is_counted_by_the_clock_of_this_machine(made, tmp_path):
    for number in range(4):
        made.run(run_id(number))
    now, clock = versions(made.output), tmp_path / "clock"
    last = time.mktime(time.strptime(run_id(3), "%Y%m%d-%H%M%S"))

    def cleaned(at: float) -> None:
        clock.write_text(str(at - time.time()))
        done = clean_in_a_process(made.output, "--set", "schedule.retention.days=2.5", GRAFT_TEST_CLOCK=str(clock))
        assert done.returncode == 0, done.stderr

    cleaned(last + 3600)
    assert folders(made) == [run_id(1), run_id(2), run_id(3)] and versions(made.output) == now
    # Versions are as young as this test.
    cleaned(time.time() + 2 * 86400)
    assert folders(made) == [run_id(2), run_id(3)] and versions(made.output) == now
    cleaned(time.time() + 3 * 86400)
    assert versions(made.output) == now[-2:]


def test_after_a_rollback_its_model_and_what_it_replaced_stay(made):
    for number in range(4):
        made.run(run_id(number))
    first, _, _, last = versions(made.output)
    copy = rollback(made.output.serving, first).version
    done = applied(made, runs=1, disk_gib=0.0000001)
    assert versions(made.output) == [first, last, copy]
    assert not done["fits"] and "more than schedule.retention.disk_gib allows" in clean.sentence(done)
    assert (made.output.runs / run_id(0)).is_dir() and made.folders_of(run_id(0))


def test_budget_takes_caches_then_artifacts_then_folders_then_versions(made):
    for number in range(5):
        made.run(run_id(number))
    (made.output.cache / "features-1").mkdir()
    (made.output.cache / "features-1" / "0.npy").write_bytes(b"x" * 100_000)
    whole = applied(made)["size"]

    def over(less: int) -> list[str]:
        plan = applied(made, dry_run=True, disk_gib=(whole - less) / 2**30)
        assert plan["fits"] and plan["size"] <= whole - less
        return list(dict.fromkeys(item["kind"] for item in plan["removed"]))

    everything = applied(made, dry_run=True, disk_gib=0.0000001)["removed"]
    sizes = {kind: sum(item["bytes"] for item in everything if item["kind"] == kind) for kind in KINDS}
    assert over(1000) == ["cache"]
    assert over(150_000) == ["cache", "artifact", "leftover"]
    assert over(105_000 + sizes["artifact"] + sizes["leftover"] + 10_000) == ["cache", "artifact", "leftover", "run"]
    assert over(105_000 + sum(sizes.values()) + 50_000)[-1] == "version"
    applied(made, disk_gib=0.0000001)
    assert folders(made) == [run_id(3), run_id(4)] and len(versions(made.output)) == 2


def test_searches_go_as_runs_do_and_take_no_place_of_theirs(made):
    for number in range(3):
        made.run(run_id(number))
    made.output.tunes.mkdir()
    for number in range(4, 8):
        folder = made.output.tunes / run_id(number)
        folder.mkdir()
        (folder / "trials.jsonl").touch()
        made.recorder.run(run_id(number), ends="Trainer")
    applied(made, runs=2)
    assert sorted(path.name for path in made.output.tunes.iterdir()) == [run_id(6), run_id(7)]
    assert folders(made) == [run_id(1), run_id(2)]


def test_only_the_newest_ticks_stay_and_one_that_is_being_written_is_not_lost(made):
    made.run(run_id(0))
    for number in range(10):
        made.output.record_tick({"number": number})
    with made.output._ticks_held():
        done = clean_in_a_process(made.output, "--set", "schedule.retention.ticks=4", "--dry-run", "--json")
    assert [item["kind"] for item in json.loads(done.stdout)["removed"]] == ["ticks"]
    applied(made, ticks=4)
    made.output.record_tick({"number": 10})
    assert [json.loads(line)["number"] for line in made.output.ticks.read_text().splitlines()] == [6, 7, 8, 9, 10]


# ---- what is left of what failed ------------------------------------------------------------------------------------


def test_leftovers_of_steps_that_failed_and_of_killed_processes_go(made):
    made.run(run_id(0))
    made.run(run_id(1))
    failed = run_id(2)
    made.recorder.run(failed, ends="Trainer")
    number = max(each.id for each in made.recorder.store.get_executions())
    half = made.output.artifacts / "Trainer" / "model" / str(number)
    system = made.output.artifacts / "Trainer" / ".system" / "executor_execution" / str(number) / ".temp"
    foreign = made.output.artifacts / "Trainer" / "model" / "999"
    cache = [made.output.cache / name for name in ("in_service", "graft-training-x", "training-1", "features-1")]
    for folder in (half, system, foreign, *cache):
        folder.mkdir(parents=True)
    (made.output.runs / failed).mkdir()
    (made.output.runs / failed / "log.txt").touch()
    applied(made)
    assert not half.exists() and not system.exists() and foreign.is_dir()
    # The next run goes on with the training that this one did not finish.
    assert [folder.exists() for folder in cache] == [False, False, True, True]
    made.run(run_id(3))
    applied(made)
    assert [folder.exists() for folder in cache] == [False, False, False, True]


# ---- what is not Graft's ---------------------------------------------------------------------------------------------


def test_what_a_person_put_there_or_changed_stays_and_is_told_of(made, tmp_path):
    for number in range(3):
        made.run(run_id(number))
    mine = made.output.runs / run_id(0) / "notes.txt"
    mine.write_text("mine")
    others = [made.output.runs / "mine", made.output.runs / "20250101-000000", made.output.artifacts / "mine"]
    others += [made.output.artifacts / "Trainer" / "model" / "mine"]
    for folder in others:
        folder.mkdir()
        (folder / "file").write_text("mine")
    changed = next(path for path in made.folders_of(run_id(0)) if "/catalog/" in path)
    with open(f"{changed}/images.jsonl", "a") as file:
        os.utime(file.fileno(), (time.time() + 600,) * 2)
    outside = tmp_path / "outside"
    shutil.move(made.output.artifacts / "Trainer" / "model" / "3", outside)
    (made.output.artifacts / "Trainer" / "model" / "3").symlink_to(outside)
    done = applied(made, runs=1)
    told = {each["path"]: each["why"] for each in done["left"]}
    assert mine.read_text() == "mine" and "notes.txt in it is not Graft's" in told[str(mine.parent)]
    assert sorted(path.name for path in mine.parent.iterdir()) == ["notes.txt", "steps.json", "summary.json"]
    assert all((folder / "file").read_text() == "mine" for folder in others)
    assert "newer than the step that made it" in told[changed] and states(made.output)[changed] != DELETED
    assert outside.is_dir() and (made.output.artifacts / "Trainer" / "model" / "3").is_symlink()
    assert applied(made, runs=1)["removed"] == []


def test_version_that_was_copied_in_stays_however_old_its_number(made, tmp_path):
    other = Retained(tmp_path / "other")
    other.run(run_id(0))
    (theirs,) = versions(other.output)
    for number in range(3):
        made.run(run_id(number))
    for name in ("5", "1500000000"):
        shutil.copytree(other.output.serving / str(theirs), made.output.serving / name)
    applied(made, days=30, disk_gib=0.0000001)
    assert {5, 1500000000} < set(versions(made.output))


def test_what_is_put_where_a_step_died_stays_and_the_rest_of_what_it_left_goes(made):
    made.run(run_id(0))
    folders = []
    for number in (1, 2):
        made.recorder.run(run_id(number), ends="Trainer")
        execution = max(each.id for each in made.recorder.store.get_executions())
        folders.append(made.output.artifacts / "Trainer" / "model" / str(execution))
        folders[-1].mkdir(parents=True)
    made.age()
    made.run(run_id(3))
    mine = folders[0] / "mine.txt"
    mine.touch()
    os.utime(mine, (time.time() + 600,) * 2)
    done = applied(made)
    assert mine.is_file() and not folders[1].exists()
    assert str(folders[0]) in {each["path"] for each in done["left"]}


def test_serving_folder_that_is_not_there_today_costs_nothing_that_belongs_to_it(made, tmp_path):
    for number in range(4):
        made.run(run_id(number))
    statistics = made.output.schema / "published_statistics"
    statistics.mkdir()
    for version in versions(made.output):
        (statistics / f"{version}.pb").touch()
    shutil.move(made.output.serving, tmp_path / "unmounted")
    done = applied(made, runs=1)
    assert done["removed"] == [] and "is it on a disk that is not mounted?" in done["problems"][0]
    shutil.move(tmp_path / "unmounted", made.output.serving)
    assert applied(made, runs=1)["removed"] and len(folders(made)) == 2


def test_copy_of_a_folder_with_its_history_on_a_server_is_not_cleaned(made, tmp_path):
    made.run(run_id(0))
    note = {"server": "mysql://ann@127.0.0.1:9/graft", "folder": "f00d", "root": str(made.output.root)}
    (made.output.root / "metadata.json").write_text(json.dumps(note))
    copy = tmp_path / "copy"
    shutil.copytree(made.output.root, copy, symlinks=True)
    with pytest.raises(UsageError, match="is a copy of"):
        clean.apply(settings(), Output(copy))


def test_copy_of_an_output_folder_removes_nothing_of_the_first(made, tmp_path):
    for number in range(4):
        made.run(run_id(number))
    before, copy = tree(made.output), Retained(tmp_path / "copy")
    shutil.rmtree(copy.output.root)
    shutil.copytree(made.output.root, copy.output.root, symlinks=True)
    done = clean.apply(settings(runs=1), copy.output)
    assert [item["kind"] for item in done["removed"]].count("artifact") > 5
    assert tree(made.output) == before and not any(state == DELETED for state in states(made.output).values())
    assert all(str(copy.output.root) in item["path"] for item in done["removed"])


def test_runs_that_were_moved_away_take_no_artifacts_with_them(made, tmp_path):
    for number in range(3):
        made.run(run_id(number))
    before = tree(made.output, "artifacts")
    shutil.move(made.output.runs, tmp_path / "elsewhere")
    made.output.runs.mkdir()
    applied(made, runs=1)
    assert tree(made.output, "artifacts") == before


def test_dry_run_lists_what_would_go_and_changes_nothing(made):
    for number in range(4):
        made.run(run_id(number))
    before = tree(made.output), states(made.output)
    listed = clean_in_a_process(made.output, "--set", "schedule.retention.runs=1", "--dry-run")
    assert f"{made.output.runs / run_id(0)}  0.0 MB" in listed.stdout
    assert "(over schedule.retention.runs (1))" in listed.stdout and "Would remove" in listed.stdout
    assert (tree(made.output), states(made.output)) == before


def test_folder_that_a_run_holds_or_that_is_none_is_left_alone(made, tmp_path):
    for number in range(3):
        made.run(run_id(number))
    before = tree(made.output)
    with made.output.held(), pytest.raises(OutputBusy):
        applied(made, runs=1)
    assert tree(made.output) == before
    (tmp_path / "runs").mkdir()
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UsageError):
            clean.clean(folder, settings(), False, False)


# ---- kills ----------------------------------------------------------------------------------------------------------

# What touches files counts: at the n-th, the process is killed.
KILL_AT = """
import os, signal
left, begun = {count}, False
def count(event, arguments):
    global left, begun
    if event in ("os.rename", "os.remove", "os.rmdir"):
        # What is removed inside of a folder is named without it.
        begun = begun or "/out/" in str(arguments[0])
        left -= begun
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
"""
KILL_AROUND_THE_NOTE = """
import os, signal
from ml_metadata import MetadataStore
note = MetadataStore.put_artifacts
def killed(*arguments, **more):
    {call}
    os.kill(os.getpid(), signal.SIGKILL)
MetadataStore.put_artifacts = killed
"""
MOMENTS = [KILL_AROUND_THE_NOTE.format(call=call) for call in ("pass", "note(*arguments, **more)")]
MOMENTS += [KILL_AT.format(count=count) for count in (1, 3, 7, 30, 100)]


def test_p1_s5_kill_at_any_moment_leaves_nothing_half_removed_that_a_run_would_use(made, tmp_path):
    for number in range(5):
        made.run(run_id(number))
    (made.output.cache / "in_service").mkdir()
    whole = tree(made.output)
    kept = tmp_path / "kept"
    shutil.copytree(made.output.root, kept, symlinks=True)
    applied(made, runs=2)
    expected = tree(made.output)
    assert len(whole - expected) > 40
    for before in MOMENTS:
        shutil.rmtree(made.output.root)
        shutil.copytree(kept, made.output.root, symlinks=True)
        ended = clean_in_a_process(made.output, "--set", "schedule.retention.runs=2", before=before)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        there = tree(made.output)
        for uri, state in states(made.output).items():
            name = uri.removeprefix(f"{made.output.root}/")
            files = {path for path in whole if path == name or path.startswith(f"{name}/")}
            assert state == DELETED or files <= there, (before, name)
        # A run that is on its way out is no run, for whoever looks.
        assert all((run / "summary.json").is_file() for run in made.output.all_runs())
        applied(made, runs=2)
        assert tree(made.output) == expected, before


# ---- looking back ---------------------------------------------------------------------------------------------------


def test_commands_speak_of_what_was_removed_without_failing(made, capsys):
    for number in range(4):
        made.run(run_id(number))
    version = versions(made.output)[0]
    # The folders of three runs stay, the artifacts of two.
    stays = settings(disk_gib=(disk.size(made.output.root) - 150_000) / 2**30)
    assert {item["kind"] for item in clean.apply(stays, made.output)["removed"]} == {"artifact", "leftover"}
    first, last = made.output.runs / run_id(0), made.output.runs / run_id(3)
    show(first, False)
    diff(first, last, False)
    show_version(str(version), made.output.root, False)
    report(first, None)
    applied(made, runs=1)
    capsys.readouterr()
    runs(made.output.root, None, False)
    assert capsys.readouterr().out.count("folder removed") == 2
    show_version(str(version), made.output.root, False)
    assert f"by run {run_id(0)} (its folder was" in capsys.readouterr().out
    for command in (lambda: show(first, False), lambda: diff(first, last, False), lambda: report(first, None)):
        with pytest.raises(UsageError, match="was removed"):
            command()


def test_runs_of_other_folders_on_a_shared_server_are_nobodys_business(made, tmp_path):
    for number in range(2):
        made.run(run_id(number))
    other = Recorder(made.output, made.recorder.store, "@another")
    other.run(run_id(9))
    from pipeline.retention.recorded import _read

    own = _read(made.recorder.store, "@another", made.output.artifacts)
    assert set(own.uses) == {run_id(9)} and len(own.executions) == 5
    assert not own.uses[run_id(9)] & {*range(1, 15)}
