"""What one experiment is: data only, so that a gin file, a test and a notebook describe it alike.

An experiment adapts one network to one task (or mixture) by one method in one or more stages, and
then measures the tuned task and the tasks that should have been kept.  The rows of a paper's table
are experiments that differ in `method` and `stages`.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from promot_jax.data import file_task, mixtures
from promot_jax.data.own_files import OwnFiles
from promot_jax.data.replay import Replay
from promot_jax.data.task import Splits
from promot_jax.data.templated import TemplatedTasks
from promot_jax.decoding.strategies import Beam
from promot_jax.errors import ConfigError
from promot_jax.evaluation.averages import UNSEEN_TASKS
from promot_jax.experiments.from_pretrained import FromPretrained
from promot_jax.methods.base import Method
from promot_jax.networks import ensemble, network
from promot_jax.networks.network import AnyNetwork
from promot_jax.probing.probe import Probe
from promot_jax.training import schedules
from promot_jax.training.stages import LARGEST, Stage
from tasks import catalog, template_tasks

RECIPE_VALUES = ("Experiment", "EvaluationPlan", "MeshShape")

UNSEEN = tuple(UNSEEN_TASKS)
"""The eight unseen tasks of Wang et al., 2024, Table 3, in its order."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshShape:
  """Devices along each axis; -1 = all that are left.  `data * model` must divide what there is."""

  data: int = -1
  model: int = 1

  def __post_init__(self):
    if self.model < 1 or self.data == 0 or self.data < -1:
      raise ConfigError(
        f"mesh data={self.data} model={self.model}: model must be at least 1 and data at least 1, "
        "or -1 for all devices that are left."
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
  """What is measured, with which weights.

  tuned: whether the tuned task(s) are measured, method attached, in the form they were tuned in.
  unseen: names of tasks, or of mixtures, without shots; scored with the method `unseen_method` at each of
    `shots`.
  unseen_method: 'off' (the paper's tables), 'on', or both; a model without a method is measured once.
  unseen_written: 'plain', or as the 'tuned' task is while a tuned backbone or the method reads them (`writing`).
  checkpoints: 'chosen' = each stage's last choice; 'last' = the last step; 'all' = every kept step.
  strategy: how answers are decoded.
  answers: 'auto' as each task has it; 'ranked' = the most probable of a task's labels or choices, for all of
    them; 'generated' = written.  What a prediction head was trained on, it answers.
  buckets: how many padded input lengths there may be; each is one compilation.
  limit: number of examples of each task (the first ones of a fixed order); None = all.
  feature_lengths: largest lengths; a task's entry in `task_lengths` wins.
  from_pretrained: what is measured of the distance to the pretrained model; None: nothing.
  """

  tuned: bool = True
  unseen: Sequence[str] = UNSEEN
  shots: Sequence[int] = (1,)
  unseen_method: Sequence[str] = ("off",)
  unseen_written: Literal["plain", "tuned"] = "plain"
  checkpoints: Sequence[str] = ("chosen",)
  strategy: Any = dataclasses.field(default_factory=Beam)
  answers: Literal["auto", "ranked", "generated"] = "auto"
  batch_size: int = 32
  buckets: int = 4
  limit: int | None = None
  feature_lengths: Mapping[str, int] = dataclasses.field(
    default_factory=lambda: {"inputs": 512, "targets": 128}
  )
  task_lengths: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
  from_pretrained: FromPretrained | None = None

  def __post_init__(self):
    for name in ("unseen", "shots", "unseen_method", "checkpoints"):
      value = getattr(self, name)
      if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(f"EvaluationPlan.{name}={value!r} must be a list: write [{value!r}].")
      object.__setattr__(self, name, tuple(value))
    _check_choice("EvaluationPlan.unseen_method", self.unseen_method, ("off", "on"))
    _check_choice("EvaluationPlan.unseen_written", (self.unseen_written,), ("plain", "tuned"))
    _check_choice("EvaluationPlan.checkpoints", self.checkpoints, ("chosen", "last", "all"))
    _check_choice("EvaluationPlan.shots", self.shots, catalog.SHOTS)
    _check_choice("EvaluationPlan.answers", (self.answers,), ("auto", "ranked", "generated"))
    for name in (*self.unseen, *self.task_lengths):
      for task in catalog.members(name):
        catalog.find(task)  # refuses unknown names
    for name in ("batch_size", "buckets"):
      _check_count(f"EvaluationPlan.{name}", getattr(self, name))
    _check_count("EvaluationPlan.limit", self.limit, none="all examples")
    _check_lengths("EvaluationPlan.feature_lengths", self.feature_lengths)
    for task, lengths in self.task_lengths.items():
      _check_lengths(f"EvaluationPlan.task_lengths of {task}", lengths)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """One row of a table: a network, a task, a method, stages, and what is measured.

  name: the row's label and, in a comparison, its folder.
  model_dir: where everything is written.
  network: the pretrained model that the first stage begins with (`networks.network`).
  source: 'tfds', 'micro', or 'files': the data sets' original files below `data_dir`.
  data_dir: the folder of 'files'.
  task: the tuned task or mixture, with its shots ('rte', 'rte_1shot', 'rte_and_wmt14_en_fr'); the
    examples of a mixture's i-th task carry `prompt_ids` i.
  targets: 'raw' answers, or 'sentinel': between <extra_id_0> and <extra_id_1>.
  selection: 'paper' or 'strict': which splits choose checkpoints (`tasks.catalog.splits`).
  files: tables of the user's own, each a task of its name that `task` and the plan may then name.
  templates: data sets with templates, each template a task; those that are held out are unseen tasks, too.
  task_splits: names of splits in place of the tuned tasks' own: 'train', 'select' (chooses the checkpoint),
    'report'.
  metric: headline score of the tuned tasks, a name that their metrics give; None: their own.
  use_cached: read what seqio cached of tasks that others registered.
  mixing: how often the tasks of a mixture are drawn in training: a function of their sizes
    (`data.mixtures`), equally often by default.
  stage_tasks: for stages that train on something else than `task`: stage name -> task.
  replay: tasks of which stages see some examples beside those of their own; None: none.
  feature_lengths: largest lengths of the tuned task's inputs and targets.
  method: what is added to the backbone; None = nothing (full fine-tuning).
  stages: in order; none = the pretrained model is only measured.
  imported_stages: stage name -> directory of an experiment that finished this stage; its chosen
    values are taken over instead of training (ProMoT's first stage is prompt tuning).  A bare name
    is a sibling of `model_dir`.
  malformed: what to do about records that the task cannot render: 'refuse' or 'skip'.
  empty_targets: the same for examples without a target; or 'keep'.
  train_limit, validation_limit: number of examples read; None = all.
  input_buckets, target_buckets: how many padded lengths training batches may have; each is one
    compilation.
  shares: of an ensemble of two, shares of the first member, among which the selection split of `task` chooses
    before anything is reported; none: the network has its own.
  probe: classifier on the frozen features of the final model; the tuned tasks then report its
    accuracy, with generation's beside it.  None: none.
  seed: of initialization, data order and dropout.
  printed: what a report calls it; empty: a row of the paper's tables has its name there, what trains a
    method alone is called as the method, and others by `name`.
  point: the settings that tell it from the other points of its row (`comparison.Comparison.axes`).
  variant: what tells the table that it stands in from others of a report; None: the learning rate of the stage that
    trains the backbone.
  column: its place among the columns of a report, after the paper's rows; None: after those that have
    one, by `name`.
  """

  name: str
  model_dir: str
  network: AnyNetwork
  task: str
  source: Literal["tfds", "micro", "files"] = "tfds"
  data_dir: str | None = None
  targets: Literal["raw", "sentinel"] = "raw"
  selection: Literal["paper", "strict"] = "paper"
  feature_lengths: Mapping[str, int] = dataclasses.field(
    default_factory=lambda: {"inputs": 512, "targets": 128}
  )
  files: Sequence[OwnFiles] = ()
  templates: TemplatedTasks | None = None
  task_splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
  metric: str | None = None
  use_cached: bool = False
  mixing: mixtures.Rates = mixtures.equal
  stage_tasks: Mapping[str, str] = dataclasses.field(default_factory=dict)
  replay: Replay | None = None
  stage_feature_lengths: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
  method: Method | None = None
  stages: Sequence[Stage] = ()
  imported_stages: Mapping[str, str] = dataclasses.field(default_factory=dict)
  evaluation: EvaluationPlan = dataclasses.field(default_factory=EvaluationPlan)
  shares: Sequence[float] = ()
  probe: Probe | None = None
  malformed: Literal["refuse", "skip"] = "refuse"
  empty_targets: Literal["refuse", "skip", "keep"] = "refuse"
  train_limit: int | None = None
  validation_limit: int | None = None
  input_buckets: int = 4
  target_buckets: int = 2
  seed: int = 0
  printed: str = ""
  point: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  variant: str | None = None
  column: int | None = None
  mesh: MeshShape = dataclasses.field(default_factory=MeshShape)

  def __post_init__(self):
    network.require(self.network, what="Experiment.network")
    for stage in self.stages:
      if stage.teacher is not None and stage.own_teacher is None:
        network.require(stage.teacher, what=f"teacher of stage '{stage.name}'")
      if stage.penalty is not None:
        network.require(stage.penalty.anchor, what=f"anchor of stage '{stage.name}'")
    # `trainable='method'` stands for a pattern that only the method knows.
    stages = tuple(stage.of_method(self.method) for stage in self.stages)
    object.__setattr__(self, "stages", stages)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name):
      raise ConfigError(
        f"Experiment.name={self.name!r} becomes a folder: use letters, digits, '_', '-' and '.'."
      )
    if not self.model_dir:
      raise ConfigError("Experiment.model_dir is empty; pass --model_dir=DIR.")
    object.__setattr__(self, "files", tuple(self.files))
    # Before names are looked up: `task` and the plan may name these tables.
    for files in self.files:
      catalog.add(file_task.task_of(files))
    if self.templates is not None:
      template_tasks.add(self.templates)
      _check_choice("TemplatedTasks.shots", self.templates.shots, catalog.SHOTS)
      # In this order and once each: a recipe may list a template that is held out anyway.
      unseen = dict.fromkeys((*self.evaluation.unseen, *self.templates.held_out))
      plan = dataclasses.replace(self.evaluation, unseen=tuple(unseen))
      object.__setattr__(self, "evaluation", plan)
    # Called for its refusal: unknown names end here, and not when the data are read.
    self.seqio_name(self.task)
    for task in self.evaluation.unseen:
      for shots in self.evaluation.shots:
        self.seqio_name(catalog.with_shots(task, shots))
    _check_choice("Experiment.task_splits", self.task_splits, ("train", "select", "report"))
    names = [stage.name for stage in self.stages]
    if len(set(names)) != len(names):
      raise ConfigError(f"Experiment '{self.name}' has two stages of one name: {', '.join(names)}.")
    for field in ("imported_stages", "stage_tasks", "stage_feature_lengths"):
      _check_choice(f"Experiment.{field}", getattr(self, field), tuple(names))
    _check_choice("Experiment.malformed", (self.malformed,), ("refuse", "skip"))
    _check_choice("Experiment.empty_targets", (self.empty_targets,), ("refuse", "skip", "keep"))
    _check_lengths("Experiment.feature_lengths", self.feature_lengths)
    for stage, lengths in self.stage_feature_lengths.items():
      _check_lengths(f"Experiment.stage_feature_lengths of '{stage}'", lengths)
    for stage in names:
      self.seqio_name(self.task_of(stage))
    for stage in self.stages:
      fisher = stage.penalty.fisher if stage.penalty is not None else None
      for task in (fisher.tasks if fisher is not None else None) or ():
        self.seqio_name(task)
    if self.replay is not None:
      self._check_replay(self.replay)
    self.splits_of(self.tasks[0])  # refuses an unknown `selection`
    for name in ("train_limit", "validation_limit"):
      _check_count(f"Experiment.{name}", getattr(self, name), none="all examples")
    for name in ("input_buckets", "target_buckets"):
      _check_count(f"Experiment.{name}", getattr(self, name))
    if not callable(self.mixing):
      raise ConfigError(
        f"Experiment.mixing={self.mixing!r} is no function of the tasks' sizes; in a gin file write"
        " MIXING = @mixtures.proportional, or another one of promot_jax.data.mixtures."
      )
    check_seed("Experiment.seed", self.seed)
    object.__setattr__(
      self, "shares", ensemble.require_shares(self.shares, what="Experiment.shares")
    )
    if self.shares and (not ensemble.of_two(self.network) or self.stages or self.probe):
      raise ConfigError(
        f"Experiment.shares={list(self.shares)} are shares of the first of an ensemble's two members, and"
        f" experiment '{self.name}' is no ensemble of two that is only measured; leave them empty."
      )

  def _check_replay(self, replay: Replay) -> None:
    _check_choice("Replay.stages", replay.stages or (), tuple(stage.name for stage in self.stages))
    for task in replay.tasks:
      self.seqio_name(task)
      if catalog.members(task) != [task]:
        raise ConfigError(f"Replay.tasks names '{task}', which is a mixture; name its tasks.")
    if self.method is not None and self.method.tasks > 1:
      raise ConfigError(
        "Replay mixes in tasks that have no row of their own in the method's bank; take a method of one"
        " row for all, or no Replay."
      )
    for stage in self.stages:
      if replay.of_stage(stage.name) and stage.objective.reads_classes:
        raise ConfigError(
          f"stage '{stage.name}' learns the classes of its own task, which examples of other tasks do"
          " not have: leave it out of Replay.stages."
        )

  @property
  def row(self) -> str:
    """Its name without the settings that tell it from the other points of its row."""
    return self.name.removesuffix(point_suffix(self.point))

  @property
  def place(self) -> str:
    """Where the records of its tasks come from: the source, of files with their folder."""
    return catalog.place(self.source, self.data_dir)

  @property
  def start(self) -> AnyNetwork:
    """The network with what it draws at random drawn by the experiment's seed."""
    return self.network.seeded(self.seed)

  @property
  def is_made_of_trained(self) -> bool:
    """Whether nothing is trained, but what is measured was made of networks that were.

    Such as an ensemble, or weights between two; a row that is called the pretrained one stays that.
    """
    if self.stages or self.probe or self.name == "pretrained":
      return False
    return self.start.pretrained != self.start

  @property
  def teachers(self) -> dict[str, AnyNetwork]:
    """Stage name -> the network that it learns from, of the stages that do."""
    taught = (each for each in self.stages if each.reads_teacher and each.own_teacher is None)
    return {stage.name: stage.teacher.seeded(self.seed) for stage in taught}

  @property
  def anchors(self) -> dict[str, AnyNetwork]:
    """Stage name -> the network that its penalty holds it near, of the stages that have one."""
    found = {stage.name: stage.penalty.anchor for stage in self.stages if stage.penalty is not None}
    return {name: anchor.seeded(self.seed) for name, anchor in found.items()}

  @property
  def backbone(self) -> Any:
    """The configuration of the network's architecture."""
    return self.network.backbone

  @property
  def vocabulary(self) -> str:
    """What the network's texts are made of."""
    return self.network.vocabulary

  @property
  def tasks(self) -> list[str]:
    """Names of the tuned tasks: one, or those of the mixture in the order of their prompts."""
    return catalog.members(self.task)

  @property
  def unseen_tasks(self) -> list[str]:
    """Names of the unseen tasks, those of mixtures one by one, in the plan's order."""
    every = (task for name in self.evaluation.unseen for task in catalog.members(name))
    return list(dict.fromkeys(every))

  def shots_of(self, unseen: str) -> Sequence[int]:
    """Numbers of demonstrations at which an unseen task is measured."""
    if self.templates is not None and self.templates.data_of(unseen) is not None:
      return self.templates.shots
    return self.evaluation.shots

  def unit_of(self, task: str) -> str:
    """What a task is counted as: itself, or the data set of which it is one template."""
    base, _ = catalog.split_shots(task)
    return (self.templates.unit_of(base) if self.templates else None) or base

  def records_of(self, task: str) -> str:
    """The task of ours whose records a task's templates turn into texts; else the task itself."""
    base, _ = catalog.split_shots(task)
    data = self.templates.data_of(base) if self.templates else None
    return (data.task if data else None) or base

  def files_of(self, task: str) -> OwnFiles | None:
    """The user's tables that a task is in; None of any other task."""
    base, _ = catalog.split_shots(task)
    return next((files for files in self.files if files.name == base), None)

  def task_of(self, stage: str) -> str:
    """Name of the task or mixture that a stage trains on."""
    return self.stage_tasks.get(stage, self.task)

  def replayed(self, stage: str) -> tuple[str, ...]:
    """Names of the tasks that a stage replays."""
    return () if self.replay is None else self.replay.of_stage(stage)

  def seqio_name(self, task: str) -> str:
    """The registered name of a task for this experiment's source, vocabulary and target form.

    Raises:
      ConfigError: no such task, with the nearest names.
    """
    return catalog.resolve(task, source=self.place, vocabulary=self.vocabulary, target=self.targets)

  def splits_of(self, task: str) -> Splits:
    """Which splits of one of its tasks train, select and report."""
    # All three are given: nobody needs to know how a task that others registered is divided.
    if task in self.tasks and len(self.task_splits) == 3:
      return Splits(**self.task_splits)
    found = catalog.splits(task, selection=self.selection, source=self.place)
    return dataclasses.replace(found, **self.task_splits) if task in self.tasks else found

  def lengths_of(self, stage: str) -> Mapping[str, int]:
    """Largest input and target lengths of a stage."""
    return self.stage_feature_lengths.get(stage, self.feature_lengths)


