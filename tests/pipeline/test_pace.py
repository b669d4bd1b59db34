"""Rates and estimates: of the last moments, and none where nobody can know."""

import pytest

from components.progress import State
from pipeline.pace import ESTIMATE_AFTER, Pace, duration, per_second, remaining


def looked(*looks: tuple[float, int], total: int | None = 1000) -> tuple[Pace, State]:
    """A pace that has seen (seconds, done), and the last state."""
    pace = Pace()
    for seconds, done in looks:
        state = State(count=1, done=done, total=total)
        pace.look(state, seconds)
    return pace, state


def test_no_estimate_in_the_first_moments():
    pace, state = looked((0, 1), (ESTIMATE_AFTER - 0.5, 100))
    assert pace.rate() is not None and pace.left(state) is None
    assert looked((0, 1))[0].rate() is None


def test_time_before_the_first_thing_was_done_does_not_count():
    """Half a minute of compilation would make hours of a training of minutes."""
    pace, state = looked((0, 0), (30, 0), (31, 100), (36, 600))
    assert (pace.rate(), pace.left(state)) == (100, 4)


def test_rate_is_that_of_the_last_moments():
    fast = [(second, 100 * second) for second in range(20)]
    slow = [(20 + second, 2000 + second) for second in range(40)]
    pace, state = looked(*fast, *slow, total=3000)
    assert pace.rate() == pytest.approx(1, abs=0.01)
    assert pace.left(state) == pytest.approx(961, rel=0.01)


def test_standstill_makes_the_estimate_longer_and_then_ends_it():
    looks = [(second, 10 * min(second, 10)) for second in range(60)]
    before, after = (looked(*looks[:number]) for number in (11, 16))
    assert before[0].left(before[1]) < after[0].left(after[1])
    pace, state = looked(*looks)
    assert pace.rate() is None and pace.left(state) is None


@pytest.mark.parametrize(("done", "total"), [(500, None), (1000, 1000), (0, 1000)])
def test_no_estimate_where_there_is_no_total_or_nothing_left_or_nothing_done(done, total):
    pace, state = looked((0, done // 2), (10, done), total=total)
    assert pace.left(state) is None


def test_another_count_begins_anew():
    pace, _ = looked((0, 1), (10, 500))
    pace.look(State(count=2, done=1, total=10), 11)
    assert pace.rate() is None


@pytest.mark.parametrize(
    ("seconds", "exact", "about"),
    [
        (0.4, "0 s", "1 s"),
        (7.2, "7 s", "7 s"),
        (43, "43 s", "45 s"),
        (80, "1 min 20 s", "1 min 20 s"),
        (117, "1 min 57 s", "2 min"),
        (1234, "20 min 34 s", "21 min"),
        (7500, "2 h 5 min", "2 h 5 min"),
        (10800, "3 h", "3 h"),
    ],
)
def test_words_for_a_time(seconds, exact, about):
    assert (duration(seconds), remaining(seconds)) == (exact, about)


def test_words_for_a_rate():
    assert [per_second(rate, "images") for rate in (143.2, 2.54, 0.1)] == [
        "143 images/s",
        "2.5 images/s",
        "6 images/min",
    ]
    assert per_second(143.2) == "143/s"
