"""`promot convert`: a checkpoint from one format into another, complete or not at all."""

import dataclasses
import json
import math
import pathlib
import sys
from typing import Any

from promot_jax.cli import directory
from promot_jax.cli.flags import Flags
from promot_jax.cli.screen import show
from promot_jax.errors import ConfigError


def run(flags: Flags) -> int:
  """Runs `promot convert`.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  values = flags.values
  output = pathlib.Path(values.output)
  # Looked at first, since a checkpoint may take minutes to read.
  if output.is_file() or (output.is_dir() and any(output.iterdir()) and values.to != "t5x"):
    raise ConfigError(f"OUTPUT '{output}' exists and is not overwritten; name another.")

  from promot_jax.conversion import formats

  of_run = directory.is_model_dir(pathlib.Path(values.source))
  weights = _of_model_dir(flags) if of_run else _of_source(values)
  if not formats.is_of_method(values.to):
    formats.check(weights, finite=not values.allow_nan)
  target = formats.Target(
    to=values.to,
    dtype=values.dtype,
    vocabulary=values.vocab_size,
    step=values.step,
    t5x_layout=values.t5x_layout,
    scanned=values.scanned,
    task=values.task,
    base_model=values.base_model,
  )
  written = formats.write(weights, output, target)
  _tell(weights, written, values)
  return 0


def _of_source(values) -> Any:
  from promot_jax.conversion import formats
  from promot_jax.methods import files
  from promot_jax.methods.formats import Context

  if formats.is_of_method(values.to):
    config = formats.model_config(values.model) if values.model else None
    trained = files.open_trained(values.source, Context(config=config))
    return formats.Weights(
      leaves=trained.leaves, config=config, where=values.source, trained=trained
    )
  return formats.open_weights(values.source, model=values.model, vocabulary=values.vocab_size)


def _of_model_dir(flags: Flags) -> Any:
  """The weights after all stages up to the checkpoint, method attached."""
  import argparse

  from promot_jax import paths
  from promot_jax.conversion import formats
  from promot_jax.experiments import checkpoint_names
  from promot_jax.experiments.restored import Restored
  from promot_jax.models import ensemble
  from promot_jax.networks import trained_methods

  values = flags.values
  merged = argparse.Namespace(**{**vars(values), "model_dir": values.source})
  directories = directory.opened(dataclasses.replace(flags, values=merged))
  if len(directories) > 1:
    raise ConfigError(
      f"{values.source} has several experiments; name one: "
      + ", ".join(str(each.folder) for each in directories)
    )
  opened = directories[0]
  checkpoint = checkpoint_names.named(opened, values.checkpoint)
  ensemble.require_one(checkpoint.start.abstract(), "be written as a checkpoint")
  model, method = Restored(opened).model(checkpoint), checkpoint.method
  written, trained = model, None
  if method is not None and formats.is_of_method(values.to):
    trained = trained_methods.trained(model, method, notes={"run": values.source})
  elif method is not None:
    written = formats.backbone_of(model, method, merge=values.merge)
  return formats.Weights(
    leaves=paths.named_leaves(written),
    config=opened.experiment.backbone,
    where=values.source,
    trained=trained,
  )


def _tell(weights, written: pathlib.Path, values) -> None:
  leaves = weights.backbone if weights.trained is None else weights.trained.leaves
  summary = {
    "output": str(written),
    "format": values.to,
    "backbone": type(weights.config).__name__ if weights.config is not None else None,
    "arrays": len(leaves),
    "parameters": sum(math.prod(leaf.shape) for leaf in leaves.values()),
    "dtype": values.dtype or "as stored",
  }
  if values.json:
    show(json.dumps(summary))
    return
  show(
    f"{written}: {values.to}, {summary['arrays']} arrays, {summary['parameters']:,} parameters,"
    f" {summary['dtype']}"
  )
  # On stderr, so that --json alone is on standard output.
  if weights.note and not values.quiet:
    show(f"note: {weights.note}", file=sys.stderr)
  if weights.prompt and values.to in ("hf", "npz") and not values.quiet:
    name, leaf = next(iter(weights.prompt.items()))
    show(
      f"note: the prompt ({name} {list(leaf.shape)}) is no part of it; write it with --to=prompt or"
      " --to=peft",
      file=sys.stderr,
    )


if __name__ == "__main__":
  from promot_jax.cli.main import main

  sys.exit(main(["convert", *sys.argv[1:]]))
