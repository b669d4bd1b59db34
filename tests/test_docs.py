"""The documentation is true where a machine can tell: commands run, quoted sentences are the program's, names exist."""

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
import yaml
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from components.publishing import publish
from pipeline import cli, config
from tests.conftest import ROOT
from tests.documentation import anchors, blocks, links, pages, program_texts, words, words_nobody_says
from tests.documented_commands import Scratch, follow
from tests.e2e.graft import draw, write_shapes
from tests.pipeline.served import serving

PAGES = pages()
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


# ---- what the pages talk about --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    write_shapes(folder / "images", 100)
    scratch = Scratch(folder, _executed(folder))
    _write_what_pages_name(folder)
    versions = folder / "out" / "serving"
    model = shutil.copytree(versions / scratch.version, folder / "model", ignore=lambda *_: ["checksums.sha256"])
    for _ in range(2):
        publish(model, str(versions), 5)
    with contextlib.chdir(folder), serving(versions) as server:
        scratch.server = server.url
        yield scratch


def _executed(folder: Path) -> nbformat.NotebookNode:
    """The notebook, run from top to bottom in that folder by this Python."""

    class OurKernel(KernelSpecManager):
        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python", language="python")

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    state = folder.with_name(f"{folder.name}-kernel")
    state.mkdir()
    places = {name: str(state) for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR")}
    kernel = AsyncKernelManager(kernel_spec_manager=OurKernel(), connection_file=str(state / "kernel.json"))
    client = NotebookClient(notebook, km=kernel, timeout=300, resources={"metadata": {"path": str(folder)}})
    return asyncio.run(client.async_execute(env=os.environ | places | {"PYTHONPATH": str(ROOT)}))


def _write_what_pages_name(folder: Path) -> None:
    import keras

    from trainer import backbones

    for name in ("configs", "benchmarks", "Makefile", "Dockerfile"):
        (folder / name).symlink_to(ROOT / name)
    draw("circle", 900).save(folder / "photo.jpg")
    for week in (1, 2):
        write_shapes(folder / "photos" / f"week-{week}", 8, first=week * 100)
    for fold, count, first in (("train", 20, 0), ("validation", 5, 50)):
        write_shapes(folder / "folders" / fold, count, first)
    shutil.copytree(folder / "photos" / "week-1", folder / "flower_photos")
    rows = [f"{path.relative_to(folder)},{path.parent.name}" for path in sorted(folder.glob("photos/week-*/*/*.jpg"))]
    (folder / "images.csv").write_text("\n".join(["path,label", *rows, ""]))
    (folder / "mine.yaml").write_text(yaml.safe_dump({"training": {"frozen": {"epochs": 20}}}))
    backbones.build("mobilenet_v2", 1.0, "none", 224).save_weights(folder / "backbone.weights.h5")
    keras.utils.clear_session()


# ---- the notebook ---------------------------------------------------------------------------------------------------


def _cell(notebook: nbformat.NotebookNode, source: str) -> nbformat.NotebookNode:
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.startswith(source)]
    return cell


def _printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def test_notebook_prints_the_lines_of_the_run_and_nothing_of_the_libraries(scratch):
    lines = _printed(_cell(scratch.notebook, "run = graft.run(")).splitlines()
    assert [line for line in lines if re.match(r"\d\d:\d\d:\d\d  Train  ", line)]
    assert [line for line in lines if line.startswith("published: test accuracy")]
    for line in lines:
        assert "\x1b" not in line
        assert not re.search(r"WARNING|ERROR|INFO|Traceback|cuda|absl|^[IWE]\d{4} ", line), line
    for cell in scratch.notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text


def test_notebook_shows_the_report_in_the_cell(scratch):
    for source in ("run", 'graft.show("out")'):
        (cell,) = [cell for cell in scratch.notebook.cells if cell.cell_type == "code" and cell.source == source]
        (output,) = cell.outputs
        assert f"run {scratch.run}" in output.data["text/plain"]
        if (scratch.folder / "out" / "runs" / "latest" / "report.html").is_file():
            assert output.data["text/html"].startswith("<iframe")


