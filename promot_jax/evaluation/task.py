"""What is evaluated: a task at one number of shots, and the result it will become.

Imports neither JAX nor TensorFlow: a plan can be compared with stored results before any model is
loaded.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from promot_jax import errors
from promot_jax.data import features
from promot_jax.decoding.strategies import Sample
from promot_jax.evaluation.records import TaskResult
from promot_jax.evaluation.results import METHOD_STATES
from promot_jax.evaluation.setting import Setting
from promot_jax.evaluation.whole_files import fingerprint
from promot_jax.identity import Identity
from promot_jax.metrics import model_outputs, postprocess
from promot_jax.metrics.metric import describe
from promot_jax.token_ids import T5

if TYPE_CHECKING:  # it may import seqio
  from promot_jax.data.examples import Examples

TARGET = -1
"""Among the answers of an example (`options`): its own target, whose log p some metrics ask for."""

Way = Literal["generated", "ranked", "classified"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classes:
  """What the classes of a prediction head stand for.

  answers: the answer that each of them is, in the head's order.
  head: which head it is and what it reads, for the record.
  """

  answers: tuple[str, ...]
  head: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalTask:
  """A task at one number of shots, and how its outputs are scored.

  Args:
    label: task name without shots: `cb`.
    shots: demonstrations in every input.
    examples: what is asked.
    metric_fns: called as `f(targets, predictions) -> {name: score}`; those of
      `promot_jax.metrics` also give standard errors.
    metric: the headline score; empty takes rouge2 if there is one, else the first.
    postprocess: decoded output -> prediction; one that `reads_record` is also given the record.
    references: record -> accepted answers; None takes the record's `answers` if it has any, else
      the decoded target without sentinels.
    method: `none` if the model never had one, `attached` to use it, `detached` to take it off.
    bank_row: of the method's bank, for `attached`; None takes each example's own `prompt_ids`.
    options: answer -> its target tokens, with what shall be counted of their end; one mapping for
      all examples or one for each.  If given, nothing is generated: the answer with the highest
      log-probability (the sum over its tokens) is the prediction.
    classes: of the model's prediction head.  If given, nothing is generated: the answer of the most
      probable class is the prediction.
    stop: texts at which an output ends, if the end of sequence does not come first; what is behind
      is neither scored nor looked at by the format metric.
    stop_tokens: ids of the tokens that hold one of them: nothing has to be generated behind one.
    writing: how inputs and answers were written, for the record.
    max_target_length: longest output of this task; None takes the evaluation's.
    split: name of the split, for the record.
    limit: how many of the split's first examples these are; None: all of them.
  """

  label: str
  shots: int
  examples: "Examples"
  metric_fns: Sequence[Callable[..., Mapping[str, float]]]
  metric: str = ""
  postprocess: Callable[..., Any] = postprocess.between_sentinels
  references: Callable[[Mapping[str, Any]], Any] | None = None
  method: str = "none"
  bank_row: int | None = None
  options: Mapping[str, Sequence[int]] | Sequence[Mapping[str, Sequence[int]]] | None = None
  classes: Classes | None = None
  stop: Sequence[str] = ()
  stop_tokens: tuple[int, ...] = ()
  writing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  max_target_length: int | None = None
  split: str = ""
  limit: int | None = None

  def __post_init__(self):
    if self.method not in METHOD_STATES:
      raise errors.ConfigError(
        f"Task '{self.label}' asks for the method '{self.method}'; use one of {', '.join(METHOD_STATES)}."
      )

    if self.options and self.classes:
      raise errors.ConfigError(
        f"Task '{self.label}' has options and classes; its answers are ranked by the one or told by the"
        " other."
      )

  @property
  def way(self) -> Way:
    """How its answers come about: by a prediction head, chosen among `options`, or written."""
    return "classified" if self.classes else "ranked" if self.options else "generated"

  @property
  def reads_likelihoods(self) -> bool:
    """Whether a metric asks for log p of the targets."""
    return any(map(model_outputs.needs_likelihoods, self.metric_fns))

  @property
  def reads_answers(self) -> bool:
    """Whether the model has to answer at all: some metric looks at what it says."""
    return not self.metric_fns or not all(map(model_outputs.needs_likelihoods, self.metric_fns))

  def predicted(self, index: int, output: str) -> Any:
    """The prediction of example `index` from its decoded output."""
    if getattr(self.postprocess, "reads_record", False):
      return self.postprocess(output, self.record(index))
    return self.postprocess(output)

  def record(self, index: int) -> Mapping[str, Any]:
    """The record of an example; its `features` by name, where the task declares some."""
    record, kinds = self.examples.records[index], getattr(self.examples, "kinds", {})
    if not kinds:
      return record
    arrays = {name: self.examples.features[name][index] for name in kinds}
    return {**record, "features": {n: kinds[n].entries(array) for n, array in arrays.items()}}

  def options_of(self, index: int) -> Mapping[str, Sequence[int]]:
    """The answers among which example `index` chooses; none where it is generated."""
    if not self.options:
      return {}
    return self.options if isinstance(self.options, Mapping) else self.options[index]

  def row_of(self, index: int) -> int:
    """Row of the method's bank that example `index` uses."""
    if self.bank_row is not None:
      return self.bank_row
    return int(self.examples.prompt_ids[index])


