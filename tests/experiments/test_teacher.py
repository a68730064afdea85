"""A stage's teacher: shared with the start, of the student's vocabulary, part of what a run goes on from."""

import dataclasses
import shutil
import types

import numpy as np
import pytest

from promot_jax import paths
from promot_jax.checkpoints import npz
from promot_jax.errors import ConfigError
from promot_jax.experiments import origin, shapes
from promot_jax.experiments.experiment import EvaluationPlan, Experiment, MeshShape
from promot_jax.experiments.restored import Restored
from promot_jax.experiments.session import Session
from promot_jax.identity import Identity, part
from promot_jax.methods.lora import LoRA
from promot_jax.methods.prompt import SoftPrompt, prompt_count
from promot_jax.networks import micro_model, trained_methods
from promot_jax.networks.adapted import Adapted
from promot_jax.networks.network import Network
from promot_jax.networks.run import Run
from promot_jax.signals import Stop
from promot_jax.training import choice, optimizers, schedules
from promot_jax.training.distillation import Distillation
from promot_jax.training.events import Events
from promot_jax.training.objectives import Supervised
from promot_jax.training.penalties import EWC, L2SP
from promot_jax.training.stages import Stage
from promot_jax.training.teacher_input import OtherInput
from tiny_experiments import opened

BACKBONE = micro_model.config(
  width=16, heads=2, head_width=6, mlp_width=24, encoder_layers=1, decoder_layers=1
)
START = Network(backbone=BACKBONE, checkpoint="random")


class Reader:
  """Stands in for the data."""

  def examples(self, experiment, task, split, lengths, limit):
    return types.SimpleNamespace(content=part([task, split]))

  def training(self, experiment, task, lengths):
    return self.examples(experiment, task, "train", lengths, None)


def held_near(anchor, trainable: str = "!method", kind=L2SP) -> Experiment:
  """As `experiment`, with a penalty in the place of a teacher."""
  run = experiment(START)
  (stage,) = run.stages
  stage = dataclasses.replace(
    stage, objective=Supervised(), teacher=None, penalty=kind(anchor=anchor), trainable=trainable
  )
  return dataclasses.replace(run, stages=[stage])


def experiment(teacher) -> Experiment:
  stage = Stage(
    name="lora",
    trainable="method",
    steps=6,
    batch_size=6,
    optimizer=optimizers.adafactor,
    learning_rate=schedules.constant(0.01),
    objective=Distillation(),
    teacher=teacher,
  )
  return Experiment(
    name="distilled",
    model_dir="unused",
    network=START,
    source="micro",
    task="rte",
    method=LoRA(rank=2),
    stages=[stage],
    evaluation=EvaluationPlan(unseen=()),
    mesh=MeshShape(data=1, model=1),
    seed=3,
  )


def made_from(run: Experiment) -> Identity:
  return origin.of_stage(run, run.stages[0], start="start", validation=[], reader=Reader())


def test_a_teacher_that_is_the_start_is_the_same_model():
  session = Session(stop=Stop(), console=Events())
  run = experiment(dataclasses.replace(START))
  start = session.pretrained(run)
  assert session.teacher(run, "lora") is start
  other = experiment(dataclasses.replace(START, seed=8))
  assert session.pretrained(other) is start
  assert session.teacher(other, "lora") is not start


def test_a_run_goes_on_with_the_teacher_that_it_began_with(tmp_path):
  def weights(seed):
    built = dataclasses.replace(START, seed=seed).build()
    (tmp_path / "teacher.npz").unlink(missing_ok=True)
    return str(npz.write_npz(tmp_path / "teacher.npz", paths.named_leaves(built)))

  run = experiment(dataclasses.replace(START, checkpoint=weights(1)))
  begun = made_from(run).to_json()
  assert choice.compare(made_from(run), begun, where="here") == []
  weights(2)  # other values under the same name
  with pytest.raises(ConfigError, match=r"the teacher changed: .*teacher\.npz \(sha"):
    choice.compare(made_from(run), begun, where="here")
  named = experiment(dataclasses.replace(START, seed=8))
  with pytest.raises(ConfigError, match="the teacher changed"):
    choice.compare(made_from(named), begun, where="here")
  assert choice.trained_with(named.stages[0])["teacher"].startswith("random:8:")


def test_a_teacher_of_another_vocabulary_is_refused_from_shapes():
  shapes.check(experiment(dataclasses.replace(START, seed=8)))
  rows = dataclasses.replace(BACKBONE, vocab_size=BACKBONE.vocab_size + 8)
  with pytest.raises(ConfigError, match=r"stage 'lora' compares .* 624 rows.* 632 rows"):
    shapes.check(experiment(dataclasses.replace(START, backbone=rows)))
  with pytest.raises(ConfigError, match=r"the student has vocabulary 't5'.*teacher has.* 'mt5'"):
    shapes.check(experiment(START.spelled("mt5")))


def test_what_a_teacher_reads_is_declared_by_the_task_and_part_of_what_a_run_goes_on_from():
  run = experiment(START)
  taught = dataclasses.replace(run.stages[0], teacher_inputs="hint")
  reading = dataclasses.replace(run, stages=[taught])
  with pytest.raises(ConfigError, match="teacher_inputs='hint', and task 'rte' declares no such"):
    shapes.check(reading)
  found = Session(stop=Stop(), console=Events()).teacher(reading, "lora")
  assert isinstance(found, OtherInput) and found.feature == "hint"
  with pytest.raises(ConfigError, match="teacher changed: random, which reads 'hint'"):
    choice.compare(made_from(reading), made_from(run).to_json(), where="here")


