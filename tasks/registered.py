"""Tasks and mixtures that others registered with seqio, described by the same value as ours.

Nothing here imports seqio: a name can only be registered where the user's module did so before
(`--task_module`, or an import that `--gin_allow_imports` permits).  Such a task brings its own
preprocessors, postprocessor, metrics, vocabulary and, of a mixture, rates; all are used as they are.
"""

import dataclasses
import functools
import operator
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from promot_jax import errors
from promot_jax.data import features
from promot_jax.data.record_features import RecordFeature
from promot_jax.data.task import Source, Task
from promot_jax.data.vocabularies import Vocabulary
from tasks import registered_metrics

FEATURES = ("inputs", "targets")


def names(ours: Sequence[str]) -> list[str]:
  """Registered tasks and mixtures that are not ours.

  Args:
    ours: beginnings of our own registered names: 'rte_1shot' of 'rte_1shot.tfds.t5'.
  """
  # Nobody has registered anything where nobody has imported seqio.
  if "seqio" not in sys.modules:
    return []
  # Looked up instead of imported, which would cost seconds in every process.
  seqio = sys.modules["seqio"]
  every = [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]
  return sorted(name for name in every if name.partition(".")[0] not in ours)


def is_open(name: str) -> bool:
  """Whether somebody registered a task or mixture of exactly this name."""
  seqio = sys.modules.get("seqio")
  return seqio is not None and (
    name in seqio.TaskRegistry.names() or name in seqio.MixtureRegistry.names()
  )


def members(name: str) -> list[str]:
  """The tasks of a mixture, those of its own mixtures included; a task's only member is itself."""
  seqio = sys.modules["seqio"]
  if name in seqio.MixtureRegistry.names():
    return [task.name for task in seqio.MixtureRegistry.get(name).tasks]
  return [name]


def rates(name: str) -> tuple[float, ...] | None:
  """How often the tasks of a mixture are drawn, in the order of `members`; None of a task.

  Raises:
    ConfigError: a rate is computed by a function that cannot tell it.
  """
  seqio = sys.modules["seqio"]
  if name not in seqio.MixtureRegistry.names():
    return None
  mixture = seqio.MixtureRegistry.get(name)
  try:
    return tuple(float(mixture.get_rate(task)) for task in mixture.tasks)
  except Exception as error:  # a function of the user's, or of seqio, which may read sizes
    raise errors.ConfigError(
      f"the rates of mixture '{name}' cannot be told ({type(error).__name__}: {error}); give them with"
      " MIXING, such as @mixtures.equal."
    ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
  """A registered task as the origin of records (`data.task.Origin`); its data are its own business."""

  name: str

  @property
  def description(self) -> str:
    return f"seqio task '{self.name}'"

  def data_source(self) -> Any:
    """See `data.task.Origin`."""
    return _task(self.name).source

  def digest(self) -> str:
    """Unknown: its examples are read anew in every process."""
    return ""

  def state(self) -> str:
    """See `data.task.Origin`."""
    return f"{self.description}, from {type(_task(self.name).source).__name__}"

  def explained(self, task: str, error: Exception) -> None:
    """Its source's own message has to do."""
    del task, error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Postprocess:
  """The task's own postprocessor of an output, which may look at the whole example."""

  name: str
  reads_record = True

  def __call__(self, output: str, record: Mapping[str, Any]) -> Any:
    """See `seqio.Task.postprocess_fn`."""
    return _called(self.name, output, record, is_target=False)

  @property
  def described(self) -> str:
    """For the settings of a result."""
    return f"of seqio task {self.name}"


def find(name: str) -> Task:
  """The value of a registered task.

  Raises:
    ConfigError: it has no inputs and targets, no metric that can be called, or no usable splits.
  """
  registration = _task(name)
  kept = _values.get(name)
  # A name may be removed and registered again.
  if kept is None or kept[0] is not registration:
    kept = _values[name] = (registration, _value(name, registration))
  return kept[1]


# Name -> its registration and the value of it; as long as that is kept, nothing else has its identity.
_values: dict[str, tuple[Any, Task]] = {}


def _value(name: str, found: Any) -> Task:
  missing = [feature for feature in FEATURES if feature not in found.output_features]
  if missing:
    raise errors.ConfigError(
      f"task '{name}' has features {', '.join(found.output_features)} and no {' and no '.join(missing)};"
      " text-to-text tasks have both."
    )
  metrics = registered_metrics.metrics(found)
  splits = _splits(found)
  source = Source(
    origin=Origin(name=name),
    # The names that data sets give these splits, the most telling first.
    report=next((each for each in ("test", "validation", "dev") if each in splits), splits[-1]),
    # Without one, the user has to say on what he chooses.
    selection=next((each for each in ("validation", "dev", "valid") if each in splits), None),
    sizes=_sizes(found, splits),
    # Parts of 'train' are told by texts of ours, which such a task does not have.
    divisible=False,
  )
  return Task(
    name=name,
    sources={
      "tfds": source,
      "micro": source,
      "files": source,
    },  # whichever the other tasks come from
    metric="",
    metric_fns=metrics,
    own_postprocess=Postprocess(name=name),
    references=functools.partial(_target, name),
    features={
      each: RecordFeature(
        # A question's line has it under its name: text, or what the preprocessors make of an example.
        of=operator.itemgetter(each),
        kind=kind,
        # An end is put around what the task says is ended.
        form="targets" if found.output_features[each].add_eos else "plain",
      )
      for each, kind in features.declared(found).items()
    },
  )


def vocabulary(name: str) -> Vocabulary:
  """The vocabulary of a registered task's targets, as ours are asked.

  Raises:
    ConfigError: inputs and targets have two.
  """
  from tasks import vocabularies

  features = _task(name).output_features
  # A model has one embedding.
  if features["inputs"].vocabulary != features["targets"].vocabulary:
    raise errors.ConfigError(
      f"task '{name}' has one vocabulary for its inputs and another for its targets; a model has one."
    )
  return vocabularies.plain(features["inputs"], features["targets"])


def _splits(task: Any) -> list[str]:
  try:
    return list(task.splits)
  except Exception as error:  # TFDS asks the network, a function of the user's may do anything
    raise errors.ConfigError(
      f"the splits of task '{task.name}' cannot be told: {type(error).__name__}: {error}"
    ) from error


def _sizes(task: Any, splits: Sequence[str]) -> dict[str, int]:
  """Sizes that the source tells without reading."""
  found = {}
  for split in splits:
    try:
      size = task.num_input_examples(split)
    # A function of the user's may do anything, and a size is only a convenience.
    except Exception:
      size = None
    if size:
      found[split] = int(size)
  return found


def _target(name: str, record: Mapping[str, Any]) -> Any:
  """What the metrics compare predictions with."""
  # Its postprocessor sees the target as text.
  return _called(name, record["targets"], record, is_target=True)


def _called(name: str, text: str, record: Mapping[str, Any], *, is_target: bool) -> Any:
  example = record.get("example", {})
  try:
    return _task(name).postprocess_fn(text, example=example, is_target=is_target)
  except Exception as error:
    raise errors.DataError(
      f"the postprocessor of task '{name}' failed on {text[:80]!r}: {type(error).__name__}: {error}"
    ) from error


def _task(name: str) -> Any:
  return sys.modules["seqio"].TaskRegistry.get(name)
