"""The gate's tests against the books, and against every swap written down."""

import itertools

import numpy as np
import pytest
from scipy import stats

from components import gate_statistics as statistics
from components.gate_statistics import PairedTest, shared_level, sign_test, wilson_interval, wilson_lower_bound
from components.metrics import Answers, calibration_error


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (1, 10), (9, 10), (10, 10), (70, 100), (995, 1000)])
def test_wilson_bound_is_scipys(successes, count):
    # The lower end of the two-sided 90 % interval is the one-sided 95 % bound.
    expected = stats.binomtest(successes, count).proportion_ci(0.9, method="wilson").low
    assert wilson_lower_bound(successes, count) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("successes", "count"), [(0, 5), (3, 8), (88, 88), (87, 88)])
def test_wilson_interval_is_scipys(successes, count):
    expected = stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, count) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_wilson_bound_of_published_examples():
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, 95 % Wilson.
    assert wilson_lower_bound(81, 263, 1.959964) == pytest.approx(0.2553, abs=1e-4)
    assert wilson_lower_bound(15, 148, 1.959964) == pytest.approx(0.0624, abs=1e-4)
    assert wilson_lower_bound(1, 29, 1.959964) == pytest.approx(0.0061, abs=1e-4)
    assert wilson_lower_bound(0, 0) == 0.0


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (5, 0), (0, 5), (8, 2), (10, 10), (60, 40)])
def test_sign_test_is_the_tail_of_a_fair_coin(lost, gained):
    test = sign_test(lost, gained, 200)
    assert test.p_value == pytest.approx(stats.binom.sf(lost - 1, lost + gained, 0.5))
    assert test.least == pytest.approx(0.5 ** (lost + gained))
    assert test.observed == (lost - gained) / 200


def drawn(seed: int, count: int = 10) -> tuple[np.ndarray, Answers, Answers]:
    """Labels of three classes and two models' answers; every fourth image gets the same one."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    both = []
    for _ in range(2):
        ids, scores = random.integers(0, 3, count), random.uniform(0.34, 1, count)
        both.append([ids, scores, np.where(ids == labels, scores, (1 - scores) / 2)])
    for mine, theirs in zip(*both, strict=True):
        theirs[::4] = mine[::4]
    return labels, Answers(*both[0]), Answers(*both[1])


def p_of_every_swap(candidate: Answers, baseline: Answers, worse) -> float:
    """By definition: the share of all swaps in which the candidate looks at least as much worse."""
    observed, counted = worse(candidate, baseline), []
    for swap in itertools.product([False, True], repeat=len(candidate.ids)):
        pairs = [
            (np.where(swap, theirs, mine), np.where(swap, mine, theirs))
            for mine, theirs in zip(vars(candidate).values(), vars(baseline).values(), strict=True)
        ]
        counted.append(worse(*(Answers(*side) for side in zip(*pairs, strict=True))) >= observed - 1e-9)
    return float(np.mean(counted))


@pytest.mark.parametrize("seed", range(3))
def test_precision_test_counts_every_swap(seed):
    labels, candidate, baseline = drawn(seed)
    hits = labels == 1

    def precision(answers: Answers) -> float:
        claimed = answers.ids == 1
        return (hits & claimed).sum() / max(claimed.sum(), 1)

    test = statistics.precision_test(hits, candidate.ids == 1, baseline.ids == 1)
    expected = p_of_every_swap(candidate, baseline, lambda mine, theirs: precision(theirs) - precision(mine))
    assert test.p_value == pytest.approx(expected)
    assert test.observed == pytest.approx(precision(baseline) - precision(candidate))


def test_precision_of_very_many_images_needs_no_memory_for_what_does_not_happen():
    hits = np.arange(200_000) % 2 == 0
    candidate, baseline = (np.arange(200_000) % 10 < share for share in (7, 4))
    test = statistics.precision_test(hits, candidate, baseline)
    assert len(test.tails) < 4_000_000
    assert 0 < test.p_value < 1
    # Far worse than swapping makes anybody.
    assert statistics.precision_test(hits, ~hits, hits).p_value < 1e-20


@pytest.mark.parametrize("seed", range(2))
def test_random_swaps_come_close_to_every_swap(seed):
    labels, candidate, baseline = drawn(seed)
    tests = (
        (statistics.log_loss_test(candidate, baseline), lambda model: model.losses.mean()),
        (
            statistics.calibration_test(labels, candidate, baseline),
            lambda model: calibration_error(model.scores, model.ids == labels),
        ),
    )
    for test, value in tests:
        expected = p_of_every_swap(candidate, baseline, lambda mine, theirs, value=value: value(mine) - value(theirs))
        assert test.p_value == pytest.approx(expected, abs=0.02)
        assert test.observed == pytest.approx(value(candidate) - value(baseline))


def test_random_swaps_are_the_same_every_time_and_never_give_zero():
    labels = np.zeros(200, int)
    sure, unsure = (Answers(labels, np.full(200, score), np.full(200, score)) for score in (0.9, 0.6))
    first, second = (statistics.log_loss_test(unsure, sure) for _ in range(2))
    assert first.p_value == second.p_value == 1 / (statistics.PERMUTATIONS + 1)
    np.testing.assert_array_equal(first.differences, second.differences)


def test_few_images_that_differ_cannot_be_significant_by_the_luck_of_random_swaps():
    labels = np.zeros(200, int)
    scores = np.full(200, 0.9)
    fewer = np.where(np.arange(200) < 4, 0.5, scores)
    test = statistics.log_loss_test(Answers(labels, fewer, fewer), Answers(labels, scores, scores))
    assert test.least == test.p_value >= 0.5**4


@pytest.mark.parametrize("level", [1e-5, 0.035, 0.05, 0.2])
@pytest.mark.parametrize("gained", [0, 1, 5, 200])
def test_margin_of_hits_is_the_most_that_may_be_lost_with_as_many_gained(level, gained):
    for lost in range(gained, gained + 120):
        test = sign_test(lost, gained, 1000)
        assert (test.p_value >= level) == (test.observed <= test.margin(level) + 1e-9)


@pytest.mark.parametrize("level", [0.035, 0.2])
def test_margin_of_precision_is_the_largest_difference_that_passes(level):
    random = np.random.default_rng(0)
    for _ in range(50):
        hits, candidate, baseline = random.random((3, 40)) < 0.5
        test = statistics.precision_test(hits, candidate, baseline)
        assert (test.p_value >= level) == (test.observed <= test.margin(level) + 1e-9)


def test_level_is_divided_among_the_tests_that_could_be_significant():
    hopeless, able = sign_test(3, 0, 100), sign_test(20, 20, 100)
    assert shared_level(0.05, [able]) == 0.05
    assert shared_level(0.05, [able, able]) == 0.025
    assert shared_level(0.05, [able, *[hopeless] * 98, able]) == 0.025
    # Tarone's own case: five that reach 1 % but not 1/6 of 5 %.
    reaching = [PairedTest(0.0, np.array([0.0]), np.array([0.009]))] * 6
    assert shared_level(0.05, reaching) == pytest.approx(0.05 / 6)


def test_detectable_drop_shrinks_with_images_and_grows_with_disagreement():
    drops = [statistics.detectable_drop(count, count // 10, 0.035) for count in (50, 200, 1000)]
    assert drops[0] > drops[1] > drops[2] > 0
    assert statistics.detectable_drop(200, 60, 0.035) > drops[1]
    assert statistics.detectable_drop(4, 0, 0.035) is None