def test_notebook_runs_twice_and_the_second_time_there_is_nothing_to_do(scratch):
    (*_, status) = _cell(scratch.notebook, "graft.run(").outputs
    assert status.data["text/plain"] == "'unchanged'"


def test_notebook_is_told_in_one_sentence_what_stopped_a_run(scratch):
    printed = _printed(_cell(scratch.notebook, "try:"))
    assert printed.splitlines()[-1].startswith("The image folder ")


def test_notebook_is_committed_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


# ---- commands and sentences -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_runs(page, scratch):
    for block in blocks(page):
        follow(block, scratch)


def test_a_word_that_the_program_does_not_say_is_noticed():
    said = "graft: Class 'square' has 2 usable distinct images and needs 3 (data.min_images_per_class): "
    said += "add images, or remove the class."
    assert words_nobody_says(said) == []
    assert "suitable" in words_nobody_says(said.replace("usable distinct", "suitable"))
    assert words_nobody_says("failed in Load TFX: interrupted. Try: Buy a disk.") == ["Buy"]
    assert words_nobody_says("accuracy  0.994  exactness  0.013") == ["exactness"]


def test_browser_is_answered_through_a_proxy_as_the_page_sets_it_up(scratch):
    """nginx asks for the server's own name, and passes on what the browser says of the page."""
    body = json.dumps({"instances": [{"b64": base64.b64encode((scratch.folder / "photo.jpg").read_bytes()).decode()}]})

    def asked(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"{scratch.server}/v1/models/model:predict", body.encode(), named)
        try:
            return urllib.request.urlopen(request, timeout=30).status
        except urllib.error.HTTPError as error:
            return error.code

    browser = {"Origin": "https://signs.example.org", "Sec_Fetch_Site": "same-origin"}
    assert asked(**browser) == 200
    assert asked(**browser, Host="signs.example.org") == 403
    assert asked(Origin="http://signs.example.org") == 403


# ---- options, keys, links -------------------------------------------------------------------------------------------

# In backticks, and options of other programs.
FOREIGN = {"--model_base_path", "--max_num_load_retries", "--load_retry_interval_micros", "--logdir", "--user"}
FOREIGN |= {"--sdk_container_image", "--environment_type", "--environment_config", "--worker_pool", "--extra_package"}
FOREIGN |= {"--dataflow_job_file", "--dataflow_kms_key", "--flexrs_goal", "--number_of_worker_harness_threads"}
FOREIGN |= {"--sdk_location", "--semi_persist_dir", "--setup_file", "--provision_endpoint", "--id"}
FILES = (
    "jsonl",
    "json",
    "tflite",
    "onnx",
    "keras",
    "h5",
    "py",
    "md",
    "txt",
    "csv",
    "pb",
    "html",
    "yaml",
    "sha256",
    "log",
)
FOLDERS = ("benchmarks", "components", "configs", "data", "docs", "pipeline", "scripts", "tests", "trainer")
# A module, and a file of the reader's.
NO_FILES = ("tf.keras", "mine.yaml")


def _options_of(name: str) -> set[str]:
    command = cli.graft.commands[name]
    every = [command, *getattr(command, "commands", {}).values()]
    return {option for each in every for parameter in each.params for option in parameter.opts} | {"--help", "-h"}


@pytest.mark.parametrize("page", PAGES)
def test_every_option_that_the_page_names_exists(page):
    every = set().union(*(_options_of(name) for name in cli.graft.commands)) | {"--version", "--help"}
    scripts = [ROOT / "scripts" / name for name in ("flink", "spark", "cluster_processes.py")]
    programs = [*(ROOT / "benchmarks").glob("*.py"), *scripts, ROOT / "pipeline" / "worker_pool.py"]
    others = "".join(path.read_text() for path in programs)
    for word in words(page):
        named = re.findall(r"(?<![\w-])--[a-z][a-z_-]*", word.text)
        command = re.search(r"(?:^| )graft ([a-z]+)", word.text)
        if command:
            assert command[1] in cli.graft.commands, f"there is no graft {command[1]}: {word}"
            if not word.page.endswith(".yaml"):
                assert {option for option in named if option not in FOREIGN} <= _options_of(command[1]), word
        for option in named:
            assert option in every | FOREIGN or f'"{option}"' in others, word


