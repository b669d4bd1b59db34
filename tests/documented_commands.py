"""The rules by which the commands of the documentation are obeyed; a command, or a block, without a rule fails.

What is cheap runs as it is, in a folder with what the pages talk about; what trains is checked by `graft check` with
the same images, configuration and settings; what needs another machine is recognised, part by part.
"""

import ast
import configparser
import os
import re
import shlex
import shutil
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

import click
import nbformat
import pytest
import yaml

from components.serving_places import open_serving
from pipeline import cli
from pipeline import config as configuration
from tests.conftest import ROOT
from tests.documentation import Text, words_nobody_says


@dataclass
class Scratch:
    """A folder with images, an output of a run in which several versions were published, photos and recipes.

    Attributes:
      folder: the working directory of the pages' commands.
      notebook: docs/notebook.ipynb with its outputs, whose run made the output folder.
      server: address of `graft serve out/serving`.
    """

    folder: Path
    notebook: nbformat.NotebookNode
    server: str = ""

    @property
    def run(self) -> str:
        return os.readlink(self.folder / "out" / "runs" / "latest")

    @property
    def version(self) -> str:
        """One that is not in service."""
        return str(open_serving(str(self.folder / "out" / "serving")).versions()[0])

    def adapted(self, text: str) -> str:
        """With versions, runs and places that there are."""
        text = re.sub(r"\b1[67]\d{8}\b", self.version, text)
        text = re.sub(r"\b20\d{6}-\d{6}\b", self.run, text)
        return text.replace("/srv/signs/", "").replace("/opt/graft/.venv/bin/", "")


# ---- commands -------------------------------------------------------------------------------------------------------

PROGRAMS = ("graft", "make", "docker", "python", "pip", "source", "curl", "echo", "cd", "systemctl", "journalctl")
PROGRAMS += ("prometheus-node-exporter", "rsync", "ssh", "tensorboard", "kubectl", "gcloud")
PROMPT = "$ "
CRON = re.compile(r"(?:[\d*/,-]+ +){5}(?P<command>.+)")
ASSIGNMENT = re.compile(r"[A-Z0-9]+=")
# How lines begin that stand below a command and are its answer.
ANSWERS = re.compile(r"\{|Run \d{8}-\d{6}|Version \d+ ")
# Blocks that are no commands, by their first line.
PYTHON = re.compile(r"(import|from|def) |\w+ = ")
OPTIONS = re.compile(r"--\w")
UNIT = re.compile(r"\[Unit\]")
PROXY = re.compile(r"server \{")
# Executed by tests/pipeline/test_metadata_store.py, on a server.
SQL = re.compile(r"CREATE DATABASE ")
FOLDERS = re.compile(r"\w+/( |$)")
# Of Prometheus: what it asks, and what it makes of the answers.
PROMETHEUS = re.compile("(scrape_configs|groups):$")
# A configuration, or a part of one; the comment gives it a name for the commands below it.
YAML = re.compile(r"# (?P<name>\w+\.yaml)|[a-z]+:$")
# Of a pod, in whatever makes one.
POD = re.compile("containers:$")
MORE_SETTINGS = re.compile("… --set ")
# Lines that begin like a command, and are what the program says.
SPOKEN = re.compile(r"graft( setup)?: ")
# In what the program is quoted with: names of classes and folders, what other programs say, and numbers.
NAMES = {"ann", "signs", "PROJECT", "circle", "square", "triangle", "hexagon", "cats", "train", "out", "setup", "nan"}
OTHERS_SAY = (
    "Unknown image file format. One of JPEG, JPEG XL, PNG, GIF, BMP, WebP required",
    "Not a valid TFRecord. Mismatch of data mask",
    "No files found based on the file pattern",
    "Address already in use",
    "Host 'pc7' is not allowed to connect to this MariaDB server",
)
# Not Graft's: it is fetched, installed or run elsewhere.
IMAGES_OF_OTHERS = ("tensorflow/serving",)
# What `docker build -t graft .` and `make image` call it.
VERSION = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
OUR_IMAGES = ("graft", f"graft:{VERSION}")
UNITS = ("graft-serve.service", "retrain.timer", "retrain.service", "retrain", "graft-out")


