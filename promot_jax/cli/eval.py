"""`promot eval`: scores of a model directory's checkpoints on any tasks and shots, with the method or without."""

import dataclasses
import functools
import json
import sys

from promot_jax.cli import cluster, directory
from promot_jax.cli.flags import Flags
from promot_jax.cli.screen import aligned, show
from promot_jax.errors import ConfigError


def run(flags: Flags) -> int:
  """Runs `promot eval`.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  values = flags.values
  directories = directory.opened(flags)

  from promot_jax import hosts
  from promot_jax.checkpoints.lease import Lease
  from promot_jax.evaluation import medians
  from promot_jax.experiments import measurement
  from promot_jax.experiments.restored import Restored

  if values.output and len(directories) > 1:
    raise ConfigError(
      "--output is for one experiment; name its folder: "
      + ", ".join(str(opened.folder) for opened in directories)
    )
  for opened in directories:  # before data are read and the folder is made
    cluster.together(functools.partial(_check, values, opened))
  rows, folders = [], []
  for opened in directories:
    # Scores of a part of the data must not replace those that the report shows.
    part = opened.folder / "evaluation_of_parts" if values.limit or values.split else None
    store = opened.results(values.output or part)
    folders.append(str(store.root))
    lease = functools.partial(Lease, values.output or opened.folder, whole=_named(values))
    with hosts.held_by_first(lease):
      checkpoint, wanted = cluster.together(functools.partial(_wanted, values, opened))
      found = measurement.measure(opened, checkpoint, wanted, models=Restored(opened), store=store)
    # Medians are made of the results and not stored: a report makes its own.
    if opened.experiment.templates is not None:
      found += medians.over_templates(found, opened.experiment.templates.units)
    rows += [(opened.experiment.name, checkpoint.name, result) for result in found]
  if not hosts.is_first():
    return 0
  if values.json:
    show(
      json.dumps(
        [
          # `prompt` is what readers of earlier versions look for.
          {
            "experiment": experiment,
            "checkpoint": name,
            **dataclasses.asdict(result),
            "prompt": result.method,
          }
          for experiment, name, result in rows
        ]
      )
    )
    return 0
  show(_table(rows))
  show(f"predictions: {', '.join(folders)}")
  return 0


def _named(values) -> str | None:
  """The directory that the user named, in which that of the experiment must lie."""
  return values.output or (None if values.gin_file else values.model_dir)


def _check(values, opened) -> None:
  """Refuses what needs no stage of a run and cannot be made."""
  from promot_jax.experiments import checkpoint_names

  if values.method or (values.checkpoint == "pretrained" and not opened.folder.exists()):
    named = checkpoint_names.named(opened, values.checkpoint, method_file=values.method)
    if not opened.folder.exists():
      named.start.check()


def _wanted(values, opened):
  """(checkpoint, tasks) that the flags ask for."""
  from promot_jax.experiments import checkpoint_names

  checkpoint = checkpoint_names.named(opened, values.checkpoint, method_file=values.method)
  return checkpoint, tasks(values, opened, checkpoint)


def tasks(values, opened, checkpoint):
  """The evaluation tasks that the flags ask for; without --tasks the recipe's own plan.

  Raises:
    ConfigError: no such task, with the nearest names.
  """
  from promot_jax.experiments import classes, data
  from tasks import catalog

  experiment, reader = opened.experiment, opened.session.reader
  plan = experiment.evaluation
  method_states(values.attach, checkpoint, tuned=False)  # refuses what cannot be attached
  changes: dict = {}
  if values.limit:
    changes["limit"] = values.limit
  if values.shots:
    changes["shots"] = _numbers(values.shots)
  if values.answers:
    changes["answers"] = values.answers
  if values.attach != "auto":
    changes["unseen_method"] = ("off", "on") if values.attach == "both" else (values.attach,)
  plan = dataclasses.replace(plan, **changes)
  experiment = dataclasses.replace(experiment, evaluation=plan)
  # Templates have numbers of demonstrations of their own, over which the flag goes.
  if values.shots and experiment.templates is not None:
    templates = dataclasses.replace(experiment.templates, shots=plan.shots)
    experiment = dataclasses.replace(experiment, templates=templates)
  if not values.tasks:
    named = None
    if values.attach_task:
      named = bank_row(values.attach_task, experiment, checkpoint.method, "attached")
    if missing := data.left_out(experiment, checkpoint=checkpoint, bank_row=named):
      opened.events.line(missing)
    return data.report_tasks(experiment, reader, checkpoint=checkpoint, bank_row=named)
  tuned = [catalog.split_shots(task)[0] for task in experiment.tasks]
  alike = experiment.unseen_tasks if plan.unseen_written == "tuned" else ()
  found = []
  told = classes.of_checkpoint(experiment, checkpoint, reader)
  for name in (each for given in values.tasks.split(",") for each in catalog.members(given)):
    base, given = catalog.split_shots(name)
    experiment.seqio_name(name)  # refuses unknown names
    # A tuned task's demonstrations are in its name; the plan's are for unseen tasks.
    asked = experiment.shots_of(base) if base not in tuned or values.shots else [0]
    for state in method_states(values.attach, checkpoint, tuned=base in tuned):
      row = (
        tuned.index(base)
        if base in tuned
        else bank_row(values.attach_task, experiment, checkpoint.method, state)
      )
      for shots in [given] if given else asked:
        task = f"{base}_{shots}shot" if shots else base
        found.append(
          data.eval_task(
            experiment,
            task,
            values.split or experiment.splits_of(task).report,
            reader,
            # Without its method a model reads plain text, as the pretrained one does (`writing`).
            tuned=base in (*tuned, *alike) and checkpoint.tuned and state != "detached",
            method=state,
            bank_row=row,
            lengths=data.lengths_of(experiment, base),
            limit=plan.limit,
            told=told if base in tuned and state == "attached" else None,
            answers=plan.answers,
          )
        )
  return found


def method_states(flag: str, checkpoint, *, tuned: bool) -> list[str]:
  """The states of the method for an --attach flag; raises as `method_state`."""
  flags = ("off", "on") if flag == "both" else (flag,)
  return [method_state(each, checkpoint, tuned=tuned) for each in flags]


def method_state(flag: str, checkpoint, *, tuned: bool) -> str:
  """'attached', 'detached' or 'none' for an --attach flag.

  Raises:
    ConfigError: the flag asks for a method and the checkpoint has none.
  """
  if checkpoint.method is None:
    if flag == "on":
      which = f"checkpoint '{checkpoint.name}'" if checkpoint.tuned else "the pretrained model"
      raise ConfigError(f"--attach=on: {which} has no method to attach; leave the flag out.")
    return "none"
  return "attached" if flag == "on" or (flag == "auto" and tuned) else "detached"


def bank_row(flag: str | None, experiment, method, state: str) -> int:
  """Row of the method's bank that an --attach_task flag means.

  Raises:
    ConfigError: no such task, or the method has a row for each task and none was named.
  """
  from tasks import catalog

  tuned = [catalog.split_shots(task)[0] for task in experiment.tasks]
  if flag and flag not in tuned:
    raise ConfigError(f"--attach_task={flag}: there are rows of {', '.join(tuned)}.")
  if state != "attached" or method is None or method.tasks == 1:
    return 0
  if not flag:
    raise ConfigError(
      f"'{experiment.name}' has a {type(method).__name__} for each of {', '.join(tuned)}; say which one to "
      f"attach, such as --attach_task={tuned[0]}."
    )
  return tuned.index(flag)


def _numbers(text: str) -> tuple[int, ...]:
  try:
    return tuple(int(part) for part in text.split(","))
  except ValueError:
    raise ConfigError(f"--shots={text} must be numbers joined by commas, such as 0,1,4.") from None


def _table(rows) -> str:
  from promot_jax.evaluation import uncertainty, ways

  lines = [
    (
      "experiment",
      "checkpoint",
      "task",
      "split",
      "shots",
      "method",
      "answers",
      "n",
      "metric",
      "value",
      "95 % interval",
    )
  ]
  for experiment, name, result in rows:
    limits = uncertainty.of_result(result)
    lines.append(
      (
        experiment,
        name,
        result.task + (f" (median of {result.median_of})" if result.median_of else ""),
        result.split,
        str(result.shots),
        result.method,
        # A median's are those of the templates, which stand above it.
        "" if result.median_of else ways.answers(result),
        str(result.count),
        result.metric,
        f"{result.score:.2f}",
        "" if limits is None else f"{limits[0]:.1f} to {limits[1]:.1f}",
      )
    )
  return aligned(lines)


if __name__ == "__main__":
  from promot_jax.cli.main import main

  sys.exit(main(["eval", *sys.argv[1:]]))
