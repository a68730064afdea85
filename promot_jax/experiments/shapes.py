"""What shapes alone can prove about an experiment before it runs: nothing is allocated or read.

An XXL model is checked in seconds on a laptop: parameters and optimizer state are abstract, and the mesh
is arithmetic.  `planning` prints what is found here.
"""

import dataclasses
from collections.abc import Collection
from typing import Any

import jax
from flax import nnx

from promot_jax import partitioning, paths
from promot_jax.checkpoints import disk
from promot_jax.data import file_task, vocabularies
from promot_jax.errors import ConfigError
from promot_jax.experiments import classes, demonstrations, epochs, lengths, validation
from promot_jax.experiments.checkpoint import Checkpoint
from promot_jax.experiments.comparison import Comparison, experiments_of
from promot_jax.experiments.experiment import Experiment, MeshShape
from promot_jax.experiments.from_pretrained import MICRO
from promot_jax.methods.prompt import prompt_count
from promot_jax.models.backbone import writes_text
from promot_jax.models.ensemble import require_one
from promot_jax.networks import vocabulary_fit
from promot_jax.networks.loaded import Shapes
from promot_jax.networks.network import AnyNetwork, Load
from promot_jax.probing import probe
from promot_jax.training import optimizers, penalties, selection
from promot_jax.training.stages import Stage
from promot_jax.training.state import cast
from promot_jax.training.teacher_input import Demonstrated
from tasks import catalog, template_tasks


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagePlan:
  """Parameters and bytes of one stage."""

  stage: Stage
  trainable: int
  frozen: int
  optimizer: int  # bytes of the whole optimizer state
  bytes: partitioning.BytePlan
  saved: int  # bytes of a checkpoint on the disk


def abstract_model(experiment: Experiment, *, load: Load | None = None) -> Any:
  """The experiment's model with its method attached, as shapes.

  Args:
    load: as of a network's `abstract`; None: what the model shares with others is not told.

  Raises:
    ConfigError: the experiment trains an ensemble, or puts something on it.
  """
  start, method = experiment.start, experiment.method
  model = load(start) if load else start.abstract()
  if method is not None:
    require_one(model, f"have a {type(method).__name__}")
  if experiment.stages:
    require_one(model, f"be trained by stage '{experiment.stages[0].name}'")
  if experiment.probe is not None:
    require_one(model, "be probed")
  if method is None:
    return model
  return paths.shapes_after(lambda network: method.attach(network, nnx.Rngs(1)), model)


def abstract_checkpoint(experiment: Experiment, checkpoint: Checkpoint) -> Any:
  """The model of a checkpoint, as shapes."""
  return abstract_model(experiment) if checkpoint.stages else checkpoint.start.abstract()


def stage_plans(
  experiment: Experiment, mesh: dict[str, int], *, load: Load | None = None
) -> list[StagePlan]:
  """What each stage trains and what it costs on a chip of `mesh`.

  Args:
    load: gives networks as shapes, those of other experiments among them; None: of this one alone.

  Raises:
    ConfigError: a pattern matches nothing, or a size cannot be divided over the mesh.
  """
  load = load or Shapes().model
  return _plans(experiment, mesh, abstract_model(experiment, load=load), load)


def _plans(experiment: Experiment, mesh: dict[str, int], model: Any, load: Load) -> list[StagePlan]:
  changed: set[str] = set()  # names of what the stages up to this one train
  plans = []
  for stage in experiment.stages:
    partitioning.check_batch_size(
      stage.batch_size // stage.microbatches, mesh, what=f"stage '{stage.name}'"
    )
    _, trainable, frozen = paths.split(model, stage.trainable)
    changed |= set(paths.named_leaves(trainable))
    optimizer = jax.eval_shape(stage.optimizer(stage.learning_rate).init, trainable)
    # What a teacher of its own keeps lies in memory and on the disk as moments do.
    average = stage.own_teacher and jax.eval_shape(stage.own_teacher.first, trainable)
    state = optimizer if average is None else (optimizer, average)
    plans.append(
      StagePlan(
        stage=stage,
        trainable=paths.count(trainable),
        frozen=paths.count(frozen),
        optimizer=paths.nbytes(optimizer),
        bytes=_with_others(
          experiment, stage, mesh, _bytes(model, mesh, stage, frozen, state), model, changed, load
        ),
        saved=disk.step_size(paths.nbytes(trainable) + paths.nbytes(state)),
      )
    )
  return plans