def test_a_teacher_that_counts_nothing_is_never_made():
  run = experiment(Run(directory="nowhere"))
  (stage,) = run.stages
  stage = dataclasses.replace(stage, objective=Distillation(weight=0.0))
  run = dataclasses.replace(run, stages=[stage])
  shapes.check(run)
  assert Session(stop=Stop(), console=Events()).teacher(run, "lora") is None
  assert "teacher" not in choice.trained_with(stage)


def test_the_bytes_of_a_teacher_are_counted_once():
  def parameters(teacher):
    (found,) = shapes.stage_plans(experiment(teacher), {"data": 1, "model": 1})
    return found.bytes.parameters

  more = parameters(dataclasses.replace(START, seed=8)) - parameters(START)
  assert more == 4 * paths.count(START.abstract())


def test_an_anchor_is_the_start_itself_and_part_of_what_a_run_goes_on_from():
  session = Session(stop=Stop(), console=Events())
  run = held_near(dataclasses.replace(START))
  assert session.anchor(run, "lora") is session.pretrained(run)
  begun = made_from(run).to_json()
  assert choice.compare(made_from(run), begun, where="here") == []
  other = held_near(dataclasses.replace(START, seed=8))
  with pytest.raises(ConfigError, match="the anchor changed"):
    choice.compare(made_from(other), begun, where="here")
  with pytest.raises(ConfigError, match="the anchor changed"):
    choice.compare(made_from(experiment(START)), begun, where="here")
  settings = choice.trained_with(run.stages[0])
  assert settings["penalty"] == "L2SP(strength=0.01, new_strength=0)"
  assert settings["anchor"] == START.identity()
  assert "penalty" not in choice.trained_with(experiment(START).stages[0])


def test_the_bytes_of_an_anchor_are_those_of_what_is_trained():
  def parameters(run):
    (found,) = shapes.stage_plans(run, {"data": 1, "model": 1})
    return found.bytes.parameters

  free = held_near(START)
  free = dataclasses.replace(free, stages=[dataclasses.replace(free.stages[0], penalty=None)])
  backbone = 4 * paths.count(START.abstract())
  assert parameters(held_near(START)) - parameters(free) == backbone
  # Its Fisher information beside it, a number for each.
  assert parameters(held_near(START, kind=EWC)) - parameters(free) == 2 * backbone
  part = held_near(START, "decoder/.*/query/kernel")
  trained = shapes.stage_plans(part, {"data": 1, "model": 1})[0].trainable
  assert parameters(part) - parameters(free) == 4 * trained < backbone
  with pytest.raises(ConfigError, match="stage 'lora' is held near a network that has none"):
    shapes.check(held_near(START, "method"))


@pytest.fixture(params=["run", "method file"])
def adapted(request, tmp_path, module_of_tests):
  """START with a LoRA that another run trained: (the network, its trained values, makes them others)."""
  start, method = START.seeded(3), LoRA(rank=2)
  tests_of_runs = module_of_tests("networks/test_run")
  file = tmp_path / "lora.npz"

  def export(chosen):
    values = tests_of_runs.written(
      tmp_path / "run", method, method.parameters, start=start, chosen=chosen
    )
    file.unlink(missing_ok=True)
    trained_methods.export(file, Run(directory=str(tmp_path / "run")).build(), method)
    return values

  def change():
    shutil.rmtree(tmp_path / "run")
    export(5)

  found = Run(directory=str(tmp_path / "run"))
  if request.param == "method file":
    found = Adapted(network=start, method=str(file))
  return found, export(4), change


def test_what_another_run_tuned_is_a_teacher_on_the_students_own_backbone(adapted):
  teacher, values, change = adapted
  run = experiment(teacher)
  shapes.check(run)
  (planned,) = shapes.stage_plans(run, {"data": 1, "model": 1})
  beside = planned.bytes.parameters - paths.nbytes(shapes.abstract_model(run))
  assert beside == paths.nbytes(values)
  session = Session(stop=Stop(), console=Events())
  start = paths.named_leaves(session.pretrained(run))
  found = session.teacher(run, "lora")
  for name, leaf in paths.named_leaves(found).items():
    if name in start:
      assert leaf is start[name]
    else:
      np.testing.assert_array_equal(leaf, values[name], err_msg=name)
  begun = made_from(run).to_json()
  assert choice.compare(made_from(run), begun, where="here") == []
  change()
  with pytest.raises(ConfigError, match="here cannot go on: the teacher changed"):
    choice.compare(made_from(run), begun, where="here")


def test_what_another_run_tuned_is_what_an_experiment_starts_from(adapted):
  network, values, _ = adapted
  run = dataclasses.replace(experiment(START), network=network, method=SoftPrompt(length=2))
  shapes.check(run)
  model = Restored(opened(run)).before(0)
  leaves = paths.named_leaves(model)
  for name, value in values.items():
    np.testing.assert_array_equal(leaves[name], value)
  assert prompt_count(model) == 1
  assert "encoder/prompt/prompt" in paths.match(SoftPrompt.parameters, leaves)
