"""What a method makes of its parameters once a batch is known, before the network reads them.

Some methods do not train the arrays that the network uses, but others that give them: a small
network that computes a prefix, or a bank from which each example takes its own task's row.  Their
modules declare it here, and a backbone begins every call with `prepare`, which costs nothing without
such a method.  So attention and linear layers need to know neither tasks nor networks.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import paths
from promot_jax.errors import ConfigError
from promot_jax.types import Array, Key

Model = TypeVar("Model", bound=nnx.Module)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
  """What is known when a network is called.

  prompt_ids: int32 [B], each example's row of the banks.
  key: for dropout; None: no dropout.
  source_length: S, columns of the input of a decoder-only model; None where only targets come.
  """

  prompt_ids: Array | None = None
  key: Key | None = None
  source_length: int | None = None


class Generator(nnx.Module):
  """An attribute of a network that fills slots of that network, and then is not needed."""

  def fill(self, model: nnx.Module) -> None:
    """Puts what it computes into slots of `model`, the module that it is an attribute of."""
    del model

  def with_layers(self, convert: Callable[[Any], Any]) -> None:
    """Stacks or unstacks, in place, what it holds of each layer, as `convert` does it to layers."""
    del convert


class Unready(nnx.Module):
  """A module in a slot or in place of a layer that may have to know the call first.

  tasks: number of rows of its bank; 1 where all examples share what it holds.
  drop_rate: share of what it holds that is dropped while training.  Not `dropout_rate`, which a
    stage sets in the whole backbone.
  """

  tasks: int = 1
  drop_rate: float = 0.0

  def waits(self, call: Call) -> bool:
    """Whether `ready` would give something else."""
    return self.tasks > 1 or (self.drop_rate > 0 and call.key is not None)

  def ready(self, call: Call) -> nnx.Module:
    """The module to use instead, which waits no longer."""
    del call
    return self


def prepare(
  model: Model,
  prompt_ids: Array | None = None,
  *,
  key: Key | None = None,
  source_length: int | None = None,
) -> Model:
  """The network as it runs on one batch; the same one if nothing waits for it.

  Doing it twice is as good as once: what is ready stays.

  Args:
    model: a backbone, methods attached.
    prompt_ids, key, source_length: see `Call`.

  Raises:
    ConfigError: there is a bank and no `prompt_ids`.
  """
  call = Call(prompt_ids=prompt_ids, key=key, source_length=source_length)
  if not _waiting(model, call):
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
    if child.waits(call):
      own_key = None if key is None else jax.random.fold_in(key, number)
      setattr(parent, name, child.ready(dataclasses.replace(call, key=own_key)))
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


def _waiting(model: nnx.Module, call: Call) -> bool:
  return any(
    isinstance(module, Generator) or (isinstance(module, Unready) and module.waits(call))
    for _, module in nnx.iter_modules(model)
  )


def _children(model: nnx.Module, kind: type) -> list[tuple[nnx.Module, str, Any]]:
  """(parent, attribute, module) of every module of a kind, in the order of the paths."""
  found = []
  for path, parent in nnx.iter_modules(model):
    for name, child in list(vars(parent).items()):
      if isinstance(child, kind):
        found.append((tuple(map(str, path)), parent, name, child))
  found.sort(key=lambda entry: (entry[0], entry[2]))
  return [(parent, name, child) for _, parent, name, child in found]
