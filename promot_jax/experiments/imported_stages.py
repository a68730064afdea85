"""A stage that another experiment finished, taken over instead of trained again.

ProMoT's first stage is prompt tuning: in a comparison it is trained once.
"""

import json
import os
import pathlib
import shutil
from typing import Any

from promot_jax import hosts
from promot_jax.checkpoints.shared import AnyStore
from promot_jax.errors import ConfigError
from promot_jax.experiments.experiment import Experiment

_MARKER = "stage_complete.json"


def take_over(experiment: Experiment, stage: str, store: AnyStore) -> None:
  """Copies a stage's chosen checkpoint and its marker from another experiment, the marker last.

  Args:
    experiment: whose `imported_stages` says from where.
    stage: name of the stage.
    store: where it goes.

  Raises:
    ConfigError: the other experiment has not finished the stage.
  """
  folder = pathlib.Path(experiment.model_dir)
  name = experiment.imported_stages[stage]
  source = pathlib.Path(name) if os.sep in name else folder.parent / name
  content = hosts.first(lambda: _copy(experiment.name, stage, source, store.directory))
  store.write_json(_MARKER, content)


def _copy(name: str, stage: str, source: pathlib.Path, target: pathlib.Path) -> dict[str, Any]:
  """Copies the checkpoint and gives the marker that is to be written.

  The marker does not keep the settings of the other training: they need not be this experiment's.
  """
  marker = source / "stages" / stage / _MARKER
  if not marker.is_file():
    raise ConfigError(
      f"'{name}' takes stage '{stage}' over from {source}, where it is not complete. Run that"
      " experiment first."
    )
  content = json.loads(marker.read_text())
  step = f"checkpoint_{content['step']}"
  target.mkdir(parents=True, exist_ok=True)
  if not (target / step).exists():
    temporary = target / f"{step}.tmp-{os.getpid()}"
    shutil.copytree(marker.parent / step, temporary)
    temporary.rename(target / step)
  content.pop("trained_with", None)
  return {**content, "why": f"{content['why']} (taken over from {source.name})"}
