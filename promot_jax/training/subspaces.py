"""Updates that leave the leading singular directions of each kernel as they were.

With K = U S V^T a kernel at the start of the stage and U_k, V_k its first k singular vectors, what an optimizer
wants to add to K, D, becomes (I - U_k U_k^T) D (I - V_k V_k^T): the kernel's strongest k directions, on the side
of inputs and of outputs, stay its own, and training has the rest.

Nayak et al., 2025, "Sculpting Subspaces: Constrained Full Fine-Tuning in LLMs for Continual Learning"
(arXiv:2504.07097), known as OSF.  Differences: the paper trains the factors of the rest and projects their
gradients, here the kernel is trained and its updates are projected, so that no optimizer's scaling leads out of
the subspace; the paper chooses k for each layer by what the layer does to its input, here it is one share.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from promot_jax import errors, limits, paths
from promot_jax.training.schedules import Schedule
from promot_jax.types import Array, Float

RECIPE_VALUES = ("orthogonal",)

KERNELS = ".*/(self_attention|encoder_decoder_attention|attention|mlp)/.*kernel"
"""Linear layers of attention and mlp."""


class Subspaces(NamedTuple):
  """inner: the optimizer's state; inputs, outputs: U_k [... in k] and V_k [... out k] of each kernel by name."""

  inner: Any
  inputs: dict[str, Array]
  outputs: dict[str, Array]


def orthogonal(
  learning_rate: Schedule | float,
  *,
  optimizer: Callable[..., optax.GradientTransformation],
  protected: float = 0.5,
  kernels: paths.Patterns = KERNELS,
) -> optax.GradientTransformation:
  """`optimizer`, whose updates of kernels are orthogonal to their leading singular directions.

  The directions are those of the kernels that the stage begins with, and are kept in the optimizer's state,
  so that a run that goes on has the same ones.  Other parameters are updated as `optimizer` says.

  Args:
    optimizer: learning rate -> gradient transformation, such as `optimizers.adafactor`.
    protected: share of the singular directions that are kept: k is this share of min(in, out), rounded up.
    kernels: patterns of matrices [in, out], or of scanned layers' [N, in, out], among the trained parameters.

  Raises:
    ConfigError: the share is not above 0 and below 1; or, when the parameters are known, `kernels` selects
      nothing, or what is no matrix.
  """
  limits.require("orthogonal", above=0, below=1, protected=protected)
  inner = optax.with_extra_args_support(optimizer(learning_rate))

  def init(params: Any) -> Subspaces:
    named = paths.named_leaves(params)
    found = {
      name: _directions(named[name], protected, name=name) for name in paths.match(kernels, named)
    }
    return Subspaces(
      inner=inner.init(params),
      inputs={name: pair[0] for name, pair in found.items()},
      outputs={name: pair[1] for name, pair in found.items()},
    )

  def update(grads: Any, state: Subspaces, params: Any = None, **more: Any) -> tuple[Any, Any]:
    updates, inner_state = inner.update(grads, state.inner, params, **more)
    named = dict(paths.named_leaves(updates))
    for name, directions in state.inputs.items():
      named[name] = _without(named[name], directions, state.outputs[name])
    return paths.replace_leaves(updates, named), state._replace(inner=inner_state)

  return optax.GradientTransformationExtraArgs(init, update)


def _directions(
  kernel: Float[Array, "*N in out"], protected: float, *, name: str
) -> tuple[Float[Array, "*N in k"], Float[Array, "*N out k"]]:
  if kernel.ndim not in (2, 3):
    raise errors.ConfigError(
      f"orthogonal has '{name}' of shape {tuple(kernel.shape)} among its kernels, which is no matrix;"
      " name matrices only."
    )
  smaller = min(kernel.shape[-2:])
  # At least one direction is left, or the kernel would be frozen.
  count = min(math.ceil(protected * smaller), smaller - 1)
  if count < 1:
    raise errors.ConfigError(
      f"orthogonal has '{name}' of shape {tuple(kernel.shape)} among its kernels, which has one direction;"
      " leave it out."
    )
  left, _, right = jnp.linalg.svd(kernel.astype(jnp.float32), full_matrices=False)
  return left[..., :count], jnp.swapaxes(right, -1, -2)[..., :count]


def _without(
  update: Float[Array, "*N in out"],
  inputs: Float[Array, "*N in k"],
  outputs: Float[Array, "*N out k"],
) -> Float[Array, "*N in out"]:
  """(I - U U^T) D (I - V V^T)."""
  found = update.astype(jnp.float32)
  # In full precision: what a rounded product leaves in would add up over the steps.
  with jax.default_matmul_precision("highest"):
    found -= inputs @ (jnp.swapaxes(inputs, -1, -2) @ found)
    found -= (found @ outputs) @ jnp.swapaxes(outputs, -1, -2)
  return found.astype(update.dtype)
