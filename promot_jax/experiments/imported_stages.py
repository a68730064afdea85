"""A stage that another experiment finished, taken over instead of trained again.

ProMoT's first stage is prompt tuning: in a comparison it is trained once.
"""

import os
import pathlib
import shutil
from typing import Any

from promot_jax import hosts
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.checkpoints.store import Store
from promot_jax.errors import ConfigError
from promot_jax.experiments.experiment import Experiment
from promot_jax.training import choice


def take_over(experiment: Experiment, stage: str, store: AnyStore) -> None:
  """Copies a stage's chosen checkpoint and its marker from another experiment, the marker last.

  Args:
    experiment: whose `imported_stages` says from where.
    stage: name of the stage.
    store: where it goes.

  Raises:
    ConfigError: the other experiment has not finished the stage.
    DamagedCheckpoint: its chosen checkpoint is damaged.
  """
  folder = pathlib.Path(experiment.model_dir)
  name = experiment.imported_stages[stage]
  source = pathlib.Path(name) if os.sep in name else folder.parent / name
  # One process copies; the store is called by all, which wait in it for each other.
  content = hosts.first(lambda: _copy(experiment.name, stage, source, store.directory))
  store.write_json(choice.MARKER, content)


def _copy(name: str, stage: str, source: pathlib.Path, target: pathlib.Path) -> dict[str, Any]:
  """Copies the checkpoint and gives the marker that is to be written.

  The marker does not keep the settings of the other training: they need not be this experiment's.
  """
  marker = source / "stages" / stage / choice.MARKER
  theirs = Store(marker.parent)
  done = choice.marker(theirs)
  if done is None:
    raise ConfigError(
      f"'{name}' takes stage '{stage}' over from {source}, where it is not complete. Run that"
      " experiment first."
    )
  step = f"checkpoint_{done['step']}"
  target.mkdir(parents=True, exist_ok=True)
  # A kill after the copy leaves the step without its marker: then only the marker is missing.
  if not (target / step).exists():
    theirs.require_sound(done["step"])
    # Under another name until it is whole, as the store itself saves.
    for left in target.glob(f"{step}.tmp-*"):  # of a copy that was killed; the directory is ours
      shutil.rmtree(left)
    temporary = target / f"{step}.tmp-{os.getpid()}"
    shutil.copytree(marker.parent / step, temporary)
    temporary.rename(target / step)
  for setting in ("trained_with", "stopped"):
    done.pop(setting, None)
  return {**done, "why": f"{done['why']} (taken over from {source.name})"}
