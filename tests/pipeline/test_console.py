"""What a person sees of a run: on a terminal of any width, without one, in a notebook, and when nobody reads."""

import io
import re
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient
from rich.cells import cell_len

from components import progress
from pipeline.console import BETWEEN_LINES, Detail, Running, Steps
from pipeline.screen import Screen
from tests.conftest import ROOT
from tests.pipeline.terminal import pseudo_terminal, record

STAMP = r"\d\d:\d\d:\d\d  "
# A line break and an escape sequence, characters two columns wide, and one that turns the rest of a line around.
HOSTILE = "two\nlines \x1b[2J \u202e 日本語のクラス名"
# The beginning of what runs in processes and kernels of their own.
IMPORTS = """
import logging, os, subprocess, sys, time
from pathlib import Path
from components import progress
from pipeline.console import Detail, Steps, telling
"""


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture(autouse=True)
def on_xterm(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)


def train(clock: Clock, running: Running, seconds: int) -> None:
    """A step that has a lot to say, looked at every second."""
    progress.start(20 * 1000)
    for second in range(1, seconds):
        clock.seconds += 1
        progress.say(f"fine-tune, epoch {1 + second // 10} of 20", f"eval accuracy {second / 200:.3f}")
        progress.advance(100)
        running.look()


# ---- on a terminal --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [80, 40, 15])
@pytest.mark.parametrize("name", ["Train", HOSTILE])
def test_live_line_fits_is_written_over_and_leaves_nothing_behind(columns, name):
    with pseudo_terminal(columns) as (stream, shown):
        clock = Clock()
        running = Running(name, Screen(stream), clock)
        with running.watched():
            for text in ("frozen", HOSTILE):
                train(clock, running, 12)
                progress.start(1000, text)
                progress.advance(7)
                running.look()
                (row,) = shown().rows
                assert 0 < cell_len(row) < columns
        terminal = shown()
        assert terminal.rows == [] and not terminal.continued
        assert all(len(frame) <= 1 for frame in terminal.frames)


def test_on_a_narrow_terminal_the_most_important_stays():
    clock = Clock()
    with pseudo_terminal(80) as (stream, _):
        running = Running("Train", Screen(stream), clock)
        train(clock, running, 101)
        line = {columns: running.line(progress.now(), columns) for columns in (110, 79, 56, 39)}
    assert line[110].endswith("  fine-tune, epoch 11 of 20  100 images/s  1 min 40 s left  eval accuracy 0.500")
    assert line[79].endswith("  1 min 40 s  fine-tune, epoch 11 of 20  100 images/s  1 min 40 s left")
    assert line[56] == "  Train  1 min 40 s  epoch 11 of 20  1 min 40 s left"
    assert line[39] == "  Train  1 min 40 s  epoch 11 of 20"


def test_count_and_rate_of_what_they_count():
    clock = Clock()
    with pseudo_terminal(80) as (stream, _):
        running = Running("Publish", Screen(stream), clock)
        progress.start(40, "uploading", "files")
        for _ in range(8):
            clock.seconds += 1
            progress.advance(2)
            running.look()
        line = running.line(progress.now(), 79)
    assert line.endswith("  uploading  16 of 40  2.0 files/s  10 s left")


def test_lines_come_above_the_live_line():
    with pseudo_terminal(80) as (stream, shown):
        steps = Steps(stream)
        with steps.step("Train"):
            Running("Train", steps.screen, Clock()).look()
            steps.warn("look")
            assert shown().rows == ["warning: look", "  Train                             0 s"]
        assert shown().rows[0] == "warning: look"


def test_long_notes_and_warnings_are_broken_at_spaces_and_nothing_is_lost():
    note = "tflite: ValueError: no such operation in this runtime; " * 3 + "the log is /a/" + "long/" * 10 + "path"
    with pseudo_terminal(80) as (stream, shown):
        steps = Steps(stream)
        with steps.step("Convert") as result:
            result["note"] = note
        steps.warn(note)
        terminal = shown()
    words = " ".join(terminal.rows).split()
    assert len(terminal.continued) == 1, (
        "but for the path, which must stay one word, and is wider than the first's indent"
    )
    assert "".join(words).count("".join(note.split())) == 2


def test_two_spaces_in_a_name_stay_two():
    with pseudo_terminal(80) as (stream, shown):
        Steps(stream).warn("cat  1.jpg is odd.")
        assert shown().rows == ["warning: cat  1.jpg is odd."]