def is_command(line: str) -> bool:
    known = line.split()[:1] and line.split()[0] in PROGRAMS
    return bool((known or ASSIGNMENT.match(line) or CRON.fullmatch(line)) and not SPOKEN.match(line))


def follow(block: Text, scratch: Scratch) -> None:
    """Does what a block says, by the rule for its first line."""
    lines = [line for line in block.lines if line.text.strip()]
    first = lines[0].text.strip()
    if is_command(first.removeprefix(PROMPT)):
        _type(block, scratch)
    elif OPTIONS.match(first):
        for line in lines:
            options = shlex.split(line.text, comments=True)
            _graft(line, ["check", *([] if "--images" in options else ["--images", "images"]), *options], scratch)
    elif PYTHON.match(first):
        ast.parse(block.text)
    elif UNIT.match(first):
        _unit(block, scratch)
    elif PROMETHEUS.match(first):
        _prometheus(block)
    elif POD.match(first):
        for container in yaml.safe_load(textwrap.dedent(block.text))["containers"]:
            assert container.get("args", ["--worker_pool"]) == ["--worker_pool"], block
    elif found := YAML.match(first):
        file = scratch.folder / (found["name"] or "part.yaml")
        file.write_text(textwrap.dedent(block.text))
        configuration.load(file, [])
    elif MORE_SETTINGS.match(first):
        for setting in re.findall(r"--set (\S+)", first):
            _graft(lines[0], ["check", "--images", "images", "--set", setting], scratch)
    else:
        if not (FOLDERS.match(first) or PROXY.match(first) or SQL.match(first)):
            _quoted(lines, block)


def _type(block: Text, scratch: Scratch) -> None:
    """Commands, and below them what they answer; where one has a prompt, what has none is an answer."""
    script, answers, answered = [], [], False
    prompted = any(line.text.strip().startswith(PROMPT) for line in block.lines)
    for line in block.lines:
        text = line.text.strip()
        command = text.removeprefix(PROMPT) if text.startswith(PROMPT) or not prompted else ""
        if is_command(command):
            answered = prompted
            if shell := _command(Text(line.page, line.line, command), scratch):
                script.append(shell)
        elif ANSWERS.match(text) or (answered and text):
            answered = True
            answers.append(line)
        else:
            assert not text or text.startswith("#"), f"no rule for {line}"
    _quoted([line for line in answers if not line.text.strip().startswith("{")], block)
    if script:
        _shell(block, script, scratch)


def _command(line: Text, scratch: Scratch) -> str | None:
    """Obeys a command by its rule, or gives it back for the shell."""
    text = scratch.adapted(line.text)
    if cron := CRON.fullmatch(text):
        directory, separator, text = cron["command"].partition(" && ")
        assert separator and directory.startswith("cd "), f"no rule for {line}"
        text = text.split(">>")[0]
    if text.split()[0] in ("curl", "echo", "cd") or ASSIGNMENT.match(text):
        return text
    program, *arguments = shlex.split(text, comments=True)
    RULES[program](line, arguments, scratch)
    return None


