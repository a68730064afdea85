"""The weights that a command line names: a checkpoint of any format, or a model directory."""

import argparse
import dataclasses
import pathlib
from typing import Any

from promot_jax.cli import directory
from promot_jax.cli.flags import Flags
from promot_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Named:
  """Weights, and where they are of a run its directory and which of its checkpoints.

  weights: `conversion.formats.Weights`.
  identity: tells the values apart, where it is known; '': what is named tells it.
  """

  weights: Any
  directory: Any = None
  checkpoint: Any = None
  identity: str = ""


def opened(flags: Flags, source: str) -> Named:
  """The weights that a text names, as far as possible without reading them.

  Raises:
    ConfigError: there are none, or none of one network.
    DamagedCheckpoint: they are not as they were written.
  """
  from promot_jax.conversion import formats
  from promot_jax.methods import files
  from promot_jax.methods.formats import Context

  values = flags.values
  if directory.is_model_dir(pathlib.Path(source)):
    return _of_model_dir(flags, source)
  if formats.is_of_method(values.to):
    config = formats.model_config(values.model) if values.model else None
    trained = files.open_trained(source, Context(config=config))
    return Named(
      weights=formats.Weights(leaves=trained.leaves, config=config, where=source, trained=trained)
    )
  weights = formats.open_weights(source, model=values.model, vocabulary=values.vocab_size)
  return Named(weights=weights)


def _of_model_dir(flags: Flags, source: str) -> Named:
  """The weights after all stages up to the checkpoint, method attached."""
  from promot_jax import paths
  from promot_jax.conversion import formats
  from promot_jax.experiments import checkpoint_names
  from promot_jax.experiments.restored import Restored
  from promot_jax.models import ensemble
  from promot_jax.networks import trained_methods

  values = flags.values
  merged = argparse.Namespace(**{**vars(values), "model_dir": source})
  directories = directory.opened(dataclasses.replace(flags, values=merged))
  if len(directories) > 1:
    raise ConfigError(
      f"{source} has several experiments; name one: "
      + ", ".join(str(each.folder) for each in directories)
    )
  opened = directories[0]
  checkpoint = checkpoint_names.named(opened, values.checkpoint)
  ensemble.require_one(checkpoint.start.abstract(), "be written as a checkpoint")
  leaves, trained, method = _stored(opened, checkpoint), None, checkpoint.method
  if leaves is None:
    model = written = Restored(opened).model(checkpoint)
    if method is not None and formats.is_of_method(values.to):
      trained = trained_methods.trained(model, method, notes={"run": source})
    elif method is not None:
      written = formats.backbone_of(model, method, merge=values.merge)
    leaves = paths.named_leaves(written)
  weights = formats.Weights(
    leaves=leaves, config=opened.experiment.backbone, where=source, trained=trained
  )
  return Named(weights=weights, directory=opened, checkpoint=checkpoint)


def _stored(opened: Any, checkpoint: Any) -> Any:
  """The arrays of a step that has all of the network's, to be read one by one; None: it has not."""
  from promot_jax import paths
  from promot_jax.checkpoints import step_reader
  from promot_jax.training import choice

  if checkpoint.method is not None or not checkpoint.stages:
    return None
  store = opened.store(opened.experiment.stages[checkpoint.stages - 1])
  step = choice.chosen_step(store) if checkpoint.step is None else checkpoint.step
  leaves = step_reader.open_step(store.path(step))
  whole = leaves.keys() == paths.named_leaves(checkpoint.start.abstract()).keys()
  return leaves if whole else None
