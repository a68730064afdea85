"""Figures of a checkpoint that were computed before, so that a repeated command restores no model for them."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from promot_jax.evaluation import whole_files
from promot_jax.experiments import origin, restored
from promot_jax.experiments.checkpoint import Checkpoint
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.experiments.shared_results import SharedJournal


def figures(
  directory: ModelDirectory,
  checkpoint: Checkpoint,
  *,
  path: pathlib.Path,
  settings: Mapping[str, Any],
  examples: str,
  compute: Callable[[], Any],
) -> Any:
  """The figures of a checkpoint as JSON values: those that are kept, or computed and kept now.

  Args:
    path: the file that keeps them.
    settings: all that they depend on besides the model and the examples.
    examples: digest of what the model sees.
    compute: gives them.
  """
  # The identity names the start by its path, under which other weights may have come to lie.
  start = origin.of_start(directory.experiment).part("start weights") or ""
  fingerprint = whole_files.fingerprint(
    {
      "model": restored.identity(directory, checkpoint),
      "start": str(start),
      "examples": examples,
      "settings": whole_files.plain(settings),
    }
  )
  journal = SharedJournal(path)
  for entry in journal.read():
    if entry.get("fingerprint") == fingerprint:
      return entry["figures"]
  found = whole_files.plain(compute())
  journal.append([{"fingerprint": fingerprint, "step": checkpoint.step, "figures": found}])
  return found
