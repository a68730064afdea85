"""How a model is measured: all that scores depend on besides the model and the examples.

Imports neither JAX nor TensorFlow.
"""

import dataclasses
from typing import Any

from promot_jax.decoding.strategies import Greedy, Strategy
from promot_jax.token_ids import TokenIds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
  """One way of measuring, the same for all tasks of an evaluation.

  special: the model's padding, end and start of decoding.
  strategy: how outputs are generated.
  max_target_length: longest output, for tasks that have none of their own.
  format_metric: applied to every task's whole answers; its `format_share` joins the scores.
  seed: of the keys of sampling strategies.
  """

  special: TokenIds
  strategy: Strategy = Greedy()  # noqa: RUF009 (a frozen value)
  max_target_length: int = 64
  format_metric: Any = None
  seed: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batching:
  """How rows are put together, on which no score depends.

  batch_size: rows of a batch, at most.
  buckets: padded input lengths, ascending; a number lets the evaluator choose that many.
  multiple: rows of a batch are a multiple of it, which devices can share: then batches have no more rows
    than their number needs.  None: all have `batch_size`.
  """

  batch_size: int = 64
  buckets: tuple[int, ...] | int = 3
  multiple: int | None = None