def _bytes(model, mesh: dict[str, int], stage: Stage, frozen, state) -> partitioning.BytePlan:
  """Bytes a chip, those of frozen parameters in the stage's own type included."""
  found = partitioning.byte_plan(model, mesh, trainable=stage.trainable, optimizer_state=state)
  if stage.frozen_dtype is None:
    return found
  copy = jax.eval_shape(lambda tree: cast(tree, stage.frozen_dtype), frozen)
  # Added, not put in the place of the others: the originals stay in memory for the next stage.
  more = partitioning.byte_plan(copy, mesh).parameters
  return dataclasses.replace(found, parameters=found.parameters + more)


def _with_others(
  experiment: Experiment,
  stage: Stage,
  mesh: dict[str, int],
  plan: partitioning.BytePlan,
  model: Any,
  changed: Collection[str],
  load: Load,
) -> partitioning.BytePlan:
  """The bytes with those of a teacher's and an anchor's arrays that are not the student's own, each once.

  Of a teacher whose distributions are kept, its own bytes if it is the larger one of the two.

  Args:
    model: the student, as shapes.
    changed: names of the student's parameters that this stage or an earlier one trains.
    load: gives the student's start, the teacher and the anchor.
  """
  others: dict[str, dict[str, Any]] = {}
  teacher = experiment.teachers.get(stage.name)
  if teacher is not None and stage.teacher_cache is None:
    others["teacher"] = others_own(load(teacher), model, changed)
  if (anchor := experiment.anchors.get(stage.name)) is not None:
    _, trainable, _ = paths.split(model, stage.trainable)
    held = penalties.held_by(load(anchor), trainable, owner=f"stage '{stage.name}'")
    taught = {id(leaf) for leaf in others.get("teacher", {}).values()}
    own = others_own(held, model, changed)
    others["anchor"] = {name: leaf for name, leaf in own.items() if id(leaf) not in taught}
    if (
      stage.penalty is not None and stage.penalty.fisher is not None
    ):  # one number for each of them
      others["importance"] = jax.eval_shape(lambda tree: jax.tree.map(_in_float32, tree), held)
  more = sum(partitioning.byte_plan(own, mesh).parameters for own in others.values())
  training = dataclasses.replace(plan, parameters=plan.parameters + more)
  if teacher is None or stage.teacher_cache is None:
    return training
  asked = partitioning.byte_plan(paths.distinct(load(teacher)), mesh)  # before the stage, and freed
  return max(training, asked, key=lambda each: each.total)


def _in_float32(leaf: Any) -> Any:
  return leaf.astype("float32")


def others_own(other: Any, student: Any, changed: Collection[str]) -> dict[str, Any]:
  """The arrays of another model that are in memory beside the student's, each once; both are shapes."""
  kept = {id(leaf) for name, leaf in paths.named_leaves(student).items() if name not in changed}
  return {name: leaf for name, leaf in paths.distinct(other).items() if id(leaf) not in kept}


def check(run: Experiment | Comparison) -> None:
  """Everything about a run that shapes alone can prove wrong, and tables of the user's own.

  Raises:
    ConfigError: patterns, mesh, batch sizes, heads, lengths or prompts that do not fit.
    DataError: a table has rows that cannot be used.
  """
  # The rows of a comparison start from one network, and a trace of many layers takes seconds.
  load = Shapes().model
  # Stages in epochs take the number of steps that is known unread; the run counts them again.
  for experiment in map(epochs.planned, experiments_of(run)):
    # Whole tables are read now: a row that cannot be used would end the run after its start.
    for files in experiment.files if experiment.malformed == "refuse" else ():
      file_task.refuse_problems(files)
    if experiment.templates is not None and experiment.malformed == "refuse":
      for data in experiment.templates.data_sets:
        template_tasks.refuse_problems(data)
    model = abstract_model(experiment, load=load)
    sizes = mesh_sizes(experiment.mesh)
    _plans(experiment, sizes, model, load)
    for stage in experiment.stages:
      optimizers.require_usable_rates(stage)
    partitioning.check_batch_size(
      experiment.evaluation.batch_size, sizes, what="a batch of the evaluation (batch_size)"
    )
    _check_encoder_alone(experiment)
    for stage in experiment.stages:
      _check_metric(experiment, stage)
      _check_head(experiment, stage)
    for name, teacher in experiment.teachers.items():
      _check_teacher(experiment, name, teacher)
    for stage in experiment.stages:
      _check_teacher_inputs(experiment, stage)
    _check_text(experiment)
    if experiment.probe is not None:
      probe.check_layer(model, experiment.probe.layer)
    lengths.check(experiment, model)
    prompts = prompt_count(model)
    # One prompt that all tasks share is allowed, a bank with unused or missing rows is not.
    if prompts > 1 and len(experiment.tasks) != prompts:
      raise ConfigError(
        f"'{experiment.task}' has {len(experiment.tasks)} task(s) and the method a bank of {prompts}; "
        "set its `tasks` (of prompts: set PROMPT_TASKS) to the number of tasks, or to 1 for what all "
        "share."
      )


