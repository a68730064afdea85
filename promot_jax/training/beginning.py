"""Where a stage begins: at step 0, or where its newest sound checkpoint was made."""

import dataclasses
from typing import Any

import optax
from flax import nnx
from jax.sharding import Mesh

from promot_jax import partitioning, paths
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.training import state as state_lib
from promot_jax.training.events import Events
from promot_jax.training.lineage import Lineage
from promot_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beginning:
  """What there is before the first update of this process.

  Attributes:
    state: placed on its devices.
    saved: the step of the checkpoint that it comes from; None: it comes from none.
    history: the stage's validations until then.
  """

  state: TrainState
  saved: int | None
  history: list[dict[str, Any]]


def begin(
  trainable: nnx.State,
  optimizer: optax.GradientTransformation,
  *,
  lineage: Lineage,
  store: AnyStore,
  mesh: Mesh | None,
  events: Events,
) -> Beginning:
  """Makes the state, or restores the newest sound one, and says which.

  Raises:
    ConfigError: as `Lineage.continued`; or the checkpoint is of another model.
    DamagedCheckpoint: there are checkpoints, but none is sound.
  """
  stage = lineage.stage
  state = state_lib.create_state(trainable, optimizer, mesh=mesh, own_teacher=stage.own_teacher)
  leaves = paths.named_leaves(state)
  # The fresh state gives the store shapes and places; its values are dropped where one is found.
  checkpoint = store.restore_latest(leaves)
  if checkpoint is None:
    # Committed to their devices, as restored arrays are: both starts compile the same program.
    leaves = {name: partitioning.put(leaf, leaf.sharding) for name, leaf in leaves.items()}
    events.line(f"stage '{stage.name}': starting at step 0 of {stage.steps}")
    return Beginning(state=paths.replace_leaves(state, leaves), saved=None, history=[])
  # Before anything is taken from it: a checkpoint of another run is refused, not used.
  for line in lineage.continued(checkpoint, store):
    events.line(line)
  # A checkpoint holds the validations before it; its own was made after it was saved, and may be
  # missing if the process was killed in between.
  history = list(checkpoint.metadata["history"])
  entry = store.score(checkpoint.step)  # of a validation after the save
  if entry is not None:
    history.append({"step": checkpoint.step, **entry})
  events.line(
    f"stage '{stage.name}': resumed from step {checkpoint.step} of {stage.steps}"
    f" ({len(checkpoint.leaves)} arrays, checksums verified) in {store.directory}"
  )
  state = paths.replace_leaves(state, checkpoint.leaves)
  return Beginning(state=state, saved=checkpoint.step, history=history)
