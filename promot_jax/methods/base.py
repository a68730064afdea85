"""What every adaptation method offers, so that stages and evaluation need not know which it is."""

import abc
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, TypeVar

from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods.formats import Format

Model = TypeVar("Model", bound=nnx.Module)

OWN = "method"
"""The word by which a stage names the parameters that its experiment's method adds."""


class Method(abc.ABC):
  """A way to adapt a backbone.  Implementations are frozen keyword-only dataclasses.

  All functions give new module objects and leave their argument alone; the arrays are shared, so
  attaching to and detaching from a large backbone costs no memory.
  """

  parameters: ClassVar[str]
  """Pattern of the parameters that the method adds."""
  printed: ClassVar[str]
  """What training it is called in a report."""
  formats: ClassVar[Mapping[str, Format]] = MappingProxyType({})
  """Name of a kind of file -> how what was trained is read and written there.  Method files and steps
  of our own runs hold those of every method."""
  in_checkpoints: ClassVar[bool] = False
  """Whether other projects' checkpoints hold its parameters beside those of the backbone."""

  @property
  def tasks(self) -> int:
    """Rows of its banks; 1 without a bank."""
    return 1

  @property
  def parts(self) -> "Sequence[Method]":
    """The methods that it is made of: itself."""
    return (self,)

  @abc.abstractmethod
  def attach(self, model: Model, rngs: nnx.Rngs) -> Model:
    """The model with the method's parameters, freshly initialised.

    Raises:
      ConfigError: the method is not defined for this backbone, or is attached already.
    """

  @abc.abstractmethod
  def detach(self, model: Model) -> Model:
    """The model without the method: what `attach` was given, with today's backbone arrays."""

  def fold(self, model: Model) -> Model:
    """The model without what is only needed in training, with equal outputs."""
    return model

  def folded(self) -> "Method":
    """The method of a folded model."""
    return self

  def merge(self, model: Model) -> Model:
    """A plain backbone that computes what the model does.

    Raises:
      ConfigError: what the method adds cannot become weights of the backbone.
    """
    raise errors.ConfigError(
      f"What {type(self).__name__} adds has no place in the weights of the backbone, so it cannot be"
      " merged into them; leave --merge out, or use a method that has: LoRA, for example."
    )


def own_patterns(patterns: paths.Patterns, method: Method | None, *, owner: str) -> paths.Patterns:
  """Patterns in which the method's own takes the place of the word 'method'.

  Args:
    patterns: as `paths.match` takes them; 'method' and '!method' are words.
    method: None: there is none.
    owner: whose patterns they are, for the message.

  Raises:
    ConfigError: the word is used, and there is no method.
  """
  given = [patterns] if isinstance(patterns, str) else list(patterns)
  if not {OWN, f"!{OWN}"} & set(given):
    return patterns
  if method is None:
    raise errors.ConfigError(
      f"{owner} trains {patterns!r}, and its experiment has no method; set Experiment.method, or name"
      " parameters by a pattern, such as '.*' for all."
    )
  own = {OWN: method.parameters, f"!{OWN}": f"!{method.parameters}"}
  return tuple(own.get(pattern, pattern) for pattern in given)
