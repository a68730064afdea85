"""Demonstrations before the inputs of a task that others registered, drawn and joined as those of ours.

They are put where the task's own preprocessors have made texts of a record and before they make tokens of
them, so that whatever it does to a text is done to the demonstrations, too.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import seqio
import tensorflow as tf

from promot_jax import errors
from promot_jax.data import few_shot, templates
from promot_jax.data.joining import Joining

_SIDES = ("inputs", "targets")
_LONG = dict.fromkeys(_SIDES, 2**15)  # for preprocessors that ask for lengths


def with_demonstrations(name: str, *, shots: int, seed: int, joining: Joining) -> seqio.Task:
  """The registered task `name` with demonstrations from its training split; in no registry itself.

  Args:
    seed: chooses them, with the input.
    joining: how texts are put together.

  Raises:
    ConfigError: it has no training split, or no step at which both sides are texts.
  """
  task = seqio.TaskRegistry.get(name)
  if "train" not in task.splits:
    # From what a model is trained on, as demonstrations of ours are.
    raise errors.ConfigError(
      f"task '{name}' has no split 'train' to take demonstrations from; it has: {', '.join(task.splits)}."
    )
  steps = list(task.preprocessors)
  place, spec = _last_texts(task, steps)
  # Read once, when the first example asks for it.
  pool = functools.cache(lambda: few_shot.Demonstrations(_pairs(task, steps[:place], spec)))
  join = functools.partial(_joined, pool=pool, shots=shots, number=seed, joining=joining)
  # A copy, for the registry's own task stays without demonstrations.
  return task.replace(
    name=f"{name}_{shots}shot", preprocessors=[*steps[:place], join, *steps[place:]]
  )


def _joined(dataset: tf.data.Dataset, *, pool, shots: int, number: int, joining: Joining):
  # `number` is no `seed` to seqio, which would warn that cached examples all have the same.
  pool()  # read before any example is, and not while one is

  def python(text: bytes) -> bytes:
    # The texts of others may be no UTF-8, and the query is compared as text.
    query = text.decode("utf-8", errors="replace")
    chosen = pool().choose(query, shots=shots, seed=number)
    prompt = templates.join_shots(
      chosen, query, separator=joining.examples, before_answer=joining.answer
    )
    return prompt.encode()

  def graph(element):
    prompt = tf.numpy_function(python, [element["inputs"]], tf.string)
    prompt.set_shape([])
    return {**element, "inputs": prompt}

  return dataset.map(graph, num_parallel_calls=1)  # Python holds its lock: more would only wait


def _last_texts(task: seqio.Task, steps: Sequence[Any]) -> tuple[int, dict[str, Any]]:
  """(how many steps have passed, what an element has then) where both sides are texts for the last time."""
  specs: list[Any] = []

  def seen(dataset):
    specs.append(dataset.element_spec)
    return dataset

  # Watched before the first step and behind each: only specs tell where texts become tokens.
  watched = task.replace(preprocessors=[seen, *(each for step in steps for each in (step, seen))])
  watched.get_dataset(
    sequence_length=_LONG, split="train", shuffle=False
  )  # only its specs are read
  # As late as possible, so that every change of a text happens before.
  for place in reversed(range(len(specs))):
    if all(_is_text(specs[place], side) for side in _SIDES):
      return place, specs[place]
  raise errors.ConfigError(
    f"task '{task.name}' has no preprocessor behind which its inputs and targets are texts, so no"
    " demonstrations can be put before them; register a version that has them, or leave them out."
  )


def _is_text(spec: Any, side: str) -> bool:
  found = spec.get(side) if isinstance(spec, dict) else None
  return found is not None and found.dtype == tf.string and found.shape.rank == 0


def _pairs(task: seqio.Task, steps: Sequence[Any], spec: dict[str, Any]) -> list[tuple[str, str]]:
  """Input and target of the first training examples, as `steps` leave them."""
  # Behind a few steps elements may lack features, or have them in other types.
  features = {
    name: dataclasses.replace(
      feature, required=False, dtype=spec[name].dtype, rank=spec[name].shape.rank
    )
    if name in spec
    else dataclasses.replace(feature, required=False)
    for name, feature in task.output_features.items()
  }
  texts = task.replace(preprocessors=list(steps), output_features=features)
  # Not trimmed: seqio would cut texts as it cuts tokens.
  dataset = texts.get_dataset(
    sequence_length=_LONG, split="train", shuffle=False, trim_output_features=False
  )
  return [
    tuple(element[side].decode("utf-8", errors="replace") for side in _SIDES)
    # From the beginning, as few_shot says.
    for element in dataset.take(few_shot.POOL_SIZE).as_numpy_iterator()
  ]
