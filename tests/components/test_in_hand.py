"""An image that ends whoever works on it leaves no error; what was in hand tells."""

import multiprocessing
import os
import signal

import pytest

from components import broken_image, in_hand
from components.errors import ImageFailed, Passing

FORK = multiprocessing.get_context("fork")


def _die_on_poison(item: dict) -> None:
    if item["path"] == "poison.jpg":
        os.kill(os.getpid(), signal.SIGSEGV)


def _live(item: dict) -> None:
    raise ValueError("told by itself")


def _work(folder: str, before: list, last: list, end: int) -> None:
    hand = in_hand.InHand(folder)
    with hand.holding(before):
        pass
    with hand.holding(last):
        os.kill(os.getpid(), end)


def _worker(folder, last: list[str], end: int = signal.SIGKILL) -> None:
    process = FORK.Process(
        target=_work, args=(str(folder), [{"path": "a" * 500}], [{"path": path} for path in last], end)
    )
    process.start()
    process.join()
    assert process.exitcode == -end


def _named(item: dict, happened: str) -> ImageFailed:
    return broken_image.of_path(item["path"], happened)


def _fail(folder, attempt, error: Exception | None = None) -> Exception:
    with pytest.raises(Exception) as caught, in_hand.blamed(str(folder), attempt, _named, "cannot be checked"):
        raise error or RuntimeError("a worker ended")
    return caught.value


def test_image_that_ends_a_second_process_too_is_named_among_those_in_hand(tmp_path):
    _worker(tmp_path / "notes", ["fine.jpg", "poison.jpg", "other.jpg"])
    error = _fail(tmp_path / "notes", _die_on_poison)
    assert str(error) == "poison.jpg cannot be checked (a process that tries to ends by SIGSEGV)."
    assert isinstance(error, ImageFailed) and error.image == "poison.jpg"
    assert str(error.__cause__) == "a worker ended"


def test_image_that_several_workers_died_of_elsewhere_is_named(tmp_path):
    """Here may be more memory than there."""
    for last in (["huge.jpg"], ["fine.jpg"], ["huge.jpg"], ["huge.jpg"]):
        _worker(tmp_path / "notes", last)
    assert str(_fail(tmp_path / "notes", _live)) == (
        "huge.jpg cannot be checked (3 worker processes ended, one after the other, while they worked on it)."
    )


@pytest.mark.parametrize("lasts", [[], [["fine.jpg"]], [["fine.jpg"]] * 2, [["fine.jpg", "other.jpg"]] * 3])
def test_no_image_is_named_by_chance(tmp_path, lasts):
    for last in lasts:
        _worker(tmp_path / "notes", last)
    assert str(_fail(tmp_path / "notes", _live)) == "a worker ended"


def test_worker_that_only_failed_leaves_no_note(tmp_path):
    hand = in_hand.InHand(str(tmp_path))
    with pytest.raises(ValueError), hand.holding(["fine.jpg"]):
        raise ValueError("told by itself")
    assert in_hand.left(tmp_path) == []
    hand.close()


@pytest.mark.parametrize(
    "told",
    [
        RuntimeError("Traceback (most recent call last):\nValueError: of another image"),
        RuntimeError("Pipeline job failed in state CANCELLED: unknown error"),
        Passing("The job server went away."),
    ],
)
def test_error_that_was_told_is_not_laid_at_what_workers_had_in_hand_as_they_were_ended(tmp_path, told):
    _worker(tmp_path / "notes", ["poison.jpg"])
    assert _fail(tmp_path / "notes", _die_on_poison, told) is told


def test_note_that_was_cut_off_says_nothing(tmp_path):
    (tmp_path / "cut").write_bytes(b"0000000099[")
    (tmp_path / "empty").touch()
    assert str(_fail(tmp_path, _live)) == "a worker ended"


@pytest.mark.parametrize(
    ("scratch", "arguments", "noted"),
    [
        ("/tmp/x", ["--runner=FnApiRunner"], False),
        ("gs://bucket/x", ["--runner=pipeline.job.Runner"], False),
        ("/tmp/x", ["--direct_running_mode=multi_processing"], True),
        ("/tmp/x", ["--runner=pipeline.job.Runner"], True),
    ],
)
def test_notes_are_for_workers_that_can_end_alone(scratch, arguments, noted):
    assert (in_hand.folder(scratch, "checked", arguments) is not None) == noted
