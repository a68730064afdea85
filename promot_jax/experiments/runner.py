"""One experiment in its model directory: its stages, its models, its evaluations."""

import contextlib
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flax import nnx

from promot_jax import hosts, identity, partitioning, paths
from promot_jax.checkpoints.shared import AnyStore, open_store
from promot_jax.errors import ConfigError, DamagedCheckpoint
from promot_jax.evaluation import evaluator
from promot_jax.evaluation.records import TaskResult
from promot_jax.evaluation.results import ResultStore
from promot_jax.experiments import (
  data,
  epochs,
  imported_stages,
  origin,
  pretrained_results,
  progress,
  record,
  reported,
  shapes,
  validation,
  way_on,
)
from promot_jax.experiments.experiment import Experiment
from promot_jax.experiments.pretrained_results import PRETRAINED
from promot_jax.experiments.reader import decoder
from promot_jax.experiments.reported import Outcome
from promot_jax.experiments.session import Session
from promot_jax.experiments.shared_results import open_results
from promot_jax.methods import files
from promot_jax.methods.formats import Trained
from promot_jax.networks import network, trained_methods
from promot_jax.probing import scores
from promot_jax.probing.features import FeatureStore
from promot_jax.token_ids import TokenIds
from promot_jax.training import choice, loop
from promot_jax.training.events import Events, JsonLines, Sink
from promot_jax.training.stages import Stage
from promot_jax.training.tensorboard import TensorBoard


