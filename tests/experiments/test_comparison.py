"""Rows of one table: at several values of settings, and rows that are made of what other rows trained."""

import dataclasses
import pathlib

import pytest

from promot_jax.errors import ConfigError
from promot_jax.evaluation import runs
from promot_jax.experiments import comparison
from promot_jax.experiments.comparison import Comparison
from promot_jax.experiments.execute import execute
from promot_jax.networks.ensemble import Ensemble
from promot_jax.networks.interpolated import Interpolated
from promot_jax.networks.network import Network
from promot_jax.networks.run import Run
from promot_jax.training.distillation import Distillation
from tiny_experiments import BACKBONE, MODEL, REPORT, SHORT, Lines, experiment

START = Network(backbone=BACKBONE, checkpoint="random", seed=4)
FULL = experiment(
  "full", network=START, stages=[dataclasses.replace(MODEL, steps=2, trainable=".*")], **SHORT
)
PLAN = dataclasses.replace(REPORT, unseen=(), limit=4)


def of_full(**settings):
  return Run(directory="full", spelling=START.vocabulary, **settings)


def blended(weight):
  members = [of_full(), START]
  return experiment("blend", network=Ensemble(members=members, weights=[weight]), **SHORT)


def at(point):
  """The comparison as a recipe makes it whose macro is WEIGHT."""
  return Comparison(
    model_dir="out", experiments=[FULL, blended(point["WEIGHT"])], axes={"blend": {"WEIGHT": [0.5]}}
  )


def test_a_row_with_axes_is_there_at_every_combination_of_their_values():
  axes = {"blend": {"WEIGHT": [0, 0.25], "OTHER": ["a b", None]}}
  made = Comparison(model_dir="out", experiments=[FULL, blended(0.5)], axes=axes).expanded(at)
  assert [row.name for row in made.experiments] == [
    "full",
    "blend-weight-0-other-a_b",
    "blend-weight-0-other-None",
    "blend-weight-0.25-other-a_b",
    "blend-weight-0.25-other-None",
  ]
  *_, last = made.experiments
  assert last.point == {"WEIGHT": 0.25, "OTHER": None}
  assert last.network.weights == (0.25, 0.75)
  assert pathlib.Path(last.model_dir) == pathlib.Path("out", last.name)
  assert comparison.points({}) == []


@pytest.mark.parametrize(
  ("axes", "told"),
  [
    ({"bland": {"WEIGHT": [1]}}, "no row; they are full, blend"),
    ({"blend": {"WEIGHT": []}}, "lists of their values"),
    ({"blend": {"WEIGHT": 0.5}}, "lists of their values"),
    ({"blend": [0.5]}, "lists of their values"),
    ({"blend": {"WEIGHT": [1, 1]}}, "'weight-1' twice"),
  ],
)
def test_axes_that_name_nothing_are_refused(axes, told):
  with pytest.raises(ConfigError, match=told):
    Comparison(model_dir="out", experiments=[FULL, blended(0.5)], axes=axes)


def test_a_row_cannot_be_made_of_one_that_is_there_several_times():
  made = Comparison(
    model_dir="out", experiments=[FULL, blended(0.5)], axes={"full": {"WEIGHT": [1, 2]}}
  )
  with pytest.raises(ConfigError, match="'blend' is made of 'full', which has axes"):
    made.expanded(at)


def test_a_run_beside_it_is_found_in_whatever_a_row_is_made_of():
  inner = Interpolated(first=START, second=of_full())
  student = dataclasses.replace(
    MODEL, objective=Distillation(), teacher=Ensemble(members=[inner, of_full(method="drop")])
  )
  made = Comparison(
    model_dir="/d",
    experiments=[FULL, blended(0.5), experiment("student", stages=[student]), experiment("other")],
    rows=["student"],
  )
  # What a row is made of runs with it.
  assert [row.name for row in made.experiments] == ["full", "student"]
  first, second = made.experiments[1].teachers["model"].members
  assert first.second.directory == second.directory == "/d/full"
  assert second.method == "drop" and first.second.to_come.stages == ["model"]
  # Known before it is there: its shapes, and that everything in it is its own.
  assert first.second.to_come.trains == [".*"]
  first.second.check()
  # One that stands after the row is no run beside it: it is looked for where its name says.
  late = Comparison(model_dir="/d", experiments=[blended(0.5), FULL]).experiments[0]
  assert late.network.members[0].directory == "full"


def test_rows_are_made_of_what_earlier_rows_of_the_same_command_trained(tmp_path):
  taught = dataclasses.replace(
    MODEL, steps=2, trainable=".*", objective=Distillation(), teacher=of_full()
  )
  student = experiment("student", network=START, stages=[taught], **SHORT)
  point = dataclasses.replace(blended(1.0), point={"WEIGHT": 1.0})
  rows = [dataclasses.replace(row, evaluation=PLAN) for row in (FULL, point, student)]
  made = Comparison(model_dir=str(tmp_path), experiments=rows)
  full, blend, _ = execute(made)
  # All weight on the run: the ensemble is it.
  assert blend.results[0].scores == full.results[0].scores
  found = {run.record.method: run.record for run in runs.collect([tmp_path])}
  # What is made of others was measured where they were chosen: the same model, the same score.
  assert found["blend"].validation == pytest.approx(found["full"].validation)
  assert found["student"].settings["model: teacher"] == str(tmp_path / "full")
  lines = Lines()
  execute(made, sinks=[lines])  # once more: nothing is left to do, now that the runs are there
  assert [line.split(", ")[-1] for line in lines.lines if "results are there" in line] == [
    "none to run"
  ] * 4