def plan(
  task: EvalTask, setting: Setting, *, identity: str = "", made_from: Identity | None = None
) -> TaskResult:
  """The result that is to come, without scores: its names, settings and fingerprint.

  Args:
    identity, made_from: of the model; see `subject.Subject`.

  Raises:
    DataError: the task has no examples.
  """
  if not len(task.examples.inputs):
    raise errors.DataError(
      f"Task '{task.label}' ({task.shots}-shot, split '{task.split}') has no examples to evaluate; "
      "check the split and the limit."
    )
  # Settings: what scores depend on besides model and examples; recorded, and in the fingerprint.
  decoding = {
    "generated": repr(setting.strategy),
    "ranked": "options by log-probability",
    "classified": "the most probable class of a prediction head",
  }[task.way]
  format_metric = setting.format_metric
  settings = {
    "decoding": decoding,
    "max_target_length": task.max_target_length or setting.max_target_length,
    "metrics": [describe(metric) for metric in task.metric_fns],
    "format": getattr(format_metric, "signature", None) or describe(format_metric)
    if format_metric
    else "",
    "options": _shown_options(task),
    "answers": task.way,
    "stop": list(task.stop),
    "postprocess": describe(task.postprocess),
    "writing": dict(task.writing),
  }
  if setting.special != T5:  # which nobody's results mentioned at first
    settings["token ids"] = dataclasses.asdict(setting.special)
  # Only where there are some: results of other ways keep the fingerprints that they have.
  if task.classes:
    settings["classes"] = dataclasses.asdict(task.classes)
  # Other strategies draw nothing: a seed in their settings would set equal results apart.
  if isinstance(setting.strategy, Sample) and task.way == "generated":
    settings["seed"] = setting.seed
  # The fingerprint.  No limit is in it: the examples themselves tell which ones they are.
  identities = {
    "task": [task.label, task.split, task.shots, task.method, task.bank_row, task.metric],
    "examples": _digest(task),
    "settings": settings,
    "identity": identity,
  }
  return TaskResult(
    task=task.label,
    shots=task.shots,
    method=task.method,
    bank_row=task.bank_row or 0,
    split=task.split,
    metric=task.metric,
    scores={},
    count=len(task.examples.inputs),
    settings=settings,
    notes=_notes(task.examples),
    fingerprint=fingerprint(identities),
    limit=task.limit,
    made_from=_made_from(task, made_from),
  )


def _shown_options(task: EvalTask) -> dict[str, list[int]]:
  """Answers and ids: those of the first example where each has its own."""
  return {name: list(map(int, ids)) for name, ids in task.options_of(0).items()}


def _made_from(task: EvalTask, made_from: Identity | None) -> Mapping[str, Any]:
  """The model's identity with that of the examples, whose accepted answers no token shows."""
  parts = dict(made_from.parts) if made_from else {}
  parts["data"] = task.examples.content
  return Identity(parts=parts).to_json()


def _digest(task: EvalTask) -> str:
  """Of everything a model sees of the examples."""
  examples = task.examples
  # With the bank's rows, which change what the model is and stand in no token.
  rows = np.asarray([task.row_of(i) for i in range(len(examples.inputs))], np.int32)
  digest = hashlib.sha256(rows.tobytes())
  each = [task.options_of(i) for i in range(len(rows) if task.way == "ranked" else 0)]
  options = [ids for choices in each for ids in choices.values()]
  for sequences in (examples.inputs, examples.targets, options):
    for tokens in sequences:
      array = np.ascontiguousarray(tokens, np.int32)
      # Lengths too, or [1, 2] [3] and [1] [2, 3] would have one digest.
      digest.update(len(array).to_bytes(4, "little") + array.tobytes())
  for name in sorted(getattr(examples, "kinds", {})):
    packed = features.pack(examples.features[name])
    digest.update(name.encode() + packed["shapes"].tobytes() + packed["values"].tobytes())
  return digest.hexdigest()


def _notes(examples: "Examples") -> dict[str, Any]:
  return dataclasses.asdict(examples.lengths)
