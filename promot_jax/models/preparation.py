"""What a method makes of its parameters once a batch is known, before the network reads them.

Some methods do not train the arrays that the network uses, but others that give them: a small
network that computes a prefix, or a bank from which each example takes its own task's row.  Their
modules declare it here, and a backbone begins every call with `prepare`, which costs nothing without
such a method.  So attention and linear layers need to know neither tasks nor networks.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import paths
from promot_jax.errors import ConfigError
from promot_jax.types import Array, Key

Model = TypeVar("Model", bound=nnx.Module)


class Generator(nnx.Module):
  """An attribute of a network that fills slots of that network, and then is not needed."""

  def fill(self, model: nnx.Module) -> None:
    """Puts what it computes into slots of `model`, the module that it is an attribute of."""
    del model


class Unready(nnx.Module):
  """A module in a slot or in place of a layer that needs the batch's ids or a key first.

  tasks: number of rows of its bank; 1 where all examples share what it holds.
  dropout_rate: of what it holds, while training.
  """

  tasks: int = 1
  dropout_rate: float = 0.0

  def ready(self, prompt_ids: Array | None, key: Key | None) -> nnx.Module:
    """The module to use instead, with tasks 1 and dropout_rate 0."""
    del prompt_ids, key
    return self


def prepare(model: Model, prompt_ids: Array | None = None, *, key: Key | None = None) -> Model:
  """The network as it runs on one batch; the same one if nothing waits for it.

  Doing it twice is as good as once: what is ready stays.

  Args:
    model: a backbone, methods attached.
    prompt_ids: int32 [B], each example's row of the banks.
    key: for dropout of what was prepared; None: no dropout.

  Raises:
    ConfigError: there is a bank and no `prompt_ids`.
  """
  if not _waiting(model):
    return model
  model = paths.copy(model)
  for parent, name, child in _children(model, Generator):
    child.fill(parent)
    delattr(parent, name)
  for number, (parent, name, child) in enumerate(_children(model, Unready)):
    if child.tasks > 1 and prompt_ids is None:
      raise ConfigError(
        f"The model holds '{name}' of {child.tasks} tasks, but the batch has no 'prompt_ids' that say"
        " which example uses which."
      )
    if child.tasks > 1 or child.dropout_rate > 0:
      own_key = None if key is None else jax.random.fold_in(key, number)
      setattr(parent, name, child.ready(prompt_ids, own_key))
  return model


def rows(bank: Array, prompt_ids: Array, *, axis: int) -> Array:
  """Each example's row of a bank: [... tasks ...] -> [... B ...] along `axis`, counted from the end.

  Ids are checked on the host.  One that slips through becomes NaN, which the training step reports,
  instead of some other task's parameters.
  """
  return jnp.take(bank, prompt_ids, axis=bank.ndim + axis, mode="fill", fill_value=jnp.nan)


def for_rows(leaf: Array, count: int) -> Array:
  """[B ...] -> [R ...]: each example's values for the R / B rows of a decode that belong to it."""
  return leaf if leaf.shape[0] == count else jnp.repeat(leaf, count // leaf.shape[0], axis=0)


def _waiting(model: nnx.Module) -> bool:
  return any(
    isinstance(module, Generator)
    or (isinstance(module, Unready) and (module.tasks > 1 or module.dropout_rate > 0))
    for _, module in nnx.iter_modules(model)
  )


def _children(model: nnx.Module, kind: type) -> list[tuple[nnx.Module, str, nnx.Module]]:
  """(parent, attribute, module) of every module of a kind, in the order of the paths."""
  found = []
  for path, parent in nnx.iter_modules(model):
    for name, child in list(vars(parent).items()):
      if isinstance(child, kind):
        found.append((tuple(map(str, path)), parent, name, child))
  return [rest for _, *rest in sorted(found, key=lambda entry: (entry[0], entry[2]))]
