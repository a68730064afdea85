"""Batches through the model, one batch ahead of the host."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from promot_jax.decoding import classes, scoring
from promot_jax.decoding import generate as generate_lib
from promot_jax.evaluation import rows as rows_lib
from promot_jax.evaluation import tokens
from promot_jax.evaluation.rows import Row
from promot_jax.evaluation.scorer import Output
from promot_jax.evaluation.setting import Batching, Setting
from promot_jax.evaluation.subject import Subject
from promot_jax.evaluation.task import EvalTask
from promot_jax.evaluation.tokens import Tokens
from promot_jax.token_ids import TokenIds

Fetch = Callable[[Any], np.ndarray]


class Finished(NamedTuple):
  """What came of a batch."""

  outputs: list[tuple[Row, Output]]
  tokens: Tokens


class _Started(NamedTuple):
  """A batch whose outputs are being computed."""

  result: jax.Array | generate_lib.DecodeResult
  """Log-probabilities of given answers [B] or of classes [B C], or outputs."""
  rows: list[Row]
  numbers: np.ndarray
  """int [B]: the number of each row, -1 for those that fill the batch."""
  longest: int
  """Of what is generated."""
  read: Tokens


def outputs(
  subject: Subject,
  rows: Sequence[Row],
  tasks: Sequence[EvalTask],
  *,
  setting: Setting,
  batching: Batching,
  copies: int = 1,
) -> Iterator[Finished]:
  """What came of each batch, as soon as it is there.

  Args:
    copies: outputs that the model gives of each row, side by side (`models.sweep`); 1: it gives one.

  Raises:
    ConfigError: a task asks for `detached` and the subject cannot be, or an input is too long.
  """
  models = subject.models({rows_lib.state_of(tasks[row.task]) for row in rows}, tasks)
  lengths = rows_lib.input_lengths(tasks, batching)
  sizes = rows_lib.batch_sizes(tasks, setting, batching)
  key = None if setting.seed is None else jax.random.key(setting.seed)
  waiting = None
  for pool, members in rows_lib.pooled(rows, tasks, setting):
    for batch, numbers in rows_lib.batches(
      members, tasks, lengths=lengths, batch_size=sizes[pool], setting=setting
    ):
      own = [members[number] for number in numbers if number >= 0]
      placed = subject.place(batch)
      result = _start(models[pool.state], placed, own[0], pool, setting=setting, key=key)
      if waiting:  # the device works on the new batch while the host reads the one before
        yield _read(waiting, setting.special, subject.fetch)
      read = tokens.read(batch, own=len(own), targets=pool.way == "ranked")
      repeated = [row for row in own for _ in range(copies)]
      waiting = _Started(result, repeated, np.repeat(numbers, copies), pool.length, read)
  if waiting:
    yield _read(waiting, setting.special, subject.fetch)


def _start(
  model: Any,
  batch: Mapping[str, Any],
  first: Row,
  pool: rows_lib.Pool,
  *,
  setting: Setting,
  key: jax.Array | None,
) -> jax.Array | generate_lib.DecodeResult:
  if pool.way == "ranked":
    return scoring.score(model, batch)
  if pool.way == "classified":
    return classes.log_probabilities(model, batch)
  if key is not None:  # other randomness for every batch, the same when it is run again
    key = jax.random.fold_in(jax.random.fold_in(key, first.task), first.example)
  return generate_lib.generate(
    model, batch, strategy=setting.strategy, max_length=pool.length, key=key, stop=pool.stop
  )


def _read(started: _Started, special: TokenIds, fetch: Fetch) -> Finished:
  """Waits for a batch and pairs its rows with their outputs."""
  rows, numbers = started.rows, started.numbers
  outputs = _outputs(started.result, np.flatnonzero(numbers >= 0), special, fetch)
  counted = started.read
  if isinstance(started.result, generate_lib.DecodeResult):
    lengths = [len(output.tokens) for output in outputs]
    counted += tokens.written(lengths, rows=len(numbers), longest=started.longest)
  return Finished(list(zip(rows, outputs, strict=True)), counted)


def _outputs(
  result: jax.Array | generate_lib.DecodeResult, places: np.ndarray, special: TokenIds, fetch: Fetch
) -> list[Output]:
  """Those of the rows at `places`."""
  if isinstance(result, generate_lib.DecodeResult):
    written = fetch(result.tokens)[places, 0]  # the best of each row's outputs
    scores = fetch(result.scores)[places, 0]
    return [
      Output(tokens=special.before_end(ids), score=float(value))
      for ids, value in zip(written, scores)
    ]
  scores = fetch(result)[places]
  # [B C] of a prediction head: the class takes the place of tokens.
  if scores.ndim == 2:
    best = scores.argmax(axis=1)
    return [
      Output(tokens=[int(number)], score=float(own[number])) for number, own in zip(best, scores)
    ]
  return [Output(tokens=[], score=float(value)) for value in scores]
