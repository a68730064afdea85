"""`promot harness`: a model on tasks of lm-evaluation-harness, which computes their scores."""

import json
import pathlib
import sys
from typing import Any

from promot_jax.cli import directory
from promot_jax.cli.eval import bank_row, method_state
from promot_jax.cli.flags import Flags
from promot_jax.cli.screen import show
from promot_jax.errors import ConfigError, DataError


def run(flags: Flags) -> int:
  """Runs `promot harness`.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  values = flags.values
  output = pathlib.Path(values.output) if values.output else None
  if output is not None and output.exists():
    raise ConfigError(f"--output={output} exists; choose another file.")
  manager, names = _tasks(values)
  opened = directory.opened(flags)
  if len(opened) > 1:
    raise ConfigError(
      f"{values.model_dir} has several experiments; name one: "
      + ", ".join(f"--model_dir={each.folder}" for each in opened)
    )
  found = _measured(values, opened[0], manager, names)
  if output is not None:
    from promot_jax.evaluation import whole_files

    whole_files.write_json(output, found)
  if values.json:
    from promot_jax.evaluation import whole_files

    show(json.dumps(whole_files.plain(found["results"])))
    return 0
  from lm_eval.utils import make_table

  show(make_table(found))
  return 0


def _tasks(values) -> tuple[Any, list[str]]:
  """(the manager that knows the tasks, their names); their data are there.

  Raises:
    ConfigError: lm_eval is not installed, or has no such task.
    DataError: the data of one cannot be read.
  """
  try:
    from lm_eval.tasks import TaskManager
  except ImportError as error:
    raise ConfigError(
      f"promot harness needs the package lm_eval, which cannot be imported ({error}):"
      " pip install 'promot_jax[lm_eval]'"
    ) from None
  if values.include_path and not pathlib.Path(values.include_path).is_dir():
    raise ConfigError(f"--include_path={values.include_path} is no folder.")
  names = values.tasks.split(",")
  # lm_eval's own thousands of files take a while to list: only where they are asked for.
  manager = TaskManager(include_path=values.include_path, include_defaults=False)
  if not set(names) <= set(manager.all_tasks):
    manager = TaskManager(include_path=values.include_path)
  if missing := [name for name in names if name not in manager.all_tasks]:
    raise ConfigError(
      f"--tasks={values.tasks}: lm_eval has no task {missing[0]}; `lm-eval ls tasks` lists them, and"
      " --include_path=DIR names a folder of your own."
    )
  try:
    manager.load(names)
  except (OSError, ValueError) as error:  # an absent hub, file or column
    raise DataError(f"lm_eval cannot read the data of {values.tasks}: {error}") from error
  return manager, names


def _measured(values, opened, manager, names: list[str]) -> dict[str, Any]:
  """What lm_eval found, and with which model."""
  import lm_eval

  from promot_jax.experiments import checkpoint_names, free_texts, restored
  from promot_jax.experiments.restored import Restored
  from promot_jax.inference.continuations import Continuations
  from promot_jax.inference.harness_model import HarnessModel

  experiment = opened.experiment
  checkpoint = checkpoint_names.named(opened, values.checkpoint, method_file=values.method)
  state = method_state(values.attach, checkpoint, tuned=False)
  row = bank_row(values.attach_task, experiment, checkpoint.method, state)
  form = free_texts.form(experiment, tuned=False, bank_row=row)
  model = Restored(opened).model(checkpoint)
  if state == "detached":
    assert checkpoint.method is not None  # `method_state`: else it is "none"
    model = checkpoint.method.detach(model)
  shown = {
    "experiment": experiment.name,
    "checkpoint": checkpoint.name,
    "weights": restored.identity(opened, checkpoint),
    "method": state,
  }
  found = lm_eval.simple_evaluate(
    model=HarnessModel(
      Continuations(form=form, model=model, place=opened.place), name=experiment.vocabulary
    ),
    model_args=shown,
    tasks=names,
    num_fewshot=values.shots,
    limit=values.limit,
    batch_size=form.batch_size,
    task_manager=manager,
  )
  assert found is not None  # of a process that is not the first
  return found


if __name__ == "__main__":
  from promot_jax.cli.main import main

  sys.exit(main(["harness", *sys.argv[1:]]))
