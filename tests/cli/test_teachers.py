"""A recipe's teacher: a finished run or a method file, and a run that goes on with the one that it began with."""

import pytest

from promot_jax.cli import gin_config
from promot_jax.cli.main import main
from promot_jax.errors import Preempted
from promot_jax.experiments import course
from promot_jax.networks.adapted import Adapted
from promot_jax.networks.run import Run

HEAD = """
from __gin__ import dynamic_registration
from promot_jax.experiments import experiment
from promot_jax.networks import adapted
from promot_jax.networks import network
from promot_jax.networks import run
from promot_jax.training import stages
"""
RUN = """
model_stage/distilled/stages.Stage.teacher = @run.Run()
run.Run.directory = 'runs/tuned'
"""
FILE = """
model_stage/distilled/stages.Stage.teacher = @adapted.Adapted()
adapted.Adapted.network = @network.Network()
adapted.Adapted.method = 'lora.npz'
"""
START = """
experiment.Experiment.network = @adapted.Adapted()
adapted.Adapted.network = @network.Network()
adapted.Adapted.method = 'lora.npz'
"""


@pytest.fixture
def recipe(tmp_path):
  """Writes a gin file of these lines; gives the files of the distillation with it."""

  def write(text: str) -> list[str]:
    (tmp_path / "more.gin").write_text(HEAD + text)
    return ["distill_rte_micro.gin", str(tmp_path / "more.gin")]

  return write


def test_a_recipe_names_a_run_or_a_method_file_as_teacher_and_as_start(recipe):
  def built(text: str):
    return gin_config.build(gin_config.read(recipe(text), []))

  run = built(RUN)
  assert run.stages[0].teacher == Run(directory="runs/tuned")
  file = built(FILE)
  assert file.stages[0].teacher == Adapted(network=file.network, method="lora.npz")
  start = built(START)
  assert start.network == Adapted(network=run.network, method="lora.npz")
  assert start.stages[0].teacher == run.network


def test_a_stage_that_was_stopped_does_not_go_on_with_another_teacher(
  recipe, tmp_path, monkeypatch, capsys
):
  def stopped(directory):
    directory.session.accept()
    (directory.folder / "stages" / "model" / "checkpoint_3").mkdir(parents=True)
    raise Preempted("Stopped by SIGTERM at step 3 of 9.")

  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "xla"))
  monkeypatch.setattr(course, "run", stopped)

  def train(text: str) -> tuple[int, str]:
    files = [f"--gin_file={file}" for file in recipe(text)]
    code = main(["train", *files, f"--model_dir={tmp_path / 'run'}", "--quiet"])
    return code, capsys.readouterr().err

  assert train("")[0] == 75
  code, error = train(RUN)
  assert code == 2 and error.count("ERROR") == 1
  assert "was started with another configuration" in error
  assert "Stage.teacher: @teacher/network.Network() -> @run.Run()" in error
