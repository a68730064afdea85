"""The small network through which a prefix is trained, and which is dropped when training is over.

Li & Liang, 2021, arXiv:2101.00190, section 4.3: optimizing keys and values directly is unstable.
Each site has, as in their code, a table [P D'] -> k features -> tanh -> the keys and values of all
layers.  (The paper's text gives the table k columns; the code gives it the model's width, and the
hidden layer k.)  Outputs are ordered layer, key or value, head.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from promot_jax.methods import settings as settings_lib
from promot_jax.methods import sites as sites_lib
from promot_jax.methods.prefix_module import Prefix
from promot_jax.methods.sites import Site
from promot_jax.models.kv_cache import KVCache
from promot_jax.models.preparation import Call, Generator
from promot_jax.types import Array, Float, Key

RECIPE_VALUES = ("Reparameterization",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reparameterization(settings_lib.Settings):
  """Shape of the network, and how it is fitted to given first values.

  Attributes:
    hidden: k; 512 for table-to-text and 800 for summarization in the paper.
    width: columns of the table; None: the model's width.
    fit_steps, fit_learning_rate: with an initializer that reads real words, the network (not its
      table) is first fitted to their activations by least squares with Adam; 500 steps at 1e-4 in
      the paper's code.
  """

  hidden: int = 512
  width: int | None = None
  fit_steps: int = 500
  fit_learning_rate: float = 1e-4

  def __post_init__(self):
    settings_lib.require_counts(self, "hidden", "fit_steps", optional=("width",))
    settings_lib.require_numbers(self, "fit_learning_rate", least=0)


class SiteNetwork(nnx.Module):
  """The parameters of one site, each with a leading axis of tasks if there are several."""

  def __init__(self, site: Site, *, length: int, width: int, hidden: int, tasks: int, key: Key):
    self.site = site
    self.tasks = tasks
    # Keys and values of all layers are outputs of one kernel, as in the paper's code.
    outputs = site.layers * 2 * site.heads * site.head_width

    def draw(key: Key) -> tuple[Array, ...]:
      table_key, *keys = jax.random.split(key, 5)
      # As torch draws a table and linear layers, on which the paper's rates were tuned.
      table = jax.random.normal(table_key, (length, width))
      bounds = (width**-0.5, width**-0.5, hidden**-0.5, hidden**-0.5)
      shapes = ((width, hidden), (hidden,), (hidden, outputs), (outputs,))
      return (
        table,
        *(
          jax.random.uniform(key, shape, jnp.float32, -bound, bound)
          for key, shape, bound in zip(keys, shapes, bounds)
        ),
      )

    drawn = draw(key) if tasks == 1 else jax.vmap(draw)(jax.random.split(key, tasks))
    self.table, self.hidden_kernel, self.hidden_bias, self.out_kernel, self.out_bias = (
      nnx.Param(leaf) for leaf in drawn
    )

  def parameters(self) -> tuple[Array, ...]:
    """Table, hidden kernel and bias, out kernel and bias."""
    return (
      self.table[...],
      self.hidden_kernel[...],
      self.hidden_bias[...],
      self.out_kernel[...],
      self.out_bias[...],
    )

  def __call__(self) -> KVCache:
    """Keys and values [N G P K], or [N tasks G P K]."""
    site = self.site
    compute = _output if self.tasks == 1 else jax.vmap(_output)
    output = compute(*self.parameters())  # [... P (N 2 G K)]
    output = output.reshape(*output.shape[:-1], site.layers, 2, site.heads, site.head_width)
    output = jnp.moveaxis(output, (-4, -3), (0, 1))  # [... P N 2 G K] -> [N 2 ... P G K]
    output = output.swapaxes(-3, -2)  # -> [N 2 ... G P K]
    return KVCache(keys=output[:, 0], values=output[:, 1])

  def fit(self, targets: list[KVCache], *, steps: int, learning_rate: float) -> None:
    """Moves all parameters but the table towards given keys and values of each task, in place."""
    # The inverse of the layout in `__call__`: [N G P K] x 2 -> [P (N 2 G K)].
    flat = [
      jnp.stack([target.keys, target.values], axis=1)  # [N 2 G P K]
      .transpose(3, 0, 1, 2, 4)
      .reshape(target.keys.shape[2], -1)
      for target in targets
    ]
    fit = functools.partial(_fit, steps=steps, learning_rate=learning_rate)
    if self.tasks == 1:
      fitted = fit(self.parameters(), flat[0])
    else:
      fitted = jax.vmap(fit)(self.parameters(), jnp.stack(flat))
    _, hidden_kernel, hidden_bias, out_kernel, out_bias = fitted
    # In the variables that are there: whoever holds the module sees the fitted values.
    self.hidden_kernel.set_value(hidden_kernel)
    self.hidden_bias.set_value(hidden_bias)
    self.out_kernel.set_value(out_kernel)
    self.out_bias.set_value(out_bias)


class PrefixNetwork(Generator):
  """One `SiteNetwork` for each site, as attributes of the sites' names."""

  def __init__(
    self, networks: Mapping[str, SiteNetwork], *, settings: Mapping[str, tuple], drop_rate: float
  ):
    """`settings` has (positions, displacement) of each site's prefix."""
    for name, network in networks.items():
      setattr(self, name, network)
    # A tuple: an NNX module's static attributes must be hashable.
    self.settings = tuple((name, *settings[name]) for name in networks)
    self.tasks = next(iter(networks.values())).tasks
    self.drop_rate = drop_rate

  def fill(self, model: nnx.Module, call: Call) -> None:
    """Computes the prefixes of all sites and puts them into their slots."""
    del call
    for name, positions, displacement in self.settings:
      network = getattr(self, name)
      settings = {
        "tasks": network.tasks,
        "positions": positions,
        "displacement": displacement,
        "drop_rate": self.drop_rate,
      }
      cache = network()
      sites_lib.fill(
        model, name, functools.partial(_taken, keys=cache.keys, values=cache.values, **settings)
      )


def _taken(take: Callable[[Array], Array], *, keys: Array, values: Array, **settings) -> Prefix:
  return Prefix(take(keys), take(values), **settings)


def _output(table, hidden_kernel, hidden_bias, out_kernel, out_bias) -> Array:
  """[P D'] -> [P (N 2 G K)]."""
  return jnp.tanh(table @ hidden_kernel + hidden_bias) @ out_kernel + out_bias


def _fit(
  parameters: tuple[Array, ...],
  target: Float[Array, "P N*2*G*K"],
  *,
  steps: int,
  learning_rate: float,
):
  """The parameters after least squares on everything but the table."""
  # As in the code of the paper, the table keeps its random start.
  table, *trained = parameters
  optimizer = optax.adam(learning_rate)

  def loss(trained):
    return jnp.mean(jnp.square(_output(table, *trained) - target))

  # A scan, so that 500 steps are one small program and not 500 times its body.
  def step(carry, _):
    trained, state = carry
    updates, state = optimizer.update(jax.grad(loss)(trained), state, trained)
    return (optax.apply_updates(trained, updates), state), None

  carry, _ = jax.lax.scan(step, (trained, optimizer.init(trained)), length=steps)
  return (table, *carry[0])
