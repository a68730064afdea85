"""From a model directory back to the experiment that made it."""

import dataclasses
import pathlib

from promot_jax.cli import cluster, config_record, gin_config, gin_scan
from promot_jax.cli.flags import Flags
from promot_jax.errors import ConfigError


def opened(flags: Flags):
  """The ModelDirectory of each experiment that the command line means.

  The configuration is the given gin files', or the one that `promot train` kept in --model_dir or,
  for one experiment of a comparison, above it; that is read as plain values, since the directory may
  be somebody else's.

  Raises:
    ConfigError: no configuration is found.
  """
  values = flags.values
  if not values.model_dir:
    raise ConfigError("no --model_dir given: the directory that promot train wrote.")
  cluster.connect(values)
  # All of a comparison are needed: one may have the pretrained model's results for another.
  every, chosen = cluster.together(lambda: _experiments(flags))

  import sys

  from promot_jax import signals
  from promot_jax.experiments import sweep
  from promot_jax.experiments.model_directory import ModelDirectory
  from promot_jax.experiments.session import Session
  from promot_jax.training.events import Console, Events

  sinks = [] if values.quiet or cluster.number() else [Console(sys.stderr)]
  stop = signals.current()
  stop.work = "the batch"
  console = Events(sinks)
  session = Session(stop=stop, console=console, experiments=every)
  return [
    ModelDirectory(experiment=sweep.settled(experiment), session=session, events=console)
    for experiment in chosen
  ]


def experiments(flags: Flags):
  """The experiments that the command line means, for a command that runs no model; as `opened`."""
  return _experiments(flags)[1]


def _experiments(flags: Flags):
  """(all that belong together, those that are meant)."""
  values = flags.values
  if flags.gin_files:
    scanned = gin_config.read(
      flags.gin_files,
      flags.bindings,
      search_paths=values.gin_search_paths,
      allow_imports=values.gin_allow_imports,
    )
    return _build(scanned, None, None)
  folder = pathlib.Path(values.model_dir)
  root = root_of(folder)
  if root is None:
    raise ConfigError(
      f"{folder} has no config.gin, so promot train was not run there. Name a model directory, or "
      "the recipe with --gin_file."
    )
  # Last, so that it wins: results are looked for where the directory lies now.
  bindings = [*flags.bindings, f"MODEL_DIR = {str(root)!r}"]
  scanned = config_record.read(root, bindings, allow_imports=values.gin_allow_imports)
  return _build(scanned, root, folder.name if root != folder else None)


def root_of(folder: pathlib.Path) -> pathlib.Path | None:
  """Where the configuration of a model directory lies: there, or above it in a comparison."""
  return next((f for f in (folder, folder.parent) if config_record.is_kept(f)), None)


def is_model_dir(folder: pathlib.Path) -> bool:
  """Whether `promot train` wrote this folder, as a whole or as one experiment of a comparison."""
  one_of_several = any((folder / part).is_dir() for part in ("stages", "evaluation"))
  return root_of(folder) == folder or (one_of_several and root_of(folder) is not None)


def _build(scanned: gin_scan.Scan, root: pathlib.Path | None, only: str | None):
  run = gin_config.build(scanned)

  from promot_jax.experiments.comparison import experiments_of

  experiments_of(run)  # refuses what is none
  if root is not None and run.model_dir != str(root):
    run = dataclasses.replace(run, model_dir=str(root))  # never to where somebody else's file says
  every = experiments_of(run)
  chosen = [e for e in every if only in (None, e.name)]
  if not chosen:
    names = ", ".join(e.name for e in every)
    raise ConfigError(f"{scanned.roots[0]} describes no experiment '{only}'. It has: {names}.")
  return every, chosen
