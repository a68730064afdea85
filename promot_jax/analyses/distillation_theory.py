"""Why full tuning loses what was not in its training data, and why distillation does not: two propositions.

Hewitt et al., 2021, appendices D and G, for logistic regression with classes k: p(k | x) = softmax(x theta)_k.

1. Trained by gradient descent from zero, all classes that no example has share one vector theta_k at every
   step: their gradient X^T (P - Y) has the same column of P and no label.  So each of U such classes has the
   same probability for any input, at most 1 / U, and inputs that belong to them are told apart by chance.
   With another start they are not the same.
2. Distilled without labels (lambda = 1) on inputs X of full column rank, the student has the teacher's
   distribution for every input.  Equal distributions on the rows of X mean that X (theta - teacher) is one
   column repeated; differences of two columns of theta - teacher are then 0, as X has no null space.  So
   theta is the teacher plus one common vector, whether the normalizers (log sum exp) match or not.  Without
   the rank, only what lies in the span of the rows is recovered.

Gradient descent on the mean cross-entropy with the step 1 / L, in float64; L is the largest eigenvalue of
X^T X / n over 2, which bounds the curvature.  Nothing is read and no run is needed.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from promot_jax.analyses import charts
from promot_jax.analyses.charts import Chart, Panel, Point
from promot_jax.analyses.findings import Findings, Source
from promot_jax.errors import ConfigError

RECIPE_VALUES = ("DistillationTheory",)

_UNSEEN, _RECOVERY = "unseen classes", "distillation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One training: of proposition 1 (`unseen classes`) or 2 (`distillation`).

  start: of proposition 1 the multiple of the true parameters that it begins with.  Of 2 what it begins
    with: 'zero', or the mean of the teacher's vectors, with which normalizers match.
  spread: largest distance of two unseen classes' parameters at any step.
  probability: largest of any unseen class for any tested input.
  accuracy: share of inputs of unseen classes that get theirs, ties drawn at random.
  among_unseen: the same where only unseen classes may be chosen.
  bound: of both from zero, 1 / unseen classes.
  rank: of the inputs, which have `inputs` columns.
  on_inputs, anywhere: mean KL(teacher || student), nats, on those inputs and on fresh ones of full rank.
  normalizer_gap: mean distance of the normalizers on the fresh ones.
  """

  proposition: str
  start: str
  spread: float | None = None
  probability: float | None = None
  accuracy: float | None = None
  among_unseen: float | None = None
  bound: float | None = None
  rank: int | None = None
  inputs: int | None = None
  on_inputs: float | None = None
  anywhere: float | None = None
  normalizer_gap: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillationTheory:
  """Both propositions on random problems.

  inputs: features of an example.
  seen, unseen: classes with and without training examples.
  examples: drawn; those of seen classes are trained on.
  steps: of gradient descent.
  starts: multiples of the true parameters, 0 is proposition 1's.
  seed: of the problem.
  """

  inputs: int = 8
  seen: int = 5
  unseen: int = 4
  examples: int = 600
  steps: int = 2000
  starts: Sequence[float] = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0)
  seed: int = 0

  def __post_init__(self):
    least = {"inputs": 2, "seen": 1, "unseen": 2, "examples": 10, "steps": 1, "seed": 0}
    for name, smallest in least.items():
      value = getattr(self, name)
      if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
        raise ConfigError(
          f"DistillationTheory.{name}={value!r} must be a whole number from {smallest}."
        )
    numbers = isinstance(self.starts, list | tuple) and all(
      isinstance(each, int | float) and 0 <= each <= 10 for each in self.starts
    )
    if not numbers or not self.starts:
      raise ConfigError(
        f"DistillationTheory.starts={self.starts!r} must be numbers from 0 to 10: [0, 0.1, 1]."
      )

  def __call__(self, sources: Sequence[Source]) -> Findings:
    if sources:
      raise ConfigError(
        "distillation_theory is about random problems of its own; name no runs, and say with"
        " --output=DIR where its files go."
      )
    unseen = [self._unseen(start) for start in self.starts]
    recovered = list(self._recovery())
    return Findings(
      title="Classes without examples, and distillation without labels",
      rows=[*unseen, *recovered],
      charts={"": _accuracy_chart(unseen), "recovery": _recovery_chart(recovered)},
    )

  def _problem(self) -> tuple[np.random.Generator, np.ndarray]:
    """The draws that follow, and the true parameters [inputs classes]; unseen classes are the last."""
    draw = np.random.default_rng(self.seed)
    return draw, draw.normal(size=(self.inputs, self.seen + self.unseen))

  def _unseen(self, start: float) -> Row:
    draw, truth = self._problem()
    inputs, others = draw.normal(size=(2, self.examples, self.inputs))
    labels, targets = (np.argmax(x @ truth, axis=1) for x in (inputs, others))
    trained = inputs[labels < self.seen]
    wanted = np.eye(truth.shape[1])[labels[labels < self.seen]]
    spread = 0.0

    def look(theta: np.ndarray) -> None:
      nonlocal spread
      own = theta[:, self.seen :]
      spread = max(spread, float(np.ptp(own, axis=1).max()))

    theta = descend(start * truth, trained, wanted, steps=self.steps, look=look)
    chosen = targets >= self.seen
    logits = others[chosen] @ theta
    return Row(
      proposition=_UNSEEN,
      start=f"{start:g}",
      spread=spread,
      probability=float(probabilities(others @ theta)[:, self.seen :].max()),
      accuracy=_expected_right(logits, targets[chosen]),
      among_unseen=_expected_right(logits[:, self.seen :], targets[chosen] - self.seen),
      bound=1 / self.unseen,
    )

  def _recovery(self) -> Iterator[Row]:
    draw, teacher = self._problem()
    directions = np.linalg.qr(draw.normal(size=(self.inputs, self.inputs)))[0]
    inputs, fresh = draw.normal(size=(2, self.examples, self.inputs))
    mean = np.broadcast_to(teacher.mean(axis=1, keepdims=True), teacher.shape)
    for rank in range(1, self.inputs + 1):
      span = directions[:, :rank]
      seen = inputs @ span @ span.T
      for start, begun in (("zero", 0 * teacher), ("teacher's mean", mean)):
        theta = descend(begun, seen, probabilities(seen @ teacher), steps=self.steps)
        yield Row(
          proposition=_RECOVERY,
          start=start,
          rank=rank,
          inputs=self.inputs,
          on_inputs=divergence(seen @ teacher, seen @ theta),
          anywhere=divergence(fresh @ teacher, fresh @ theta),
          normalizer_gap=float(
            np.abs(_normalizer(fresh @ teacher) - _normalizer(fresh @ theta)).mean()
          ),
        )


