"""From tensors of a data set to the plain record that a template reads."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from promot_jax import errors
from promot_jax.data import tfds
from promot_jax.data.task import PROBLEM, WHERE, Path, Task


def paths(task: Task, structure: Mapping[str, Any]) -> list[Path]:
  """Fields of `task`, and a record's place and problem, that are in `structure`, an element or its spec.

  Raises:
    DataError: a field that the template needs is not there.
  """
  found = []
  # Where a record stands is read of every task that can say it.
  for path in (*task.fields, WHERE, PROBLEM):
    try:
      value = leaf(structure, path)
    except (KeyError, TypeError):
      # A source may lack these; a record without them is complete.
      if path in (*task.optional, WHERE, PROBLEM):
        continue
      raise errors.DataError(
        f"{task.name}: the source has no field {'/'.join(path)!r}; it has: {', '.join(structure)}."
      ) from None
    found += _leaves(path, value)
  return found


# Fields are tensors, so that a mapping stands for all that it holds.
def _leaves(path: Path, value: Any) -> list[Path]:
  """The fields at or below a path."""
  if not isinstance(value, Mapping):
    return [path]
  return [each for name, inner in value.items() for each in _leaves((*path, name), inner)]


def leaf(structure: Mapping[str, Any], path: Path) -> Any:
  """The value at `path` of nested mappings."""
  for name in path:
    structure = structure[name]
  return structure


def from_values(task: Task, fields: Sequence[Path], values: Sequence[Any]) -> dict[str, Any]:
  """The record of one element: `values` of the `fields`, as text, integers and lists.

  Raises:
    DataError: text is not UTF-8.
  """
  record: dict[str, Any] = {}
  for path, value in zip(fields, values, strict=True):
    inner = record
    for name in path[:-1]:
      inner = inner.setdefault(name, {})
    try:
      inner[path[-1]] = tfds.plain(value)
    except UnicodeDecodeError as cause:
      raise errors.DataError(
        f"{task.name}: field {'/'.join(path)!r} is not UTF-8: {cause}."
      ) from cause
  return record


def mapped(task: Task, dataset: tf.data.Dataset, function, outputs: Mapping[str, tf.TypeSpec]):
  """Adds to every element the outputs of a Python function of its record.

  Args:
    function: takes a callable that returns the record, or raises DataError, and the whole element's
      other tensors by name; returns the values of `outputs`, in their order.
    outputs: name -> shape and type of each value.
  """
  fields = paths(task, dataset.element_spec)
  # The only further tensors that a function of a record asks for.
  extra = [name for name in ("demonstrations",) if name in dataset.element_spec]

  def python(*values):
    others = dict(zip(extra, values[len(fields) :], strict=True))
    # As a callable: a record that cannot be made is the function's to catch.
    results = function(lambda: from_values(task, fields, values[: len(fields)]), **others)
    return [
      np.asarray(result, dtype=object if spec.dtype == tf.string else spec.dtype.as_numpy_dtype)
      for result, spec in zip(results, outputs.values(), strict=True)
    ]

  def graph(element):
    values = [leaf(element, path) for path in fields] + [element[name] for name in extra]
    types = [spec.dtype for spec in outputs.values()]
    results = tf.numpy_function(python, values, types)
    added = {}
    for (name, spec), result in zip(outputs.items(), results, strict=True):
      # What Python returns has no shape in the graph.
      result.set_shape(spec.shape)
      added[name] = result
    return {**element, **added}

  return dataset.map(graph, num_parallel_calls=1)  # Python holds its lock: more would only wait


def plain(task: Task, dataset: tf.data.Dataset) -> Iterator[Callable[[], dict[str, Any]]]:
  """The records of a data set, each as a callable that returns it or raises DataError."""
  fields = paths(task, dataset.element_spec)
  # Only the fields that are read, or whole records would be handed over.
  chosen = dataset.map(lambda element: [leaf(element, path) for path in fields])
  # In blocks: TensorFlow spends more on handing over an element than on what is in it.
  for block in chosen.ragged_batch(256).as_numpy_iterator():
    columns = [_rows(column) for column in block]
    for values in zip(*columns, strict=True):
      yield functools.partial(from_values, task, fields, values)


def _rows(column: Any) -> Sequence[Any]:
  if hasattr(column, "row_splits"):
    return np.split(column.values, column.row_splits[1:-1])
  return column
