"""What every adaptation method offers, so that stages and evaluation need not know which it is."""

from typing import Protocol, TypeVar

from flax import nnx

from promot_jax import errors, paths

Model = TypeVar("Model", bound=nnx.Module)

OWN = "method"
"""The word by which a stage names the parameters that its experiment's method adds."""


class Method(Protocol):
  """A way to adapt a backbone.  Implementations are frozen keyword-only dataclasses.

  Both functions give new module objects and leave their argument alone; the arrays are shared, so
  attaching to and detaching from a large backbone costs no memory.
  """

  parameters: str
  """Pattern of the parameters that the method adds."""

  def attach(self, model: Model, rngs: nnx.Rngs) -> Model:
    """The model with the method's parameters, freshly initialised.

    Raises:
      ConfigError: the method is not defined for this backbone, or is attached already.
    """
    ...

  def detach(self, model: Model) -> Model:
    """The model without the method: what `attach` was given, with today's backbone arrays."""
    ...


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
