"""Inputs behind solved examples, for a teacher that reads them (`training.teacher_input.Demonstrated`).

They are made of the texts of the examples that a stage trains on, as inputs of few-shot tasks are, and batches have
them as one feature more.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from promot_jax.data import few_shot, joining, templates
from promot_jax.data.examples import Examples
from promot_jax.data.features import Feature
from promot_jax.data.vocabularies import Vocabulary
from promot_jax.errors import ConfigError, DataError
from promot_jax.training.teacher_input import Demonstrated


def beside(
  examples: Examples,
  shown: Demonstrated,
  *,
  pool: Examples,
  vocabulary: Vocabulary,
  pad: int,
  report: Callable[[str], None],
) -> Examples:
  """The examples with their inputs behind demonstrations as a feature.

  Args:
    pool: training examples of their task, of which others are shown.
    vocabulary: the one that the examples were written with.
    pad: fills rows of a batch up.
    report: told what was cut.

  Raises:
    DataError: an example has no answer to show, there are too few others, or an input fills the length.
  """
  where = f"{examples.name} {examples.split}"
  before = _chosen(examples, shown, pool, where)
  frame, between = vocabulary.input_frame, vocabulary.joining
  found: list[np.ndarray] = []
  alone: list[int] = []  # tokens of inputs without a demonstration
  for record, solved in zip(examples.records, before, strict=True):
    text = templates.join_shots(
      solved, record["inputs"], separator=between.examples, before_answer=between.answer
    )
    query, whole = (
      frame.around(joining.texts_to_tokens(vocabulary, each, "")[0])
      for each in (record["inputs"], text)
    )
    alone.append(len(query))
    found.append(whole)
  longest, length = max(map(len, found)), shown.length
  if length is not None:
    # What is cut is the start, where the demonstration is.
    if full := [size for size in alone if size >= length]:
      raise DataError(
        f"{where}: {len(full)} of {len(found)} inputs have up to {max(full)} tokens and leave no room for a"
        f" demonstration in Demonstrated.length={length}; set it above that, or to None for no limit"
        f" (the longest input with its demonstration has {longest})."
      )
    cut = sum(len(tokens) > length for tokens in found)
    found = [frame.cut(tokens, length, at="start") for tokens in found]
    said = f"; {cut} of {len(found)} lose their start beyond {length}" if cut else ""
  else:
    said = ""
  report(f"teacher   {where} reads {shown}: up to {longest} tokens{said}")
  name = shown.feature
  return dataclasses.replace(
    examples,
    features={**examples.features, name: found},
    kinds={**examples.kinds, name: Feature(rank=1, pad=pad)},
  )


def require_length(shown: Demonstrated, positions: int | None, *, stage: str) -> None:
  """Raises ConfigError where a backbone with a table of positions would read inputs of any length."""
  if positions is not None and shown.length is None:
    raise ConfigError(
      f"stage '{stage}': its teacher reads {shown}, of any length, and MODEL has learned {positions} positions;"
      " set Demonstrated.length, so that it and the targets fit."
    )


def _chosen(
  examples: Examples, shown: Demonstrated, pool: Examples, where: str
) -> list[list[tuple[str, str]]]:
  """What is shown before each example: inputs and raw answers."""
  if shown.shown == "others":
    known = few_shot.Demonstrations(
      (record["inputs"], _answer(record)) for record in pool.records[: few_shot.POOL_SIZE]
    )
    return [
      known.choose(record["inputs"], shots=shown.shots, seed=0) for record in examples.records
    ]
  without = [number for number, record in enumerate(examples.records) if not _answer(record)]
  if without:
    raise DataError(
      f"{where}: {len(without)} of {len(examples)} examples have no answer that could be shown before their"
      f" input, the first is record {without[0]}; leave them out: --gin.EMPTY_TARGETS=\"'skip'\", or show"
      " others: Demonstrated.shown='others'."
    )
  return [[(record["inputs"], _answer(record))] for record in examples.records]


def _answer(record: Mapping[str, Any]) -> str:
  """The answer as demonstrations have it: raw, whatever form the target has."""
  answers = record.get("answers")
  if answers is None:
    return record["targets"]
  return answers[0] if answers else ""
