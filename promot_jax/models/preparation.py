"""What a method makes of its parameters once a batch is known, before the network reads them.

Some methods do not train the arrays that the network uses, but others that give them: a small
network that computes a prefix, maybe of the example's own input, or a bank from which each example
takes its own task's row.  Their modules declare it here, and a backbone begins every call with
`prepare`, which costs nothing without such a method.  So attention and linear layers need to know
neither tasks nor networks, and no stack knows which features of a batch a method reads.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import paths
from promot_jax.errors import ConfigError
from promot_jax.types import Array, Batch, Int, Key, Shaped

Model = TypeVar("Model", bound=nnx.Module)

TASK_ROWS = "prompt_ids"
"""The feature int32 [B] that says which row of the banks each example uses."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
  """What is known when a network is called.

  batch: the features that the model's modules read (`Waiting.reads`), as far as the batch has them.
  key: for dropout; None: no dropout.
  source_length: S, columns of the input of a decoder-only model; None where only targets come.
  """

  batch: Batch = dataclasses.field(default_factory=dict)
  key: Key | None = None
  source_length: int | None = None

  def feature(self, name: str) -> Array:
    """A feature that a module cannot do without.

    Raises:
      ConfigError: the batch does not have it, or the module does not declare that it reads it.
    """
    if name not in self.batch:
      raise ConfigError(
        f"A method that is attached to the model reads '{name}' of each example, and the batch has no"
        " such feature; give it to the examples, or detach the method."
      )
    return self.batch[name]


class Waiting(nnx.Module):
  """What generators and unready modules have in common.

  tasks: number of rows of its bank; 1 where all examples share what it holds.
  """

  tasks: int = 1

  @property
  def reads(self) -> tuple[str, ...]:
    """Names of the features of a batch that it needs, or uses where there are any.

    A decode keeps these and nothing else of its batch, so `Call.batch` has no others at any time.
    """
    return (TASK_ROWS,) if self.tasks > 1 else ()


class Generator(Waiting):
  """An attribute of a network that fills slots of that network, and then is not needed."""

  def fill(self, model: nnx.Module, call: Call) -> None:
    """Puts what it computes into slots of `model`, the module that it is an attribute of."""
    del model, call

  def with_layers(self, convert: Callable[[Any], Any]) -> None:
    """Stacks or unstacks, in place, what it holds of each layer, as `convert` does it to layers."""
    del convert


class Unready(Waiting):
  """A module in a slot or in place of a layer that may have to know the call first.

  drop_rate: share of what it holds that is dropped while training.  Not `dropout_rate`, which a
    stage sets in the whole backbone.
  """

  drop_rate: float = 0.0

  def waits(self, call: Call) -> bool:
    """Whether `ready` would give something else."""
    return self.tasks > 1 or (self.drop_rate > 0 and call.key is not None)

  def ready(self, call: Call) -> nnx.Module:
    """The module to use instead, which waits no longer."""
    del call
    return self


def prepare(
  model: Model, batch: Batch, key: Key | None = None, *, source_length: int | None = None
) -> Model:
  """The network as it runs on one batch; the same one if nothing waits for it.

  Doing it twice is as good as once: what is ready stays.

  Args:
    model: a backbone, methods attached.
    batch: features by name; read is what the methods' modules declare.
    key, source_length: see `Call`.

  Raises:
    ConfigError: there is a bank and no `prompt_ids`, or no other feature that a method needs.
  """
  waiting = _waiting(model)
  call = Call(batch=_read_by(waiting, batch), key=key, source_length=source_length)
  # The usual case, in which not even the modules are copied.
  if not any(_waits(module, call) for module in waiting):
    return model
  # A copy, as slots are filled in it: the model that is trained has to stay as it is.
  model = paths.copy(model)
  numbers = itertools.count()  # of modules, so that each draws from a key of its own
  # Generators come first: what they fill in may wait for the call too.
  for parent, name, child in _children(model, Generator):
    child.fill(parent, _with_own_key(call, next(numbers)))
    # Its work is done, and without it a second `prepare` finds nothing that waits.
    delattr(parent, name)
  for number, (parent, name, child) in zip(numbers, _children(model, Unready)):
    if child.tasks > 1 and TASK_ROWS not in call.batch:
      raise ConfigError(
        f"The model holds '{name}' of {child.tasks} tasks, but the batch has no '{TASK_ROWS}' that say"
        " which example uses which."
      )
    if child.waits(call):
      setattr(parent, name, child.ready(_with_own_key(call, number)))
  return model


def is_ready(model: nnx.Module) -> bool:
  """Whether `prepare` leaves every array where it is, for any batch of a call without dropout."""
  return not any(_waits(module, Call()) for module in _waiting(model))


def features_read(model: nnx.Module, batch: Batch) -> Mapping[str, Array]:
  """The features of a batch that modules of the model read: what preparing it again will need."""
  return _read_by(_waiting(model), batch)


def names_read(model: nnx.Module) -> frozenset[str]:
  """Names of the features that modules of the model read, or use where there are any."""
  return frozenset(name for module in _waiting(model) for name in module.reads)


def rows(bank: Shaped[Array, "..."], ids: Int[Array, "B"], *, axis: int) -> Shaped[Array, "..."]:
  """Each example's row of a bank: [... tasks ...] -> [... B ...] along `axis`, counted from the end.

  Ids are checked on the host.  One that slips through becomes NaN, which the training step reports,
  instead of some other task's parameters.
  """
  return jnp.take(bank, ids, axis=bank.ndim + axis, mode="fill", fill_value=jnp.nan)


def for_rows(leaf: Shaped[Array, "B ..."], count: int) -> Shaped[Array, "R ..."]:
  """Each example's values for the R / B rows of a decode that belong to it; `count` is R."""
  return leaf if leaf.shape[0] == count else jnp.repeat(leaf, count // leaf.shape[0], axis=0)


def _with_own_key(call: Call, number: int) -> Call:
  key = None if call.key is None else jax.random.fold_in(call.key, number)
  return dataclasses.replace(call, key=key)


def _read_by(modules: Sequence[Waiting], batch: Batch) -> Mapping[str, Array]:
  names = {name for module in modules for name in module.reads}
  return {name: batch[name] for name in sorted(names) if name in batch}


def _waiting(model: nnx.Module) -> list[Waiting]:
  return [module for _, module in nnx.iter_modules(model) if isinstance(module, Waiting)]


def _waits(module: Waiting, call: Call) -> bool:
  # A generator always waits: the slots that it fills are empty before.
  return isinstance(module, Generator) or (isinstance(module, Unready) and module.waits(call))


def _children(model: nnx.Module, kind: type) -> list[tuple[nnx.Module, str, Any]]:
  """(parent, attribute, module) of every module of a kind, in the order of the paths."""
  found = []
  for path, parent in nnx.iter_modules(model):
    for name, child in list(vars(parent).items()):
      if isinstance(child, kind):
        found.append((tuple(map(str, path)), parent, name, child))
  # In the order of the paths, so that a module's key does not depend on how NNX walks the graph.
  found.sort(key=lambda entry: (entry[0], entry[2]))
  return [(parent, name, child) for _, parent, name, child in found]