def test_sentences_are_broken_at_spaces_and_commands_to_copy_are_not():
    with pseudo_terminal(40) as (stream, shown):
        steps = Steps(stream)
        steps.say("  refused by recall (cat): 0.5 against 0.8; in service 0.9")
        steps.say("Next: graft serve /a/folder/with/a/name/that/is/long", whole=True)
        terminal = shown()
    assert terminal.rows[:2] == ["  refused by recall (cat): 0.5 against", "    0.8; in service 0.9"]
    assert terminal.continued == [3]
    assert "".join(terminal.rows[2:]) == "Next: graft serve /a/folder/with/a/name/that/is/long"


def test_no_color_and_dumb_terminals_are_respected(monkeypatch):
    def written() -> str:
        with pseudo_terminal(80) as (stream, shown):
            steps = Steps(stream)
            with steps.step("Train"):
                steps.warn("look")
            return shown().written

    assert "\x1b[33mwarning: \x1b[0mlook" in written()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "warning: look" in written()
    monkeypatch.setenv("TERM", "dumb")
    assert re.fullmatch(rf"{STAMP}Train \.\.\.\r\n{STAMP}warning: look\r\n{STAMP}Train +0\.0 s\r\n", written())


def test_encoding_without_an_ellipsis_or_without_the_names_still_fits():
    with pseudo_terminal(40, "latin-1") as (stream, shown):
        screen = Screen(stream)
        screen.show("Größe " + "日本" * 20)
        (row,) = shown().rows
    assert row.startswith("Größe \\u65e5") and row.endswith("...") and len(row) == 39


# ---- elsewhere ------------------------------------------------------------------------------------------------------


def test_without_a_terminal_a_long_step_says_now_and_then_where_it_is():
    stream, clock = io.StringIO(), Clock()
    running = Running("Train", Screen(stream), clock)
    train(clock, running, int(2.5 * BETWEEN_LINES))
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    for line, seconds, epoch in zip(lines, ("30 s", "1 min"), (4, 7), strict=True):
        expected = f"Train: {seconds}, fine-tune, epoch {epoch} of 20, 100 images/s, .* left, eval accuracy"
        assert re.match(STAMP + expected, line), line


def test_step_that_fails_or_is_interrupted_says_so():
    stream = io.StringIO()
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), Steps(stream).step("Train"):
            raise error
    assert re.findall(r"s  (\w+)$", stream.getvalue(), re.MULTILINE) == ["failed", "interrupted"]


def test_names_are_printed_as_they_are():
    """Rich, which used to print the lines, makes a cat of `:cat:`, and a style of `[red]`."""
    stream = io.StringIO()
    Steps(stream).say("Lowest recall: :cat: [red]")
    assert stream.getvalue() == "Lowest recall: :cat: [red]\n"


# ---- more, and less -------------------------------------------------------------------------------------------------

RUN = """
with telling(Path(sys.argv[1]), Detail[sys.argv[2]], kept.append) as steps:
    with steps.step("Train") as result:
        print("noise of Python")
        os.write(2, b"noise of C\\n")
        progress.warn("Look at two\\nlines.")
        progress.warn("Look at two\\nlines.")
        result["note"] = "done"
    steps.say()
    steps.say("published")
"""


def run(tmp_path, detail: Detail) -> tuple[list[str], str]:
    """What a person sees of a small run, without timestamps, and the log."""
    code = f"{IMPORTS}kept = []\n{RUN}"
    log = tmp_path / "log.txt"
    command = [sys.executable, "-c", code, str(log), detail.name]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stderr == ""
    return [re.sub(rf"^{STAMP}", "", line) for line in done.stdout.splitlines()], log.read_text()


def test_quiet_prints_warnings_and_how_it_ended_and_nothing_else(tmp_path):
    lines, log = run(tmp_path, Detail.QUIET)
    assert lines == ["warning: Look at two\\nlines.", "published"]
    assert "noise of Python" in log and "noise of C" in log


def test_normally_steps_are_printed_and_what_libraries_print_is_in_the_log(tmp_path):
    lines, log = run(tmp_path, Detail.NORMAL)
    assert [re.sub(r"  +", " ", line) for line in lines] == [
        "Train ...",
        "warning: Look at two\\nlines.",
        "Train 0.0 s done",
        "",
        "published",
    ]
    assert "noise of Python" in log and "noise of C" in log