def check_seed(name: str, seed: Any) -> None:
  """JAX's keys take 32 bits of a seed and drop the rest in silence: 2**32 would be 0.

  Raises:
    ConfigError: it is no whole number, or has more.
  """
  if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
    raise ConfigError(f"{name}={seed!r} must be a whole number from 0 to {2**32 - 1}.")


def variant_of(experiment: Experiment) -> str:
  """What tells its table from others: the learning rate of the stage that trains the backbone.

  A report never averages over it.
  """
  if experiment.variant is not None:
    return experiment.variant
  return ", ".join(
    f"learning rate {schedules.largest(stage.learning_rate, steps=stage.steps):.6g}"
    for stage in experiment.stages
    if stage.name == "model"
  )


def point_suffix(point: Mapping[str, Any]) -> str:
  """What the folder of a row's point has after the row's name: '-light_weight-0.5'."""
  words = (f"-{name.lower()}-{value}" for name, value in point.items())
  return "".join(re.sub(r"[^A-Za-z0-9_.-]+", "_", word) for word in words)


def _check_choice(name: str, values, allowed: tuple) -> None:
  for value in values:
    if value not in allowed:
      raise ConfigError(
        f"{name} has {value!r}; it may be {', '.join(map(repr, allowed)) or 'nothing (no stages)'}."
      )


def _check_count(name: str, value: Any, *, none: str = "") -> None:
  """A whole number of at least 1, or None where None has a meaning."""
  if none and value is None:
    return
  if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
    other = f", or None for {none}" if none else ""
    raise ConfigError(f"{name}={value!r} must be a whole number from 1 to {LARGEST}{other}.")


def _check_lengths(name: str, lengths: Mapping[str, int]) -> None:
  """Token counts of inputs and targets, each with room for a token and the end of sequence."""
  for key in ("inputs", "targets"):
    length = lengths.get(key, 0) if isinstance(lengths, Mapping) else 0
    if not isinstance(length, int) or length < 2:
      raise ConfigError(
        f"{name}={lengths!r} needs '{key}' of at least 2 tokens: {{'inputs': 512, 'targets': 16}}."
      )