def _shell(block: Text, script: list[str], scratch: Scratch) -> None:
    """Runs lines of a block in one shell, against the server that is there."""
    if any("curl" in line for line in script) and not shutil.which("curl"):
        pytest.skip("needs curl")
    (scratch.folder / ".curlrc").write_text("fail\nsilent\nshow-error\n")
    text = "\n".join(["set -euo pipefail", *script]).replace("http://127.0.0.1:8501", scratch.server)
    environment = os.environ | {"CURL_HOME": str(scratch.folder)}
    done = subprocess.run(["bash", "-c", text], cwd=scratch.folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{block}{done.stderr}"


def _graft(line: Text, arguments: list[str], scratch: Scratch) -> None:
    """Runs a command of Graft; where it would train, `graft check` with the same images and settings."""
    name, *rest = arguments
    if name == "schedule":
        _schedule(line, rest, scratch)
        return
    parsed = _parsed(line, name, rest)
    if name == "deploy":
        # What a platform that is asked for its schedules says is tested with a server that stands for it.
        rest = [] if parsed["listing"] else [*rest, "--dry-run"]
        if not rest:
            return
    elif any("://" in word for word in rest) or name == "demo":
        return
    if name == "serve":
        # It is started once, by the fixture; the folder of a container is not here.
        assert (scratch.folder / parsed["model"]).is_dir() or parsed["host"] == "0.0.0.0", line
        return
    if name in ("run", "tune", "check") and parsed["images"]:
        name, rest = "check", _as_check(parsed, line.page)
    if name == "schedule":
        # It would tell the person of the page.
        assert "--config" not in rest or (scratch.folder / rest[rest.index("--config") + 1]).is_file(), line
        return
    if name == "predict" and parsed["output"]:
        parsed["output"].unlink(missing_ok=True)
    command = (name, *rest)
    if command in _done:
        return
    try:
        cli.graft.main([*command], standalone_mode=False)
    except SystemExit as ended:
        assert not ended.code, line
    except Exception as error:
        raise AssertionError(f"{line}\n{' '.join(command)}\n{error}") from error
    _done.add(command)


def _schedule(line: Text, arguments: list[str], scratch: Scratch) -> None:
    """Of what would wait for years, its images and settings are checked, and what would be printed for systemd."""
    name, *rest = arguments
    command = cli.graft.commands["schedule"].commands[name]
    try:
        parsed = command.make_context(name, list(rest)).params
    except click.UsageError as error:
        raise AssertionError(f"{line}\n{error.format_message()}") from None
    if name == "run":
        images = [word for image in parsed["images"] for word in ("--images", image)]
        if images:
            settings = [word for setting in parsed["overrides"] for word in ("--set", setting)]
            config = ["--config", str(parsed["config_file"])] if parsed["config_file"] else []
            _graft(line, ["check", *images, *config, *settings], scratch)
        if parsed["cron"]:
            rest = [word for word in rest if word != "--metrics-port" and word != str(parsed["metrics_port"])]
            cli.graft.main(["schedule", "install", "--systemd", *rest], standalone_mode=False)
    elif name == "install" or (scratch.folder / "out" / "schedule").is_dir():
        cli.graft.main(["schedule", *arguments], standalone_mode=False)


_done: set[tuple[str, ...]] = set()


def _as_check(parsed: dict, page: str) -> list[str]:
    """The options of `graft check` that say what a command says, without a download of weights."""
    images = ("folders",) if page == "configs/vgg16_directories.yaml" else parsed["images"]
    settings = list(parsed["overrides"])
    if not any(setting.startswith("model.weights=") for setting in settings):
        settings.append("model.weights=none")
    options = [("--images", image) for image in images] + [("--set", setting) for setting in settings]
    if parsed["config_file"]:
        options.append(("--config", str(parsed["config_file"])))
    return [word for option in options for word in option]


def _parsed(line: Text, name: str, arguments: list[str]) -> dict:
    assert name in cli.graft.commands, f"there is no graft {name}: {line}"
    try:
        command: click.Command = cli.graft.commands[name]
        if isinstance(command, click.Group):
            name, *arguments = arguments
            assert name in command.commands, f"there is no such command: {line}"
            command = command.commands[name]
        return command.make_context(name, list(arguments)).params
    except click.UsageError as error:
        raise AssertionError(f"{line}\n{error.format_message()}") from None


def _make(line: Text, arguments: list[str], scratch: Scratch) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in arguments:
        name, given, _ = word.partition("=")
        wanted = rf"^{name} \?=" if given else rf"^{name}:"
        assert re.search(wanted, makefile, re.MULTILINE), line


def _docker(line: Text, arguments: list[str], scratch: Scratch) -> None:
    """A build of our Dockerfile, a name for our image, a run of it with a command of ours; or an image of others."""
    verb, *rest = arguments
    if verb == "build":
        assert arguments == ["build", "-t", "graft", "."] and (ROOT / "Dockerfile").is_file(), line
    elif verb in ("tag", "push"):
        assert re.search("(^|/)graft:[0-9.]+$", rest[0]), line
    else:
        assert verb == "run", line
        for mounted in re.findall(r"\$PWD/?([^: ]*):", " ".join(rest)):
            assert (scratch.folder / mounted).is_dir(), line
        if not set(IMAGES_OF_OTHERS) & set(rest):
            (image,) = set(OUR_IMAGES) & set(rest)
            _in_our_image(line, rest[rest.index(image) + 1 :], scratch)


def _in_our_image(line: Text, arguments: list[str], scratch: Scratch) -> None:
    if arguments not in (["--version"], ["run", "…"]):
        _graft(line, arguments, scratch)


def _python(line: Text, arguments: list[str], scratch: Scratch) -> None:
    """A script of the repository that knows the options."""
    if arguments[0] == "-m":
        assert arguments[1] in ("ipykernel", "pipeline", "pytest"), line
        return
    script = ROOT / arguments[0]
    assert script.is_file(), line
    for option in re.findall(r"--[a-z-]+", " ".join(arguments[1:])):
        assert f'"{option}"' in script.read_text(), f"{option}: {line}"


def _pip(line: Text, arguments: list[str], scratch: Scratch) -> None:
    """An extra of ours, or of a package that we depend on."""
    command, package = arguments
    name, _, extra = package.rstrip("]").partition("[")
    project = (ROOT / "pyproject.toml").read_text()
    assert command == "install", line
    assert f"\n{extra} = [" in project if name == "graft-pipeline" else f'"{name}' in project, line


def _source(line: Text, arguments: list[str], scratch: Scratch) -> None:
    assert arguments == [".venv/bin/activate"], line


def _systemd(line: Text, arguments: list[str], scratch: Scratch) -> None:
    assert arguments[-1] in UNITS, line


def _copy(line: Text, arguments: list[str], scratch: Scratch) -> None:
    """To another machine; what is copied is there."""
    for word in arguments:
        assert not word.startswith("out/") or (scratch.folder / word).exists(), line


def _node_exporter(line: Text, arguments: list[str], scratch: Scratch) -> None:
    (folder,) = arguments
    assert folder == "--collector.textfile.directory=out/schedule", line


def _elsewhere(line: Text, arguments: list[str], scratch: Scratch) -> None:
    """On a cluster or in a project: one of the verbs that the pages need."""
    assert arguments[0] in ELSEWHERE[shlex.split(line.text)[0]], line


ELSEWHERE = {
    "kubectl": ("apply", "wait", "port-forward", "logs", "describe", "create"),
    "gcloud": ("services", "storage", "artifacts", "iam", "projects", "auth", "ai", "dataflow"),
}
RULES = {
    "kubectl": _elsewhere,
    "gcloud": _elsewhere,
    "graft": _graft,
    "make": _make,
    "docker": _docker,
    "python": _python,
    "pip": _pip,
    "source": _source,
    "systemctl": _systemd,
    "journalctl": _systemd,
    "prometheus-node-exporter": _node_exporter,
    "rsync": _copy,
    "ssh": _copy,
}


def _unit(block: Text, scratch: Scratch) -> None:
    """A systemd unit whose command is one of ours."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read_string(block.text)
    if unit.has_section("Service"):
        program, *arguments = shlex.split(scratch.adapted(unit["Service"]["ExecStart"]))
        assert program == "graft", block
        _graft(block, arguments, scratch)


def _prometheus(block: Text) -> None:
    """Rules about numbers that a schedule tells; Prometheus' own tool looks at them where it is there."""
    text = textwrap.dedent(block.text)
    rules = [rule for group in yaml.safe_load(text).get("groups", []) for rule in group["rules"]]
    told = (ROOT / "pipeline" / "schedule" / "metrics.py").read_text()
    for name in {name for rule in rules for name in re.findall(r"\bgraft_(\w+?)(?:_total)?\b", rule["expr"])}:
        assert re.search(rf'"(graft_)?{name}"', told), f"a schedule does not tell {name}: {block}"
    if rules and (promtool := shutil.which("promtool")):
        said = subprocess.run([promtool, "check", "rules", "/dev/stdin"], input=text, capture_output=True, text=True)
        assert said.returncode == 0, said.stderr


def _quoted(lines: list[Text], block: Text) -> None:
    """Every word is one that the program says in such a place."""
    text = " ".join(line.text.strip() for line in lines)
    for said in OTHERS_SAY:
        text = text.replace(said, "")
    unknown = [word for word in words_nobody_says(text) if word not in NAMES]
    assert not unknown, f"the program does not say {', '.join(unknown)}: {block}"
