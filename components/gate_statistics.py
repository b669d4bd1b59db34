"""The statistical tests of the gate. Each asks one question of two models' answers to the same images.

If the two were equally good, which of them gave which of an image's two answers would be a toss of a coin. So the
answers are swapped image by image, and the share of swaps that make the candidate look at least as much worse as it
does is the p-value: the paired randomization test (Noreen 1989, "Computer-Intensive Methods for Testing Hypotheses";
Yeh 2000, "More accurate tests for the statistical significance of result differences"). For hits it is the exact sign
test, which is McNemar's for small samples, and for precision it is summed up exactly, too; only log loss and
calibration error draw swaps at random.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.metrics import BINS, Answers, bin_of

Z_ONE_SIDED_95 = 1.6448536269514722
Z_TWO_SIDED_95 = 1.959963984540054
PERMUTATIONS = 9_999
SEED = 1
# Of swaps times images that are held in memory at a time.
_CHUNK = 1 << 22
_SAME = 1e-9
_TINY = 1e-15


@dataclass(frozen=True)
class PairedTest:
    """How much worse the candidate is, and how much worse equal models would look by chance.

    Attributes:
      observed: by how much the candidate is worse, in the metric's unit; negative where it is better.
      differences: float [outcomes], what swapping gives, from the worst down.
      tails: float [outcomes], how likely at least that much is between equal models.
    """

    observed: float
    differences: np.ndarray
    tails: np.ndarray

    @property
    def p_value(self) -> float:
        """How likely equal models look at least as different as these, in (0, 1]."""
        count = int((self.differences >= self.observed - _SAME).sum())
        return float(self.tails[max(count, 1) - 1])

    @property
    def least(self) -> float:
        """The smallest p-value that these images could have given."""
        return float(self.tails[0])

    def margin(self, level: float) -> float:
        """The largest difference that is not significant at a level (0 to 1), for images that differ like these."""
        return float(self.differences[min(np.searchsorted(self.tails, level - _TINY), len(self.tails) - 1)])


@dataclass(frozen=True)
class SignTest(PairedTest):
    """A paired test of hits.

    Attributes:
      gained: images that the candidate alone has right.
      count: all images.
    """

    gained: int
    count: int

    def margin(self, level: float) -> float:
        """The largest difference that is not significant with as many images gained.

        For as many images that differ it would grow with every image that is lost, and a poor model could seem to have
        missed a low bound by little.
        """
        return (_most_lost(self.gained, level) - self.gained) / self.count


@functools.lru_cache(4096)
def _most_lost(gained: int, level: float) -> int:
    from scipy.stats import binom

    # Far more than any level above 1e-12 needs.
    losses = np.arange(gained, gained + 60 + math.ceil(12 * math.sqrt(gained)))
    passing = binom.sf(losses - 1, losses + gained, 0.5) >= level - _TINY
    return int(losses[passing][-1])


def sign_test(lost: int, gained: int, count: int) -> SignTest:
    """Exact one-sided sign test of a share of hits among `count` images.

    Args:
      lost: images that the baseline has right and the candidate has not.
      gained: the other way round.
      count: all images, at least 1.
    """
    discordant = lost + gained
    losses = np.arange(discordant, -1, -1)
    tails = _coin_tails(discordant)
    return SignTest((lost - gained) / count, (2 * losses - discordant) / count, tails, gained, count)


@functools.lru_cache(512)
def _coin_tails(tosses: int) -> np.ndarray:
    """Probability of at least `tosses`, `tosses` - 1, ... 0 heads."""
    from scipy.stats import binom

    return binom.sf(np.arange(tosses, -1, -1) - 1, tosses, 0.5)


def precision_test(hits: np.ndarray, candidate: np.ndarray, baseline: np.ndarray) -> PairedTest:
    """Exact one-sided randomization test of a class's precision.

    An image that both models, or neither, call the class is the same when swapped. Of the others, those of the class
    and those of other classes are two heaps of coins, so every outcome and its probability can be written down.

    Args:
      hits: bool [examples], which images are of the class.
      candidate: bool [examples], which ones the candidate calls so.
      baseline: bool [examples], which ones the baseline calls so.
    """
    from scipy.stats import binom

    both, one = candidate & baseline, candidate ^ baseline
    right, wrong = int((both & hits).sum()), int((both & ~hits).sum())
    rights, wrongs = int((one & hits).sum()), int((one & ~hits).sum())
    x, y = _likely(rights)[:, None], _likely(wrongs)[None, :]
    differences = _ratio(right + rights - x, wrong + wrongs - y) - _ratio(right + x, wrong + y)
    weights = binom.pmf(x, rights, 0.5) * binom.pmf(y, wrongs, 0.5)
    order = np.argsort(-differences, axis=None, kind="stable")
    observed = _precision(hits, baseline) - _precision(hits, candidate)
    return PairedTest(observed, differences.ravel()[order], np.minimum(np.cumsum(weights.ravel()[order]), 1.0))


def _likely(tosses: int) -> np.ndarray:
    """Numbers of heads within ten standard deviations: all of them up to 100 tosses, and memory for any number."""
    reach = math.ceil(5 * math.sqrt(tosses))
    return np.arange(max(0, tosses // 2 - reach), min(tosses, tosses // 2 + reach) + 1)


def _ratio(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    return right / np.maximum(right + wrong, 1)


def _precision(hits: np.ndarray, claimed: np.ndarray) -> float:
    return float((hits & claimed).sum() / max(claimed.sum(), 1))


def log_loss_test(candidate: Answers, baseline: Answers) -> PairedTest:
    """Randomization test of the mean log loss (nats)."""
    losses = candidate.losses - baseline.losses
    sums = _swapped(losses[:, None])[:, 0]
    return _by_chance(losses.mean(), sums / len(losses), int((losses != 0).sum()))


def calibration_test(labels: np.ndarray, candidate: Answers, baseline: Answers) -> PairedTest:
    """Randomization test of the expected calibration error."""
    mine, theirs = _gaps(labels, candidate), _gaps(labels, baseline)
    # Swapping an image moves what it adds to the ranges of one model over to the other's: a sum with signs.
    moves = mine - theirs
    middle, swing = (mine + theirs).sum(axis=0) / 2, _swapped(moves) / 2
    differences = np.abs(middle + swing).sum(axis=1) - np.abs(middle - swing).sum(axis=1)
    observed = np.abs(mine.sum(axis=0)).sum() - np.abs(theirs.sum(axis=0)).sum()
    count = len(labels)
    return _by_chance(observed / count, differences / count, int(moves.any(axis=1).sum()))


def _gaps(labels: np.ndarray, answers: Answers) -> np.ndarray:
    """Hit minus score of each image in the column of its range, float [examples, ranges]."""
    gaps = np.zeros((len(labels), BINS))
    gaps[np.arange(len(labels)), bin_of(answers.scores)] = (answers.ids == labels) - answers.scores
    return gaps


def _swapped(values: np.ndarray) -> np.ndarray:
    """Column sums of rows [examples, columns] under random signs, float [permutations, columns]; always the same."""
    values = values[values.any(axis=1)]
    generator, parts, left = np.random.default_rng(SEED), [], PERMUTATIONS
    while left:
        rows = min(left, max(1, _CHUNK // max(len(values), 1)))
        swap = generator.integers(0, 2, (rows, len(values)), np.int8)
        parts.append(values.sum(axis=0) - 2 * (swap.astype(np.float64) @ values))
        left -= rows
    return np.concatenate(parts)


def _by_chance(observed: float, differences: np.ndarray, differing: int) -> PairedTest:
    """A test from random swaps; the answers as they are count as one of them (the `+ 1` of both books)."""
    ordered = np.sort(np.append(differences, observed))[::-1]
    tails = np.arange(1, len(ordered) + 1) / len(ordered)
    # Not below what all swaps of the images that differ could give, however the random ones fell.
    return PairedTest(float(observed), ordered, np.maximum(tails, 0.5**differing))


def shared_level(level: float, tests: Sequence[PairedTest]) -> float:
    """The level of each of several tests, so that together they stay within `level` (0 to 1).

    Bonferroni's division, among those tests only that could be significant at all: Tarone 1990, "A modified Bonferroni
    method for discrete data". With three images on which two models differ nothing can be significant.
    """
    least = np.array([test.least for test in tests])
    return next(level / k for k in range(1, len(tests) + 1) if (least <= level / k).sum() <= k)


def wilson_lower_bound(successes: int, count: int, z: float = Z_ONE_SIDED_95) -> float:
    """Lower one-sided 95 % bound of a proportion, in [0, 1]; 0 for an empty sample.

    Wilson 1927; Brown, Cai, DasGupta 2001, "Interval Estimation for a Binomial Proportion".
    """
    if not count:
        return 0.0
    share = successes / count
    centre = share + z * z / (2 * count)
    margin = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (centre - margin) / (1 + z * z / count))


def wilson_interval(successes: int, count: int) -> tuple[float, float]:
    """Two-sided 95 % interval of a proportion, in [0, 1]; all of it for an empty sample."""
    low, rest = (wilson_lower_bound(hits, count, Z_TWO_SIDED_95) for hits in (successes, count - successes))
    return low, 1 - rest


def detectable_drop(count: int, discordant: int, level: float, power: float = 0.8) -> float | None:
    """The smallest drop in accuracy that the sign test would notice with a probability of `power`, 0 to 1.

    A candidate that is worse by the drop is taken to lose that share of the images besides those on which two equal
    models would differ.

    Args:
      count: test images.
      discordant: those on which exactly one of the two models is right.
      level: 0 to 1, of the test.
      power: 0 to 1.

    Returns:
      None where even a drop to no hit at all would not be noticed.
    """
    low, high = 0.0, 1 - discordant / count
    if high <= 0 or _power(count, discordant, level, high) < power:
        return None
    while high - low > 5e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if _power(count, discordant, level, middle) >= power else (middle, high)
    return high


def _power(count: int, discordant: int, level: float, drop: float) -> float:
    from scipy.stats import binom

    share = discordant / count + drop
    numbers = np.arange(count + 1)
    # The fewest losses that are significant; of some numbers of coins none is.
    critical = binom.isf(level, numbers, 0.5) + 1
    critical += binom.sf(critical - 1, numbers, 0.5) >= level
    refused = binom.sf(critical - 1, numbers, (share + drop) / (2 * share))
    return float((binom.pmf(numbers, count, share) * refused).sum())
