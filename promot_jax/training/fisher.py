"""How much each parameter matters for what a model predicts: the diagonal of its Fisher information.

  F_i = mean over examples of (d/d theta_i of sum_t log p(y_t | x, y_<t))^2

with the places t of an example's answer and, at each of them, y_t either drawn from the model itself (the Fisher
information, of which the paper on elastic weight consolidation, arXiv:1612.00796, speaks) or the example's own
(the empirical Fisher information).  What stands before a place is the example's own either way, so that places
are drawn independently and the squares of their sum are, in the mean, the sum of their squares.

A pass may be stopped anywhere: its sums lie in checkpoints of their own, and the draws of a batch follow from
its number.
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from promot_jax import errors, paths
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.identity import Identity
from promot_jax.training import choice
from promot_jax.training.objectives import Batch, Supervised
from promot_jax.training.penalties import Fisher, Targets
from promot_jax.types import Array, Key

_SAVES = 10  # of a pass, at most


def measure(
  fisher: Fisher,
  model: nnx.Module,
  names: Sequence[str],
  *,
  batches: Callable[[int], Batch],
  store: AnyStore,
  seed: int,
  made_from: Identity,
  allow_change: bool = False,
  report: Callable[[str], None] = lambda line: None,
  stop_if_asked: Callable[[], None] = lambda: None,
) -> dict[str, Array]:
  """F of the named parameters, float32; what an earlier pass has summed up is gone on with.

  Args:
    batches: the batch of a number, on the devices.
    store: of this pass and nothing else.
    seed: of what is drawn.
    made_from: data, model and settings, which a pass that goes on must share.
    stop_if_asked: raises where the process is to end; called after each batch.

  Raises:
    ConfigError: the store has a pass over other data or of another model.
    Diverged: a value is not finite.
  """
  graphdef, chosen, others = paths.split(model, [re.escape(name) for name in names])
  sums = jax.tree.map(lambda leaf: jnp.zeros_like(leaf, jnp.float32), chosen)
  found = store.restore_latest(paths.named_leaves(sums))
  done = 0
  if found is not None:
    where, stored = str(store.path(found.step)), found.metadata["made_from"]
    for line in choice.compare(made_from, stored, where=where, allow_change=allow_change):
      report(line)
    sums, done = paths.replace_leaves(sums, found.leaves), found.step
  total = fisher.batches
  period = max(1, total // _SAVES)
  if done:
    report(f"Fisher information: {done} of {total} batches were summed up, checksums verified")
  while done < total:
    key = jax.random.fold_in(jax.random.key(seed), done)
    sums = _add(
      sums, chosen, others, dict(batches(done)), key, graphdef=graphdef, targets=fisher.targets
    )
    done += 1
    if done % period == 0 or done == total:
      _require_finite(sums)
      store.save(done, paths.named_leaves(sums), {"made_from": made_from.to_json()})
      report(f"Fisher information: {done} of {total} batches")
    stop_if_asked()
  store.wait()
  count = total * fisher.batch_size
  return {name: leaf / count for name, leaf in paths.named_leaves(sums).items()}


@functools.partial(jax.jit, static_argnames=("graphdef", "targets"), donate_argnames="sums")
def _add(sums, chosen, others, batch: Batch, key: Key, *, graphdef, targets: Targets):
  """The sums with the squared gradients of a batch's examples, one example at a time in memory."""
  objective = Supervised(loss_normalizing_factor=None)

  def log_likelihood(chosen: nnx.State, row: Mapping[str, Array], row_key: Key) -> Array:
    model: Any = nnx.merge(graphdef, chosen, others)
    if targets == "sampled":
      logits = model.logits(model.hidden(row)).astype(jnp.float32)
      row = {**row, "decoder_target_tokens": jax.random.categorical(row_key, logits)}
    return -objective(model, row)[0]

  def add_row(sums: nnx.State, row_and_key: tuple[Mapping[str, Array], Key]):
    row, row_key = row_and_key
    row = {name: array[None] for name, array in row.items()}
    gradient = jax.grad(log_likelihood)(chosen, row, row_key)
    return jax.tree.map(
      lambda old, g: old + jnp.square(g.astype(jnp.float32)), sums, gradient
    ), None

  keys = jax.random.split(key, len(batch["decoder_target_tokens"]))
  return jax.lax.scan(add_row, sums, (dict(batch), keys))[0]


def _require_finite(sums: nnx.State) -> None:
  for name, leaf in paths.named_leaves(sums).items():
    if not bool(jnp.isfinite(leaf).all()):
      raise errors.Diverged(
        f"The Fisher information of '{name}' is not finite; take another start or other data."
      )
