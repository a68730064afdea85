"""A stage: what is trained, for how long, and how its checkpoint is chosen.  Data only."""

import dataclasses
import fractions
import math
import re
from collections.abc import Callable
from typing import Any, Literal

import optax

from promot_jax import errors, paths
from promot_jax.checkpoints.store import Keep
from promot_jax.methods.base import Method, own_patterns
from promot_jax.training import selection
from promot_jax.training.distillation import Distillation
from promot_jax.training.objectives import Objective, Supervised
from promot_jax.training.own_teacher import OwnTeacher
from promot_jax.training.penalties import Penalty
from promot_jax.training.schedules import Schedule, UntilTheEnd
from promot_jax.training.teacher_input import Demonstrated, TeacherInputs

LARGEST = 2**31 - 1  # of steps and batch sizes: the step is counted in int32

IN_EPOCHS = {"steps": "epochs", "eval_period": "eval_epochs", "save_period": "save_epochs"}
"""Field in steps -> the field that gives the same in epochs."""

RECIPE_VALUES = ("Stage",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
  """One training stage; ProMoT is two of them.

  Attributes:
    name: used in messages and for directories.
    trainable: patterns of the trained parameters (see `promot_jax.paths`); all others are frozen.
      'method' among them stands for what the experiment's method adds, '!method' for all but that.
    steps: updates; or None, and `epochs` says how long.
    epochs: passes over the training examples (of several tasks, over all of them together): the
      stage has ceil(epochs * examples / batch_size) steps, once the examples are counted.
    examples: that count, which `of_length` gives.
    batch_size: examples a step.
    optimizer: learning-rate schedule -> gradient transformation, such as `optimizers.adafactor`.
    learning_rate: step -> rate.
    objective: what is minimized.
    teacher: the network that an objective learns from (`networks.network`), or the student's own average
      (`own_teacher.OwnTeacher`); None: it needs none.
    teacher_inputs: name of the feature of the examples that the teacher reads in place of their input, or
      `Demonstrated`, the input behind a demonstration (`teacher_input`); None: it reads what the student reads.
    teacher_cache: folder in which what the teacher says is kept (`teacher_cache`), so that it is asked once
      for all runs that learn from it, a bare name beside the model directory; None: it is asked in each step.
    teacher_cache_tokens: how many tokens of its distribution are kept for each target token, the others
      together as one; None: all.
    penalty: added to the loss for moving weights away from those of a network (`penalties`); None: none.
    microbatches: parts that a batch is cut into, to save memory.
    dropout_rate: of every dropout in the backbone while this stage trains; None: the backbone's own.
    frozen_dtype: type that the frozen parameters are cast to while this stage trains and validates,
      such as 'bfloat16': a step then reads half the bytes.  The next stage gets them as they were,
      so both copies are held meanwhile.  None: they stay as they are.
    eval_period: steps between validations, each of which also saves; None: none.  The last step
      is always validated and saved.
    eval_epochs: the same in epochs, rounded up to steps; instead of `eval_period`.
    evaluate_at_start: also validates the parameters before training, as step 0.
    save_period: steps between further checkpoints; None: only those of validation.
    save_epochs: the same in epochs, rounded up to steps; instead of `save_period`.
    save_seconds: a checkpoint at least this often; None: never by time.
    log_period: steps that one line of training metrics averages over.
    select: 'best' takes the checkpoint with the best validation, the earliest on ties; 'last' the
      last one; a function of all validations gives the step (`selection`), and all checkpoints
      are kept for it.
    metric: name of the validation metric that decides, any that the task's metrics return, or 'loss'
      or 'token_accuracy' of teacher forcing, which decode nothing; or a function of the metrics.
      Of several tasks 'TASK/METRIC', or 'mean' of their own.
    mode: whether the highest ('max') or the lowest ('min') value of it is the best; None: of a
      loss the lowest, of others the highest.
    patience: validations in a row without a better one, after which the stage stops; None: never.
    min_delta: by how much a validation has to be better than the best before it to count as better.
    keep_last: newest checkpoints to keep besides the best one; None: all.
    keep_small_bytes: checkpoints of at most this size are never deleted.
  """

  name: str
  trainable: paths.Patterns
  # None only until `of_length`: all that runs has a number of steps.
  steps: int = None  # type: ignore[assignment]
  batch_size: int
  optimizer: Callable[[Schedule], optax.GradientTransformation]
  learning_rate: Schedule
  epochs: float | None = None
  examples: int | None = None
  objective: Objective = dataclasses.field(default_factory=Supervised)
  teacher: Any = None
  teacher_inputs: TeacherInputs = None
  teacher_cache: str | None = None
  teacher_cache_tokens: int | None = 64
  penalty: Penalty | None = None
  microbatches: int = 1
  dropout_rate: float | None = None
  frozen_dtype: Literal["float32", "bfloat16"] | None = None
  eval_period: int | None = None
  eval_epochs: float | None = None
  evaluate_at_start: bool = False
  save_period: int | None = None
  save_epochs: float | None = None
  save_seconds: float | None = 900.0
  log_period: int = 10
  select: Literal["best", "last"] | Callable[[selection.Validations], int] = "best"
  metric: selection.Metric = "accuracy"
  mode: Literal["max", "min"] | None = None
  patience: int | None = None
  min_delta: float = 0.0
  keep_last: int | None = 3
  keep_small_bytes: int = 8 * 2**20

  def __post_init__(self) -> None:
    def refuse(field: str, expected: str) -> None:
      value = getattr(self, field)
      raise errors.ConfigError(f"Stage '{self.name}': {field}={value!r} must be {expected}.")

    # It becomes the name of a directory, and of a flag's value (STAGE:STEP).
    if not isinstance(self.name, str) or not re.fullmatch(
      r"[A-Za-z0-9_][A-Za-z0-9_.-]*", self.name
    ):
      refuse("name", "made of letters, digits, '_', '.' and '-', and begin with no '.' or '-'")
    for field in ("batch_size", "microbatches", "log_period"):
      if not _is_count(getattr(self, field)) or not 1 <= getattr(self, field) <= LARGEST:
        refuse(field, f"a whole number from 1 to {LARGEST}")
    # Before steps are looked at: this is where epochs set them.
    for field, epochs in IN_EPOCHS.items():
      self._count(field, epochs)
    if self.steps is None and self.epochs is None:
      raise errors.ConfigError(
        f"Stage '{self.name}' has neither steps nor epochs: give one of them."
      )
    if self.steps is not None and (not _is_count(self.steps) or not 0 <= self.steps <= LARGEST):
      refuse("steps", f"a whole number from 0 to {LARGEST}")
    for field in ("eval_period", "save_period", "keep_last", "patience"):
      value = getattr(self, field)
      if value is not None and (not _is_count(value) or value < 1):
        refuse(field, "None or a whole number of at least 1")
    if self.batch_size % self.microbatches:
      refuse("microbatches", f"a divisor of batch_size={self.batch_size}")
    if self.objective.needs_teacher != (self.teacher is not None):
      name = type(self.objective).__name__
      raise errors.ConfigError(
        f"Stage '{self.name}': {name} learns from a teacher; give teacher a network."
        if self.teacher is None
        else f"Stage '{self.name}' has a teacher and {name} does not learn from one; use Distillation."
      )
    if self.teacher_inputs is not None and (
      self.teacher is None or not isinstance(self.teacher_inputs, str | Demonstrated)
    ):
      refuse(
        "teacher_inputs",
        "None, or of a stage with a teacher the name of a feature or Demonstrated()",
      )
    if self.teacher_cache is not None and not isinstance(self.objective, Distillation):
      refuse("teacher_cache", "None: only Distillation learns from what was kept of a teacher")
    if self.teacher_cache is not None and self.own_teacher is not None:
      refuse(
        "teacher_cache", "None: a teacher that follows its student says something else each step"
      )
    if self.teacher_cache_tokens is not None and (
      not _is_count(self.teacher_cache_tokens) or self.teacher_cache_tokens < 1
    ):
      refuse(
        "teacher_cache_tokens", "None for the whole vocabulary, or a whole number of at least 1"
      )
    if self.dropout_rate is not None and not 0 <= self.dropout_rate < 1:
      refuse("dropout_rate", "None or a number of at least 0 and below 1")
    seconds = self.save_seconds
    if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
      refuse("save_seconds", "None or a number of seconds, at least 0")
    if self.select not in ("best", "last") and not callable(self.select):
      refuse("select", "'best', 'last', or a function of all validations that gives a step")
    if not isinstance(self.metric, str) and not callable(self.metric):
      refuse("metric", "a metric's name, or a function of all metrics that gives a number")
    selection.require_mode(f"Stage '{self.name}'", self.metric, self.mode)
    if not (math.isfinite(self.min_delta) and self.min_delta >= 0):
      refuse("min_delta", "a number of at least 0")
    if self.patience is not None and self.eval_period is None and self.eval_epochs is None:
      refuse("patience", "None where eval_period is: it counts validations")
    if self.frozen_dtype not in (None, "float32", "bfloat16"):
      refuse("frozen_dtype", "None, 'float32' or 'bfloat16'")
    for field in ("optimizer", "learning_rate"):
      if not callable(getattr(self, field)):
        refuse(field, "a function; in a gin file write @optimizers.adafactor, or @schedules.NAME()")
    # Frozen, so set past its own guard; here, because only here both are known.
    if self.steps is not None and isinstance(self.learning_rate, UntilTheEnd):
      object.__setattr__(self, "learning_rate", self.learning_rate.until(self.steps))

  def _count(self, field: str, epochs: str) -> None:
    """Sets a number of steps from its number of epochs, where that is given and examples are known.

    Raises:
      ConfigError: both are given, or the epochs are no positive number.
    """
    given = getattr(self, epochs)
    if given is None:
      return
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < math.inf:
      raise errors.ConfigError(
        f"Stage '{self.name}': {epochs}={given!r} must be None or a number above 0."
      )
    if self.examples is not None:
      # As the decimal number that was written: 0.1 epochs of 30 are 3 examples, not 3.0000000000000004.
      count = fractions.Fraction(str(given)) * self.examples / self.batch_size
      object.__setattr__(self, field, max(1, math.ceil(count)))
    elif getattr(self, field) is not None:
      raise errors.ConfigError(
        f"Stage '{self.name}' has {field}={getattr(self, field)} and {epochs}={given}: give one, and"
        " None for the other."
      )

  def of_method(self, method: Method | None) -> "Stage":
    """The stage with the method's own pattern in the place of the word 'method'.

    Raises:
      ConfigError: it has the word, and there is no method.
    """
    patterns = own_patterns(self.trainable, method, owner=f"Stage '{self.name}'")
    return dataclasses.replace(self, trainable=patterns) if patterns != self.trainable else self

  @property
  def own_teacher(self) -> OwnTeacher | None:
    """The average of the student that teaches it; None: no teacher, or a network."""
    return self.teacher if isinstance(self.teacher, OwnTeacher) else None

  @property
  def reads_teacher(self) -> bool:
    """Whether it learns from its teacher; one that counts nothing in the loss is never made."""
    return self.teacher is not None and self.objective.reads_teacher

  @property
  def kept_tokens(self) -> int | None:
    """How many tokens are kept of each distribution of the teacher; None: it is asked, or all are kept."""
    return self.teacher_cache_tokens if self.teacher_cache and self.reads_teacher else None

  @property
  def has_epochs(self) -> bool:
    """Whether something is given in epochs, so that the training examples have to be counted."""
    return any(getattr(self, epochs) is not None for epochs in IN_EPOCHS.values())

  def of_length(self, examples: int) -> "Stage":
    """The stage with a number of steps, where it was given in epochs of `examples` examples."""
    return dataclasses.replace(self, examples=examples) if self.has_epochs else self

  @property
  def keep(self) -> Keep:
    """The policy of the stage's checkpoint store."""
    # A function may choose any step, and which one is known at the end.
    last = None if callable(self.select) else self.keep_last
    return Keep(last=last, mode=self.optimum, small_bytes=self.keep_small_bytes)

  @property
  def optimum(self) -> Literal["max", "min"]:
    """Whether the highest or the lowest score is the best."""
    return selection.optimum(self.metric, self.mode)

  @property
  def asks(self) -> tuple[str, ...] | None:
    """Metrics that a validation must give; None: all, as a function does not say what it needs."""
    return selection.names(self.metric, *([self.select] if callable(self.select) else []))

  @property
  def measures_loss(self) -> bool:
    """Whether a validation computes the stage's own loss."""
    return self.asks is None or any(map(selection.is_forced, self.asks))

  def validates(self, step: int) -> bool:
    """Whether the parameters after `step` updates are validated."""
    if step == 0:
      # A stage of no steps still has to hand on a checkpoint that was looked at.
      return self.evaluate_at_start or self.steps == 0
    return step == self.steps or (self.eval_period is not None and step % self.eval_period == 0)

  def saves(self, step: int) -> bool:
    """Whether the state after `step` updates is saved, apart from saving by time."""
    by_period = step > 0 and self.save_period is not None and step % self.save_period == 0
    return by_period or step == self.steps or self.validates(step)


def _is_count(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)
