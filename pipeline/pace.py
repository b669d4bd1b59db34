"""How fast a count goes, how long the rest of it takes, and both in words."""

from collections import deque

from components.progress import State

# Seconds that the rate is measured over: steps slow down and speed up, and what was long ago says little. Of a long
# step more, so that the estimate does not jump.
WINDOW, SHARE = 15.0, 0.2
# Seconds from the first thing done until there is a rate, and an estimate.
RATE_AFTER, ESTIMATE_AFTER = 1.0, 3.0


class Pace:
    """The rate of a count, from looks at it."""

    def __init__(self):
        self._count = 0
        self._looks: deque[tuple[float, int]] = deque()
        self._first = 0.0

    def look(self, state: State, seconds: float) -> None:
        """Notes how far the count is.

        Args:
          state: as it is now.
          seconds: of a clock that never goes back.
        """
        if state.count != self._count:
            self._count = state.count
            self._looks.clear()
        # Not from 0 on: until the first thing is done, networks are compiled and workers started.
        if not state.done:
            return
        if not self._looks:
            self._first = seconds
        self._looks.append((seconds, state.done))
        window = max(WINDOW, SHARE * (seconds - self._first))
        while len(self._looks) > 2 and self._looks[1][0] <= seconds - window:
            self._looks.popleft()

    def rate(self) -> float | None:
        """Things a second; None in the first moments, and where none came."""
        if self._since() < RATE_AFTER:
            return None
        (before, had), (after, has) = self._looks[0], self._looks[-1]
        return (has - had) / (after - before) if has > had else None

    def left(self, state: State) -> float | None:
        """Seconds until the count is at its end; None where nobody can know."""
        rate = self.rate()
        if not (rate and state.total) or state.done >= state.total or self._since() < ESTIMATE_AFTER:
            return None
        return (state.total - state.done) / rate

    def _since(self) -> float:
        """Seconds from the first thing done to the last look."""
        return self._looks[-1][0] - self._first if self._looks else 0.0


def duration(seconds: float) -> str:
    """Such as `41 s`, `1 min 20 s`, `2 h 5 min`."""
    whole = int(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h" + (f" {minutes} min" if minutes else "")
    if minutes:
        return f"{minutes} min" + (f" {whole % 60} s" if whole % 60 else "")
    return f"{whole} s"


def remaining(seconds: float) -> str:
    """The same of an estimate, which is not known to the second."""
    unit = next((unit for below, unit in ((10, 1), (60, 5), (600, 10), (3600, 60)) if seconds < below), 300)
    return duration(max(unit, round(seconds / unit) * unit))


def per_second(rate: float, unit: str = "") -> str:
    """Such as `143 images/s`, `2.5 images/s`, `7 images/min`; without a unit `143/s`."""
    what = f" {unit}" if unit else ""
    if rate < 0.5:
        return f"{rate * 60:.0f}{what}/min"
    return f"{rate:.0f}{what}/s" if rate >= 10 else f"{rate:.1f}{what}/s"