class Runner:
  """One experiment in its model directory."""

  def __init__(self, experiment: Experiment, shared: Session, sinks: Sequence[Sink]):
    self.experiment = experiment
    self.shared = shared
    self.folder = pathlib.Path(experiment.model_dir)
    self.results = self.open_results(self.folder / "evaluation")
    self._sinks = sinks
    self._models: dict[int, nnx.Module] = {}  # number of stages done -> model
    self._method_file: tuple[pathlib.Path, Trained] | None = None

    self.events = Events(sinks)

  def run(self) -> Outcome:
    """Trains what is not trained, evaluates what is not evaluated."""
    experiment = self.experiment
    with self._files() as files:
      self.events = Events([*self._sinks, *files])
      while True:
        try:
          outcome, chosen = self._trained_and_evaluated()
          break
        except way_on.ChoiceDamaged as damage:
          stores = [self.store(stage) for stage in experiment.stages]
          imported = experiment.stages[damage.position].name in experiment.imported_stages
          way_on.choose_again(experiment.stages, stores, damage, imported=imported)
          self._models = {}
    seconds = [marker.get("step_seconds") for marker in chosen]
    self.results.write_run(
      record.run_record(
        self.experiment,
        selected=outcome.selected,
        why=outcome.why,
        results=outcome.results,
        step_seconds=seconds,
      )
    )
    return outcome

  def _trained_and_evaluated(self) -> tuple[Outcome, list[Mapping[str, Any]]]:
    """The outcome, and the completion markers of all stages."""
    chosen = [self._stage(position) for position in range(len(self.experiment.stages))]
    experiment = self.experiment  # whose stages have numbers of steps by now
    reported.note_network(experiment)
    selected, why = reported.selected(experiment, chosen)
    results = self._evaluate(chosen, selected)
    if experiment.probe is not None:
      step = chosen[-1]["step"] if chosen else None
      selected, results = self._probe(results, selected, step)
    return Outcome(experiment=experiment, selected=selected, why=why, results=results), chosen

  def open_results(self, folder: str | pathlib.Path) -> ResultStore:
    """The results of a folder, which says on the screen what is damaged."""
    return open_results(folder, report=lambda text: self.events.line(text))

  # Stages.

  def store(self, stage: Stage) -> AnyStore:
    """Checkpoints of a stage."""
    return open_store(self.folder / "stages" / stage.name, keep=stage.keep, report=self._saved)

  def _stage(self, position: int) -> Mapping[str, Any]:
    """The completion marker of a stage: trains it, or takes it over, if there is none."""
    store = self.store(self.experiment.stages[position])
    self.experiment = epochs.counted(self.experiment, position, store, self.shared.reader)
    experiment, stage = self.experiment, self.experiment.stages[position]
    change = self.shared.allow_change
    completed = functools.partial(
      choice.completed, stage, store, experiment.seed, allow_change=change
    )
    done = completed()
    if done is None and stage.name in experiment.imported_stages:
      imported_stages.take_over(experiment, stage.name, store)
      done = completed()
    if done is not None:
      self.events.line(f"stage '{stage.name}' is complete: {done['why']}")
      for line in origin.changes_since(
        experiment, stage, done, reader=self.shared.reader, store=store, allow_change=change
      ):
        self.events.line(line)
      return done
    held_out = data.validation_tasks(experiment, stage.name, self.shared.reader)
    batches = data.train_batches(experiment, stage.name, stage.batch_size, self.shared.reader)
    self.events.line(
      f"batches   {stage.batch_size} x inputs {'/'.join(map(str, batches.buckets.inputs))}, targets "
      f"{'/'.join(map(str, batches.buckets.targets))}: {batches.padding_ratio(100):.2f} computed "
      "tokens for each needed one"
    )
    self.shared.stop_if_asked()
    model = self.model(position)
    data.check_prompts(model, batches.prompt_ids, held_out)
    if position == 0 and not hosts.several():
      trained_methods.remember_backbone(store, self.shared.pretrained(experiment))
    teacher = self.shared.teacher(experiment, stage.name)
    result = loop.train_stage(
      stage,
      model,
      teacher=teacher,
      batches=batches,
      store=store,
      seed=experiment.seed,
      validate=functools.partial(self._validate, stage, held_out, teacher),
      mesh=self.shared.mesh(experiment.mesh),
      events=self.events,
      metadata={"experiment": experiment.name, "start": experiment.start.identity()},
      made_from=origin.of_stage(
        experiment,
        stage,
        start=self.identity(position, None),
        validation=held_out,
        reader=self.shared.reader,
      ),
      allow_change=change,
      accepted=self.shared.accept,
    )
    store.close()
    self._models = {position + 1: result.model}
    self.shared.stop.nothing_to_save = True
    marker = completed()
    assert marker is not None
    return marker

  def model(self, stages: int) -> nnx.Module:
    """The model after the first `stages` stages, restored where this process did not train it."""
    if stages not in self._models:
      if stages == 0:
        experiment = self.experiment
        model = self.shared.pretrained(experiment)
        mesh = self.shared.mesh(experiment.mesh)
        self._models[0] = network.attach(model, experiment.method, mesh, seed=experiment.seed)
      else:
        stage = self.experiment.stages[stages - 1]
        step = choice.chosen_step(self.store(stage))
        self._models[stages] = self._at_step(stages, step)
    return self._models[stages]

  def use_method(self, path: str) -> None:
    """From now on there is one stage, whose result is the method of a file on the pretrained model.

    Args:
      path: a method file, or an adapter of PEFT.

    Raises:
      ConfigError: there is no such file, or this version has no such method.
      DamagedCheckpoint: it cannot be read.
    """
    place, trained = files.open_method(path, self.experiment.backbone)
    self.experiment = imported_stages.experiment_with(self.experiment, trained.method)
    self._method_file = (place, trained)
    self._models = {}

  def checkpoint(self, text: str) -> tuple[str, int, int | None]:
    """(name, number of stages, step) of 'chosen', 'pretrained', 'STAGE' or 'STAGE:STEP'.

    Raises:
      ConfigError: there is no such stage or step, or the stage is not complete.
    """
    stages = self.experiment.stages
    names = [stage.name for stage in stages]
    if self._method_file is not None and text == "chosen":
      return f"{names[0]}-{identity.of_file(self._method_file[0])}", 1, None
    if text == PRETRAINED or (text == "chosen" and not stages):
      return PRETRAINED, 0, None
    wanted, _, number = (names[-1] if text == "chosen" else text).partition(":")
    if wanted not in names:
      raise ConfigError(
        f"--checkpoint={text} names no stage of '{self.experiment.name}'. Use chosen, pretrained"
        f"{''.join(f', {name}, {name}:STEP' for name in names)}."
      )
    position = names.index(wanted)
    store = self.store(stages[position])
    marker = None if number else choice.marker(store)
    steps = store.steps()
    if not number and marker is None:
      raise ConfigError(
        f"stage '{wanted}' in {self.folder} is not complete. Finish it with promot train, or name "
        f"--checkpoint={' or '.join([*(f'{wanted}:{step}' for step in steps), PRETRAINED])}."
      )
    step = marker["step"] if not number else int(number) if number.isdigit() else -1
    if step not in steps:
      raise ConfigError(
        f"--checkpoint={text}: {store.directory} has no such step. It has: "
        f"{', '.join(map(str, steps)) or 'none'}."
      )
    return f"{wanted}-{step}", position + 1, step

  def model_of(self, stages: int, step: int | None) -> nnx.Module:
    """The model of one checkpoint; `step` is the last stage's, None = chosen.

    After a stage the method is attached.  The pretrained model (no stage) never had one: its
    prompt would be untrained.
    """
    if not stages:
      return self.shared.pretrained(self.experiment)
    if self._method_file is not None:
      place, trained = self._method_file
      pretrained = self.shared.pretrained(self.experiment)
      return trained_methods.attached(pretrained, trained, where=str(place))[0]
    return self._at_step(stages, step) if stages and step is not None else self.model(stages)

  def _at_step(self, stages: int, step: int) -> nnx.Module:
    """The model after `stages` stages, the last of them at a certain step."""
    stage = self.experiment.stages[stages - 1]
    graphdef, trainable, frozen = paths.split(self.model(stages - 1), stage.trainable)
    if stages == 1 and not hosts.several():
      pretrained = self.shared.pretrained(self.experiment)
      trained_methods.require_backbone(self.store(stage), pretrained)
    store = self.store(stage)
    try:
      restored = choice.restore_trainable(store, step, trainable)
    except DamagedCheckpoint as damage:
      raise way_on.explain(damage, self.experiment.stages, stages - 1, step, store) from None
    return nnx.merge(graphdef, restored, frozen)

  def _validate(
    self,
    stage: Stage,
    tasks: Sequence[evaluator.EvalTask],
    teacher: nnx.Module | None,
    model: nnx.Module,
  ) -> dict[str, float]:
    return validation.measure(
      self.experiment,
      stage,
      tasks,
      model,
      teacher=teacher,
      place=self.place,
      progress=progress.reporter(
        self.events,
        f"{stage.name} validation",
        # A process that is alone may end at once while it validates (see signals); several agree.
        stop=self.shared.stop_if_asked if hosts.several() else lambda: None,
      ),
    )

  # Evaluation.

  def _evaluate(self, chosen: Sequence[Mapping[str, Any]], selected: str) -> list[TaskResult]:
    """Every checkpoint of the plan; returns the results of the selected one."""
    tasks = data.report_tasks(self.experiment, self.shared.reader)
    if missing := data.left_out(self.experiment):
      self.events.line(missing)
    results: list[TaskResult] = []
    for name, stages, step in reported.evaluated(
      self.experiment, chosen, lambda stage: self.store(stage).steps()
    ):
      self.shared.stop_if_asked()
      try:
        found = self.evaluate(tasks, name=name, stages=stages, step=step)
      except DamagedCheckpoint as damage:
        if name == selected or isinstance(damage, way_on.ChoiceDamaged):
          raise
        self.events.line(f"{damage} It is not evaluated.")
        continue
      if name == selected:
        results = found
    return results

  def _probe(
    self, results: Sequence[TaskResult], name: str, step: int | None
  ) -> tuple[str, list[TaskResult]]:
    experiment, stages = self.experiment, len(self.experiment.stages)
    features = FeatureStore(
      folder=self.folder / "features",
      identity=f"{self.identity(stages, step)} {origin.of_start(experiment).part('start weights') or ''}",
      batch_size=experiment.evaluation.batch_size,
      place=self.place,
      fetch=partitioning.fetch,
      report=self.events.line,
    )
    assert experiment.probe is not None
    return scores.probed(
      experiment.probe,
      results,
      tuned=data.probe_splits(experiment, self.shared.reader),
      seed=experiment.seed,
      name=name,
      model=functools.partial(self.model_of, stages, step),
      features=features,
      kept=self.results,
    )

  def evaluate(
    self,
    tasks: Sequence[evaluator.EvalTask],
    *,
    name: str,
    stages: int,
    step: int | None,
    store: ResultStore | None = None,
  ) -> list[TaskResult]:
    """Scores of one checkpoint; what is stored already is not run again."""
    experiment, plan = self.experiment, self.experiment.evaluation
    setting = evaluator.Setting(
      special=TokenIds.of(experiment.backbone),
      strategy=plan.strategy,
      max_target_length=plan.feature_lengths["targets"],
      format_metric=data.format_metric(experiment),
      seed=experiment.seed,
    )
    kept = evaluator.Kept(store=store or self.results, checkpoint=name)
    subject = self._subject(stages, step)
    if pretrained_results.backbone_is_untouched(experiment, stages):
      copied = pretrained_results.take_over(
        tasks,
        subject=subject,
        setting=setting,
        kept=kept,
        folders=(self.folder / "evaluation", *self.shared.pretrained_results),
        pretrained_identity=self.identity(0, None),
      )
      if copied:
        self.events.line(
          f"evaluated {name}: {copied} results without the method are the pretrained model's, whose "
          "backbone it has; not run again"
        )
    left = evaluator.unfinished(subject, tasks, setting=setting, kept=kept)
    if not left:
      self.shared.accept()
      self.events.line(f"evaluated {name}: {len(tasks)} results are there, none to run")
    else:
      self.events.line(f"evaluating {name}: {len(left)} of {len(tasks)} results to run")
    if experiment.method is not None and any(task.method == "attached" for task in tasks):
      data.check_prompts(shapes.abstract_model(experiment), None, tasks)

    begun = False

    def stop_if_asked() -> None:
      nonlocal begun
      # Once a batch is done, the next one is finished too; the first call comes before any.
      self.shared.stop.nothing_to_save = not begun
      begun = True
      self.shared.stop_if_asked()

    results = evaluator.evaluate(
      subject,
      tasks,
      setting=setting,
      batching=evaluator.Batching(batch_size=plan.batch_size, buckets=plan.buckets),
      kept=kept,
      progress=progress.reporter(self.events, f"{experiment.name} {name}", stop=stop_if_asked),
    )
    self.shared.stop.nothing_to_save = True
    return results

  def _subject(self, stages: int, step: int | None) -> evaluator.Subject:
    """One checkpoint as what is evaluated."""

    def make() -> nnx.Module:
      made = self.model_of(stages, step)
      self.shared.accept()  # data were read before, and the weights are there
      return made

    method = self.experiment.method
    return evaluator.Subject(
      make=make,
      decode=decoder(self.experiment),
      detach=None if method is None else method.detach,
      identity=self.identity(stages, step),
      made_from=origin.of_start(self.experiment),
      place=self.place,
      fetch=partitioning.fetch,
    )

  def identity(self, stages: int, step: int | None) -> str:
    """The start and the checksums of every stage's chosen checkpoint."""
    parts = [self.experiment.start.identity()]
    if self._method_file is not None:
      digest = identity.of_file(self._method_file[0])
      return "/".join([*parts, *([f"method {digest}"] if stages else [])])
    for number, stage in enumerate(self.experiment.stages[:stages]):
      store = self.store(stage)
      chosen = step if number == stages - 1 and step is not None else None
      if chosen is None:
        chosen = choice.chosen_step(store)
      try:
        parts.append(origin.of_step(store.path(chosen)))
      except DamagedCheckpoint as damage:
        raise way_on.explain(damage, self.experiment.stages, number, chosen, store) from None
    return "/".join(parts)

  def place(self, batch: Mapping[str, Any]) -> Any:
    mesh = self.shared.mesh(self.experiment.mesh)
    return partitioning.global_batch(batch, mesh) if mesh is not None else batch

  # Records.

  @contextlib.contextmanager
  def _files(self) -> Iterator[list[Sink]]:
    """The sinks that write into the experiment's directory."""
    train = self.folder / "train"
    files: list[Sink] = []
    if hosts.is_first():
      files = [JsonLines(train / "metrics.jsonl", report=self.events.line), TensorBoard(train)]
    try:
      yield files
    finally:
      Events(files).close()

  def _saved(self, text: str) -> None:
    self.shared.console.line(text)
