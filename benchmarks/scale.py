"""What many images cost on one machine and on a Flink cluster, and what ten million would.

    python benchmarks/scale.py [--images 5000 20000] [--engines local processes flink-1 flink-2] [--folder FOLDER]

Runs all of `graft run` on generated JPEGs (256x256, 30 KB, noise with the spectrum of photographs) with each engine;
`flink-2` is a cluster of its own with two task managers of one slot each (scripts/flink). What is trained is the
bundled backbone's head, for an epoch: training is not done by Beam and not counted. Memory and processor time are those
of the processes, looked at four times a second; bytes shuffled are what Flink says that each job's parts put away for
the next. Prints tables in Markdown, and a model of ten million images from two numbers of images with Flink: what one
image more costs is the difference, so that what does not depend on their number is left out.

With `--folder` images and measurements stay there, and what is there is not made again.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
from ingest import write_images
from layouts import ROOT

ENGINES = ("local", "processes", "flink-1", "flink-2")
# By component: those whose work Beam does, as the tables call them.
BEAM_STEPS = {
    "ImageExampleGen": "ingestion",
    "StatisticsGen": "statistics",
    "Transform": "Transform",
    "GatedEvaluator": "evaluation",
}
BEFORE = "before the steps"
BEFORE_TRAINING = ("ingestion", "statistics", "Transform")
SETTINGS = (
    "model.backbone=graft_tiny",
    "model.weights=bundled",
    "training.frozen.epochs=1",
    "training.fine_tune.epochs=0",
    "push.formats=[]",
)
SIDE = 256
# Where the work of Beam's steps is done: workers, and Flink for them.
WORKING = ("worker", "task manager")
SECONDS_BETWEEN_LOOKS = 0.25
MANY = 10_000_000


@dataclass
class Measured:
    """One run.

    Attributes:
      engine: one of `ENGINES`.
      images: that were generated.
      tested: of them, in the test split.
      seconds: of each step on Beam, by the clock.
      processor: seconds of processor time, by step and kind of process.
      temporary: bytes of ingestion's temporary folder, the most that were seen.
      peaks: MiB of resident memory, the most that a process of a kind had in a step, by step and kind.
      shuffled: bytes that Flink's parts put away for other parts, by step.
      largest: of those, what a single part put away, by step.
      stored: bytes of each kind of artifact.
      generated: bytes of the images.
    """

    engine: str
    images: int
    tested: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    processor: dict[str, dict[str, float]] = field(default_factory=dict)
    temporary: int = 0
    peaks: dict[str, dict[str, float]] = field(default_factory=dict)
    shuffled: dict[str, int] = field(default_factory=dict)
    largest: dict[str, int] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    generated: int = 0


# ---- a run, and who watches it --------------------------------------------------------------------------------------


class Watch:
    """Looks at the processes of a run while it goes on.

    Args:
      driver: the process of `graft run`.
      output: its output folder.
      cluster: processes of a cluster by kind; what those of `worker pool` fork are workers.
    """

    def __init__(self, driver: int, output: Path, cluster: dict[int, str]):
        self.processor: dict[str, Counter] = defaultdict(Counter)
        self.peaks: dict[str, Counter] = defaultdict(Counter)
        self.began: dict[str, float] = {}  # steps, seconds since 1970
        self.temporary = 0
        self._output, self._step = output, BEFORE
        self._roots = {psutil.Process(pid): kind for pid, kind in (cluster | {driver: "driver"}).items()}
        self._spent = {process: _spent(process) for process, kind in self._roots.items() if kind != "driver"}
        self._over = threading.Event()

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN_LOOKS):
            self._note_step()
            self._note_temporary()
            for process, kind in self._roots.items():
                self._look(process, kind)
                if kind in ("driver", "worker pool"):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        # The pool has a process from which it forks workers.
                        own = process.children() if kind == "worker pool" else []
                        for child in process.children(recursive=True):
                            self._look(child, kind if child in own else "worker")

    def _note_step(self) -> None:
        for notes in self._output.glob("runs/*/steps.json"):
            step = json.loads(notes.read_text())["step"]
            if step not in ("", self._step):
                self._step = step
                self.began.setdefault(step, time.time())

    def _note_temporary(self) -> None:
        folders = self._output.glob("artifacts/ImageExampleGen/.system/executor_execution/*/.temp")
        # Files get other names meanwhile, and the folder goes in the end.
        with contextlib.suppress(FileNotFoundError):
            self.temporary = max(self.temporary, sum(map(_bytes, folders)))

    def _look(self, process: psutil.Process, kind: str) -> None:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            spent, resident = _spent(process), process.memory_info().rss / 2**20
            self.processor[self._step][kind] += spent - self._spent.get(process, 0.0)
            self._spent[process] = spent
            self.peaks[self._step][kind] = max(self.peaks[self._step][kind], resident)


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


@contextlib.contextmanager
def cluster(engine: str, folder: Path, port: int) -> Iterator[tuple[dict[int, str], list[str]]]:
    """(processes by kind, settings of `graft run`) of a cluster that is there while the body runs; of none for others.

    Args:
      engine: one of `ENGINES`.
      folder: a new one, for its logs.
      port: the first of three.
    """
    if not engine.startswith("flink"):
        yield {}, [f"runner.beam={engine}"]
        return
    rest, job_server, pool = port, port + 1, port + 2
    at = ["--folder", str(folder)]
    ports = ["--rest-port", str(rest), "--job-server-port", str(job_server), "--worker-pool-port", str(pool)]
    start = ["start", *at, *ports, "--task-managers", engine.rpartition("-")[2], "--python", sys.executable]
    subprocess.run([ROOT / "scripts/flink", *start], check=True, stdout=subprocess.DEVNULL)
    try:
        started = json.loads((folder / "cluster.json").read_text())
        kinds = {each["pid"]: each["name"].rstrip("-0123456789").replace("-", " ") for each in started}
        yield (
            kinds,
            [
                "runner.beam=flink",
                f"runner.flink.master=http://localhost:{rest}",
                f"runner.flink.job_server=localhost:{job_server}",
                f"runner.flink.worker_pool=localhost:{pool}",
            ],
        )
    finally:
        subprocess.run([ROOT / "scripts/flink", "stop", *at], check=True)


def measure(engine: str, images: Path, count: int, port: int, size: int) -> Measured:
    """One run from its start to its end.

    Args:
      engine: one of `ENGINES`.
      images: folder of the generated ones.
      count: how many there are.
      port: the first of three for a cluster.
      size: pixels of the side that Transform resizes to.
    """
    measured = Measured(engine, count, generated=_bytes(images))
    with (
        tempfile.TemporaryDirectory(prefix="graft-scale-") as made,
        cluster(engine, Path(made, "cluster"), port) as (kinds, on_engine),
    ):
        output = Path(made, "output")
        settings = [*SETTINGS, f"transform.image_size={size}", *on_engine]
        options = [part for setting in settings for part in ("--set", setting)]
        command = [sys.executable, "-m", "pipeline", "run", "--images", str(images), "--output", str(output), *options]
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
        with Path(made, "said").open("w+") as said:
            driver = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
            with Watch(driver.pid, output, kinds) as watch:
                driver.wait()
            summary = output / "runs/latest/summary.json"
            # 4: the gate refused; its steps were run.
            if driver.returncode not in (0, 4) or not summary.is_file():
                raise SystemExit(f"{engine}, {count} images:\n{Path(made, 'said').read_text()[-3000:]}")
        _take(measured, json.loads(summary.read_text()), watch)
        if kinds:
            _take_jobs(measured, watch, f"http://localhost:{port}")
        for name, pattern in {
            "examples": "ImageExampleGen/examples",
            "metadata of them": "ImageExampleGen/metadata",
            "catalog": "ImageExampleGen/catalog",
            "transformed examples": "Transform/transformed_examples",
            "evaluation": "GatedEvaluator/evaluation",
        }.items():
            measured.stored[name] = _bytes(output / "artifacts" / pattern)
    return measured


def _take(measured: Measured, summary: dict, watch: Watch) -> None:
    from components.steps import STEPS

    measured.temporary = watch.temporary
    measured.tested = summary["metrics"]["test"]["examples"]
    for component, name in BEAM_STEPS.items():
        measured.seconds[name] = summary["timings"][component]
    for name, title in {**{name: STEPS[component] for component, name in BEAM_STEPS.items()}, BEFORE: BEFORE}.items():
        measured.processor[name] = dict(watch.processor[title])
        measured.peaks[name] = dict(watch.peaks[title])


def _take_jobs(measured: Measured, watch: Watch, master: str) -> None:
    """What Flink says of the jobs that it had while a step ran."""
    from components.steps import STEPS

    def asked(path: str) -> dict:
        with urllib.request.urlopen(f"{master}{path}") as answer:
            return json.load(answer)

    jobs = asked("/jobs/overview")["jobs"]
    for component, name in BEAM_STEPS.items():
        began = watch.began[STEPS[component]] - SECONDS_BETWEEN_LOOKS
        ended = began + measured.seconds[name] + 2 * SECONDS_BETWEEN_LOOKS
        of_step = [job for job in jobs if began <= job["start-time"] / 1000 <= ended]
        parts = [part for job in of_step for part in asked(f"/jobs/{job['jid']}")["vertices"]]
        written = [part["metrics"]["write-bytes"] for part in parts]
        measured.shuffled[name], measured.largest[name] = sum(written), max(written)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# ---- what is printed ------------------------------------------------------------------------------------------------


def table(columns: list[str], rows: list[list[str]]) -> None:
    """In Markdown."""
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def images_of(measured: Measured, step: str) -> int:
    """That a step works on."""
    return measured.tested if step == "evaluation" else measured.images


def print_rates(all_measured: list[Measured]) -> None:
    engines = [engine for engine in ENGINES if any(each.engine == engine for each in all_measured)]
    found = {(each.images, each.engine): each for each in all_measured}
    rows = []
    for count in sorted({each.images for each in all_measured}):
        for step in BEAM_STEPS.values():
            cells = []
            for engine in engines:
                each = found.get((count, engine))
                cells.append(f"{images_of(each, step) / each.seconds[step]:,.0f}" if each else "")
            rows.append([f"{count:,}", step, *cells])
    print("Images a second, start of each step included\n")
    table(["images", "step", *engines], rows)


def print_memory(all_measured: list[Measured]) -> None:
    kinds = ("driver", "worker", "worker pool", "task manager", "job manager", "job server")
    rows = []
    for each in all_measured:
        peaks = [peak(each, kind) for kind in kinds]
        rows.append([f"{each.images:,}", each.engine, *(f"{most:,.0f}" if most else "" for most in peaks)])
    print("Peak resident memory of a process of each kind, ingestion to Transform, MiB\n")
    table(["images", "engine", *kinds], rows)


def peak(measured: Measured, kind: str) -> float:
    """MiB. Training is done in the driver: what it leaves there says nothing of the evaluation after it."""
    return max(measured.peaks[step].get(kind, 0.0) for step in BEFORE_TRAINING)


def print_shuffled(all_measured: list[Measured]) -> None:
    rows = []
    for each in all_measured:
        for step, shuffled in each.shuffled.items():
            both = (f"{size / images_of(each, step):,.0f}" for size in (shuffled, each.largest[step]))
            rows.append([f"{each.images:,}", each.engine, step, *both])
    print("Bytes an image that Flink's parts put away for others: all, and the part with the most\n")
    table(["images", "engine", "step", "all", "most"], rows)


def print_stored(all_measured: list[Measured]) -> None:
    each = max(all_measured, key=lambda each: each.images)
    print(f"Bytes an image that are stored, of JPEGs of {each.generated / each.images:,.0f} bytes\n")
    stored = each.stored | {"lists and records while ingestion runs": each.temporary}
    table(["what", "bytes"], [[name, f"{size / each.images:,.0f}"] for name, size in stored.items()])


def print_model(all_measured: list[Measured]) -> None:
    """Ten million images, from the engine on Flink with most task managers that two numbers of images were run with."""
    for engine in ("flink-2", "flink-1"):
        runs = [each for each in all_measured if each.engine == engine]
        if len(runs) > 1:
            break
    else:
        print("No model: that takes two numbers of images with Flink.")
        return
    few, many = runs[0], runs[-1]
    steps = [BEFORE, *BEAM_STEPS.values()]

    def one_more(value: Callable[[Measured], float]) -> float:
        return max(0.0, (value(many) - value(few)) / (many.images - few.images))

    def spent(step: str, *kinds: str) -> float:
        return one_more(lambda each: sum(each.processor[step].get(kind, 0.0) for kind in kinds))

    # Before the steps workers are only asked whether they are there.
    work = {step: spent(step, *WORKING) if step != BEFORE else 0.0 for step in steps}
    alone = {step: spent(step, "driver") for step in steps}
    print(f"{MANY:,} images, by what one more costs on {engine} between {few.images:,} and {many.images:,}\n")
    rows = [[step, work[step], alone[step]] for step in steps]
    rows.append(["all", sum(work.values()), sum(alone.values())])
    table(
        ["step", "workers, µs an image", "driver, µs an image", "workers, core hours", "driver, hours"],
        [
            [name, *(f"{each * 1e6:,.0f}" for each in seconds), *(f"{each * MANY / 3600:,.1f}" for each in seconds)]
            for name, *seconds in rows
        ],
    )
    most = max(work, key=work.get)
    all_work, all_alone = sum(work.values()), sum(alone.values())
    print(f"- Most of the workers' time, {work[most] / all_work:.0%}, is {most}.")
    print(
        f"- What the driver does alone takes {all_alone * MANY / 3600:.1f} h. With {all_work / all_alone:,.0f} cores "
        "the workers take as long; more of them shorten only their part."
    )
    memory = max(one_more(lambda each, step=step: each.peaks[step]["driver"] * 2**20) for step in BEFORE_TRAINING)
    print(f"- The driver needs {memory * MANY / 2**30:.0f} GiB of memory ({memory:,.0f} bytes an image).")
    stored, images = (size / many.images * MANY / 1e12 for size in (sum(many.stored.values()), many.generated))
    print(f"- {stored:.2f} TB are stored for images of {images:.2f} TB.")


# ---- the command ----------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[5_000, 20_000], metavar="N", help="how many")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES, metavar="ENGINE", help="which")
    parser.add_argument("--size", type=int, default=224, metavar="PIXELS", help="side that Transform resizes to")
    parser.add_argument("--port", type=int, default=18081, help="the first of three for clusters")
    parser.add_argument("--folder", type=Path, help="keeps images and measurements")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as opened:
        folder = arguments.folder or Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="graft-scale-")))
        for count in arguments.images:
            images = folder / f"images-{count}"
            for engine in arguments.engines:
                kept = folder / f"{engine}-{count}.json"
                if kept.is_file():
                    continue
                if not images.is_dir():
                    unfinished = folder / "unfinished"
                    shutil.rmtree(unfinished, ignore_errors=True)
                    write_images(unfinished, count, SIDE, SIDE, 90)
                    unfinished.rename(images)
                kept.write_text(json.dumps(asdict(measure(engine, images, count, arguments.port, arguments.size))))
        found = [Measured(**json.loads(path.read_text())) for path in folder.glob("*-*.json")]
    found.sort(key=lambda each: (each.images, ENGINES.index(each.engine)))
    for show in (print_rates, print_memory, print_shuffled, print_stored, print_model):
        show(found)


if __name__ == "__main__":
    main()
