"""What every adaptation method offers, so that stages and evaluation need not know which it is."""

from typing import Protocol, TypeVar

from flax import nnx

Model = TypeVar("Model", bound=nnx.Module)


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