def descend(
  theta: np.ndarray,
  inputs: np.ndarray,
  wanted: np.ndarray,
  *,
  steps: int,
  look: Callable[[np.ndarray], None] = lambda theta: None,
) -> np.ndarray:
  """Gradient descent on the mean cross-entropy of softmax(inputs theta) with distributions.

  Args:
    theta: [inputs classes], the beginning.
    inputs: [examples inputs].
    wanted: [examples classes], the distributions.
    look: called with the parameters at the beginning and after each step.
  """
  step = 2 * len(inputs) / np.linalg.eigvalsh(inputs.T @ inputs).max()
  look(theta)
  for _ in range(steps):
    theta = theta - step * gradient(theta, inputs, wanted)
    look(theta)
  return theta


def gradient(theta: np.ndarray, inputs: np.ndarray, wanted: np.ndarray) -> np.ndarray:
  """Of the mean cross-entropy by theta [inputs classes]."""
  return inputs.T @ (probabilities(inputs @ theta) - wanted) / len(inputs)


def probabilities(logits: np.ndarray) -> np.ndarray:
  """Softmax over the last axis."""
  return np.exp(logits - _normalizer(logits)[..., None])


def divergence(teacher: np.ndarray, student: np.ndarray) -> float:
  """Mean KL of two sets of logits [examples classes], nats."""
  logs = [logits - _normalizer(logits)[..., None] for logits in (teacher, student)]
  # Rounding of equal distributions may be below 0.
  return max(0.0, float((np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=1).mean()))


def _normalizer(logits: np.ndarray) -> np.ndarray:
  largest = logits.max(axis=-1, keepdims=True)
  return largest[..., 0] + np.log(np.exp(logits - largest).sum(axis=-1))


def _expected_right(logits: np.ndarray, targets: np.ndarray) -> float:
  """The expected share of right answers where the largest logit is chosen and ties are drawn."""
  # Equal ones differ by rounding.
  largest = logits >= logits.max(axis=1, keepdims=True) - 1e-9
  right = largest[np.arange(len(targets)), targets] / largest.sum(axis=1)
  return float(right.mean())


def _accuracy_chart(rows: Sequence[Row]) -> Chart:
  points = [
    (name, Point(x=float(row.start), y=100 * (value or 0)))
    for row in rows
    for name, value in (
      ("among unseen classes", row.among_unseen),
      ("among all classes", row.accuracy),
      ("1 / unseen classes", row.bound),
    )
  ]
  told = "; ".join(f"{row.start}: {100 * (row.among_unseen or 0):.1f} %" for row in rows)
  return Chart(
    panels=[Panel(series=charts.lines(points))],
    across="start, as a multiple of the true parameters",
    up="right on unseen classes, %",
    words="How often inputs of classes without training examples get the right one of these, by the"
    f" parameters that training began with. {told}.",
    limits=(0, 100),
  )


def _recovery_chart(rows: Sequence[Row]) -> Chart:
  own = [row for row in rows if row.start == "zero"]
  points = [
    (name, Point(x=row.rank or 0, y=value or 0))
    for row in own
    for name, value in (("on its inputs", row.on_inputs), ("on any input", row.anywhere))
  ]
  return Chart(
    panels=[Panel(series=charts.lines(points))],
    across="rank of the inputs",
    up="KL(teacher || student), nats",
    words="Divergence of a student that was distilled without labels, by the rank of its inputs. On any input:"
    f" {'; '.join(f'{row.rank}: {row.anywhere:.2g}' for row in own)}.",
  )
