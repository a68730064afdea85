"""Figures that were computed before, so that a repeated analysis restores no model for them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from promot_jax.experiments import remembered
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
    return remembered.figures(
      directory,
      checkpoint,
      path=directory.folder / "analyses" / f"{self.analysis}.figures.jsonl",
      settings=self.settings,
      examples=examples,
      compute=compute,
    )
