"""Examples of many tasks as one stream of batches with few shapes.

A decode is compiled once for each batch shape, and a batch takes as long as its longest row.  So
rows of all tasks are pooled, cut into batches of one size, and padded to one of a few lengths:

    rows sorted by bucket, then by expected output length
    | 24 24 24 24 | 24 24 48 48 | 48 48 48 48 | 80 80 .. .. |     .. = repeated row, dropped later

Row order never changes an output: every row is decoded by itself.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from promot_jax import errors

MULTIPLE = 8
"""Bucket lengths are multiples of this: vector units like it, and equal plans give equal shapes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One row to run: where it came from and its tokens.

  Args:
    task: position in the list of tasks; index: example of that task; option: answer option that
      is scored, 0 when generating.
    tokens: encoder input, int [S], end of sequence included.
    target: target tokens, int [T]: scored, or, when generating, only a hint of output length.
    prompt_id: row of the prompt bank.
  """

  task: int
  index: int
  tokens: np.ndarray
  target: np.ndarray
  option: int = 0
  prompt_id: int = 0


def batches(
  rows: Sequence[Row], *, batch_size: int, buckets: Sequence[int], target_length: int | None = None
) -> Iterator[tuple[dict[str, np.ndarray], list[Row]]]:
  """Pairs of (batch arrays, the rows they hold); the batch may repeat its last row to be full.

  Args:
    buckets: input lengths, ascending; the last one must hold the longest row.
    target_length: if given, batches carry decoder arrays of this length for scoring `target`.

  Raises:
    ConfigError: a row is longer than every bucket.
  """
  if not rows:
    return
  limits = np.asarray(buckets)
  longest = max(len(row.tokens) for row in rows)
  if longest > limits[-1]:
    raise errors.ConfigError(
      f"An evaluation input has {longest} tokens and the longest bucket {limits[-1]}; add a bucket "
      "or lower the task's feature length."
    )
  bucket = [int(np.searchsorted(limits, len(row.tokens))) for row in rows]
  order = sorted(range(len(rows)), key=lambda i: (bucket[i], len(rows[i].target), i))
  for start in range(0, len(order), batch_size):
    chosen = order[start : start + batch_size]
    length = int(limits[max(bucket[i] for i in chosen)])
    full = chosen + [chosen[-1]] * (batch_size - len(chosen))
    members = [rows[i] for i in full]
    arrays = {
      "encoder_input_tokens": pad([row.tokens for row in members], length),
      "prompt_ids": np.asarray([row.prompt_id for row in members], np.int32),
    }
    if target_length is not None:
      targets = pad([row.target for row in members], target_length)
      arrays["decoder_target_tokens"] = targets
      arrays["decoder_input_tokens"] = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]  # starts with 0
      arrays["decoder_loss_weights"] = (targets > 0).astype(np.float32)
    yield arrays, members[: len(chosen)]


def pad(sequences: Sequence[np.ndarray], length: int) -> np.ndarray:
  """int32 [sequences, length], zeros after each sequence."""
  padded = np.zeros((len(sequences), length), np.int32)
  for row, sequence in zip(padded, sequences, strict=True):
    row[: len(sequence)] = sequence
  return padded


def choose_buckets(lengths: Sequence[int], count: int) -> tuple[int, ...]:
  """At most `count` lengths, multiples of 8, that waste the least padding on these rows.

  Exact dynamic programme over the rounded lengths, cheap because there are at most a few hundred.
  """
  if not len(lengths):
    return (MULTIPLE,)
  rounded = -(-np.asarray(lengths) // MULTIPLE) * MULTIPLE
  values, numbers = np.unique(np.maximum(rounded, MULTIPLE), return_counts=True)
  rows = np.concatenate([[0], np.cumsum(numbers)])  # rows[j] = rows of the j shortest values
  # choice[j] = (padded tokens, buckets) of the j shortest values with the buckets used so far
  choice: list[tuple[float, tuple[int, ...]]] = [(0.0, ())] + [(np.inf, ())] * len(values)
  for _ in range(min(count, len(values))):
    step = list(choice)
    for j in range(1, len(values) + 1):
      for i in range(j):
        cost = choice[i][0] + values[j - 1] * (rows[j] - rows[i])
        if cost < step[j][0]:
          step[j] = (cost, (*choice[i][1], int(values[j - 1])))
    choice = step
  return choice[-1][1]
