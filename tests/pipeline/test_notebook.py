"""`pipeline.notebook`: what it shows, what it asks for, and how a run ends with the notebook. docs/notebook.ipynb is
executed by tests/test_docs.py.
"""

import asyncio
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import GraftError
from pipeline import notebook as graft
from pipeline.config import load
from tests.conftest import ROOT
from tests.e2e.graft import write_shapes
from tests.pipeline import chromium

TINY = {"model.backbone": "graft_tiny", "model.weights": "bundled"}
SUMMARY = {
    "status": "published",
    "metrics": {"test": {"accuracy": 0.9}},
    "model": {"path": "out/serving/1700000000"},
    "gate": {},
}
# A report that tries to reach the page around it, and one of its own parts. The policy is one of the real page's.
PAGE = """<!doctype html><html><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="base-uri 'none'"><title>"&amp;"</title></head><body>
<a href="#end">end</a><div style="height: 5000px">&lt;script&gt; &amp; "é"</div><p id="end">end</p>
<script>
const one = name => document.querySelector(name);
let reached = true;
try { parent.document.title } catch (error) { reached = false }
addEventListener("hashchange", () => parent.postMessage([reached, location.href, one("div").textContent], "*"));
one("a").click();
</script></body></html>"""


@pytest.fixture
def shown(tmp_path) -> graft.Run:
    """A run that has a report."""
    folder = tmp_path / "out" / "runs" / "20260101-000000"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / "report.html").write_text(PAGE, encoding="utf-8")
    return graft.show(tmp_path / "out")


def test_earlier_run_is_found_by_its_output_folder_or_its_own(shown, tmp_path):
    for place in (tmp_path / "out", str(tmp_path / "out"), shown.folder):
        run = graft.show(place)
        assert (run.folder, run.status, run.accuracy) == (shown.folder, "published", 0.9)
        assert run.model == "out/serving/1700000000"


def test_run_without_a_report_is_shown_as_text(shown):
    (shown.folder / "report.html").unlink()
    assert shown._repr_html_() is None
    assert repr(shown) == "<run 20260101-000000: published, test accuracy 0.900; it has no report>"


def test_run_that_was_not_judged_has_no_accuracy(shown):
    (shown.folder / "summary.json").write_text(json.dumps(SUMMARY | {"status": "failed", "metrics": {"test": None}}))
    assert graft.show(shown.folder).accuracy is None


def test_report_stays_in_its_frame_and_its_links_work_there(shown, tmp_path):
    if chromium.find() is None:
        pytest.skip("needs Chromium")
    cell = tmp_path / "cell.html"
    listener = '<script>addEventListener("message", event => { window.said = event.data })</script>'
    cell.write_text(f"<!doctype html><meta charset=utf-8>{listener}{shown._repr_html_()}", encoding="utf-8")

    async def look() -> tuple[list, list[str]]:
        async with chromium.browser() as page:
            await page.open(cell.as_uri())
            await page.until("window.said")
            return await page.value("window.said"), page.errors

    said, _ = asyncio.run(asyncio.wait_for(look(), 60))
    assert said == [False, "about:srcdoc#end", '<script> & "é"']


def test_notebook_shows_an_error_as_one_sentence(tmp_path):
    with pytest.raises(GraftError, match=r"^There is no run in ") as caught:
        graft.show(tmp_path)
    assert caught.value.exit_code == 2
    # IPython prints these lines instead of a traceback.
    assert caught.value._render_traceback_() == [f"graft: {caught.value}"]


@pytest.mark.parametrize("options", [{"settings": {"model.alfa": 0.35}}, {"config": "gone.yaml"}, {"settings": TINY}])
def test_what_stops_a_run_is_raised_with_the_exit_code_of_the_command(tmp_path, capfd, options):
    with pytest.raises(GraftError) as caught:
        graft.run(tmp_path / "no images", tmp_path / "out", **options)
    assert caught.value.exit_code == 2
    assert str(caught.value).count("\n") == 0
    assert "Traceback" not in capfd.readouterr().out


def test_settings_mean_what_they_mean_in_python():
    settings = {
        "training.frozen.learning_rate": 1e-5,
        "model.head.hidden": [64, 32],
        "evaluation.min_accuracy": None,
        "push.license": "O'Hara: “free”, 'as is' 🐟",
        "data.follow_symlinks": True,
        "model": {"weights": Path("weights of mine.weights.h5")},
    }
    loaded = load(None, [f"{key}={graft._as_yaml(value)}" for key, value in settings.items() if key != "model"])
    assert loaded.training.frozen.learning_rate == 1e-5
    assert loaded.model.head.hidden == [64, 32]
    assert loaded.evaluation.min_accuracy is None
    assert loaded.push.license == settings["push.license"]
    assert loaded.data.follow_symlinks is True
    assert load(None, [f"model={graft._as_yaml(settings['model'])}"]).model.weights == "weights of mine.weights.h5"


# ---- how a run ends -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images") / "shapes"
    write_shapes(folder, 10)
    return folder


def cell(images: Path, output: Path) -> subprocess.Popen:
    """A process that waits for a run, as a kernel does, when the run has come to TFX."""
    # A kernel is interrupted also where a shell in the background started it.
    kernel = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code = f"{kernel}from pipeline import notebook as graft\ngraft.run({str(images)!r}, {str(output)!r}, {TINY!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a kernel sets.
        env=os.environ | {"PYTHONPATH": str(ROOT), "FORCE_COLOR": "1", "MPLBACKEND": "module://not_installed_here"},
        start_new_session=True,
    )
    for line in process.stdout:
        assert "\x1b" not in line
        if "Load TFX" in line:
            return process
    raise AssertionError(process.stderr.read())


def wait_for_its_end(output: Path) -> None:
    """Until no run holds the folder."""
    with open(output / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


@pytest.mark.parametrize("whole_group", [True, False])
def test_interrupting_the_cell_interrupts_the_run_once_whomever_the_front_end_tells(images, tmp_path, whole_group):
    process = cell(images, tmp_path / "out")
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in error
    assert re.search("^failed.*Load TFX.*interrupted", out, re.MULTILINE)
    summary = json.loads((tmp_path / "out" / "runs" / "latest" / "summary.json").read_text())
    assert summary["status"] == "failed"


def test_run_ends_with_the_notebook(images, tmp_path):
    process = cell(images, tmp_path / "out")
    process.kill()
    process.communicate()
    wait_for_its_end(tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "runs" / "latest" / "summary.json").read_text())
    assert summary["status"] == "failed"


def test_run_that_was_killed_is_told_with_where_to_look(images, tmp_path):
    """As by a system without memory."""
    process = cell(images, tmp_path / "out")
    os.kill(int((tmp_path / "out" / ".lock").read_text()), signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert f"The run ended without an answer (signal 9); the newest folder in {tmp_path / 'out' / 'runs'}" in error
