"""Means of training metrics, and the pace of training."""

import collections
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping

from promot_jax.training import events

Sums = Mapping[str, tuple[float, float]]

_SHORTEST = 1e-3  # seconds below which a rate is not told
_NEWEST = 1000  # steps that the median of step times is taken over


class Window:
  """Adds (sum, weight) pairs over steps; the ratio is taken at the very end."""

  def __init__(self) -> None:
    self._sums: dict[str, tuple[float, float]] = {}

  def add(self, metrics: Sums) -> None:
    """Adds one step."""
    for name, (total, weight) in metrics.items():
      former, former_weight = self._sums.get(name, (0.0, 0.0))
      # In Python's float64: sums over many steps outgrow float32.
      self._sums[name] = (former + float(total), former_weight + float(weight))

  def take(self) -> dict[str, float]:
    """Means since the last call; empty where no step was added."""
    means = {
      name: total / weight if weight else float("nan")
      for name, (total, weight) in self._sums.items()
    }
    self._sums = {}
    return means


class Pace:
  """Rates and the time left, measured from the first finished step on: compilation is no pace.

  Steps are dispatched long before they are finished.  Rates are finished steps over the time in which
  the device worked at them, so a pause begins when no step is in flight: what the device still did in
  it would count as done in no time.

  Args:
    stage: name for the events.
    first: step that training starts or resumes at.
    steps: updates in all.
    clock: seconds, monotonic.
  """

  def __init__(
    self, stage: str, *, first: int, steps: int, clock: Callable[[], float] = time.monotonic
  ) -> None:
    self._stage, self._steps, self._clock = stage, steps, clock
    self._step = first
    self._origin: tuple[float, int] | None = None  # time and step of the first finished step
    self._tokens = 0
    self._paused = 0.0
    self._pause: float | None = None  # when the present pause began
    self._metrics: Sums = {}
    self._latest: float | None = None  # when the newest step finished; None: not since a pause
    self._seconds: collections.deque[float] = collections.deque(maxlen=_NEWEST)

  def finished(self, step: int, tokens: int, metrics: Sums) -> None:
    """One more step is known to be finished."""
    self._step, self._metrics = step, metrics
    now = self._clock()
    if self._latest is not None:
      self._seconds.append(now - self._latest)
    self._latest = now
    if self._origin is None:
      # The first finished step includes compilation: it starts the clock, its tokens do not count.
      self._origin = (now, step)
    else:
      self._tokens += tokens

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """Time in the body (validation, saving, compiling) counts for the time left, not for the rates.

    No step may be in flight when it begins.
    """
    self._pause = self._clock()
    try:
      yield
    finally:
      if self._origin is not None:
        # Only what lies behind the first finished step: what was before is not in the rates anyway.
        self._paused += self._clock() - max(self._pause, self._origin[0])
      # The next step's time would contain the pause.
      self._latest = self._pause = None

  def step_seconds(self) -> float | None:
    """The median time between two finished steps; None where no two followed one another.

    The median leaves out what the means of `progress` contain: compilations of further batch
    lengths, and moments in which the machine was busy with something else.
    """
    return statistics.median(self._seconds) if self._seconds else None

  def progress(self) -> events.Progress:
    """Where training is now."""
    steps_per_second = tokens_per_second = left = None
    if self._origin is not None and self._step > self._origin[1]:
      now = self._clock()
      elapsed = now - self._origin[0]
      done = self._step - self._origin[1]
      # Asked from inside of a pause, the pause so far is no work either.
      worked = (now if self._pause is None else max(self._pause, self._origin[0])) - self._origin[0]
      active = worked - self._paused
      if active >= _SHORTEST:
        steps_per_second = done / active
        tokens_per_second = self._tokens / active if self._tokens else None
      # With the pauses: those to come will take their time as well.
      left = (self._steps - self._step) * elapsed / done
    return events.Progress(
      stage=self._stage,
      step=self._step,
      steps=self._steps,
      loss=self._mean("loss"),
      learning_rate=self._mean("learning_rate"),
      tokens_per_second=tokens_per_second,
      steps_per_second=steps_per_second,
      seconds_left=left,
    )

  def _mean(self, name: str) -> float | None:
    if name not in self._metrics:
      return None
    total, weight = self._metrics[name]
    return float(total) / float(weight) if weight else None
