"""What a person sees while the pipeline runs: one line a step and warnings, everything else in the log file."""

import contextlib
import enum
import sys
import time
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import Any, TextIO

from rich.cells import cell_len

from components import progress
from components.errors import printable
from components.progress import State
from pipeline.noise import Followed, noise_to
from pipeline.pace import Pace, duration, per_second, remaining
from pipeline.repeated import repeatedly
from pipeline.screen import PLAIN, YELLOW, Screen

# Seconds between two looks at a step, on a terminal and elsewhere, and between two lines about it elsewhere.
LOOK_LIVE, LOOK, BETWEEN_LINES = 0.25, 1.0, 30.0
# Columns up to the end of the seconds in the line of a step.
SECONDS_END = 39
# On a narrower terminal what does not fit into a step's line is indented less than up to there.
NARROW = 72


class Detail(enum.Enum):
    """How much a person is told."""

    QUIET = "warnings and how it ended"
    NORMAL = "steps, too"
    VERBOSE = "what the libraries log, too"


class Steps:
    """Prints steps as they run: a live line on a terminal, plain lines elsewhere; and whatever else a person is told.

    Args:
      stream: where to; the standard output, if none is given.
      detail: how much.
      clock: seconds that never go back.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        detail: Detail = Detail.NORMAL,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.screen, self.detail, self._clock = Screen(stream or sys.stdout), detail, clock
        # What must be told before the next line, as it happened before.
        self.catch_up: Callable[[], None] = lambda: None

    def say(self, text: str = "", whole: bool = False) -> None:
        """A sentence. An empty one, which sets something apart from the steps, needs steps.

        Args:
          text: broken at spaces where a terminal is narrower.
          whole: not broken: it has a command to copy.
        """
        words = text.lstrip()
        margin = " " * (len(text) - len(words))
        if not whole and cell_len(text) >= self.screen.columns:
            text = self.screen.wrapped(margin, words, len(margin) + 2)
        if text or self.detail is not Detail.QUIET:
            self._line(text)

    def warn(self, sentence: str) -> None:
        """A warning, which may hold names of classes and files."""
        head, text = f"{self._stamp()}warning: ", printable(sentence)
        lines = self.screen.wrapped(head, text, indent=2)
        if self.screen.colours:
            lines = lines.replace(head, f"{YELLOW}{head}{PLAIN}", 1)
        self._line(lines)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Shows a step while the body runs. The yielded dict takes `note`, a few words for the finished line."""
        progress.start(None)
        result: dict[str, Any] = {"note": ""}
        if self.detail is Detail.QUIET:
            yield result
            return
        if not self.screen.live:
            self.say(f"{self._stamp()}{name} ...")
        running = Running(name, self.screen, self._clock)
        try:
            with running.watched():
                yield result
        except BaseException as error:
            self._finished(running, "interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
            raise
        self._finished(running, result["note"])

    def _finished(self, running: "Running", note: str) -> None:
        head = f"{self._stamp() or '  '}{running.name:<28}{running.seconds:7.1f} s"
        indent = SECONDS_END + 2 if self.screen.columns >= NARROW else 4
        # It may hold names of classes and files.
        self._line(self.screen.wrapped(f"{head}  ", printable(note), indent) if note else head)

    def _line(self, text: str) -> None:
        self.catch_up()
        self.screen.line(text)

    def _stamp(self) -> str:
        return "" if self.screen.live else time.strftime("%H:%M:%S  ")


class Running:
    """The line of a step that runs.

    Attributes:
      name: of the step.
    """

    def __init__(self, name: str, screen: Screen, clock: Callable[[], float]):
        self.name, self._screen, self._clock = printable(name), screen, clock
        self._began = self._told = clock()
        self._pace, self._end = Pace(), SECONDS_END

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return self._clock() - self._began

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Looks again and again while the body runs."""
        try:
            self.look()
            with repeatedly(self.look, LOOK_LIVE if self._screen.live else LOOK):
                yield
        finally:
            self._screen.clear()

    def look(self) -> None:
        """Tells where the step is: at once on a terminal, and now and then elsewhere."""
        state, now = progress.now(), self._clock()
        self._pace.look(state, now)
        if self._screen.live:
            self._screen.show(self.line(state, self._screen.columns - 1))
        elif now - self._told >= BETWEEN_LINES:
            self._told += BETWEEN_LINES * ((now - self._told) // BETWEEN_LINES)
            words = ", ".join([duration(now - self._began), *self._words(state)])
            self._screen.line(f"{time.strftime('%H:%M:%S')}  {self.name}: {words} ...")

    def line(self, state: State, columns: int) -> str:
        """The line: name, seconds, and of the rest what fits, the most important first."""
        elapsed = duration(self.seconds)
        # Such as `Resize and normalise  41 s`, the least.
        least = 2 + cell_len(self.name) + 2 + len(elapsed)
        left_out: set[str] = set()
        for drop in ("", "detail", "unit", "phase", "within", "what", "rate", "left"):
            words = self._words(state, left_out := left_out | {drop})
            room = columns - sum(2 + cell_len(word) for word in words)
            if room >= least:
                break
        # What moved to the left stays there, so that nothing jumps from one second to the next.
        self._end = max(min(self._end, room), least)
        head = f"  {self.name}{' ' * (self._end - 2 - cell_len(self.name) - len(elapsed))}{elapsed}"
        return "  ".join([head, *words])

    def _words(self, state: State, left_out: Set[str] = frozenset()) -> list[str]:
        """What is known of where the step is."""
        words, text = [], printable(state.text)
        if "phase" in left_out:
            text = text.rpartition(", ")[2]
        if state.within and "within" not in left_out:
            text += f", {state.within}"
        if text and (state.said or "what" not in left_out):
            words.append(text)
        if state.done and not state.said:
            words.append(f"{state.done} of {state.total}" if state.total else str(state.done))
        if (rate := self._pace.rate()) and "rate" not in left_out:
            words.append(per_second(rate, "" if "unit" in left_out else state.unit))
        if (left := self._pace.left(state)) and "left" not in left_out:
            words.append(f"{'at most ' * state.at_most}{remaining(left)} left")
        if state.detail and "detail" not in left_out:
            words.append(printable(state.detail))
        return words


@contextlib.contextmanager
def telling(log: Path, detail: Detail, keep: Callable[[str], None]) -> Iterator[Steps]:
    """What libraries print goes to a log, and what matters to the person, while the body runs.

    Args:
      log: a file.
      detail: how much the person is told.
      keep: takes each warning, too.

    Yields:
      Where to tell the person.
    """
    with noise_to(log) as person, contextlib.ExitStack() as stack:
        steps = Steps(person, detail)

        def warned(sentence: str) -> None:
            keep(sentence)
            steps.warn(sentence)

        stack.enter_context(progress.heeded(warned))
        if detail is Detail.VERBOSE:
            file = stack.enter_context(open(log, errors="replace", newline="\n"))
            followed = Followed(file, steps.screen.line)
            steps.catch_up = followed.catch_up
            stack.enter_context(followed.watched())
        yield steps
