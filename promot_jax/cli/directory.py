"""From a model directory back to the experiment that made it."""

import argparse
import pathlib
from collections.abc import Sequence

from promot_jax.cli import cluster, gin_config
from promot_jax.cli.flags import Flags
from promot_jax.errors import ConfigError


def runners(flags: Flags):
  """A Runner for each experiment that the command line means.

  The configuration is the given gin files', or the `config.gin` that `promot train` wrote into
  --model_dir or, for one experiment of a comparison, above it.

  Raises:
    ConfigError: no configuration is found.
  """
  values = flags.values
  if not values.model_dir:
    raise ConfigError("no --model_dir given: the directory that promot train wrote.")
  folder = pathlib.Path(values.model_dir)
  files, bindings, only = flags.gin_files, list(flags.bindings), None
  if not files:
    root = root_of(folder)
    if root is None:
      raise ConfigError(
        f"{folder} has no config.gin, so promot train was not run there. Name a model directory, or "
        "the recipe with --gin_file."
      )
    files = (str(root / "config.gin"),)
    bindings.append(f"MODEL_DIR = {str(root)!r}")
    only = folder.name if root != folder else None
  return _build(values, files, bindings, only)


def root_of(folder: pathlib.Path) -> pathlib.Path | None:
  """Where the `config.gin` of a model directory lies: there, or above it in a comparison."""
  return next((f for f in (folder, folder.parent) if (f / "config.gin").is_file()), None)


def is_model_dir(folder: pathlib.Path) -> bool:
  """Whether `promot train` wrote this folder, as a whole or as one experiment of a comparison."""
  one_of_several = any((folder / part).is_dir() for part in ("stages", "evaluation"))
  return root_of(folder) == folder or (one_of_several and root_of(folder) is not None)


def _build(values: argparse.Namespace, files: Sequence[str], bindings: list[str], only: str | None):
  paths = {"search_paths": values.gin_search_paths, "allow_imports": values.gin_allow_imports}
  scanned = gin_config.read(files, bindings, **paths)
  cluster.connect(values)
  run = cluster.together(lambda: gin_config.build(scanned, **paths))

  import sys

  from promot_jax import signals
  from promot_jax.experiments.comparison import experiments_of
  from promot_jax.experiments.runner import Runner, Shared
  from promot_jax.training.events import Console, Events

  every = experiments_of(run)
  experiments = [e for e in every if only in (None, e.name)]
  if not experiments:
    names = ", ".join(e.name for e in every)
    raise ConfigError(f"{files[0]} describes no experiment '{only}'. It has: {names}.")
  sinks = [] if values.quiet or cluster.number() else [Console(sys.stderr)]
  stop = signals.current()
  stop.work = "the batch"
  shared = Shared(stop=stop, console=Events(sinks), experiments=every)
  return [Runner(experiment, shared, sinks) for experiment in experiments]