def _check_teacher(experiment: Experiment, stage: str, teacher: AnyNetwork) -> None:
  """Whether student and teacher read the same batch and know the same tokens."""
  said = vocabulary_fit.difference({"the student": experiment.start, "its teacher": teacher})
  if said:
    raise ConfigError(
      f"stage '{stage}' compares the probabilities of tokens, and {said}. Take a teacher of the"
      " student's vocabulary."
    )


def _check_teacher_inputs(experiment: Experiment, stage: Stage) -> None:
  """Whether each task of a stage declares what the teacher reads, as far as that is known unread."""
  name = stage.teacher_inputs
  if isinstance(name, Demonstrated):
    demonstrations.require_length(name, experiment.backbone.max_positions, stage=stage.name)
    return
  if name is None:
    return
  for task in catalog.members(experiment.task_of(stage.name)):
    if catalog.is_open(task):
      continue
    declared = catalog.find(catalog.split_shots(task)[0]).features
    feature = declared.get(name)
    if feature is None or feature.kind.rank != 1:
      lists = [each for each, found in declared.items() if found.kind.rank == 1]
      raise ConfigError(
        f"stage '{stage.name}' has teacher_inputs='{name}', and task '{task}' declares no such list of"
        f" tokens beside its input; it has {', '.join(lists) or 'none'}. Declare it (docs/tasks.md), or"
        " set teacher_inputs=None."
      )


def _check_text(experiment: Experiment) -> None:
  """Whether the general text of the plan, of which a perplexity is measured, can be had."""
  plan = experiment.evaluation.from_pretrained
  if plan is None or plan.text is None:
    return
  if plan.text != MICRO:
    experiment.seqio_name(plan.text)  # refuses an unknown name
  elif experiment.source != "micro" or vocabularies.reference(experiment.vocabulary) is not None:
    raise ConfigError(
      f"FromPretrained.text='{MICRO}' is text of the built-in world in its own words, and the experiment has"
      f" source '{experiment.source}' and vocabulary '{experiment.vocabulary}'; name a task, or None for no"
      " perplexity."
    )


def _check_encoder_alone(experiment: Experiment) -> None:
  """Whether a model that writes no text is only asked through its head."""
  if writes_text(experiment.backbone):
    return
  kind = type(experiment.backbone).__name__
  for stage in experiment.stages:
    if not stage.objective.reads_classes:
      raise ConfigError(
        f"stage '{stage.name}' minimizes {type(stage.objective).__name__}, and MODEL, a {kind}, is an"
        " encoder alone that writes no text; train a prediction head by Classification, as"
        " gin/head_rte.gin does."
      )
  if experiment.evaluation.unseen:
    raise ConfigError(
      f"MODEL, a {kind}, is an encoder alone that writes no text, so tasks that it was not tuned on"
      " cannot be measured: set UNSEEN_TASKS=[]."
    )


def _check_head(experiment: Experiment, stage: Stage) -> None:
  """Whether a stage that reads classes has a head for them, as far as the labels are known unread."""
  if not stage.objective.reads_classes:
    return
  head = classes.head_of(experiment.method, stage)
  known = [classes.labels(task) for task in catalog.members(experiment.task_of(stage.name))]
  # Where a task has no labels its classes are its different answers, which only reading shows.
  if all(known):
    classes.require_count(
      head, tuple(dict.fromkeys(label for own in known for label in own)), stage
    )


def _check_metric(experiment: Experiment, stage: Stage) -> None:
  """Whether validation will give the metrics that choose the stage's checkpoint."""
  decoded, known = validation.known(experiment, stage)
  for name in stage.asks or ():
    if known is not None and name not in known:
      shown = [each for each in known if not each.endswith(selection.STANDARD_ERROR)]
      raise ConfigError(
        f"stage '{stage.name}' chooses its checkpoint by '{name}', but validation on "
        f"{experiment.task_of(stage.name)} {selection.unknown(name, shown)} Set VALIDATION_METRIC."
      )
  selection.require_mode(f"stage '{stage.name}'", stage.metric, stage.mode, known=decoded)


def mesh_sizes(mesh: MeshShape) -> dict[str, int]:
  """Axis sizes, -1 filled up with the devices that this process has."""
  # At least 1, so that a plan for more chips than there are here is still told.
  if mesh.data == -1:
    return {"data": max(1, len(jax.devices()) // mesh.model), "model": mesh.model}
  return {"data": mesh.data, "model": mesh.model}
