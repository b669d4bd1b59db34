"""The unit and the crontab line that are printed do what they say, whatever folders are called."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import UsageError
from pipeline import cli
from pipeline.output import Output
from pipeline.schedule.places import Places
from pipeline.schedule.plan import Plan

ODD = """a b%h $HOME "q" 'x' \N{LATIN SMALL LETTER E WITH ACUTE}"""
WEEKLY = "0 3 * * 1"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a name that every shell stumbles over; in it the command, which notes its arguments."""
    folder = tmp_path / ODD
    (folder / "images").mkdir(parents=True)
    command = tmp_path / "bin" / "graft"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([os.getcwd(), *sys.argv[1:]]))\n")
    command.chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "executable", str(command.with_name("python")))
    return folder


def printed(capsys, *options: str) -> str:
    cli.graft.main(["schedule", "install", "--output", "out", *options], standalone_mode=False)
    return capsys.readouterr().out


def test_line_of_a_crontab_runs_one_tick_with_what_was_given(folder, capsys):
    given = ("--cron", WEEKLY, "--images", "images", "--set", "data.split.group=(\\d+)%.*")
    line = printed(capsys, *given)
    match = re.fullmatch(r"0 3 \* \* 1  (.*)\n", line)
    # To cron, a percent sign that is not escaped ends the command.
    assert not re.search(r"(?<!\\)%", match[1])
    subprocess.run(["/bin/sh", "-c", match[1].replace("\\%", "%")], cwd="/", env={}, check=True)
    said = eval((folder / "out-schedule.log").read_text())
    assert said == [
        str(folder), "schedule", "run", "--once", "--output", str(folder / "out"), "--images", str(folder / "images"),
        "--set", "data.split.group=(\\d+)%.*",
    ]  # fmt: skip


def test_unit_is_one_that_systemd_takes(folder, capsys, tmp_path):
    unit = printed(capsys, "--systemd", "--cron", WEEKLY, "--time-zone", "Europe/Paris", "--images", "images")
    assert "Restart=on-failure\n" in unit and "KillMode=mixed\n" in unit and "TimeoutStopSec=30\n" in unit
    assert f"\nWorkingDirectory={str(folder).replace('%', '%%')}\n" in unit
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    words = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', command)
    read = [(quoted or plain).replace('\\"', '"').replace("%%", "%").replace("$$", "$") for quoted, plain in words]
    assert read == [
        str(tmp_path / "bin" / "graft"), "schedule", "run", "--output", str(folder / "out"), "--images",
        str(folder / "images"), "--cron", WEEKLY, "--time-zone", "Europe/Paris",
    ]  # fmt: skip
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    file = tmp_path / "graft-out.service"
    file.write_text(unit)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_unit_of_a_schedule_that_is_kept_goes_on_with_it(folder, capsys):
    output = Output(Path("out").absolute())
    output.prepare()
    places = Places(output)
    places.prepare()
    Plan([str(folder / "images")], WEEKLY).write(places.plan)
    unit = printed(capsys, "--systemd")
    assert "--images" not in unit and "--cron" not in unit


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "Give --systemd for a service unit, or --cron EXPRESSION"),
        (("--systemd",), "give --images SOURCE and --cron EXPRESSION"),
        (("--cron", WEEKLY, "--time-zone", "Europe/Paris", "--images", "images"), "--time-zone is for --systemd"),
        (("--cron", WEEKLY, "--images", "images/\n"), "A crontab cannot say"),
    ],
)
def test_what_cannot_be_printed_is_refused(folder, capsys, options, said):
    (folder / "images" / "\n").mkdir()
    with pytest.raises(UsageError, match=re.escape(said)):
        printed(capsys, *options)
    assert not os.path.exists("out")
