"""How far an evaluation is, for the same sinks as the progress of training."""

import time
from collections.abc import Callable

from promot_jax.evaluation import evaluator
from promot_jax.training.events import Events, Progress


def reporter(
  events: Events,
  name: str,
  *,
  stop: Callable[[], None] = lambda: None,
  clock: Callable[[], float] = time.monotonic,
) -> Callable[[evaluator.Progress], None]:
  """What to give to `evaluator.evaluate` as `progress`.

  The rate is measured from the first finished batch on, because compilation is no pace.

  Args:
    events: where the progress goes.
    name: what is evaluated, such as 'prompt-500' or 'prompt validation'.
    stop: called each time; raises if the evaluation should end.
    clock: seconds, monotonic.
  """
  began: int | None = None  # examples done when the evaluation started
  origin: tuple[float, int] | None = None  # time and examples of the first finished batch

  def report(state: evaluator.Progress) -> None:
    nonlocal began, origin
    now = clock()
    # The evaluator calls once before its first batch; what the journal had is done then already.
    if began is None:
      began = state.done
    elif origin is None and state.done > began:
      origin = (now, state.done)
    rate = left = None
    if origin is not None and state.done > origin[1] and now > origin[0]:
      rate = (state.done - origin[1]) / (now - origin[0])
      left = (state.total - state.done) / rate
    events.progress(
      Progress(
        stage=name,
        step=state.done,
        steps=state.total,
        unit="example",
        tasks=(state.tasks_done, state.tasks) if state.tasks > 1 else None,
        steps_per_second=rate,
        seconds_left=left,
      )
    )
    stop()

  return report