def test_every_configuration_key_and_field_of_a_summary_that_a_page_names_exists(scratch):
    summary = json.loads((scratch.folder / "out" / "runs" / "latest" / "summary.json").read_text())
    known = [config.Config().model_dump(), summary]
    key = re.compile(rf"(?<![\w./-])((?:{'|'.join({*known[0], *summary})})(?:\.[a-z_*]+)+)")
    for page in PAGES:
        for word in words(page):
            for name in key.findall(word.text):
                if name.rpartition(".")[2] not in FILES:
                    assert any(_holds(values, name.split(".")) for values in known), f"{name}: {word}"


# Parts of the answers whose keys are fields and not names of classes, settings or files; the page links the others.
OWN_PARTS = {"runs", "in_service", "data", "files", "code", "metrics", "test_images", "gate", "steps", "checksums"}
OTHER_PAGES = ("docs/summary.md", "docs/publishing.md")


@pytest.mark.parametrize("command", ["runs out", "show out", "show out --model in-service", "diff out out"])
def test_every_field_of_an_answer_in_json_is_on_a_page(scratch, capsys, command):
    cli.graft.main([*command.split(), "--json"], standalone_mode=False)
    answer = json.loads(capsys.readouterr().out)
    fields = set(answer)
    for name in OWN_PARTS & set(answer):
        for part in answer[name] if isinstance(answer[name], list) else [answer[name]]:
            fields |= set(part) if isinstance(part, dict) else set()
    pages = ("docs/lineage.md", *(OTHER_PAGES if command.startswith("show") else ()))
    told = {name for page in pages for word in words(page) for name in re.findall(r"[a-z_]+", word.text)}
    assert fields - told == set()


def _holds(values: object, parts: list[str]) -> bool:
    if not parts:
        return True
    if not isinstance(values, dict):
        return False
    name, *rest = parts
    if name == "*":
        return any(_holds(value, rest) for value in values.values())
    return name in values and _holds(values[name], rest)


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_the_page_names_is_ours_or_written_by_the_program(page):
    written = "\n".join([*program_texts(), (ROOT / "scripts" / "setup").read_text(), *NO_FILES])
    ours = {path.name for folder in ("", *FOLDERS) for path in (ROOT / folder).glob("*" if not folder else "**/*")}
    for word in words(page):
        for name in re.findall(rf"(?<![\w*.])[\w-]+(?:[.][\w-]+)*[.](?:{'|'.join(FILES)})(?!\w)", word.text):
            assert name in ours or name in written, f"nothing is called {name}: {word}"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_the_page_leads_somewhere(page):
    for link in links(page):
        place, _, anchor = link.text.partition("#")
        if "://" in place:
            continue
        target = (ROOT / page).parent / place if place else ROOT / page
        assert target.exists(), f"there is no such file: {link}"
        if anchor:
            assert anchor in anchors(target.resolve().relative_to(ROOT).as_posix()), f"there is no such heading: {link}"


def test_lines_of_prose_have_at_most_120_characters():
    """Tables and blocks have lines of their own length."""
    for page in (page for page in [*PAGES, "CHANGELOG.md"] if not page.endswith(".ipynb")):
        for number, line in enumerate((ROOT / page).read_text().splitlines(), 1):
            assert len(line) <= 120 or line.startswith(("|", "    ")), f"{page}:{number}"


def test_every_page_is_in_the_index():
    listed = {link.text for link in links("docs/README.md")}
    assert {Path(page).name for page in PAGES if page.startswith("docs/")} - {"README.md"} <= listed


def test_every_page_that_the_code_names_exists():
    for package in ("benchmarks", "components", "configs", "pipeline", "tests", "trainer"):
        for file in (path for path in (ROOT / package).rglob("*.[py][ya]*") if path.suffix in (".py", ".yaml")):
            for name in re.findall(r"docs/[a-z_]+\.(?:md|ipynb)", file.read_text()):
                assert (ROOT / name).is_file(), f"{file} names {name}"
