"""The model that is measured, as the evaluator sees it: made late, on its devices, with a name."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from promot_jax import errors, paths
from promot_jax.evaluation.rows import DETACHED
from promot_jax.evaluation.task import EvalTask
from promot_jax.identity import Identity


def _unplaced(batch: Mapping[str, np.ndarray]) -> Any:
  return batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
  """A model, and what has to be known of it before it is there.

  make: gives it, with its method attached if it has one; called once, and only if something is left to
    run.
  decode: token ids -> text, the vocabulary's.
  detach: model -> model without its method; needed if a task asks for `detached`.
  identity: anything that tells two models of one checkpoint name apart, such as a digest.
  made_from: what is known of its origin; a stored result of another one is not used.
  place: puts a host batch onto the devices; by default JAX does.
  fetch: gives the whole of an array of outputs, wherever its parts lie.
  """

  make: Callable[[], Any]
  decode: Callable[[Sequence[int]], str]
  detach: Callable[[Any], Any] | None = None
  identity: str = ""
  made_from: Identity | None = None
  place: Callable[[Mapping[str, np.ndarray]], Any] = _unplaced
  fetch: Callable[[Any], np.ndarray] = np.asarray

  def models(self, states: Collection[str], tasks: Sequence[EvalTask]) -> dict[str, Any]:
    """The model in each of the states (`rows.state_of`) in which the tasks see it.

    Raises:
      ConfigError: a task asks for `detached` and there is no `detach`.
    """
    if DETACHED in states and self.detach is None:
      names = [task.label for task in tasks if task.method == "detached"]
      raise errors.ConfigError(
        f"Tasks {', '.join(names)} ask for the method detached, but the evaluation got no way to "
        "detach it; pass detach=method.detach, or method='none' for a model without a method."
      )
    # Only now: where every result is kept already, no model is made.
    whole = _committed(self.make())
    without = self.detach(whole) if self.detach and DETACHED in states else whole
    return {state: without if state == DETACHED else whole for state in states}


def _committed(model: Any) -> Any:
  """The same arrays, bound to their devices as trained and restored ones are.

  Fresh arrays are not, and to jit that is another program: each mixture would be compiled anew.
  """
  leaves = paths.named_leaves(model)
  bound = {name: jax.device_put(leaf, leaf.sharding) for name, leaf in leaves.items()}
  return paths.replace_leaves(model, bound)
