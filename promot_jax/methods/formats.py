"""What a file holds of a method, and how a method says that it is read and written there.

Each method has one table, name of a format -> `Format`, in its own file.  Method files and steps of
our runs hold every method by the names of its parameters and need no entry.

| format | holds |
|---|---|
| 'method' | a method file: settings, values, and the backbone that they belong to; of every method |
| 'peft' | an adapter of Hugging Face's PEFT, which names its `peft_type` |
| 'prompt' | a soft prompt in NumPy's or T5X's files |
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import nnx

from promot_jax import errors, paths
from promot_jax.checkpoints import method_files
from promot_jax.checkpoints.known_settings import Known
from promot_jax.checkpoints.method_files import Backbone

METHOD, PEFT, PROMPT = "method", "peft", "prompt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
  """What a file does not say, or a format asks for.

  config: of the backbone; None: not known.
  base_model: of adapters: where transformers finds the backbone.
  task: which of a bank is written.
  name: which array of a file is read.
  """

  config: Any = None
  base_model: str | None = None
  task: int | None = None
  name: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
  """What a file holds of a method.

  leaves: by the names of the parameters in an unrolled network, one for each layer.
  settings: fields of the method, as far as the file says them.
  notes: anything else worth knowing.
  """

  leaves: Mapping[str, np.ndarray]
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
  """A method with its trained values.

  method: as it was trained; leaves: as of `Stored`, without what is only needed in training.
  backbone: the network that they complement; None: not known.
  """

  method: Any
  leaves: Mapping[str, np.ndarray]
  backbone: Backbone | None = None
  notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @classmethod
  def of(cls, model: nnx.Module, method: Any, **known: Any) -> "Trained":
    """Those of a model with the method attached; `known`: other fields."""
    # Folded: files hold what the method computes, not what it was trained through.
    leaves = paths.named_leaves(method.fold(model))
    own = {name: np.asarray(leaves[name]) for name in paths.match(method.parameters, leaves)}
    return cls(method=method, leaves=method_files.unrolled(own), **known)

  def of_task(self, task: int | None) -> "Trained":
    """One of the tasks of a bank; what is no bank as it is.

    Raises:
      ConfigError: a bank has no such task, or no task was chosen.
    """
    tasks = self.method.tasks
    if tasks == 1:
      return self
    if task is None or not 0 <= task < tasks:
      asked = "none was chosen" if task is None else f"number {task} was asked for"
      raise errors.ConfigError(
        f"The {type(self.method).__name__} holds values of {tasks} tasks, numbered from 0, and {asked};"
        " a file of another project holds those of one, so choose one of them (--task)."
      )
    leaves = {name: leaf[task] for name, leaf in self.leaves.items()}
    return dataclasses.replace(self, leaves=leaves)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
  """How a method is read from one kind of file and written to it.

  read: (path, context) -> what is there; None: it is only written.
  write: (path, trained, context) -> the path, written whole or not at all; None: it is only read.
  types: of PEFT's adapters: `peft_type` -> the settings of it that are understood.
  alone: whether the values of one of several methods together may be written without the others'.
  """

  read: Callable[[pathlib.Path, Context], Stored] | None = None
  write: Callable[[pathlib.Path, Trained, Context], pathlib.Path] | None = None
  types: Mapping[str, Known] = dataclasses.field(default_factory=dict)
  alone: bool = False


Formats = Mapping[str, Format]
