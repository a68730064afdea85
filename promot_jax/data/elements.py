"""The elements of one split of a registered seqio task, whole and in the source's order."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from promot_jax import errors, task_package
from promot_jax.data import low_data

# What is read of an element; only `inputs` and `targets` have to be there.
_TEXTS = ("inputs_pretokenized", "targets_pretokenized", "answers", "answer_choices", "problem")
_KEYS = ("inputs", "targets", *_TEXTS)
_BLOCK = 128  # elements read at once


def bind_tasks(modules: Sequence[str]) -> None:
  if any(module.split(".")[0] == task_package.NAME for module in modules):
    task_package.bind()


def task(
  name: str,
  split: str,
  modules: Sequence[str],
  register: Callable[[], None] | None = None,
  make: Callable[[], Any] | None = None,
):
  """The seqio task that is registered or made, after checking the split."""
  # `make`: of a task with demonstrations of its own, which stands in no registry.
  found = _registered(name, modules, register) if make is None else make()
  splits = list(found.splits)
  if split not in splits:
    near = difflib.get_close_matches(split, splits, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    # Subsamples are splits, too, and forty more names would hide the others.
    shown = ", ".join(each for each in splits if low_data.of(each) is None)
    raise errors.ConfigError(f"task {name} has no split {split!r}; it has: {shown}.{hint}")
  return found


def _registered(name: str, modules: Sequence[str], register: Callable[[], None] | None) -> Any:
  import seqio

  bind_tasks(modules)
  for module in modules:
    importlib.import_module(module)
  if register is not None:
    register()
  # Rates of seqio's mixtures are applied where batches are made, for each example needs its task.
  if name in seqio.MixtureRegistry.names():
    members = ", ".join(task.name for task in seqio.MixtureRegistry.get(name).tasks)
    raise errors.ConfigError(
      f"{name} is a mixture; load each of its tasks ({members}) and mix them in TrainBatches."
    )
  if name not in seqio.TaskRegistry.names():
    near = difflib.get_close_matches(name, list(seqio.TaskRegistry.names()), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"imported were {', '.join(modules)}."
    raise errors.ConfigError(f"task {name!r} is not registered; {hint}")
  return seqio.TaskRegistry.get(name)


def whole(
  task: Any, split: str, seed: int, name: str, use_cached: bool, lengths: Mapping[str, int | None]
) -> Iterator[Mapping[str, Any]]:
  """Elements of somebody else's task with all that they have; its own failures become ours.

  A preprocessor that asks for the lengths (span corruption) gets them; else texts are whole, so that
  what is cut can be counted.
  """
  # seqio's own steps take lengths for cutting, which is done and counted here.
  asked = any(
    "sequence_length" in inspect.signature(step).parameters
    for step in task.preprocessors
    if getattr(step, "__module__", "") != "seqio.preprocessors" and callable(step)
  )
  given = {side: length for side, length in lengths.items() if length is not None}
  try:
    dataset = task.get_dataset(
      # None where nothing asked, or seqio cuts without a word.
      sequence_length=given if asked and given else None,
      split=split,
      shuffle=False,
      seed=seed,
      num_epochs=1,
      use_cached=use_cached,
    )
    for element in dataset.as_numpy_iterator():
      if element["inputs"].ndim != 1 or element["targets"].ndim != 1:
        raise ValueError("inputs and targets must be lists of token ids")
      yield {**_texts(task, element), **element}
  except errors.PromotError:
    raise
  # Preprocessors are the user's, and may raise anything.
  except Exception as cause:
    # The last line is the error itself: TensorFlow shows the user's code before it.
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    # One of ours comes out of TensorFlow's graph as text.
    ours = [found for line in lines if (found := line.partition("DataError: ")[2])]
    if ours:
      raise errors.DataError(f"{name}, split {split}: {ours[0]}") from cause
    raise errors.DataError(
      f"{name}, split {split}: the task's own pipeline failed: {type(cause).__name__}:"
      f" {(lines or [''])[-1]}"
    ) from cause


def _texts(task: Any, element: Mapping[str, Any]) -> dict[str, bytes]:
  """Texts of what was kept as tokens alone, as seqio's Evaluator makes them: cached examples, say."""
  missing = [side for side in ("inputs", "targets") if f"{side}_pretokenized" not in element]
  vocabularies = {side: task.output_features[side].vocabulary for side in missing}
  return {
    f"{side}_pretokenized": vocabulary.decode(element[side].tolist()).encode()
    for side, vocabulary in vocabularies.items()
  }


def rendered(
  task: Any,
  split: str,
  seed: int,
  name: str,
  use_cached: bool,
  lengths: Mapping[str, int | None],
  *,
  features: Sequence[str] = (),
) -> Iterator[Mapping[str, Any]]:
  """Uncut elements with what is read of each; TensorFlow's errors become ours.

  Args:
    features: names of what is read beside the texts.
  """
  import tensorflow as tf

  if use_cached:
    raise errors.ConfigError(
      f"{name} is no task that seqio caches; leave USE_CACHED_TASKS out for tasks of ours."
    )
  del lengths  # texts are read whole, so that what is cut can be counted
  # The registered pipeline stops at the first malformed record; here they are counted instead.
  kept = [step for step in task.preprocessors if getattr(step, "__name__", "") != "refuse_problems"]
  counting = task.replace(preprocessors=kept)
  try:
    dataset = counting.get_dataset(
      sequence_length=None, split=split, shuffle=False, seed=seed, num_epochs=1, use_cached=False
    )
    spec = dataset.element_spec
    # Only what is read: TensorFlow would hand over whole records, articles and all.
    keys = [key for key in (*_KEYS, *features) if key in spec]
    dataset = dataset.map(lambda element: {key: element[key] for key in keys})
    if features:  # of any shape, of which there may be no blocks
      yield from dataset.as_numpy_iterator()
      return
    # In blocks: TensorFlow spends more on handing over an element than on what is in it.
    for block in dataset.ragged_batch(_BLOCK).as_numpy_iterator():
      columns = {key: _rows(value) for key, value in block.items()}
      for row in range(len(columns["targets"])):
        yield {key: column[row] for key, column in columns.items()}
  except tf.errors.OpError as cause:
    lines = [line for line in (cause.message or str(cause)).splitlines() if line.strip()]
    # TensorFlow's message has the trace first; the sentence with an error in it is the cause.
    reason = next((line for line in lines if "Error: " in line), lines[0] if lines else "")
    _, ours, sentence = reason.partition(
      f"{errors.DataError.__name__}: "
    )  # raised while a file is read
    why = sentence if ours else f"reading failed: {reason.strip()}"
    raise errors.DataError(f"{name}, split {split}: {why}") from cause


def _rows(values) -> Sequence[Any]:
  """The elements of one dense or ragged batch of tensors."""
  if hasattr(values, "row_splits"):
    # The first and the last split are the ends.
    return np.split(values.values, values.row_splits[1:-1])
  return values
