"""Whether two systems differ on the same examples: paired tests, and intervals of their difference.

Of two systems that answer the same examples, the examples that both get right or both get wrong say nothing
about the difference; the two intervals of `confidence`, which are over all examples, are then far too wide.

Where every example is right or wrong the test is McNemar's (1947) with the exact binomial law, over the examples
of which one system gets the one right that the other does not.  Else it is approximate randomization (Noreen
1989; of BLEU, Riezler & Maxwell 2005): under the hypothesis that the systems are alike, the two outputs of an
example may change places, which turns the sign of its difference.  All arrangements are tried where there are no
more than `resamples` of them, else as many random ones.

Like intervals of single systems these cover the choice of examples only: neither training seeds nor demonstrations.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from promot_jax import errors
from promot_jax.metrics import confidence

RESAMPLES = 10_000
_AT_ONCE = 2**22  # numbers in one draw of arrangements: 32 MiB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
  """How far two systems are apart on the same examples.

  Attributes:
    first, second: their scores; `value` is the second less the first.
    interval: 95 % of the difference, percentiles of the paired bootstrap (Koehn 2004): the same examples are
      drawn for both.  None where no draw differs from another.
    p_value: two-sided, of the hypothesis that the systems are alike.
    test: its name, with the number of arrangements that were tried.
    higher, lower: of how many examples the second's own score is the higher one, and the lower one.
    count: number of examples.
  """

  first: float
  second: float
  interval: tuple[float, float] | None
  p_value: float
  test: str
  higher: int
  lower: int
  count: int

  @property
  def value(self) -> float:
    """The second's score less the first's."""
    return self.second - self.first


def difference(
  first: np.ndarray,
  second: np.ndarray,
  *,
  summarize: Callable[[np.ndarray], np.ndarray],
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> Difference:
  """The difference of two systems; the same seed gives the same result.

  Args:
    first, second: statistics of a metric, float64 [examples, statistics], row i of both of the same example.
    summarize: summed statistics [..., statistics] -> scores [...].
    resamples: of the bootstrap, and arrangements of the test.

  Raises:
    DataError: they have different numbers of examples, or none.
  """
  if first.shape != second.shape or not len(first):
    raise errors.DataError(
      f"A paired test got statistics of {len(first)} and {len(second)} examples; it needs the same examples, at"
      " least one, of both systems."
    )
  scores = float(summarize(first.sum(axis=0))), float(summarize(second.sum(axis=0)))
  # Of each example alone: in whose favour it is, not how much it weighs in the whole.
  gains = summarize(second) - summarize(first)
  higher, lower = int((gains > 0).sum()), int((gains < 0).sum())
  if all(all(confidence.are_shares(each, 1)) for each in (first, second)):
    p_value, test = mcnemar(higher, lower), "McNemar, exact"
  else:
    p_value, test = _randomization(first, second, summarize, resamples=resamples, seed=seed)
  drawn = _redrawn(first, second, summarize, resamples, seed)
  return Difference(
    first=scores[0],
    second=scores[1],
    interval=confidence.percentiles(drawn),
    p_value=p_value,
    test=test,
    higher=higher,
    lower=lower,
    count=len(first),
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
  """Two systems on the same examples of one task: the arguments of `difference`."""

  first: np.ndarray
  second: np.ndarray
  summarize: Callable[[np.ndarray], np.ndarray]


def mean_difference(
  samples: Sequence[Sample], *, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
  """The difference of two systems' mean scores over several tasks, such as Norm. Avg; each task counts alike.

  Examples are drawn, and outputs exchanged, within each task, of all tasks together `resamples` times.

  Raises:
    DataError: no task, or one as `difference` refuses it.
  """
  if not samples:
    raise errors.DataError("A paired test of a mean got no task; it needs at least one.")
  alone = [
    difference(each.first, each.second, summarize=each.summarize, resamples=1) for each in samples
  ]
  drawn, exchanged = np.zeros(resamples), np.zeros(resamples)
  for index, each in enumerate(samples):
    # A seed for each task: those of as many examples would else draw the same ones.
    drawn += _redrawn(each.first, each.second, each.summarize, resamples, (seed, index))
    generator = np.random.default_rng((seed, index))
    exchanged += _exchanged(each, generator=generator, number=resamples)
  value = float(np.mean([each.value for each in alone]))
  as_far = _count_as_far(exchanged / len(samples), abs(value))
  return Difference(
    first=float(np.mean([each.first for each in alone])),
    second=float(np.mean([each.second for each in alone])),
    interval=confidence.percentiles(drawn / len(samples)),
    p_value=(as_far + 1) / (resamples + 1),
    test=f"exchanges within {len(samples)} tasks, {resamples:,} random ones",
    higher=sum(each.higher for each in alone),
    lower=sum(each.lower for each in alone),
    count=sum(each.count for each in alone),
  )


def mcnemar(first_only: int, second_only: int) -> float:
  """Two-sided p of McNemar's exact test: a fair coin decides each example that only one system gets right.

  p = min(1, 2 * sum_{i <= min} C(n, i) / 2^n), n = first_only + second_only.
  """
  n = first_only + second_only
  # Logarithms, as C(n, i) of a few thousand examples is beyond float64.
  logs = [
    math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2)
    for i in range(min(first_only, second_only) + 1)
  ]
  return min(1.0, 2 * math.fsum(map(math.exp, logs)))


def adjusted(p_values: Sequence[float]) -> list[float]:
  """Holm's (1979) p-values of several tests: each as it would have to be if it were the only one.

  The chance that any of them falls below a level is at most that level where all systems are alike.
  """
  order = sorted(range(len(p_values)), key=lambda i: p_values[i])
  found, largest = [1.0] * len(p_values), 0.0
  for rank, index in enumerate(order):
    # Never below that of a smaller p: adjusting keeps the order of the tests.
    largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
    found[index] = largest
  return found


def mean(totals: np.ndarray) -> np.ndarray:
  """`summarize` of means of one score: [..., (count, sum)] -> [...] (`metric.mean_statistics`)."""
  return totals[..., 1] / totals[..., 0]


def _redrawn(
  first: np.ndarray,
  second: np.ndarray,
  summarize: Callable[[np.ndarray], np.ndarray],
  resamples: int,
  seed: int | tuple[int, ...],
) -> np.ndarray:
  """The second's score less the first's on redrawn examples: [resamples]."""
  # Side by side, so that one draw takes the same examples of both.
  both = confidence.resampled_totals(np.hstack([first, second]), resamples, seed)
  return summarize(both[:, first.shape[1] :]) - summarize(both[:, : first.shape[1]])


def _randomization(
  first: np.ndarray,
  second: np.ndarray,
  summarize: Callable[[np.ndarray], np.ndarray],
  *,
  resamples: int,
  seed: int,
) -> tuple[float, str]:
  """(two-sided p, name of the test): the outputs of each example stay or change places."""
  sample = Sample(first=first, second=second, summarize=summarize)
  observed = abs(float(summarize(second.sum(axis=0)) - summarize(first.sum(axis=0))))
  differing = int(_differing(sample).sum())
  exact = differing < 60 and 2**differing <= resamples
  number = 2**differing if exact else resamples
  generator = None if exact else np.random.default_rng(seed)
  as_far = _count_as_far(_exchanged(sample, generator=generator, number=number), observed)
  if exact:
    return as_far / number, f"exchanges, all {number:,}"
  # What was observed is one of the arrangements (Phipson & Smyth 2010): p is never 0.
  return (as_far + 1) / (number + 1), f"exchanges, {number:,} random ones"


def _differing(sample: Sample) -> np.ndarray:
  """Which examples' outputs differ: bool [examples].  The others may change places unseen."""
  return (sample.first != sample.second).any(axis=1)


def _exchanged(sample: Sample, *, generator: np.random.Generator | None, number: int) -> np.ndarray:
  """The second's score less the first's with outputs exchanged: [number], random ones or the first `number`."""
  totals = sample.first.sum(axis=0), sample.second.sum(axis=0)
  # [examples, statistics], what an exchange gives to the first.
  moved = (sample.second - sample.first)[_differing(sample)]
  chunk = max(1, _AT_ONCE // max(1, len(moved)))
  found = np.empty(number)
  for start in range(0, number, chunk):
    here = np.arange(start, min(start + chunk, number))
    if generator is None:
      exchanged = (here[:, None] >> np.arange(len(moved))) & 1
    else:
      exchanged = generator.integers(2, size=(len(here), len(moved)))
    given = exchanged.astype(np.float64) @ moved  # [arrangements, statistics]
    found[here] = sample.summarize(totals[1] - given) - sample.summarize(totals[0] + given)
  return found


def _count_as_far(differences: np.ndarray, observed: float) -> int:
  """How many arrangements are as far apart as what was observed, which is one of them."""
  # Rounding must not hide what is just as far apart.
  return int((np.abs(differences) >= observed - 1e-9 * max(1.0, observed)).sum())