def test_verbose_shows_what_libraries_print_and_the_log_has_it_too(tmp_path):
    lines, log = run(tmp_path, Detail.VERBOSE)
    end = next(at for at, line in enumerate(lines) if line.endswith("done"))
    assert {"noise of Python", "noise of C"} <= set(lines[:end]), "before the line of the step that printed it"
    assert lines[-1] == "published"
    assert "noise of Python" in log and "noise of C" in log


def test_verbose_lines_change_nothing_in_the_terminal_and_stay_whole(tmp_path):
    code = f"""{IMPORTS}
with telling(Path(sys.argv[1]), Detail.VERBOSE, print) as steps, steps.step("Train"):
    os.write(1, b" 10% [==  ]\\r100% [====]\\n\\x1b[2Jcleared\\nno end")
"""
    ended, terminal = record([sys.executable, "-c", code, str(tmp_path / "log.txt")], 80)
    assert ended == 0
    assert {"100% [====]", "\\x1b[2Jcleared", "no end"} <= set(terminal.rows)
    assert [row for row in terminal.rows if "Train" in row] == ["  Train                           0.0 s"]


# ---- the end, whatever it is ----------------------------------------------------------------------------------------

LONG = """
try:
    with telling(Path(sys.argv[1]), Detail.NORMAL, print) as steps, steps.step("Train"):
        progress.say("frozen and on " * 9)
        {body}
except KeyboardInterrupt:
    sys.exit(1)
"""


@pytest.mark.parametrize(
    ("body", "keys", "code", "said"),
    [
        # Not one long pause: an interruption just before it would wait for its end.
        ("while True: time.sleep(0.02)", "\x03", 1, "interrupted"),
        ("raise SystemExit(3)", "", 3, "failed"),
    ],
)
def test_terminal_is_in_order_however_it_ends(tmp_path, body, keys, code, said):
    command = [sys.executable, "-c", IMPORTS + LONG.format(body=body), str(tmp_path / "log.txt")]
    # So narrow that the line is full: there is no room for what the terminal shows of a key.
    ended, terminal = record(command, 60, {"frozen": keys} if keys else {}, limit=60)
    assert ended == code
    assert not terminal.continued, "the cursor is at the beginning, so that ^C is written over, too"
    assert "\x1b[?25l" not in terminal.written, "a process that was killed could not bring the cursor back"
    (row,) = terminal.rows
    assert re.fullmatch(rf"  Train +\d+\.\d s  {said}", row), row


def test_run_goes_on_when_nobody_reads_any_more(tmp_path):
    code = f"""{IMPORTS}
with telling(Path(sys.argv[1]), Detail.NORMAL, print) as steps:
    for number in range(100):
        with steps.step(f"Step {{number}}"):
            pass
    Path(sys.argv[2]).write_text("to the end")
with Steps().step("after"):
    pass
sys.exit(4)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "log.txt"), str(tmp_path / "end")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert "Step 0" in process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 4
    assert (tmp_path / "end").read_text() == "to the end"


# ---- in a notebook --------------------------------------------------------------------------------------------------


def test_notebook_shows_steps_and_warnings_and_the_log_has_the_rest(tmp_path):
    log = tmp_path / "log.txt"
    cells = [
        f"{IMPORTS}\nlogging.getLogger('early').addHandler(logging.StreamHandler())\n"
        "logging.getLogger('other').addHandler(logging.lastResort); print('before')",
        f"""
with telling(Path({str(log)!r}), Detail.NORMAL, list().append) as steps, steps.step("Train"):
    print("noise of Python")
    print("noise of Python", file=sys.stderr)
    os.write(1, b"noise of C\\n")
    subprocess.run(["echo", "noise of a child"])
    logging.getLogger("early").warning("noise of a logger")
    logging.getLogger("other").warning("noise of another logger")
    logging.warning("noise of the root logger")
    progress.warn("Look.")
print("after"); logging.warning("said after")
""",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    resources = {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources=resources).execute()
    shown = [output["text"] for cell in notebook.cells for output in cell.outputs if output.output_type == "stream"]
    text = "".join(shown)
    assert re.search(rf"before\n{STAMP}Train \.\.\.\n{STAMP}warning: Look\.\n{STAMP}Train +\d\.\d s\n", text), text
    assert "after\n" in text and "said after" in text
    assert "noise" not in text
    noise = log.read_text()
    assert noise.count("noise of Python") == 2
    for source in ("C", "a child", "a logger", "another logger", "the root logger"):
        assert f"noise of {source}\n" in noise
