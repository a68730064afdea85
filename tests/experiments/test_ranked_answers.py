"""How the answers of an experiment's tasks come about: as each has it, ranked, or written."""

import dataclasses

import pytest

import tiny_experiments
from promot_jax.cli.main import main
from promot_jax.errors import ConfigError
from promot_jax.experiments import data
from promot_jax.experiments.reader import Reader
from tiny_experiments import REPORT, SHORT


def ways(answers, unseen=("cb",), **changes):
  """task -> (how its answers come about, among which)."""
  plan = dataclasses.replace(REPORT, unseen=unseen, answers=answers)
  experiment = tiny_experiments.experiment(**{**SHORT, "evaluation": plan, **changes})
  tasks = data.report_tasks(experiment, Reader(lambda line: None))
  return {task.label: (task.way, tuple(task.options_of(0))) for task in tasks}


def test_a_plan_ranks_the_labels_of_every_task_or_of_none():
  assert ways("auto") == ways("generated")
  assert {way for way, _ in ways("auto").values()} == {"generated"}
  assert ways("ranked") == {
    "rte": ("ranked", ("True", "False")),
    "cb": ("ranked", ("True", "False", "Neither")),
  }


@pytest.mark.parametrize(
  ("changes", "told"),
  [
    ({"unseen": ("xsum",)}, "answers of 'xsum' cannot be ranked: it has no labels or choices"),
    ({"targets": "sentinel"}, "TARGETS='sentinel' writes them between sentinels"),
  ],
)
def test_answers_that_cannot_be_ranked_are_refused(changes, told):
  with pytest.raises(ConfigError, match=told):
    ways("ranked", **changes)


def test_the_flag_refuses_what_cannot_be_ranked(tmp_path, capsys, monkeypatch):
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "xla"))
  folder = tmp_path / "run"
  command = ["eval", "--gin_file=promot_rte_micro.gin", "--checkpoint=pretrained", "--quiet"]
  assert main([*command, f"--model_dir={folder}", "--tasks=xsum", "--answers=ranked"]) == 2
  assert "cannot be ranked" in capsys.readouterr().err
  assert main([*command, f"--model_dir={folder}", "--answers=guessed"]) == 2
  assert "invalid choice: 'guessed'" in capsys.readouterr().err
