"""Figures that were computed before, so that a repeated analysis restores no model for them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from promot_jax.evaluation import whole_files
from promot_jax.evaluation.journal import Journal
from promot_jax.experiments import origin, restored
from promot_jax.experiments.checkpoint import Checkpoint
from promot_jax.experiments.model_directory import ModelDirectory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remembered:
  """The figures of one analysis, in the folder of each run that they are of.

  analysis: its name.
  settings: all that they depend on besides the model and the examples.
  """

  analysis: str
  settings: Mapping[str, Any]

  def figures(
    self,
    directory: ModelDirectory,
    checkpoint: Checkpoint,
    *,
    examples: str,
    compute: Callable[[], Any],
  ) -> Any:
    """The figures of a checkpoint as JSON values: those that are kept, or computed and kept now.

    Args:
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
        "settings": whole_files.plain(self.settings),
      }
    )
    journal = Journal(directory.folder / "analyses" / f"{self.analysis}.figures.jsonl")
    for entry in journal.read():
      if entry.get("fingerprint") == fingerprint:
        return entry["figures"]
    found = whole_files.plain(compute())
    journal.append([{"fingerprint": fingerprint, "step": checkpoint.step, "figures": found}])
    return found
