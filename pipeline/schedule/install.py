"""`graft schedule install`: what makes systemd or cron of this machine run a schedule."""

import getpass
import os
import shlex
import shutil
import sys
from pathlib import Path

import click

from components.errors import UsageError
from components.sources import absolute
from pipeline.output import Output
from pipeline.schedule.places import Places
from pipeline.schedule.plan import Asked, Plan, read_plan

UNIT = """\
# /etc/systemd/system/{name}.service
[Unit]
Description=Graft keeps {description}
Wants=network-online.target
After=network-online.target time-sync.target

[Service]
Type=exec
User={user}
WorkingDirectory={folder}
ExecStart={command}
Restart=on-failure
RestartSec=60
# The schedule ends its run itself; what is left after that is killed.
KillMode=mixed
TimeoutStopSec=30
# A run that memory runs out for is tried again by the schedule, which goes on.
OOMPolicy=continue
ProtectSystem=full
ProtectControlGroups=yes

[Install]
WantedBy=multi-user.target
"""


def install(asked: Asked, output_folder: Path, systemd: bool) -> None:
    """Prints a service unit, or a line of a crontab.

    Args:
      asked: as for `graft schedule run`; without images and expression, what is kept in the output folder goes on.
      output_folder: as for `graft run`.
      systemd: whether a unit is wanted.

    Raises:
      UsageError: something is not what it should be, or cannot be said there.
    """
    if not systemd and asked.cron is None:
        raise UsageError("Give --systemd for a service unit, or --cron EXPRESSION for a line of a crontab.")
    if not systemd and asked.time_zone is not None:
        raise UsageError("--time-zone is for --systemd: cron goes by the time zone of the machine.")
    places = Places(Output(output_folder.absolute()))
    plan = asked.plan(read_plan(places.plan))
    click.echo(_unit(asked, plan, places) if systemd else _line(asked, plan, places), nl=False)


def _unit(asked: Asked, plan: Plan, places: Places) -> str:
    words = [*_graft(), "schedule", "run", "--output", str(places.output.root), *_options(asked, plan, systemd=True)]
    folder = os.getcwd()
    for path in (folder, str(places.output.root)):
        if not path.isprintable():
            raise UsageError(f"A unit of systemd cannot name {path!r}; give folders whose names are printable.")
    return UNIT.format(
        name=f"graft-{places.output.root.name}" if _is_plain(places.output.root.name) else "graft-schedule",
        description=str(places.output.root).replace("%", "%%"),
        user=getpass.getuser(),
        folder=folder.replace("%", "%%"),
        command=" ".join(map(_systemd_word, words)),
    )


def _line(asked: Asked, plan: Plan, places: Places) -> str:
    words = [*_graft(), "schedule", "run", "--once", "--output", str(places.output.root)]
    words += _options(asked, plan, systemd=False)
    log = shlex.quote(f"{places.output.root.name}-schedule.log")
    command = f"cd {shlex.quote(os.getcwd())} && {shlex.join(words)} >>{log} 2>&1"
    if not command.isprintable():
        raise UsageError(f"A crontab cannot say {command!r}; give names without line breaks.")
    # To cron, a percent sign ends the command.
    return f"{plan.cron}  {command.replace('%', chr(92) + '%')}\n"


def _options(asked: Asked, plan: Plan, systemd: bool) -> list[str]:
    """What was given; without it, the command goes on with what is kept."""
    options = [("--images", absolute(image)) for image in asked.images]
    if systemd and asked.cron is not None:
        options += [("--cron", plan.cron), ("--time-zone", plan.time_zone)]
    options += [("--config", plan.config)] if asked.config else []
    options += [("--set", override) for override in asked.overrides]
    return [word for option in options for word in option]


def _graft() -> list[str]:
    """The command, as whoever has another PATH calls it."""
    beside = Path(sys.executable).with_name("graft")
    # Not resolved: the Python of a virtual environment is a link out of it.
    found = str(beside) if beside.is_file() else shutil.which("graft")
    return [os.path.abspath(found)] if found else [sys.executable, "-m", "pipeline"]


def _is_plain(name: str) -> bool:
    return name.isascii() and name.replace("-", "").replace("_", "").isalnum()


def _systemd_word(word: str) -> str:
    """A word of a command line as systemd reads it: quotes, specifiers (%) and variables ($)."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    escaped = "".join(c if c.isprintable() else "".join(f"\\x{byte:02x}" for byte in os.fsencode(c)) for c in escaped)
    return escaped if escaped and escaped == word and not set(word) & set(" ';") else f'"{escaped}"'
